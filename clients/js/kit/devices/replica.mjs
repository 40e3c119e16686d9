/** What both replicas, in plain IndexedDB and in Dexie, do alike for the suite. */

import { BaseDevice } from "./device.mjs";

export class ReplicaDevice extends BaseDevice {
  /** @type {{ table: string, id: string }[]} */
  seen = [];

  /** @param {import("../../src/replica.js").Replica} replica */
  use(replica) {
    this.replica = replica;
    replica.addEventListener("conflict", (/** @type {any} */ { detail }) => this.seen.push({ table: detail.table, id: detail.id }));
    replica.addEventListener("renamed", (/** @type {any} */ { detail }) => this.names.push(detail));
  }

  async put({ table, row }) {
    return { id: (await this.replica.put(table, row)).id };
  }

  async delete({ table, rowId: id }) {
    await this.replica.delete(table, id);
  }

  rows({ table }) {
    return this.replica.all(table);
  }

  pending() {
    return this.replica.pending();
  }

  async sync() {
    await this.replica.sync();
  }

  async replaced() {
    this.replica.close();
  }

  async live({ on }) {
    if (on) this.replica.start();
    else this.replica.stop();
  }

  async conflicts() {
    return this.seen;
  }

  async close() {
    this.replica.close();
  }
}
