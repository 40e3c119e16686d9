/**
 * What an edit is, and how edits that wait lie on top of the server's rows; without I/O.
 *
 * Knows: edits, bases, rebasing. Must not know: where they are kept, how they are sent. A row that has waiting edits is
 * kept twice: as the server has it (its base), and as the app sees it, which is the base with the edits applied in order.
 */

import { changedFields, ownFields } from "./operations.js";

/**
 * @typedef {Record<string, any>} Row
 * @typedef {{ number?: number, key: string, table: string, id: string, opId: string, operation: "create" | "update" | "delete",
 *   data: Row, timestamp: string, baseVersion: number, error?: string }} Edit one edit that waits in the outbox
 */

/** Name a row across tables. @param {string} table @param {string} id */
export const keyOf = (table, id) => `${table}/${id}`;

/**
 * Make the edit that leads from one state of a row to the next.
 *
 * @param {string} table @param {string} id @param {Row | undefined} before @param {Row | undefined} after
 * @param {{ opId: string, timestamp: string }} stamp
 * @returns {Edit | undefined} nothing if nothing was edited
 */
export function editOf(table, id, before, after, stamp) {
  // Version 0 says: I know nothing of such a row, so what others did to it is a conflict and not overwritten untold.
  const about = { key: keyOf(table, id), table, id, ...stamp, baseVersion: before?.version ?? 0 };
  if (!after) return before && { ...about, operation: "delete", data: { id } };
  if (!before) return { ...about, operation: "create", data: { ...ownFields(after), id } };
  const data = changedFields(before, after);
  return Object.keys(data).length ? { ...about, operation: "update", data: { ...data, id } } : undefined;
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
export function operationOf({ table, operation, data, timestamp, baseVersion, opId }, base) {
  const whole = operation === "update" && base && !base.is_deleted ? { ...base, ...data } : undefined;
  return { table, operation, data, timestamp, baseVersion, opId, whole };
}
