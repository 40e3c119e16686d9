/**
 * What a replica keeps beside the rows, and how it is read and written within one transaction.
 *
 * Knows: the outbox, the bases, the place reached. Must not know: which database it is (`indexeddb.js`, `dexie.js` give a
 * `Store`), the network. Every function here works inside a transaction of its caller, and asks for all that it needs at
 * once: a database of a browser takes as long for one answer as for a hundred.
 */

import { newId } from "./client.js";
import { editOf, keyOf, rebased } from "./edits.js";
import { ownFields } from "./operations.js";
import { ELSEWHERE } from "./resync.js";

/**
 * @typedef {import("./edits.js").Edit} Edit
 * @typedef {import("./edits.js").Row} Row
 * @typedef {{ get(store: string, key: string): Promise<any>, put(store: string, value: any): Promise<unknown>,
 *   delete(store: string, key: string | number): Promise<unknown>, all(store: string, most?: number): Promise<any[]>,
 *   editsOf(key: string): Promise<Edit[]>, count(store: string): Promise<number> }} Transaction
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
 * Have a row as the server has it under the edits that wait.
 *
 * @param {Transaction} tx @param {string} table @param {string} id @param {Row | null} base @param {Edit[]} edits
 */
export async function layUnder(tx, table, id, base, edits) {
  const key = keyOf(table, id);
  const kept = edits.length ? tx.put(BASES, { key, table, row: base }) : tx.delete(BASES, key);
  await Promise.all([kept, show(tx, table, id, rebased(base, edits))]);
}

/** @param {Transaction} tx @param {string} table @param {string} id @param {Row | undefined} row */
function show(tx, table, id, row) {
  return row ? tx.put(table, row) : tx.delete(table, id);
}

// --- edits -----------------------------------------------------------------------------------------------------------

/**
 * Edit rows, and note each edit in the outbox.
 *
 * A row whose creation was refused, and that is put again, goes on from what was typed: repaired, it is created whole.
 * @param {Transaction} tx @param {string} table
 * @param {{ id: string, readAt?: number, change: (before: Row | undefined) => Row | undefined }[]} changes in their order
 * @param {string} timestamp @returns {Promise<(Row | undefined)[]>} the rows as they are then
 */
export async function edit(tx, table, changes, timestamp) {
  const ids = [...new Set(changes.map(({ id }) => id))];
  const [found, bases, refused] = await Promise.all([
    Promise.all(ids.map((id) => tx.get(table, id))),
    Promise.all(ids.map((id) => tx.get(BASES, keyOf(table, id)))),
    refusedCreates(tx),
  ]);
  const rows = new Map(ids.map((id, place) => [id, found[place]]));
  const edits = changes.flatMap(({ id, readAt, change }) => {
    const before = rows.get(id);
    const after = change(before ?? refused.get(keyOf(table, id))?.data);
    const made = editOf(table, id, before, after, { opId: newId(), timestamp }, readAt);
    if (made) rows.set(id, after);
    return made ?? [];
  });
  const edited = new Set(edits.map(({ id }) => id));
  const places = ids.flatMap((id, place) => (edited.has(id) ? [place] : []));
  await Promise.all([
    ...edits.map((made) => tx.put(OUTBOX, made)),
    ...places.filter((place) => !bases[place]).map((place) => tx.put(BASES, { key: keyOf(table, ids[place]), table, row: found[place] ?? null })),
    ...places.map((place) => show(tx, table, ids[place], rows.get(ids[place]))),
    ...places.flatMap((place) => refused.get(keyOf(table, ids[place])) ?? []).map(({ opId }) => tx.delete(REJECTED, opId)),
  ]);
  return changes.map(({ id }) => rows.get(id));
}

/** Give the creates that the server refused, by row. @param {Transaction} tx @returns {Promise<Map<string, Edit>>} */
async function refusedCreates(tx) {
  if (!(await tx.count(REJECTED))) return new Map();
  const creates = (await tx.all(REJECTED)).filter(({ operation }) => operation === "create");
  return new Map(creates.map((refused) => [refused.key, refused]));
}

/**
 * Give the oldest edits that wait, each with its row's base; first what is given back after a restore.
 *
 * What follows a create of the same row, or a row that is given back, is left for the next time: if the create is refused,
 * it must not make a part of a row, and what is given back becomes its base.
 * @param {Transaction} tx @param {number} most @returns {Promise<{ edit: Edit, base?: Row | null }[]>}
 */
