/**
 * An offline replica: rows and outbox in one database of the browser, in step with the server whenever it can be reached.
 *
 * Knows: when to push and to pull, and what a resync is. Must not know: which database keeps it, HTTP, sockets. An edit
 * and its place in the outbox are one transaction, and so are a page of rows and the cursor after it: wherever it is
 * stopped, it goes on from there.
 */

import { newId } from "./client.js";
import { defined } from "./edits.js";
import { BadValue, SyncError, Unreachable } from "./errors.js";
import { Exchange } from "./exchange.js";
import { versionOf } from "./operations.js";
import { edit } from "./outbox.js";
import { BASES, OUTBOX, place, REJECTED } from "./store.js";
import { exclusive, lead, News, queued } from "./tabs.js";
import { checkedFields, checkedId } from "./values.js";

/**
 * @typedef {import("./edits.js").Row} Row
 * @typedef {import("./store.js").Transaction} Transaction
 * @typedef {{ state: "idle" | "syncing" | "offline" | "error", error?: Error }} Status
 */

const RETRY_SECONDS = 5;

export class Replica extends EventTarget {
  #stop = new AbortController();
  /** @type {import("./live.js").Live | undefined} */
  #live;
  /** @type {Promise<void> | undefined} */
  #running;
  #isWantedAgain = false;
  #isStarted = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #again;

  /**
   * @param {import("./client.js").SyncClient} client @param {import("./store.js").Store} store @param {string[]} tables
   */
  constructor(client, store, tables) {
    super();
    this.client = client;
    this.store = store;
    this.tables = tables;
    this.exchange = new Exchange(client, store, tables, {
      changed: (table) => this.#changed(table),
      refused: ({ table, id, opId, error }) => this.#dispatch("rejected", { table, id, opId, error }),
      renamed: (names) => this.#dispatch("renamed", names),
      conflicted: ({ result, conflicts }) => this.#dispatch("conflict", { ...result, conflicts }),
    });
    this.news = new News(store.name, (/** @type {any} */ told) => this.#hear(told));
    store.onLocal?.(() => this.#edited());
    store.onLost?.((why) => this.#lost(why));
  }

  /**
   * Make or change a row: fields that are given are changed, `null` clears one, `undefined` is not given. It is on disk when
   * this resolves.
   *
   * A row that was read may be put back: its `version` tells what the edit was based on.
   * @param {string} table @param {Row} fields with or without `id` @returns {Promise<Row>} the row as it is now
   * @throws {BadValue} if it can't be sent as it is
   */
  async put(table, fields) {
    return (await this.putMany(table, [fields]))[0];
  }

  /**
   * Make or change many rows: all of them are on disk when this resolves, or none.
   *
   * @param {string} table @param {Row[]} rows @returns {Promise<Row[]>} the rows as they are now @throws {BadValue}
   */
  async putMany(table, rows) {
    const changes = rows.map((fields) => {
      const { id = newId(), ...given } = defined(checkedFields(table, fields));
      const isNew = fields.id === undefined;
      checkedId(id, `${table}.id`);
      const readAt = versionOf(given);
      const { version, ...own } = given;
      return { id, isNew, readAt, change: (/** @type {Row | undefined} */ before) => ({ ...before, ...own, id }) };
    });
    return /** @type {Promise<Row[]>} */ (this.#edit(table, changes));
  }

  /** Delete a row; one that is not there is no error. @param {string} table @param {string} id */
  async delete(table, id) {
    await this.#edit(table, [{ id: checkedId(id, `${table}.id`), change: () => undefined }]);
  }

  /** @param {string} table @param {string} id @returns {Promise<Row | undefined>} */
  get(table, id) {
    return this.store.transaction("readonly", [table], (tx) => tx.get(table, id));
  }

  /** Give the rows as the app sees them, edits that wait included. @param {string} table @returns {Promise<Row[]>} */
  all(table) {
    return this.store.transaction("readonly", [table], (tx) => tx.all(table));
  }

  /** Count the edits that the server has not confirmed. */
  pending() {
    return this.store.transaction("readonly", [], (tx) => tx.count(OUTBOX));
  }

  /**
   * List the edits that the server has not confirmed, in their order, each with the row as the server has it.
   *
   * @returns {Promise<(import("./edits.js").Edit & { base?: Row | null })[]>}
   */
  async outbox() {
    return this.store.transaction("readonly", [], outbox);
  }

  /** List the edits that the server will never take, each with its `error`. @returns {Promise<import("./edits.js").Edit[]>} */
  rejected() {
    return this.store.transaction("readonly", [], (tx) => tx.all(REJECTED));
  }

  /** Forget a rejected edit. @param {string} opId */
  dismiss(opId) {
    return this.store.transaction("readwrite", [], (tx) => tx.delete(REJECTED, opId));
  }

  /**
   * Call `hear` with the table's name (or nothing: any) whenever rows may have changed, in this tab or another.
   *
   * @param {(table?: string) => void} hear @returns {() => void} call it to stop
   */
  subscribe(hear) {
    const listener = (/** @type {any} */ event) => hear(event.detail);
    this.addEventListener("rows", listener);
    return () => this.removeEventListener("rows", listener);
  }

  /**
   * Send and fetch once, while no other tab does.
   *
   * @throws {import("./errors.js").SyncError} what was not sent waits for the next time
   */
  async sync() {
    this.#tell({ state: "syncing" });
    try {
      await exclusive(`${this.store.name}:sync`, () => this.exchange.round());
      this.#tell({ state: "idle" });
    } catch (cause) {
      const error = cause instanceof SyncError ? cause : new SyncError(`The database on this device failed: ${cause}`, { code: "replica_failed", cause });
      this.#tell({ state: error instanceof Unreachable ? "offline" : "error", error });
      throw error;
    }
  }

  /** Sync by itself from now on: at each notification, each edit, each return of the network. One tab of all does it. */
  start() {
    this.#isStarted = true;
    this.#stop.abort();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    void lead(this.store.name, signal, () => this.#leading(signal));
    void queued().then(() => this.news.tell({ tables: this.tables })); // Who leads and knows fewer lets this one.
    return this;
  }

  /**
   * Sync soon, if this is the tab that does: for an app that knows sooner than the browser that the network is back.
   *
   * All that ask while a round runs share the next one.
   */
  wake() {
    if (!this.#live) return;
    this.#isWantedAgain = true;
    this.#running ??= this.#rounds().finally(() => {
      this.#running = undefined;
      if (this.#isWantedAgain) this.wake(); // Asked for between the last look and now.
    });
  }

  /** Stop syncing by itself. */
  stop() {
    this.#isStarted = false;
    this.#stop.abort();
  }

  close() {
    this.stop();
    this.news.close();
    this.store.close();
  }

  /** @param {string} table @param {Parameters<typeof edit>[2]} changes */
  async #edit(table, changes) {
    if (!this.tables.includes(table)) throw new BadValue(`This replica has no table ${JSON.stringify(table)}, but ${this.tables.join(", ")}.`);
    const timestamp = new Date().toISOString();
    const rows = await this.store.transaction("readwrite", [table], (tx) => edit(tx, table, changes, timestamp));
    this.#changed(table);
    this.#edited();
    return rows;
  }

  // --- by itself -----------------------------------------------------------------------------------------------------

  /** @param {AbortSignal} signal */
  async #leading(signal) {
    await this.exchange.identify().catch(() => undefined); // The first round meets the same failure, and tells of it.
    if (signal.aborted) return;
    const wake = () => this.wake();
    globalThis.addEventListener?.("online", wake);
    this.#live = this.client.live({
      cursor: async () => (await this.store.transaction("readonly", [], place)).cursor,
      onPull: wake,
      onLink: (link) => void this.#follow(link).catch(wake), // A round meets the same failure, and tells of it.
      onNotification: (note) => this.#dispatch("notification", note),
      onState: (state) => this.#dispatch("live", state),
      onSignedOut: (error) => this.#tell({ state: "error", error }),
    });
    wake();
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    globalThis.removeEventListener?.("online", wake);
    clearTimeout(this.#again);
    this.#live.close();
    this.#live = undefined;
    await this.#running;
  }

  /** Take rows that came with a notification, if nothing lies between; else pull. @param {import("./chain.js").Link} link */
  async #follow({ rows, previousCursor, cursor }) {
    const isNext = await exclusive(`${this.store.name}:sync`, async () => {
      const { cursor: reached, tables = [] } = await this.store.transaction("readonly", [], place);
      const isFilled = this.tables.every((table) => tables.includes(table));
      if (reached !== previousCursor || !isFilled || rows.some(({ table }) => !this.tables.includes(table))) return reached === cursor;
      await this.exchange.take(grouped(rows), { cursor, tables: this.tables }, previousCursor);
      return true;
    });
    if (!isNext) this.wake();
  }

