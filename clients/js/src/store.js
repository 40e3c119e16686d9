/**
 * The data that a replica stores beside rows, read and written within one transaction.
 *
 * Knows: the outbox, the bases, the place reached. Must not know: which database it is (`indexeddb.js`, `dexie.js` give a
 * `Store`), the network. Every function here works inside a transaction of its caller, and asks for all that it needs at
 * once: a database of a browser takes as long for one answer as for a hundred.
 */

import { keyOf, rebased } from "./edits.js";

/**
 * @typedef {import("./edits.js").Edit} Edit
 * @typedef {import("./edits.js").Row} Row
 * @typedef {{ get(store: string, key: string): Promise<any>, put(store: string, value: any): Promise<unknown>,
 *   delete(store: string, key: string | number): Promise<unknown>, all(store: string, after?: number): Promise<any[]>,
 *   deleteRange(store: string, first: number, last: number): Promise<unknown>, editsOf(key: string): Promise<Edit[]>,
 *   count(store: string): Promise<number> }} Transaction
 *   `after` gives what has a greater key
 * @typedef {"newer" | "deleted" | "cleared"} Loss why a database was closed under its replica: a newer version of the app
 *   changes it, somebody deleted it, the browser or a person cleared it
 * @typedef {{ name: string, transaction<T>(mode: "readonly" | "readwrite", tables: string[],
 *   work: (tx: Transaction) => Promise<T>): Promise<T>, onLocal?(hear: () => void): void,
 *   onLost?(hear: (why: Loss) => void): void, close(): void }} Store
 *   a transaction spans the tables named and all the stores below; `onLocal` tells of edits made past the replica; what was
 *   lost is opened again by the next transaction
 * @typedef {{ cursor: string | null, tables?: string[] }} Place up to where these tables were pulled
 */

export const OUTBOX = "_outbox";
export const BASES = "_bases";
export const REJECTED = "_rejected";
export const GONE = "_gone";
export const META = "_meta";

/** Object stores beside the tables, in Dexie's words: key path, then indexes. @type {Record<string, string>} */
export const STORES = { [OUTBOX]: "++number, key", [BASES]: "key", [REJECTED]: "opId", [GONE]: "key", [META]: "name" };

/**
 * Put rows of the server's in place, under the edits that wait.
 *
 * @param {Transaction} tx @param {string} table @param {Row[]} rows a tombstone removes
 */
export async function take(tx, table, rows) {
  const hasEdits = (await tx.count(OUTBOX)) > 0;
  await Promise.all(rows.map((row) => (hasEdits ? takeUnder(tx, table, row) : show(tx, table, row.id, rebased(row, [])))));
  await mourn(tx, table, rows.filter((row) => row.is_deleted));
}

/**
 * Keep what was deleted, without its content: after a restore the server has such a row again, and should not.
 *
 * @param {Transaction} tx @param {string} table @param {Row[]} tombstones
 */
export async function mourn(tx, table, tombstones) {
  const gone = tombstones.map(({ id, version, last_updated, updatedAt }) => {
    return { key: keyOf(table, id), table, row: { id, version, last_updated, updatedAt, is_deleted: 1 } };
  });
  await Promise.all(gone.map((one) => tx.put(GONE, one)));
}

/** @param {Transaction} tx @param {string} table @param {Row} row */
async function takeUnder(tx, table, row) {
  const edits = await tx.editsOf(keyOf(table, row.id));
  await layUnder(tx, table, row.id, row, edits);
}

/**
 * Have a row as the server has it under the edits that wait. One that the server never had has no base.
 *
 * @param {Transaction} tx @param {string} table @param {string} id @param {Row | null} base @param {Edit[]} edits
 * @param {boolean} [hasBases] false if there is none of any row, which spares looking
 */
export async function layUnder(tx, table, id, base, edits, hasBases = true) {
  const key = keyOf(table, id);
  const shown = show(tx, table, id, rebased(base, edits));
  if (edits.length && base) await tx.put(BASES, { key, table, row: base });
  else if (hasBases) await tx.delete(BASES, key);
  await shown;
}

/** @param {Transaction} tx @param {string} table @param {string} id @param {Row | undefined} row */
export function show(tx, table, id, row) {
  return row ? tx.put(table, row) : tx.delete(table, id);
}

/** @param {Transaction} tx @returns {Promise<Place>} */
export async function place(tx) {
  return (await tx.get(META, "place")) ?? { cursor: null };
}
