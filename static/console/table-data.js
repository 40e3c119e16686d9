// The rows of one table as the server has them: fetched page by page, kept in a worker, followed from then on.
//
// All rows are pulled once, and searched here: a search on the server would read every row for each letter that somebody
// types, and no device's push should wait for that. What was pulled can be searched before the rest is here, and offline.

import { ResyncRequired, SyncError, Unreachable } from "/static/client/index.js";
import { coalesced } from "../pace.js";

const PAGE_ROWS = 2000;
const FIRST_ROWS = 200;
const RETRY_MS = 5000;

export class TableData extends EventTarget {
  held = 0;
  isWhole = false;
  problem = "";
  #worker = new Worker(new URL("rows-worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #asked = 0;
  #cursor = null;

  constructor(session, table) {
    super();
    this.session = session;
    this.table = table;
    this.#worker.onmessage = ({ data: { number, result } }) => {
      this.#waiting.get(number)(result);
      this.#waiting.delete(number);
    };
  }

  close() {
    this.#worker.terminate();
  }

  /** Give a page of rows; see `RowIndex.page`. */
  page(wanted) {
    return this.#ask("page", wanted);
  }

  get(id) {
    return this.#ask("get", id);
  }

  /** Fetch what is new, from the start at first. What fails is told, and tried again at the next call. */
  follow = coalesced(async () => {
    try {
      await this.#pull();
      this.problem = "";
    } catch (error) {
      if (!(error instanceof SyncError)) throw error;
      this.problem = error.message;
      if (error instanceof Unreachable && !this.isWhole) setTimeout(() => this.follow(), RETRY_MS);
    }
    this.#changed();
  });

  async #pull() {
    try {
      for (let hasMore = true; hasMore; ) hasMore = await this.#pullPage();
      this.isWhole = true;
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      [this.#cursor, this.held, this.isWhole] = [null, 0, false];
      await this.#ask("clear");
      await this.#pull();
    }
  }

  async #pullPage() {
    const limit = this.#cursor === null ? FIRST_ROWS : PAGE_ROWS; // Something is in sight at once.
    const wanted = { cursor: this.#cursor, tables: [this.table], limit, deleted: true, isAnonymous: true };
    const page = await this.session.run((client) => client.pull(wanted));
    const rows = page.data[this.table] ?? [];
    if (rows.length) this.held = await this.#ask("take", rows);
    this.#cursor = page.cursor;
    if (rows.length) this.#changed();
    return page.hasMore;
  }

  #ask(action, about) {
    const number = ++this.#asked;
    this.#worker.postMessage({ number, action, about });
    return new Promise((resolve) => this.#waiting.set(number, resolve));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
