/**
 * Beginning anew after 410: what the server has now, and what a restore took from it.
 *
 * Knows: which rows are to be given back, and on what base. Must not know: where rows are kept.
 */

import { canonical, isSame, ownFields } from "./operations.js";
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
    for (const [table, rows] of Object.entries(page.data)) for (const row of rows) known[table]?.set(row.id, row);
    cursor = page.cursor;
  }
  return { known, cursor, isRestored: before !== null && incarnationOf(before) !== incarnationOf(cursor) };
}

/** Which database a cursor is of: `epoch-sequence`, and another part while a first pull is under way. @param {string} cursor */
export const incarnationOf = (cursor) => cursor.split("-", 1)[0];

/**
 * Make operations of the rows that are held otherwise than the restored server has them.
 *
 * Versions of the two databases can't be compared, so the base stated is 0: each field counts as edited on both sides, the
 * later edit stays, and the other is in the log of conflicts. So also a row is sent that another device edited later, after
 * the restore: it stays as that device left it, and what it takes the place of is told.
 * @param {{ table: string, row: Record<string, any> }[]} held @param {Known} known
 * @returns {import("./operations.js").Outgoing[]}
 */
export function lostRows(held, known) {
  const lost = held.filter(({ table, row }) => isLost(row, known[table].get(row.id)));
  return lost.map(({ table, row }) => {
    const { timestamp, ...about } = returned(table, row);
    return { ...about, timestamp, opId: sha256(`returned:${canonical(about)}:${timestamp}`).slice(0, 48) };
  });
}

/**
 * Tell whether what is held of a row is not what the restored server has; what it never confirmed is an edit, and waits.
 *
 * @param {Record<string, any>} row @param {Record<string, any> | null | undefined} there
 */
export function isLost(row, there) {
  if (!(row.version > 0)) return false;
  if (row.is_deleted) return Boolean(there && !there.is_deleted);
  if (!there || there.is_deleted) return true;
  return Object.entries(ownFields(row)).some(([name, value]) => !EDIT.has(name) && !isSame(value, there[name]));
}

/**
 * Say a row as it is to be given back: an update, since a create would bring back what was deleted later.
 *
 * @param {string} table @param {Record<string, any>} row as the server last had it
 * @returns {Omit<import("./operations.js").Outgoing, "opId">}
 */
export function returned(table, row) {
  const isTold = !Number.isNaN(Date.parse(row.last_updated));
  const about = { table, timestamp: isTold ? row.last_updated : row.updatedAt, baseVersion: 0, isServerTime: true };
  if (row.is_deleted) return { ...about, operation: "delete", data: { id: row.id } };
  return { ...about, operation: "update", data: { ...ownFields(row), is_deleted: 0 } };
}

/** Fields that describe an edit and are none. */
const EDIT = new Set(["last_updated", "device_id", "is_deleted"]);
