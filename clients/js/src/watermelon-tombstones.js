/**
 * Remembers deleted rows: WatermelonDB forgets them, and after a restore the server has them again.
 *
 * Knows: where WatermelonDB keeps a value of ours. Must not know: the network. A tombstone has no content, only when the row
 * was deleted; the newest are kept, since the list is written as a whole.
 */

/** @typedef {Record<string, any>} Row */

const KEY = "syncapp_tombstones";
const MOST = 5000;

export class Tombstones {
  /** By table and ID, as `[table, row]`. @type {Map<string, [string, Row]> | undefined} */
  #gone;
  #isChanged = false;

  /** @param {any} adapter */
  constructor(adapter) {
    this.adapter = adapter;
  }

  /** @returns {Promise<{ table: string, row: Row }[]>} */
  async all() {
    return [...(await this.#kept()).values()].map(([table, row]) => ({ table, row }));
  }

  /** Note which of these rows are deleted, and which are not any more; `keep` writes it. @param {Map<string, Row[]>} rows by table */
  async note(rows) {
    const gone = await this.#kept();
    for (const [table, some] of rows) for (const row of some) this.#noteOne(gone, table, row);
  }

  /** @param {import("./operations.js").Outcome[]} outcomes of a push */
  async noteOutcomes(outcomes) {
    const gone = await this.#kept();
    for (const { result, row } of outcomes) if (row) this.#noteOne(gone, result.table, row);
    await this.keep();
  }

  /** @param {Map<string, [string, Row]>} gone @param {string} table @param {Row} row */
  #noteOne(gone, table, { id, version, last_updated, updatedAt, is_deleted }) {
    const key = `${table}/${id}`;
    this.#isChanged = gone.delete(key) || this.#isChanged;
    if (!is_deleted || !version) return;
    gone.set(key, [table, { id, version, last_updated, updatedAt, is_deleted: 1 }]);
    this.#isChanged = true;
  }

  async keep() {
    if (!this.#isChanged || !this.#gone) return;
    this.#isChanged = false;
    await this.adapter.setLocal(KEY, JSON.stringify([...this.#gone.values()].slice(-MOST)));
  }

  async #kept() {
    if (!this.#gone) {
      const entries = JSON.parse((await this.adapter.getLocal(KEY)) || "[]");
      this.#gone = new Map(entries.map((/** @type {[string, Row]} */ [table, row]) => [`${table}/${row.id}`, [table, row]]));
    }
    return this.#gone;
  }
}
