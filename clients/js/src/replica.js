/**
 * An offline replica: rows and outbox in one database of the browser, in step with the server whenever it can be reached.
 *
 * Knows: when to push and to pull, and what a resync is. Must not know: which database keeps it, HTTP, sockets. An edit
 * and its place in the outbox are one transaction, and so are a page of rows and the cursor after it: wherever it is
 * stopped, it goes on from there.
 */

import { newId } from "./client.js";
import { editOf, operationOf } from "./edits.js";
import { ResyncRequired, Unreachable } from "./errors.js";
import { pushOperations } from "./operations.js";
import { lostRows, resyncOf } from "./resync.js";
import { BASES, forget, GONE, META, note, OUTBOX, place, REJECTED, settle, take } from "./store.js";
import { exclusive, lead, News } from "./tabs.js";

/**
 * @typedef {import("./edits.js").Row} Row
 * @typedef {import("./store.js").Transaction} Transaction
 * @typedef {{ state: "idle" | "syncing" | "offline" | "error", error?: Error }} Status
 */

const SLICE_EDITS = 1000;
const RETRY_SECONDS = 5;

export class Replica extends EventTarget {
  #stop = new AbortController();
  /** @type {import("./live.js").Live | undefined} */
  #live;
  /** @type {Promise<void> | undefined} */
  #running;
  #isWantedAgain = false;
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
    this.news = new News(store.name, (/** @type {any} */ told) => this.#hear(told));
    store.onLocal?.(() => this.#edited());
  }

  /**
   * Make or change a row: fields that are given are changed, `null` clears one, `undefined` is not given. It is on disk when
   * this resolves.
   *
   * @param {string} table @param {Row} fields with or without `id` @returns {Promise<Row>} the row as it is now
   */
  async put(table, { id = newId(), ...fields }) {
    const given = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
    const row = await this.#edit(table, id, (before) => ({ ...before, ...given, id }));
    return /** @type {Row} */ (row);
  }

  /** Delete a row; one that is not there is no error. @param {string} table @param {string} id */
  async delete(table, id) {
    await this.#edit(table, id, () => undefined);
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
    return (await this.#waiting(Infinity)).map(({ edit, base }) => ({ ...edit, base }));
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
      await exclusive(`${this.store.name}:sync`, () => this.#syncAlone());
      this.#tell({ state: "idle" });
    } catch (error) {
      this.#tell({ state: error instanceof Unreachable ? "offline" : "error", error: /** @type {Error} */ (error) });
      throw error;
    }
  }

  /** Sync by itself from now on: at each notification, each edit, each return of the network. One tab of all does it. */
  start() {
    this.#stop.abort();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    void lead(this.store.name, signal, () => this.#leading(signal));
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
    this.#stop.abort();
  }

  close() {
    this.stop();
    this.news.close();
    this.store.close();
  }

  /** @param {string} table @param {string} id @param {(before: Row | undefined) => Row | undefined} change */
  async #edit(table, id, change) {
    const stamp = { opId: newId(), timestamp: new Date().toISOString() };
    const row = await this.store.transaction("readwrite", [table], async (tx) => {
      const before = await tx.get(table, id);
      const after = change(before);
      const edit = editOf(table, id, before, after, stamp);
      if (edit) await note(tx, edit, before);
      if (edit) await (after ? tx.put(table, after) : tx.delete(table, id));
      return after;
    });
    this.#changed(table);
    this.#edited();
    return row;
  }

  // --- syncing -------------------------------------------------------------------------------------------------------

  async #syncAlone() {
    await this.#identify();
    const { cursor } = await this.store.transaction("readonly", [], place);
    try {
      if (cursor !== null) await this.#push(cursor);
      await this.#pull(cursor);
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      await this.#resync(cursor);
    }
    await this.#push((await this.store.transaction("readonly", [], place)).cursor);
  }

