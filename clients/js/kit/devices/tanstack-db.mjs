/** TanStack DB's collections, as a device of the suite. They live in memory. */

import { createCollection } from "@tanstack/db";
import { io } from "socket.io-client";
import { syncappCollectionOptions } from "syncapp-client/tanstack-db";
import { BaseDevice, limited, until } from "./device.mjs";

export const features = ["live", "conflicts", "merges", "returns"];

export class Device extends BaseDevice {
  seen = [];

  /** TanStack DB sends an edit at once; the suite's devices are offline except in a sync, or live. */
  isOnline = false;
  sockets = [];

  async open(options) {
    const client = this.clientOf(options);
    client.http.fetch = (...request) => (this.isOnline ? fetch(...request) : Promise.reject(new TypeError("offline")));
    client.io = (url, about) => {
      this.sockets.push(io(url, { ...about, autoConnect: false }));
      return this.sockets.at(-1);
    };
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

  async delete({ table, rowId: id }) {
    if (this.collections[table].has(id)) this.collections[table].delete(id);
  }

  async rows({ table }) {
    return this.collections[table].toArray;
  }

  async pending() {
    return Object.values(this.collections).reduce((sum, { utils }) => sum + utils.pending(), 0);
  }

  async sync() {
    const isLive = this.isOnline;
    this.isOnline = true;
    try {
      await this.fetchAndSend();
    } finally {
      this.isOnline = isLive;
    }
  }

  async fetchAndSend() {
    for (const collection of Object.values(this.collections)) await limited(collection.preload(), 10);
    for (const collection of Object.values(this.collections)) await collection.utils.refetch();
    await until(async () => (await this.pending()) === 0, "edits that wait", 10);
    for (const collection of Object.values(this.collections)) await collection.utils.refetch();
  }

  async live({ on }) {
    this.isOnline = on;
    for (const socket of this.sockets) on ? socket.connect() : socket.disconnect();
  }

  async conflicts() {
    return this.seen;
  }

  async close() {
    for (const collection of Object.values(this.collections)) await collection.cleanup();
  }
}
