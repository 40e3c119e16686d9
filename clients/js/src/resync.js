/**
 * Beginning anew after 410: what the server has now, and what a restore took from it.
 *
 * Knows: which rows are to be given back, and on what base. Must not know: where rows are kept.
 */

import { isSame, ownFields } from "./operations.js";
import { sha256 } from "./sha256.js";

/**
 * @typedef {import("./client.js").Row} Row
 * @typedef {Record<string, Map<string, Row>>} Known rows by table and ID
 * @typedef {{ known: Known, cursor: string, isRestored: boolean }} Fresh `isRestored`: another incarnation of the database,
 *   and not merely a purge
 */

/**
 * Pull everything.
 *
 * @param {import("./client.js").SyncClient} client @param {string[]} tables @param {string | null} before the refused cursor
 * @returns {Promise<Fresh>}
 */
export async function resyncOf(client, tables, before) {
  /** @type {Known} */
  const known = Object.fromEntries(tables.map((table) => [table, new Map()]));
  let cursor = "";
  for await (const page of client.pages({ cursor: null, tables })) {
    for (const [table, rows] of Object.entries(page.data)) for (const row of rows) known[table].set(row.id, row);
    cursor = page.cursor;
  }
  return { known, cursor, isRestored: before !== null && incarnationOf(before) !== incarnationOf(cursor) };
}

/** A cursor names its database's incarnation and a place in it. @param {string} cursor */
export const incarnationOf = (cursor) => cursor.slice(0, cursor.lastIndexOf("-"));

/**
 * Make operations of the rows that are held otherwise than the restored server has them.
 *
 * Versions of the two databases can't be compared, so the base stated is 0: each field counts as edited on both sides, the
 * later edit stays, and the other is in the log of conflicts. Another device may have given back a newer row already.
 * @param {{ table: string, row: Record<string, any> }[]} held @param {Known} known
 * @returns {import("./operations.js").Outgoing[]}
 */
export function lostRows(held, known) {
  const lost = held.filter(({ table, row }) => row.version > 0 && isLost(row, known[table].get(row.id)));
  return lost.map(({ table, row }) => ({
    table,
    operation: "create",
    data: row.is_deleted ? { id: row.id, is_deleted: 1 } : { ...ownFields(row), is_deleted: 0 },
    timestamp: row.last_updated ?? row.updatedAt,
    baseVersion: 0,
    opId: sha256(`returned:${table}:${row.id}:${row.version}:${row.updatedAt}`).slice(0, 48),
  }));
}

/** @param {Record<string, any>} row @param {Row | undefined} there */
function isLost(row, there) {
  if (row.is_deleted) return there !== undefined && there.version < row.version;
  return !there || Object.entries(ownFields(row)).some(([name, value]) => !EDIT.has(name) && !isSame(value, there[name]));
}

/** Fields that describe an edit and are none. */
const EDIT = new Set(["last_updated", "device_id", "is_deleted"]);