  /** Have a device ID of the replica's own, so that the server knows its edits from others'. */
  async #identify() {
    this.client.deviceId ??= await this.store.transaction("readwrite", [], async (tx) => {
      const kept = await tx.get(META, "device");
      if (!kept) await tx.put(META, { name: "device", id: newId() });
      return (kept ?? (await tx.get(META, "device"))).id;
    });
  }

  /** @param {string | null} cursor */
  async #push(cursor) {
    for (let waiting = await this.#waiting(); waiting.length; waiting = await this.#waiting()) {
      const edits = new Map(waiting.map(({ edit }) => [edit.opId, edit]));
      const operations = waiting.map(({ edit, base }) => operationOf(edit, base));
      await pushOperations(this.client, operations, {
        baseCursor: cursor,
        done: (sent, outcomes) => this.#settle(sent.map(({ opId }) => edits.get(opId)), outcomes),
      });
    }
  }

  /** Give the oldest edits that wait, each with its row's base. */
  #waiting(most = SLICE_EDITS) {
    return this.store.transaction("readonly", [], async (tx) => {
      const edits = (await tx.all(OUTBOX)).slice(0, most);
      return Promise.all(edits.map(async (edit) => ({ edit, base: (await tx.get(BASES, edit.key))?.row })));
    });
  }

  /** @param {any[]} edits @param {import("./operations.js").Outcome[]} outcomes */
  async #settle(edits, outcomes) {
    await this.store.transaction("readwrite", this.tables, async (tx) => {
      for (const [place, edit] of edits.entries()) await settle(tx, edit, outcomes[place]);
    });
    const of = (/** @type {string} */ status) => outcomes.filter(({ result }) => result.status === status);
    for (const { result } of of("rejected")) this.#dispatch("rejected", result);
    for (const { result, conflicts } of of("conflict")) this.#dispatch("conflict", { ...result, conflicts });
    this.#changed();
  }

  /** @param {string | null} since */
  async #pull(since) {
    for await (const { data, cursor } of this.client.pages({ cursor: since, tables: this.tables })) {
      await this.#take(data, cursor);
    }
  }

  /** Keep rows and the cursor after them, together. @param {Record<string, Row[]>} data @param {string} cursor */
  async #take(data, cursor) {
    await this.store.transaction("readwrite", this.tables, async (tx) => {
      for (const [table, rows] of Object.entries(data)) await take(tx, table, rows);
      await tx.put(META, { name: "place", cursor });
    });
    for (const [table, rows] of Object.entries(data)) if (rows.length) this.#changed(table);
  }

  /**
   * Begin anew without losing an edit: fetch all, give back what a restore lost, drop what the server no longer has.
   *
   * @param {string | null} before the cursor that is refused
   */
  async #resync(before) {
    const fresh = await resyncOf(this.client, this.tables, before);
    const held = await this.#held();
    if (fresh.isRestored) await pushOperations(this.client, lostRows(held, fresh.known));
    await this.store.transaction("readwrite", this.tables, async (tx) => {
      if (fresh.isRestored) for (const edit of await tx.all(OUTBOX)) await tx.put(OUTBOX, { ...edit, baseVersion: 0 });
      for (const { table, row } of held) if (!fresh.known[table].has(row.id)) await forget(tx, table, row.id);
      for (const table of this.tables) await take(tx, table, [...fresh.known[table].values()]);
      await tx.put(META, { name: "place", cursor: fresh.cursor });
    });
    this.#changed();
    await this.#pull(fresh.cursor);
  }

  /** Give all rows as the server last had them, deleted ones too. @returns {Promise<{ table: string, row: Row }[]>} */
  #held() {
    return this.store.transaction("readonly", this.tables, async (tx) => {
      const bases = new Map((await tx.all(BASES)).map((kept) => [kept.key, kept.row]));
      const alive = new Map();
      for (const table of this.tables) {
        for (const row of await tx.all(table)) alive.set(`${table}/${row.id}`, { table, row });
      }
      for (const [key, kept] of bases) if (kept) alive.set(key, { table: key.slice(0, key.indexOf("/")), row: kept });
      return [...alive.values(), ...(await tx.all(GONE)).filter(({ key }) => !alive.has(key))];
    });
  }

  // --- by itself -----------------------------------------------------------------------------------------------------

  /** @param {AbortSignal} signal */
  async #leading(signal) {
    await this.#identify();
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
      const { cursor: reached } = await this.store.transaction("readonly", [], place);
      if (reached !== previousCursor || rows.some(({ table }) => !this.tables.includes(table))) return reached === cursor;
      await this.#take(grouped(rows), cursor);
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

  // --- telling -------------------------------------------------------------------------------------------------------

  #edited() {
    this.news.tell({ edited: true });
    this.wake();
  }

  /** @param {{ edited?: boolean, table?: string }} told by another tab */
  #hear({ edited, table }) {
    if (edited) this.wake();
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