  async #rounds() {
    clearTimeout(this.#again);
    while (this.#isWantedAgain && this.#live) {
      this.#isWantedAgain = false;
      try {
        await this.sync();
      } catch {
        // The status has told of it. Who asked meanwhile may know that the network is back.
        if (this.#isWantedAgain) continue;
        if (this.#live) this.#again = setTimeout(() => this.wake(), RETRY_SECONDS * 1000);
        return;
      }
    }
  }

  /** @param {import("./store.js").Loss} why */
  #lost(why) {
    this.#dispatch("closed", why);
    this.#dispatch("rows", undefined);
    if (why === "newer") this.#yield();
    else this.wake();
  }

  /** Let a newer version of the app lead, which knows more tables, and queue behind it. */
  #yield() {
    if (this.#isStarted) this.start();
  }

  // --- telling -------------------------------------------------------------------------------------------------------

  #edited() {
    this.news.tell({ edited: true });
    this.wake();
  }

  /** @param {{ edited?: boolean, table?: string, tables?: string[] }} told by another tab */
  #hear({ edited, table, tables }) {
    if (tables?.some((one) => !this.tables.includes(one))) this.#yield();
    else if (edited || tables) this.wake();
    else this.#dispatch("rows", table);
  }

  /** @param {string} [table] */
  #changed(table) {
    this.#dispatch("rows", table);
    this.news.tell({ table });
  }

  /** @param {Status} status */
  #tell(status) {
    this.#dispatch("status", status);
  }

  /** @param {string} name @param {unknown} detail */
  #dispatch(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** @param {{ table: string, row: Row }[]} rows @returns {Record<string, Row[]>} */
function grouped(rows) {
  /** @type {Record<string, Row[]>} */
  const found = {};
  for (const { table, row } of rows) (found[table] ??= []).push(row);
  return found;
}

/** @param {Transaction} tx */
async function outbox(tx) {
  const edits = await tx.all(OUTBOX);
  const bases = await Promise.all(edits.map(({ key }) => tx.get(BASES, key)));
  return edits.map((edit, place) => ({ ...edit, base: bases[place]?.row ?? null }));
}
