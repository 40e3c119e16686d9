/** TanStack DB's collections, as a device of the suite. They live in memory. */

import { createCollection } from "@tanstack/db";
import { io } from "socket.io-client";
import { syncappCollectionOptions } from "syncapp-client/tanstack-db";
import { BaseDevice, limited, until } from "./device.mjs";

export const features = ["live", "conflicts", "merges", "returns", "clock"];

export class Device extends BaseDevice {
  seen = [];

  /** TanStack DB sends an edit at once; the suite's devices are offline except in a sync, or live. */
  isOnline = false;
  sockets = [];

  /** What the version before holds in memory, the next one goes on with. @type {Device | undefined} */
  static left;

  async open(options) {
    const { left } = Device;
    Device.left = undefined;
    if (left) return this.goOn(left, options);
    const client = this.clientOf(options);
    client.http.fetch = (...request) => (this.isOnline ? fetch(...request) : Promise.reject(new TypeError("offline")));
    client.io = (url, about) => {
      this.sockets.push(io(url, { ...about, autoConnect: false }));
      return this.sockets.at(-1);
    };
    this.collections = Object.fromEntries(options.tables.map((table) => [table, this.made(table)]));
  }

  made(table) {
    const onConflict = (conflict) => this.seen.push({ table, id: conflict.id });
    const onRenamed = (names) => this.names.push(names);
    return createCollection({ ...syncappCollectionOptions(this.client, { table, retrySeconds: 0.3, onConflict, onRenamed }), startSync: true });
  }

  goOn(left, { tables }) {
    const { client, sockets, seen, names, credentials, collections } = left;
    Object.assign(this, { client, sockets, seen, names, credentials });
    client.http.fetch = (...request) => (this.isOnline ? fetch(...request) : Promise.reject(new TypeError("offline")));
    this.collections = Object.fromEntries(tables.map((table) => [table, collections[table] ?? this.made(table)]));
  }

  async replaced() {
    Device.left = this;
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
