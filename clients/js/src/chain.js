/**
 * Decides which notifications a listener may rely on, without I/O.
 *
 * Knows: that all notifications of one push share `cursor` and `previousCursor` and end with `sync_complete`; that they
 * are delivered at most once. Must not know: sockets, where a cursor is kept. A listener that has seen everything up to
 * `previousCursor`, and gets every row with the notification, need not pull; any other must.
 */

/**
 * @typedef {import("./client.js").Row} Row
 * @typedef {{ type: string, entityType: string, entityId?: string, data?: any, count?: number, cursor?: string,
 *   previousCursor?: string }} Notification
 * @typedef {{ rows: { table: string, row: Row }[], previousCursor: string, cursor: string }} Link
 */

export class Chain {
  /** @type {{ table: string, row: Row }[]} */
  #rows = [];
  /** @type {string | undefined} */
  #cursor;
  #isWhole = true;

  /**
   * Take a notification.
   *
   * @param {Notification} note
   * @returns {Link | "pull" | undefined} a link when a push is complete with all its rows, `pull` when rows must be
   *   fetched, nothing while there is more to come
   */
  take(note) {
    if (note.cursor === undefined || note.previousCursor === undefined) return note.type === "data_available" ? "pull" : undefined;
    if (note.cursor !== this.#cursor) this.#begin(note.cursor);
    if (note.type === "data_available") this.#add(note);
    return note.type === "sync_complete" ? this.#end(note.previousCursor, note.cursor, note.count ?? 0) : undefined;
  }

  /** @param {string} cursor */
  #begin(cursor) {
    this.#cursor = cursor;
    this.#rows = [];
    this.#isWhole = true;
  }

  /** @param {Notification} note */
  #add(note) {
    if (note.entityId && note.data?.id === note.entityId) this.#rows.push({ table: note.entityType, row: note.data });
    else this.#isWhole = false;
  }

  /** @param {string} previousCursor @param {string} cursor @param {number} count @returns {Link | "pull"} */
  #end(previousCursor, cursor, count) {
    const rows = this.#rows;
    const isWhole = this.#isWhole && rows.length > 0 && rows.length === count;
    this.#cursor = undefined;
    return isWhole ? { rows, previousCursor, cursor } : "pull";
  }
}
