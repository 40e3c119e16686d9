// An app's own copy of the end_user rows, and how it catches up. It knows calls and rows, and nothing of the page.

import { post } from "./api.js";

const TABLE = "end_user";
const PAGE_ROWS = 1000;

/** Give an ID for a row or an operation. crypto.randomUUID is missing where a phone opens the page without TLS. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** `changed(ids)` is called after each page of rows, with the IDs that are new or differ. */
export class Replica {
  constructor(session, device, changed) {
    this.session = session;
    this.device = device;
    this.changed = changed;
    this.rows = new Map();
    this.cursor = null;
    this.running = null;
    this.isAskedAgain = false;
  }

  /** Send one change. Its ID and its opId are made here, so that it can be sent again and still counts once. */
  send(operation, data, baseVersion) {
    const change = { table: TABLE, operation, data, opId: newId(), timestamp: new Date().toISOString() };
    if (baseVersion !== undefined) change.baseVersion = baseVersion;
    return this.#post("push", { operations: [change] });
  }

  /** Pull all there is. A call during a pull makes one more follow, as it may have begun too early to see a change. */
  catchUp() {
    if (this.running) {
      this.isAskedAgain = true;
      return this.running;
    }
    this.running = this.#pullAll().finally(() => {
      this.running = null;
    });
    return this.running;
  }

  async #pullAll() {
    let page;
    do {
      this.isAskedAgain = false;
      page = await this.#pullPage();
      this.#take(page.data[TABLE]);
      this.cursor = page.cursor;
      this.changed(page.data[TABLE].map((row) => row.id));
    } while (page.hasMore || this.isAskedAgain);
  }

  /** Pull a page. If the server can no longer say what changed since our cursor, begin anew. */
  async #pullPage() {
    try {
      return await this.#post("pull", { cursor: this.cursor, entityTypes: [TABLE], limit: PAGE_ROWS });
    } catch (error) {
      if (error.code !== "resync_required" || this.cursor === null) throw error;
      this.rows.clear();
      this.cursor = null;
      return this.#pullPage();
    }
  }

  #take(rows) {
    for (const row of rows) {
      if (row.is_deleted) this.rows.delete(row.id);
      else this.rows.set(row.id, row);
    }
  }

  #post(call, body) {
    const { server, token } = this.session;
    return post(server, `/api/client/sync/${call}`, body, { token, device: this.device });
  }
}
