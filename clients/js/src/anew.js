/**
 * Beginning anew in a replica's store, page by page: what is kept of it, so that it goes on wherever it is stopped.
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
import { isSame, ownFields } from "./operations.js";
import { incarnationOf, isLost, returned } from "./resync.js";
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
  const [shown, base, gone, edits] = await Promise.all([tx.get(table, id), tx.get(BASES, key), tx.get(GONE, key), tx.editsOf(key)]);
  if (!there && !isRestored && edits.length) return; // They make it anew, from what is held.
  const held = (base ? base.row : shown) ?? gone?.row;
  const isGivenBack = isRestored && held !== undefined && isLost(held, there);
  if (there?.is_deleted) await mourn(tx, table, [there]);
  else if (there && gone && !isGivenBack) await tx.delete(GONE, key);
  const wait = isRestored ? await rewaited(tx, table, edits, { held, there, isGivenBack }) : edits;
  await layUnder(tx, table, id, there, wait);
}

/**
 * Have edits wait behind what is given back, on bases of the database that there is now.
 *
 * @param {Transaction} tx @param {string} table @param {Edit[]} edits
 * @param {{ held?: Row, there: Row | null, isGivenBack: boolean }} known @returns {Promise<Edit[]>}
 */
async function rewaited(tx, table, edits, { held, there, isGivenBack }) {
  if (!edits.length && !isGivenBack) return [];
  const baseVersion = held && there && !isGivenBack && isSame(ownFields(held), ownFields(there)) ? there.version : 0;
  const again = edits.map(({ number, ...edit }) => ({ ...edit, baseVersion }));
  const wait = isGivenBack && held ? [editBack(table, held), ...again] : again;
  await Promise.all(edits.map(({ number }) => tx.delete(OUTBOX, /** @type {number} */ (number))));
  await Promise.all(wait.map((edit) => tx.put(OUTBOX, edit)));
  return wait;
}

/** @param {string} table @param {Row} row @returns {Edit} */
function editBack(table, row) {
  const { operation, data, timestamp = new Date().toISOString() } = returned(table, row);
  const about = { key: keyOf(table, row.id), table, id: row.id, opId: newId(), baseVersion: 0, isServerTime: true };
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
