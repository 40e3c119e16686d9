/** RxDB with `replicateRxCollection`, as a device of the suite: in memory in Node, on IndexedDB (Dexie) in a page. */

import { addRxPlugin, createRxDatabase } from "rxdb/plugins/core";
import { RxDBLeaderElectionPlugin } from "rxdb/plugins/leader-election";
import { RxDBMigrationSchemaPlugin } from "rxdb/plugins/migration-schema";
import { replicateRxCollection } from "rxdb/plugins/replication";
import { getRxStorageDexie } from "rxdb/plugins/storage-dexie";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
import { rxdbReplication } from "syncapp-client/rxdb";
import { BaseDevice, until } from "./device.mjs";

addRxPlugin(RxDBLeaderElectionPlugin);
addRxPlugin(RxDBMigrationSchemaPlugin);

export const features = ["live", "conflicts", "merges", "returns", "clock", "states"];

const TEXT = { type: "string" };
const OWN = ["name", "firstName", "lastName", "email", "phone", "note", "status", "type", "title", "description", "date", "companyName", "Unique_id"];
const JSON_FIELDS = { phoneModel: {}, bankList: {}, stateCode: {}, metadata: {} };

const memory = getRxStorageMemory();

const SCHEMA = {
  primaryKey: "id",
  type: "object",
  properties: {
    id: { type: "string", maxLength: 64 },
    version: { type: "number" },
    last_updated: TEXT,
    updatedAt: TEXT,
    active: { type: "number" },
    client_user_id: TEXT,
    ...Object.fromEntries(OWN.map((name) => [name, TEXT])),
    ...JSON_FIELDS,
  },
};

/** The schema of a version of the app, the first of which may lack columns. */
function schemaOf(lacks = [], version) {
  const properties = Object.fromEntries(Object.entries(SCHEMA.properties).filter(([name]) => !lacks.includes(name)));
  return { schema: { ...SCHEMA, version, properties }, migrationStrategies: version ? { 1: (doc) => doc } : {} };
}

export class Device extends BaseDevice {
  seen = [];
  rejected = [];
  /** What was edited and is not known to be sent; at first, whatever an earlier process left. */
  edits = new Set([{}]);
  replications = [];
  isLive = false;

  async open(options) {
    this.client = this.clientOf(options);
    this.tables = options.tables;
    const live = this.client.live.bind(this.client);
    this.client.live = (listening) => (this.isLive ? live(listening) : { close() {} });
    const name = `kit-rxdb-${options.folder}`;
    // In a page, real IndexedDB; fake-indexeddb takes a minute for 10,000 rows of it.
    const storage = typeof document === "undefined" ? memory : getRxStorageDexie();
    this.db = await createRxDatabase({ name, storage, multiInstance: false, closeDuplicates: true });
    const { tables, lacks } = options;
    await this.db.addCollections(Object.fromEntries(tables.map((table) => [table, schemaOf(lacks?.[table], lacks ? 0 : 1)])));
  }

  async replaced() {
    await this.db.close();
  }

  async put({ table, row }) {
    const found = await this.db[table].findOne(row.id).exec();
    const given = Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null));
    if (!found) await this.db[table].insert(given);
    else await found.incrementalModify((doc) => {
      for (const [name, value] of Object.entries(row)) if (value === null) delete doc[name]; else doc[name] = value;
      return doc;
    });
    this.edited();
    return { id: row.id };
  }

  async delete({ table, rowId: id }) {
    await (await this.db[table].findOne(id).exec())?.incrementalRemove();
    this.edited();
  }

  async rows({ table }) {
    return (await this.db[table].find().exec()).map((doc) => doc.toMutableJSON());
  }

  /** Edits since the last time that RxDB said it is in sync; after a start, that is yet to be said. */
  async pending() {
    return this.edits.size;
  }

  edited() {
    this.edits.add({});
    if (this.isLive) void this.settled().catch(() => undefined);
  }

  async settled() {
    const edits = [...this.edits];
    await Promise.all(this.replications.map((state) => state.awaitInSync()));
    for (const edit of edits) this.edits.delete(edit);
  }

  /** One that is not live can't be cancelled while it fails; so it is, and hears of nothing unless the suite says so. */
  replicate(table) {
    const state = replicateRxCollection(rxdbReplication(this.client, {
      collection: this.db[table],
      retryTime: 500,
      waitForLeadership: false,
      onConflict: (conflict) => this.seen.push({ table: conflict.table, id: conflict.id }),
      onRenamed: (names) => this.names.push(names),
      onRejected: (doc, error) => this.rejected.push([table, doc.id, error]),
    }));
    return state;
  }

  async sync() {
    if (this.isLive) return this.settled();
    // On a slow line the suite asks again before it is done: then for the same one, as an app has only one.
    this.syncing ??= this.syncAll().finally(() => (this.syncing = undefined));
    await this.syncing;
  }

  async syncAll() {
    const edits = [...this.edits];
    await this.syncOnce();
    await this.letGo();
    for (const edit of edits) this.edits.delete(edit);
  }

  /** What was refused stays as it was typed; this app shows it to nobody, and lets it go. */
  async letGo() {
    for (const [table, id, error] of this.rejected.splice(0)) {
      console.error("rejected", table, id, error);
      await (await this.db[table].findOne(id).exec())?.incrementalRemove();
    }
  }

  async syncOnce() {
    for (const table of this.tables) {
      // Two rounds: the second fetches what the server made of what the first sent.
      for (let round = 0; round < 2; round++) {
        const state = this.replicate(table);
        try {
          await this.inSync(state);
        } finally {
          await state.cancel();
        }
      }
    }
  }

  async inSync(state) {
    // RxDB tries again by itself, as for a pooled connection that was closed; what fails three times is told.
    let failures = 0;
    const failed = new Promise((_, fail) => state.error$.subscribe((error) => ++failures > 2 && fail(causeOf(error))));
    failed.catch(() => undefined);
    await Promise.race([state.awaitInitialReplication().then(() => state.awaitInSync()), failed]);
  }

  async live({ on }) {
    this.isLive = on;
    if (on) this.replications = this.tables.map((table) => this.replicate(table));
    else await Promise.all(this.replications.splice(0).map((state) => state.cancel()));
  }

  async conflicts() {
    return this.seen;
  }

  async close() {
    await this.db.close();
  }
}

function causeOf(error) {
  const inner = error.parameters?.errors?.[0] ?? error;
  return Object.assign(new Error(inner.message), { code: inner.code ?? error.code });
}
