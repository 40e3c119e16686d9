/**
 * Edits, and how waiting edits cover the server's rows; without I/O.
 *
 * Knows: edits, bases, rebasing. Must not know: where they are kept, how they are sent. A row that has waiting edits is
 * kept twice: as the server has it (its base), and as the app sees it, which is the base with the edits applied in order.
 */

import { changedFields, ownFields } from "./operations.js";

/**
 * @typedef {Record<string, any>} Row
 * @typedef {{ number?: number, key: string, table: string, id: string, opId: string, operation: "create" | "update" | "delete",
 *   data: Row, timestamp: string, baseVersion: number, isReturned?: boolean, error?: string }} Edit
 *   one edit that waits in the outbox; `isReturned` if it gives back what a restore took
 */

/** Name a row across tables. @param {string} table @param {string} id */
export const keyOf = (table, id) => `${table}/${id}`;

/**
 * Make the edit that leads from one state of a row to the next.
 *
 * The version of a row that was read, and is put back, is what the edit was based on, however long a form was open: what
 * others did since is a conflict then, and a row that they deleted is not made anew.
 * @param {string} table @param {string} id @param {Row | undefined} before @param {Row | undefined} after
 * @param {{ opId: string, timestamp: string }} stamp @param {number} [readAt] the version of the row that was put back
 * @returns {Edit | undefined} nothing if nothing was edited
 */
export function editOf(table, id, before, after, stamp, readAt) {
  const known = before?.version ?? 0;
  const isStale = readAt !== undefined && (!before || readAt < known);
  // Version 0 says: I know nothing of such a row, so what others did to it is a conflict and not overwritten untold.
  const about = { key: keyOf(table, id), table, id, ...stamp, baseVersion: isStale ? readAt : known };
  if (!after) return before && { ...about, operation: "delete", data: { id } };
  if (!before && !isStale) return { ...about, operation: "create", data: { ...ownFields(after), id } };
  const { last_updated, device_id, ...data } = changedFields(before ?? {}, after);
  if (!isStale) Object.assign(data, defined({ last_updated, device_id })); // else they tell of an edit that is past
  return Object.keys(data).length ? { ...about, operation: "update", data: { ...data, id } } : undefined;
}

/** Give the fields that are given. @param {Row} row @returns {Row} */
export function defined(row) {
  return Object.fromEntries(Object.entries(row).filter(([, value]) => value !== undefined));
}

/**
 * Apply edits that wait to a row as the server has it.
 *
 * @param {Row | null} base null if the server has no such row, as far as is known @param {Edit[]} edits in their order
 * @returns {Row | undefined} the row as the app sees it, or nothing if it is deleted
 */
export function rebased(base, edits) {
  let row = base;
  for (const { operation, data } of edits) {
    if (operation === "delete") row = row && { ...row, is_deleted: 1 };
    else row = { ...row, ...data, ...(operation === "create" || !row ? { is_deleted: 0 } : undefined) };
  }
  return row && !row.is_deleted ? row : undefined;
}

/**
 * Make the operation of an edit; `whole` is for a server that does not know the row.
 *
 * @param {Edit} edit @param {Row | null | undefined} base
 * @returns {import("./operations.js").Outgoing}
 */
export function operationOf({ table, operation, data, timestamp, isReturned, baseVersion, opId }, base) {
  const whole = operation === "update" && base && !base.is_deleted ? { ...base, ...data } : undefined;
  return { table, operation, data, timestamp, isReturned, baseVersion, opId, whole };
}
