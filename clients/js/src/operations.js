/**
 * Sends any number of operations to the server, and gives the outcome of each.
 *
 * Knows: how a push is cut into slices, and what is done about a row that the server had lost. Must not know: where
 * operations come from. Each needs an `opId`: by it the server takes one that comes again, in whatever slice, once.
 */

import { foreign, Interrupted, isAboutRows } from "./errors.js";
import { Portion } from "./portion.js";

/**
 * @typedef {import("./client.js").Operation} Operation
 * @typedef {Operation & { opId: string, whole?: Record<string, any>, isReturned?: boolean }} Outgoing
 *   `whole` is the whole row that an update is about, in case the server does not know it; `isReturned` says that a row is
 *   given back after a restore: its time is the server's, and it is no edit of this device
 * @typedef {{ result: import("./client.js").Result, row: import("./client.js").Row | null, conflicts: any[] }} Outcome
 */

const SLICE_ROWS = 1000;
const [MOST_CHARACTERS, LEAST_CHARACTERS] = [1_000_000, 4000];

/** How much a line takes at once, by client. @type {WeakMap<object, Portion>} */
const portions = new WeakMap();

/** Columns that are the server's: what a device sends for them is no change, and `version` would state a base. */
const SERVERS = new Set(["sync_status", "version", "server_synced", "createdAt", "updatedAt"]);

/** Give a row without what is the server's. @param {Record<string, any>} row @returns {Record<string, any>} */
export function ownFields(row) {
  return Object.fromEntries(Object.entries(row).filter(([name]) => !SERVERS.has(name)));
}

/** Tell which version a row that an app puts back was read at: what it was based on. @param {Record<string, any>} row */
export function versionOf({ version }) {
  return Number.isInteger(version) && version > 0 ? version : undefined;
}

/** Give what differs, `null` for what is gone. @param {Record<string, any>} before @param {Record<string, any>} after */
export function changedFields(before, after) {
  const [own, old] = [ownFields(after), ownFields(before)];
  const names = new Set([...Object.keys(own), ...Object.keys(old)]);
  /** @type {Record<string, any>} */
  const changed = {};
  for (const name of names) if (!isSame(old[name], own[name])) changed[name] = own[name] ?? null;
  return changed;
}

/** Tell whether two values say the same: a flag is 0 or 1 on the server, and what is absent is `null`. @param {unknown} one @param {unknown} other */
export function isSame(one, other) {
  if (one === other || (one ?? null) === (other ?? null)) return true;
  if (typeof one === "boolean" && typeof other === "number") return Number(one) === other;
  if (typeof one === "number" && typeof other === "boolean") return one === Number(other);
  return typeof one === "object" && typeof other === "object" && canonical(one) === canonical(other);
}

/** JSON with names in order. @param {unknown} value @returns {string} */
export function canonical(value) {
  return JSON.stringify(value, (_, part) =>
    part && typeof part === "object" && !Array.isArray(part) ? Object.fromEntries(Object.entries(part).sort()) : part,
  );
}

/**
 * Push operations in order; `done` is told the outcomes of each slice before the next one goes.
 *
 * @param {import("./client.js").SyncClient} client @param {Outgoing[]} operations
 * @param {{ baseCursor?: string | null, done?: (operations: Outgoing[], outcomes: Outcome[]) => unknown }} [options]
 *   `baseCursor` states the base of operations that have none, and which database is meant
 * @returns {Promise<Outcome[]>}
 * @throws {import("./errors.js").ResyncRequired} if `baseCursor` is of another database
 */
export async function pushOperations(client, operations, { baseCursor, done } = {}) {
  if (operations.some(({ timestamp, isReturned }) => timestamp && !isReturned)) await client.measureClock();
  const portion = portions.get(client) ?? new Portion(MOST_CHARACTERS, LEAST_CHARACTERS);
  portions.set(client, portion);
  const outcomes = [];
  for (let rest = operations; rest.length; ) {
    const slice = sliceOf(rest, portion.size);
    const found = await timed(portion, slice, () => pushSlice(client, slice, baseCursor ?? undefined));
    if (!found) continue; // It was too much for this line.
    await done?.(slice, found);
    outcomes.push(...found);
    rest = rest.slice(slice.length);
  }
  return outcomes;
}

/** @param {Outgoing[]} operations at least one @param {number} most characters */
function sliceOf(operations, most) {
  let [count, characters] = [0, 0];
  for (; count < Math.min(operations.length, SLICE_ROWS); count++) {
    if (operations[count].isReturned !== operations[0].isReturned) break;
    characters += JSON.stringify(operations[count].data).length;
    if (count && characters > most) break;
  }
  return operations.slice(0, count);
}

