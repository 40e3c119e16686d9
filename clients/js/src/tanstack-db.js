/**
 * Collection options for TanStack DB.
 *
 * Knows: TanStack DB's sync and mutation contract. Must not know: HTTP, sockets. The contract: `begin`, `write`, `commit`
 * for what the server says, `markReady` once; a mutation handler must not resolve before what it wrote was pulled back,
 * or the row would flicker back to its old state between. A collection lives in memory: edits wait while the network is
 * away, as long as the page lives. What must survive a reload belongs into a `Replica`.
 */

import { newId } from "./client.js";
import { isPassing, ResyncRequired, SyncError } from "./errors.js";
import { changedFields, ownFields, pushOperations } from "./operations.js";
import { lostRows, resyncOf } from "./resync.js";

/**
 * @typedef {import("./client.js").Row} Row
 * @typedef {{ begin(): void, write(message: any): void, commit(): unknown, truncate(): void, markReady(): void,
 *   markError(error?: unknown): void }} Sync
 * @typedef {{ type: "insert" | "update" | "delete", key: string, original: any, modified: any }} Mutation
 * @typedef {{ table: string, id?: string, retrySeconds?: number, onConflict?: (conflict: any) => void,
 *   onError?: (error: Error) => void, [option: string]: any }} Options
 *   what is not named here is passed on to `createCollection`
 */

/** What the server refused, by which TanStack DB takes the edit back. */
export class Rejected extends SyncError {}

/**
 * Give the options of `createCollection` for one table.
 *
 * @param {import("./client.js").SyncClient} client @param {Options} options
 * @returns {any} with `utils.refetch()`, `utils.pending()` and `utils.settled()`
 */
export function syncappCollectionOptions(client, { table, retrySeconds = 2, onConflict, onError, ...rest }) {
  const synced = new Synced(client, table, { retrySeconds, onConflict, onError });
  const persist = (/** @type {any} */ { transaction }) => synced.push(transaction.mutations);
  return {
    id: table,
    getKey: (/** @type {Row} */ row) => row.id,
    rowUpdateMode: "full",
    sync: { sync: (/** @type {Sync} */ sync) => synced.begin(sync), rowUpdateMode: "full" },
    onInsert: persist,
    onUpdate: persist,
    onDelete: persist,
    utils: { refetch: () => synced.refetch(), pending: () => synced.pending, settled: () => synced.settled() },
    ...rest,
  };
}

class Synced {
  /** What the server has, as the collection was told. @type {Map<string, Row>} */
  #rows = new Map();
  /** Tombstones: after a restore the server has such rows again, and should not. @type {Map<string, Row>} */
  #gone = new Map();
  /** @type {string | null} */
  #cursor = null;
  /** @type {Sync | undefined} */
  #sync;
  /** One thing at a time, in order. @type {Promise<unknown>} */
  #turn = Promise.resolve();
  #stop = new AbortController();
  /** Edits that the server has not confirmed. */
  pending = 0;

  /** @param {import("./client.js").SyncClient} client @param {string} table @param {any} options */
  constructor(client, table, { retrySeconds, onConflict, onError }) {
    this.client = client;
    this.client.deviceId ??= newId();
    this.table = table;
    this.retrySeconds = retrySeconds;
    this.onConflict = onConflict;
    this.onError = onError;
  }

