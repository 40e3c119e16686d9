/**
 * What a replica keeps beside the rows, and how it is read and written within one transaction.
 *
 * Knows: the outbox, the bases, the place reached. Must not know: which database it is (`indexeddb.js`, `dexie.js` give a
 * `Store`), the network. Every function here works inside a transaction of its caller.
 */

import { keyOf, rebased } from "./edits.js";

/**
 * @typedef {import("./edits.js").Edit} Edit
 * @typedef {import("./edits.js").Row} Row
 * @typedef {{ get(store: string, key: string): Promise<any>, put(store: string, value: any): Promise<unknown>,
 *   delete(store: string, key: string | number): Promise<unknown>, all(store: string): Promise<any[]>,
 *   editsOf(key: string): Promise<Edit[]>, count(store: string): Promise<number> }} Transaction
 * @typedef {{ name: string, transaction<T>(mode: "readonly" | "readwrite", tables: string[],
 *   work: (tx: Transaction) => Promise<T>): Promise<T>, onLocal?(hear: () => void): void, close(): void }} Store
 *   a transaction spans the tables named and all the stores below; `onLocal` tells of edits made past the replica
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
async function mourn(tx, table, tombstones) {
  for (const { id, version, last_updated, updatedAt } of tombstones) {
    await tx.put(GONE, { key: keyOf(table, id), table, row: { id, version, last_updated, updatedAt, is_deleted: 1 } });
  }
}

/** @param {Transaction} tx @param {string} table @param {Row} row */
async function takeUnder(tx, table, row) {
  const key = keyOf(table, row.id);
  const edits = await tx.editsOf(key);
  if (edits.length) await tx.put(BASES, { key, table, row });
  await show(tx, table, row.id, rebased(row, edits));
}

/** @param {Transaction} tx @param {string} table @param {string} id @param {Row | undefined} row */
async function show(tx, table, id, row) {
  await (row ? tx.put(table, row) : tx.delete(table, id));
}

/**
 * Note an edit, and the row's base if it is the first that waits.
 *
 * @param {Transaction} tx @param {Edit} edit @param {Row | undefined} before the row as it was
 */
export async function note(tx, edit, before) {
  if (!(await tx.get(BASES, edit.key))) await tx.put(BASES, { key: edit.key, table: edit.table, row: before ?? null });
  await tx.put(OUTBOX, edit);
}

/**
 * Take what became of an edit: it leaves the outbox, and its row shows what the server has, under the edits after it.
 *
 * @param {Transaction} tx @param {Edit} edit @param {import("./operations.js").Outcome} outcome
 */
export async function settle(tx, edit, { result, row }) {
  const kept = await tx.get(BASES, edit.key);
  await tx.delete(OUTBOX, /** @type {number} */ (edit.number));
  if (result.status === "rejected") await tx.put(REJECTED, { ...edit, error: result.error });
  const base = row ?? kept?.row ?? null;
  if (row?.is_deleted && row.version) await mourn(tx, edit.table, [row]);
  const edits = await tx.editsOf(edit.key);
  await (edits.length ? tx.put(BASES, { key: edit.key, table: edit.table, row: base }) : tx.delete(BASES, edit.key));
  await show(tx, edit.table, edit.id, rebased(base, edits));
}

/**
 * Forget a row that the server no longer has, unless edits of it wait: they will make it anew.
 *
 * @param {Transaction} tx @param {string} table @param {string} id
 */
export async function forget(tx, table, id) {
  if (!(await tx.editsOf(keyOf(table, id))).length) await tx.delete(table, id);
}

/** @param {Transaction} tx @returns {Promise<{ cursor: string | null, deviceId: string }>} */
export async function place(tx) {
  return (await tx.get(META, "place")) ?? { cursor: null };
}
