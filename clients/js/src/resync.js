/**
 * Beginning anew after 410: what the server has now, and what a restore took from it.
 *
 * Knows: which rows are to be given back, and on what base. Must not know: where rows are kept.
 */

import { ownFields } from "./operations.js";
import { sha256 } from "./sha256.js";

/**
 * @typedef {import("./client.js").Row} Row
 * @typedef {{ data: Record<string, Row[]>, cursor: string, versions: Record<string, Map<string, number>>,
 *   isRestored: boolean }} Fresh `versions` by table and row; `isRestored`: another incarnation, not merely a purge
 */

/**
 * Pull everything.
 *
 * @param {import("./client.js").SyncClient} client @param {string[]} tables @param {string | null} before the refused cursor
 * @returns {Promise<Fresh>}
 */
export async function resyncOf(client, tables, before) {
  /** @type {Record<string, Row[]>} */
  const data = Object.fromEntries(tables.map((table) => [table, []]));
  let cursor = "";
  for await (const page of client.pages({ cursor: null, tables })) {
    for (const [table, rows] of Object.entries(page.data)) for (const row of rows) data[table].push(row);
    cursor = page.cursor;
  }
  const versions = Object.fromEntries(tables.map((table) => [table, new Map(data[table].map((row) => [row.id, row.version]))]));
  return { data, cursor, versions, isRestored: before !== null && incarnationOf(before) !== incarnationOf(cursor) };
}

/** A cursor names its database's incarnation and a place in it. @param {string} cursor */
const incarnationOf = (cursor) => cursor.slice(0, cursor.lastIndexOf("-"));

/**
 * Make operations of the rows that are held in a newer version than the restored server has, or that it does not have.
 *
 * The version stated is the one that was held. It is above the server's, so that the server takes each field as edited on
 * both sides, and the later edit counts: another device may have given back a newer row already.
 * @param {{ table: string, row: Record<string, any> }[]} held @param {Record<string, Map<string, number>>} versions
 * @returns {import("./operations.js").Outgoing[]}
 */
export function lostRows(held, versions) {
  const lost = held.filter(({ table, row }) => row.version > (versions[table].get(row.id) ?? 0));
  return lost.map(({ table, row }) => ({
    table,
    operation: "create",
    data: ownFields(row),
    timestamp: row.last_updated ?? row.updatedAt,
    baseVersion: row.version,
    opId: sha256(`returned:${table}:${row.id}:${row.version}:${row.updatedAt}`).slice(0, 48),
  }));
}
