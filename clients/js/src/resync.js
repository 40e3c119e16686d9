/**
 * Starts again after 410: compares what the server has now with what a restore took from it.
 *
 * Knows: which rows are to be given back, and on what base. Must not know: where rows are kept.
 */

import { newId } from "./client.js";
import { ownFields } from "./operations.js";

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

/** A version that no row has: the base is one of elsewhere, and the server looks for it in the row's history. */
export const ELSEWHERE = 2147483647;

/**
 * Make operations of the rows that a restore took, in whole or in part.
 *
 * @param {{ table: string, row: Record<string, any> }[]} held as the server last gave them @param {Known} known
 * @returns {import("./operations.js").Outgoing[]} to be pushed before any edit that waits
 */
export function lostRows(held, known) {
  return held.flatMap(({ table, row }) => {
    const base = baseFor(row, known[table].get(row.id));
    return base === undefined ? [] : { ...returned(table, row, base), opId: newId() };
  });
}

/**
 * Say on which base a held row is given back to a server that was restored. Source: docs/clients.md, “410”.
 *
 * @param {Record<string, any>} row @param {Record<string, any> | null | undefined} there what the server gives of it
 * @returns {number | undefined} nothing if there is nothing to give back
 */
export function baseFor(row, there) {
  if (!(row.version > 0)) return undefined; // The server never had it: it is an edit that waits.
  if (!there) return row.is_deleted ? undefined : ELSEWHERE;
  if (there.version === row.version && there.updatedAt === row.updatedAt) return undefined;
  const isGrownOutOf = there.version < row.version && there.updatedAt < row.updatedAt;
  return isGrownOutOf ? there.version : ELSEWHERE;
}

/**
 * Say a row as it is to be given back: an update, since a create would bring back what was deleted later.
 *
 * @param {string} table @param {Record<string, any>} row @param {number} baseVersion
 * @returns {Omit<import("./operations.js").Outgoing, "opId">}
 */
export function returned(table, row, baseVersion) {
  const timestamp = editTimeOf(row);
  const about = timestamp ? { timestamp, last_updated: timestamp } : undefined;
  const data = { ...ownFields(row), ...about, is_deleted: row.is_deleted ? 1 : 0 };
  return { table, operation: "update", data, timestamp, baseVersion, isReturned: true };
}

/** When a held row was edited: never later than the server took it. @param {Record<string, any>} row */
function editTimeOf({ last_updated, updatedAt }) {
  const [edited, taken] = [Date.parse(last_updated), Date.parse(updatedAt)];
  return Number.isNaN(edited) || edited > taken ? updatedAt : last_updated;
}