export async function sendable(tx, most) {
  const created = new Set();
  const ready = (await tx.all(OUTBOX, most)).filter(({ key, operation, isReturned }) => {
    const isReady = !created.has(key);
    if (operation === "create" || isReturned) created.add(key);
    return isReady;
  });
  const edits = [...ready.filter(({ isReturned }) => isReturned), ...ready.filter(({ isReturned }) => !isReturned)];
  const bases = await Promise.all(edits.map(({ key }) => tx.get(BASES, key)));
  return edits.map((edit, place) => ({ edit, base: bases[place]?.row }));
}

/**
 * Take what became of edits: they leave the outbox, and each row shows what the server has, under the edits after them.
 *
 * @param {Transaction} tx @param {Edit[]} edits @param {import("./operations.js").Outcome[]} outcomes
 * @returns {Promise<Edit[]>} those that were refused for good, each with its `error`
 */
export async function settle(tx, edits, outcomes) {
  /** @type {Map<string, Settled[]>} */
  const byRow = new Map(edits.map(({ key }) => [key, []]));
  for (const [place, edit] of edits.entries()) byRow.get(edit.key)?.push({ edit, outcome: outcomes[place] });
  await Promise.all(edits.map(({ number }) => tx.delete(OUTBOX, /** @type {number} */ (number))));
  return (await Promise.all([...byRow.values()].map((settled) => settleRow(tx, settled)))).flat();
}

/** @typedef {{ edit: Edit, outcome: import("./operations.js").Outcome }} Settled */

/** @param {Transaction} tx @param {Settled[]} settled the edits of one row */
async function settleRow(tx, settled) {
  const [{ edit: { table, id, key } }] = settled;
  const row = settled.findLast(({ outcome }) => outcome.row)?.outcome.row;
  const [waiting, kept] = await Promise.all([tx.editsOf(key), row ? undefined : tx.get(BASES, key)]);
  const { refused, edits } = await refuse(tx, settled.filter(({ outcome }) => outcome.result.status === "rejected"), waiting);
  await base(tx, settled, edits);
  if (row?.is_deleted && row.version) await mourn(tx, table, [row]);
  await layUnder(tx, table, id, row ?? kept?.row ?? null, edits);
  return refused;
}

/**
 * Have the edits that saw a row which was given back go on from it, if it is the row now.
 *
 * @param {Transaction} tx @param {Settled[]} settled @param {Edit[]} waiting changed
 */
async function base(tx, settled, waiting) {
  const { status, version } = settled.find(({ edit }) => edit.isReturned)?.outcome.result ?? {};
  if (!version || (status !== "created" && status !== "updated")) return;
  const saw = waiting.filter(({ baseVersion }) => baseVersion === ELSEWHERE);
  await Promise.all(saw.map((edit) => tx.put(OUTBOX, Object.assign(edit, { baseVersion: version }))));
}

/**
 * Keep what was refused, with all that was typed. A create that was edited meanwhile is tried again as the row is now: it
 * may be the very repair.
 *
 * @param {Transaction} tx @param {Settled[]} settled @param {Edit[]} waiting
 * @returns {Promise<{ refused: Edit[], edits: Edit[] }>} what is refused for good, and what waits now
 */
async function refuse(tx, settled, waiting) {
  const create = waiting.length ? settled.findLast(({ edit }) => edit.operation === "create")?.edit : undefined;
  const refused = settled.filter(({ edit }) => edit !== create).map(({ edit, outcome }) => ({ ...edit, error: outcome.result.error }));
  await Promise.all(refused.map((edit) => tx.put(REJECTED, edit)));
  if (!create) return { refused, edits: waiting };
  const again = refolded(create, waiting);
  await Promise.all(waiting.map(({ number }) => tx.delete(OUTBOX, /** @type {number} */ (number))));
  if (again) await tx.put(OUTBOX, again);
  return { refused, edits: again ? [again] : [] };
}

/** @param {Edit} create @param {Edit[]} waiting @returns {Edit | undefined} nothing if the row was deleted again */
function refolded({ number, ...create }, waiting) {
  const row = rebased(null, [create, ...waiting]);
  if (!row) return undefined;
  const { is_deleted, ...data } = ownFields(row);
  return { ...create, data, opId: newId(), timestamp: waiting[waiting.length - 1].timestamp };
}

/** @param {Transaction} tx @returns {Promise<Place>} */
export async function place(tx) {
  return (await tx.get(META, "place")) ?? { cursor: null };
}
