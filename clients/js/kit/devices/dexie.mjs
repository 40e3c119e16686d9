/** The replica in an app's Dexie database, written with Dexie itself, as a device of the suite. */

import { Dexie } from "dexie";
import { dexieStore, syncStores } from "syncapp-client/dexie";
import { Replica } from "syncapp-client/replica";
import { ReplicaDevice } from "./replica.mjs";

export const features = ["live", "conflicts", "instances", "merges", "returns", "clock"];

export class Device extends ReplicaDevice {
  async open(options) {
    this.db = new Dexie(`kit-dexie-${options.folder}`, { chromeTransactionDurability: "strict" });
    const stores = Object.fromEntries(options.tables.map((table) => [table, "id"]));
    this.db.version(1).stores({ ...stores, ...syncStores });
    this.use(new Replica(this.clientOf(options), dexieStore(this.db, options.tables), options.tables));
    await this.db.open();
  }

  async put({ table, row: { id, ...fields } }) {
    await this.db.transaction("rw", table, async (tx) => {
      if (!(await tx.table(table).update(id, fields))) {
        const before = await tx.table(table).get(id);
        await tx.table(table).put({ ...before, id, ...fields });
      }
    });
    return { id };
  }

  async delete({ table, rowId: id }) {
    await this.db.table(table).delete(id);
  }

  rows({ table }) {
    return this.db.table(table).toArray();
  }
}
