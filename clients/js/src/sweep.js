/**
 * Starts again after 410, page by page: each page can be stored as it comes, and a failed page is requested again.
 *
 * Knows: which rows a restore took from the server, and what it no longer has after a purge. Must not know: where rows are
 * kept; whoever keeps them tells what it holds, and holds on to the refused cursor until the end: then a crash on the way
 * ends here again.
 */

import { pushOperations } from "./operations.js";
import { incarnationOf, lostRows } from "./resync.js";

/**
 * @typedef {import("./client.js").Row} Row
 * @typedef {Record<string, any>} Held a row as the server last had it, as far as this device knows
 */

export class Sweep {
  /** Up to where it has come. @type {string | null} */
  cursor = null;
  isDone = false;
  /** Whether this is another incarnation of the database, and not merely a purge. */
  isRestored = false;

  /** @param {import("./client.js").SyncClient} client @param {string[]} tables @param {string | null} before the refused cursor */
  constructor(client, tables, before) {
    this.client = client;
    this.tables = tables;
    this.before = before;
    /** @type {Map<string, Set<string>>} */
    this.seen = new Map(tables.map((table) => [table, new Set()]));
  }

  /**
   * Fetch the next page, and give back what of it a restore took.
   *
   * @param {(table: string, ids: string[]) => Promise<Held[]> | Held[]} heldOf gives what is held of these rows, tombstones too
   * @returns {Promise<Map<string, Row[]>>} by table, each row as the server has it now
   */
  async page(heldOf) {
    // Anonymous after the start: until the end nothing of it counts, and what is cut off says an earlier place again.
    const { data, cursor, hasMore } = await this.client.pull({ cursor: this.cursor, tables: this.tables, isAnonymous: this.cursor !== null });
    this.isRestored = this.before !== null && incarnationOf(this.before) !== incarnationOf(cursor);
    const found = new Map(this.tables.map((table) => [table, new Map((data[table] ?? []).map((row) => [row.id, row]))]));
    if (this.isRestored) {
      for (const [table, rows] of found) await this.#giveBack(table, await heldOf(table, [...rows.keys()]), rows);
    }
    for (const [table, rows] of found) for (const id of rows.keys()) this.seen.get(table)?.add(id);
    this.cursor = cursor;
    this.isDone = !hasMore;
    return new Map([...found].map(([table, rows]) => [table, [...rows.values()]]));
  }

  /**
   * In the end, give back what the server lacks altogether.
   *
   * @param {string} table @param {Held[]} held all rows that are held and not deleted
   * @returns {Promise<{ returned: Row[], gone: Held[] }>} `gone` is what it does not have and does not take
   */
  async rest(table, held) {
    const lacking = held.filter(({ id }) => !this.seen.get(table)?.has(id));
    /** @type {Map<string, Row>} */
    const returned = new Map();
    if (this.isRestored) await this.#giveBack(table, lacking, returned);
    return { returned: [...returned.values()], gone: lacking.filter(({ id }) => !returned.has(id)) };
  }

  /** @param {string} table @param {Held[]} held @param {Map<string, Row>} rows what the server has, brought up to date */
  async #giveBack(table, held, rows) {
    const lost = lostRows(held.map((row) => ({ table, row })), { [table]: rows });
    for (const { row } of await pushOperations(this.client, lost)) if (row) rows.set(row.id, row);
  }
}
