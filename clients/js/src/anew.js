/**
 * Starts a replica's store again from the server, page by page, and keeps its progress so that it can be interrupted.
 *
 * Knows: what a page means for rows that are held and for edits that wait. Must not know: the network, which database it is.
 * Every function works inside a transaction of its caller. Source: docs/clients.md.
 *
 * The rows that the server gives take the place of those that are held. After a purge, what it does not give is gone. After a
 * restore, what is held otherwise becomes an edit that waits, ahead of those that wait already, with the time at which it
 * was made; so whatever happens next, it is sent, and the edit that was typed last is the one that stays.
 */

import { newId } from "./client.js";
import { keyOf } from "./edits.js";
import { baseFor, ELSEWHERE, incarnationOf, returned } from "./resync.js";
import { BASES, GONE, layUnder, META, mourn, OUTBOX } from "./store.js";

/**
 * @typedef {import("./edits.js").Edit} Edit
 * @typedef {import("./edits.js").Row} Row
 * @typedef {import("./store.js").Transaction} Transaction
 * @typedef {{ name: "anew", before: string | null, cursor: string | null, tables: string[], pages: number }} Anew
 *   `before` is the cursor that was refused, `cursor` how far it got since
 */

const ANEW = "anew";
const SEEN = "seen:";

/** Give how far it got, if it is under way. @param {Transaction} tx @returns {Promise<Anew | undefined>} */
export const underWay = (tx) => tx.get(META, ANEW);

/** Begin. @param {Transaction} tx @param {string | null} before @param {string[]} tables */
export async function beginAnew(tx, before, tables) {
  await forgetSeen(tx);
  await tx.put(META, { name: ANEW, before, cursor: null, tables, pages: 0 });
}

/**
 * Take a page: its rows, and how far it got.
 *
 * @param {Transaction} tx @param {Anew} anew @param {Record<string, Row[]>} data @param {string} cursor
 */
export async function takeAnew(tx, anew, data, cursor) {
  const given = Object.entries(data).filter(([table]) => anew.tables.includes(table));
  const isRestored = anew.before !== null && incarnationOf(anew.before) !== incarnationOf(cursor);
  await Promise.all(given.flatMap(([table, rows]) => rows.map((row) => meet(tx, table, row.id, row, isRestored))));
  const keys = given.flatMap(([table, rows]) => rows.map(({ id }) => keyOf(table, id)));
  await tx.put(META, { name: `${SEEN}${anew.pages}`, keys });
  await tx.put(META, { ...anew, cursor, pages: anew.pages + 1 });
}

/**
 * End: what the server did not give is gone, or is given back.
 *
 * @param {Transaction} tx @param {Anew} anew with the cursor of the last page
 */
export async function endAnew(tx, { before, cursor, tables }) {
  const isRestored = before !== null && incarnationOf(before) !== incarnationOf(/** @type {string} */ (cursor));
  const seen = new Set((await seenRecords(tx)).flatMap(({ keys }) => keys));
  const held = (await Promise.all(tables.map(async (table) => (await idsIn(tx, table)).map((id) => ({ table, id }))))).flat();
  const missing = held.filter(({ table, id }) => !seen.has(keyOf(table, id)));
  await Promise.all(missing.map(({ table, id }) => meet(tx, table, id, null, isRestored)));
  await forgetSeen(tx);
  await tx.delete(META, ANEW);
  await tx.put(META, { name: "place", cursor, tables });
}

/**
 * Put what the server has of a row, if anything, under what is held and waits.
 *
 * @param {Transaction} tx @param {string} table @param {string} id @param {Row | null} there @param {boolean} isRestored
 */
async function meet(tx, table, id, there, isRestored) {
  const key = keyOf(table, id);
  const [shown, kept, gone, edits] = await Promise.all([tx.get(table, id), tx.get(BASES, key), tx.get(GONE, key), tx.editsOf(key)]);
  const held = (edits.length ? kept?.row : shown) ?? gone?.row;
  // After a purge a row that the server does not give is gone; edits of it would make a row of one field.
  const isMissed = !isRestored && !there && edits.length > 0 && !held?.is_deleted;
  const base = held && (isRestored || isMissed) ? baseFor(held, there) : undefined;
  const back = base === undefined ? [] : [editBack(table, held, base)];
  const isOther = isRestored || isMissed;
  const wait = [...back, ...(isOther ? edits.map((edit) => rewaited(edit, held, there, base)) : edits)];
  if (isOther) await replaced(tx, edits, wait);
  if (there?.is_deleted) await mourn(tx, table, [there]);
  else if (there && gone && !back.length) await tx.delete(GONE, key);
  await layUnder(tx, table, id, there, wait);
}

/** @param {Transaction} tx @param {Edit[]} edits @param {Edit[]} wait in their place, and in this order */
async function replaced(tx, edits, wait) {
  await Promise.all(edits.map(({ number }) => tx.delete(OUTBOX, /** @type {number} */ (number))));
  await Promise.all(wait.map((edit) => tx.put(OUTBOX, edit)));
}

/**
 * Have an edit wait on a base of the database that there is now. If that is another one, the edit has another name: the
 * backup may know the old one as another operation.
 *
 * @param {Edit} edit @param {Row | undefined} held @param {Row | null} there @param {number | undefined} base of what is given
 *   back, if anything is @returns {Edit}
 */
function rewaited({ number, ...edit }, held, there, base) {
  if (base === undefined && there) return edit;
  const isGrownOut = there !== null && base === there.version;
  const sawHeld = held !== undefined && edit.baseVersion >= held.version;
  if (!held || edit.baseVersion === 0) return edit; // It knew of no such row, whatever the database.
  const baseVersion = isGrownOut && !sawHeld ? Math.min(edit.baseVersion, there.version) : ELSEWHERE;
  return { ...edit, baseVersion, opId: newId() };
}

/** @param {string} table @param {Row} row @param {number} base @returns {Edit} */
function editBack(table, row, base) {
  const { operation, data, timestamp = new Date().toISOString() } = returned(table, row, base);
  const about = { key: keyOf(table, row.id), table, id: row.id, opId: newId(), baseVersion: base, isReturned: true };
  return { ...about, operation, data, timestamp };
}

/** @param {Transaction} tx @param {string} table @returns {Promise<string[]>} of rows, of their bases, and of what was deleted */
async function idsIn(tx, table) {
  const [rows, bases, gone] = await Promise.all([tx.all(table), tx.all(BASES), tx.all(GONE)]);
  const beside = [...bases, ...gone].filter((kept) => kept.table === table).map(({ key }) => key.slice(table.length + 1));
  return [...new Set([...rows.map(({ id }) => id), ...beside])];
}

/** @param {Transaction} tx @returns {Promise<{ name: string, keys: string[] }[]>} */
async function seenRecords(tx) {
  return (await tx.all(META)).filter(({ name }) => name.startsWith(SEEN));
}

/** @param {Transaction} tx */
async function forgetSeen(tx) {
  await Promise.all((await seenRecords(tx)).map(({ name }) => tx.delete(META, name)));
}