  /** Begin a run of TanStack DB's: fetch, then listen. @param {Sync} sync @returns {() => void} ends it */
  begin(sync) {
    this.#stop = new AbortController();
    this.#sync = sync;
    this.#rows.clear();
    this.#cursor = null;
    const first = this.#until(() => this.#inTurn(() => this.#pull()), this.#stop.signal);
    first.then(() => sync.markReady(), (error) => this.#stop.signal.aborted || sync.markError(error));
    const live = this.client.live({ cursor: () => this.#cursor, onPull: () => void this.#pullSoon() });
    return () => {
      this.#stop.abort();
      live.close();
    };
  }

  /** Pull now. */
  refetch() {
    return this.#inTurn(() => this.#pull());
  }

  /** Wait until everything begun so far is done. */
  settled() {
    return this.#inTurn(async () => undefined);
  }

  async #pullSoon() {
    const { signal } = this.#stop;
    await this.#until(() => this.refetch(), signal).catch((error) => signal.aborted || this.onError?.(error));
  }

  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  #inTurn(work) {
    const turn = this.#turn.then(work, work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  /** Try until the network is back, or the server. @template T @param {() => Promise<T>} work @param {AbortSignal} [signal] @returns {Promise<T>} */
  async #until(work, signal) {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!isPassing(error) || signal?.aborted) throw error;
        await new Promise((resume) => setTimeout(resume, this.retrySeconds * 1000));
      }
    }
  }

  // --- pull ----------------------------------------------------------------------------------------------------------

  async #pull() {
    const wanted = { cursor: this.#cursor, tables: [this.table] };
    try {
      for await (const { data, cursor } of this.client.pages(wanted)) {
        this.#write(data[this.table]);
        this.#cursor = cursor;
      }
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      await this.#resync();
    }
  }

  /** @param {Row[]} rows */
  #write(rows) {
    if (!rows.length || !this.#sync) return;
    this.#sync.begin();
    for (const row of rows) this.#writeOne(row);
    this.#sync.commit();
  }

  /** @param {Row} row */
  #writeOne(row) {
    const isKnown = this.#rows.has(row.id);
    if (!row.is_deleted) this.#sync?.write({ type: isKnown ? "update" : "insert", value: row });
    else if (isKnown) this.#sync?.write({ type: "delete", key: row.id });
    const [kept, dropped] = row.is_deleted ? [this.#gone, this.#rows] : [this.#rows, this.#gone];
    kept.set(row.id, row);
    dropped.delete(row.id);
  }

  /** Begin anew, in one transaction, so that nobody sees an empty table. */
  async #resync() {
    const { known, isRestored, cursor } = await resyncOf(this.client, [this.table], this.#cursor);
    const held = [...this.#rows.values(), ...this.#gone.values()].map((row) => ({ table: this.table, row }));
    if (isRestored) await pushOperations(this.client, lostRows(held, known));
    this.#rows.clear();
    this.#sync?.begin();
    this.#sync?.truncate();
    for (const row of known[this.table].values()) this.#writeOne(row);
    this.#sync?.commit();
    this.#cursor = cursor;
    await this.#pull();
  }

  // --- push ----------------------------------------------------------------------------------------------------------

  /**
   * Push a transaction's mutations, and resolve when the collection has pulled what became of them.
   *
   * @param {Mutation[]} mutations @throws {Rejected} by which TanStack DB takes the edit back
   */
  async push(mutations) {
    const timestamp = new Date().toISOString();
    const operations = mutations.map((mutation) => this.#operationOf(mutation, timestamp));
    this.pending += mutations.length;
    try {
      const outcomes = await this.#until(() => this.#inTurn(() => this.#pushAndPull(operations)));
      for (const conflict of outcomes.flatMap(({ conflicts }) => conflicts)) this.onConflict?.(conflict);
      const rejected = outcomes.find(({ result }) => result.status === "rejected");
      if (rejected) throw new Rejected(rejected.result.error ?? "rejected", { code: "validation_error", status: 400 });
    } finally {
      this.pending -= mutations.length;
    }
  }

  /** @param {import("./operations.js").Outgoing[]} operations */
  async #pushAndPull(operations) {
    // A pull first, if this is another database by now: the operations' bases would be of the old one.
    let outcomes;
    try {
      outcomes = await pushOperations(this.client, operations, { baseCursor: this.#cursor });
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      await this.#pull();
      const unbased = operations.map((operation) => ({ ...operation, baseVersion: 0 }));
      outcomes = await pushOperations(this.client, unbased, { baseCursor: this.#cursor });
    }
    await this.#pull();
    return outcomes;
  }

  /** @param {Mutation} mutation @param {string} timestamp @returns {import("./operations.js").Outgoing} */
  #operationOf({ type, key, original, modified }, timestamp) {
    const about = { table: this.table, timestamp, opId: newId(), baseVersion: original?.version ?? 0 };
    if (type === "insert") return { ...about, operation: "create", data: ownFields(modified), baseVersion: 0 };
    if (type === "delete") return { ...about, operation: "delete", data: { id: key } };
    const data = { ...changedFields(original, modified), id: key };
    return { ...about, operation: "update", data, whole: ownFields(modified) };
  }
}
