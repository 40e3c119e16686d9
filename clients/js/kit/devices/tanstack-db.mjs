/** TanStack DB's collections, as a device of the suite. They live in memory. */

import { createCollection } from "@tanstack/db";
import { syncappCollectionOptions } from "syncapp-client/tanstack-db";
import { BaseDevice, limited, until } from "./device.mjs";

export const features = ["live", "conflicts", "merges", "returns"];

export class Device extends BaseDevice {
  seen = [];

  async open(options) {
    const client = this.clientOf(options);
    const made = options.tables.map((table) => {
      const onConflict = (conflict) => this.seen.push({ table, id: conflict.id });
      return [table, createCollection({ ...syncappCollectionOptions(client, { table, retrySeconds: 0.3, onConflict }), startSync: true })];
    });
    this.collections = Object.fromEntries(made);
  }

  async put({ table, row }) {
    const collection = this.collections[table];
    const transaction = collection.has(row.id) ? collection.update(row.id, (draft) => void Object.assign(draft, row)) : collection.insert(row);
    transaction.isPersisted.promise.catch((error) => console.error("rejected", row, error));
    return { id: row.id };
  }

  async delete({ table, id }) {
    if (this.collections[table].has(id)) this.collections[table].delete(id);
  }

  async rows({ table }) {
    return this.collections[table].toArray;
  }

  async pending() {
    return Object.values(this.collections).reduce((sum, { utils }) => sum + utils.pending(), 0);
  }

  async sync() {
    for (const collection of Object.values(this.collections)) await limited(collection.preload(), 10);
    for (const collection of Object.values(this.collections)) await collection.utils.refetch();
    await until(async () => (await this.pending()) === 0, "edits that wait", 10);
    for (const collection of Object.values(this.collections)) await collection.utils.refetch();
  }

  async live() {}

  async conflicts() {
    return this.seen;
  }

  async close() {
    for (const collection of Object.values(this.collections)) await collection.cleanup();
  }
}