/**
 * Push a slice, and learn how much the line takes: on one that is slow a large body never arrives in time.
 *
 * @param {Portion} portion @param {Outgoing[]} slice @param {() => Promise<Outcome[]>} push
 * @returns {Promise<Outcome[] | undefined>} nothing if it is to be tried again with less
 */
async function timed(portion, slice, push) {
  const beganAt = Date.now();
  const characters = JSON.stringify(slice.map(({ data }) => data)).length;
  try {
    const found = await push();
    portion.took(portion.size, Date.now() - beganAt, characters < portion.size / 2);
    return found;
  } catch (error) {
    if (!(error instanceof Interrupted) || slice.length === 1 || !portion.shrink(characters)) throw error;
    return undefined;
  }
}

/** @param {import("./client.js").SyncClient} client @param {Outgoing[]} slice @param {string} [baseCursor] @returns {Promise<Outcome[]>} */
async function pushSlice(client, slice, baseCursor) {
  const operations = slice.map((operation) => said(operation, client.clock));
  try {
    const { data, results, conflicts } = checkedAnswer(
      await client.push({ operations, atomic: false, baseCursor }, { isAnonymous: slice[0].isReturned }),
      slice,
    );
    const outcomes = results.map((result, place) => outcomeOf(result, data[place], conflicts));
    return await completed(client, slice, outcomes);
  } catch (error) {
    if (!isAboutRows(error)) throw error; // whatever it is, it is no reason to take an edit back
    return apart(client, slice, /** @type {Error} */ (error), baseCursor);
  }
}

/** @param {Outgoing} outgoing @param {import("./clock.js").Clock} clock @returns {Operation} */
function said({ whole, isReturned, ...operation }, clock) {
  const { timestamp } = operation;
  return timestamp === undefined || isReturned ? operation : { ...operation, timestamp: clock.corrected(timestamp) };
}

/** Refuse what does not answer each operation, whoever sent it. @param {any} answer @param {Outgoing[]} slice @returns {import("./client.js").Pushed} */
function checkedAnswer(answer, slice) {
  const { data, results, conflicts = [] } = answer;
  const isOurs = [data, results, conflicts].every(Array.isArray) && data.length === slice.length && results.length === slice.length;
  if (!isOurs || !results.every((/** @type {any} */ result) => typeof result?.status === "string")) throw foreign(200);
  return { ...answer, conflicts };
}

/** @param {import("./client.js").Result} result @param {import("./client.js").Row | null} row @param {any[]} conflicts @returns {Outcome} */
function outcomeOf(result, row, conflicts) {
  const own = conflicts.filter(({ table, id }) => table === result.table && id === result.id);
  return { result, row, conflicts: own };
}

/**
 * Push what was refused as a whole in halves; what is refused alone is rejected, so that it holds up nothing else.
 *
 * @param {import("./client.js").SyncClient} client @param {Outgoing[]} slice @param {Error} error @param {string} [baseCursor]
 * @returns {Promise<Outcome[]>}
 */
async function apart(client, slice, error, baseCursor) {
  const [{ table, data }] = slice;
  const rejected = { table, id: data.id, status: /** @type {const} */ ("rejected"), error: error.message };
  if (slice.length === 1) return [{ result: rejected, row: null, conflicts: [] }];
  const middle = slice.length >> 1;
  const first = await pushSlice(client, slice.slice(0, middle), baseCursor);
  return [...first, ...(await pushSlice(client, slice.slice(middle), baseCursor))];
}

/**
 * Send the whole row after an update of a row that the server did not know (a restore, a purge): the update alone made a
 * row of the changed fields only.
 *
 * @param {import("./client.js").SyncClient} client @param {Outgoing[]} slice @param {Outcome[]} outcomes
 */
async function completed(client, slice, outcomes) {
  const places = slice.flatMap(({ operation, whole }, place) =>
    whole && operation === "update" && outcomes[place].result.status === "created" ? [place] : [],
  );
  if (!places.length) return outcomes;
  const wholes = places.map((place) => wholeOf(slice[place], outcomes[place]));
  const found = await pushSlice(client, wholes, undefined);
  places.forEach((place, index) => (outcomes[place] = found[index]));
  return outcomes;
}

/** @param {Outgoing} operation @param {Outcome} outcome @returns {Outgoing} */
function wholeOf({ table, opId, timestamp, isReturned, whole }, { result }) {
  const data = ownFields({ ...whole, id: result.id });
  return { table, operation: "update", data, timestamp, isReturned, opId: `${opId.slice(0, 57)}.whole`, baseVersion: result.version };
}
