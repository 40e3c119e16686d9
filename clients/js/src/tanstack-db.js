/**
 * Collection options for TanStack DB.
 *
 * Knows: TanStack DB's sync and mutation contract. Must not know: HTTP, sockets. The contract: `begin`, `write`, `commit`
 * for what the server says, `markReady` once; a mutation handler must not resolve before what it wrote was pulled back,
 * or the row would flicker back to its old state between. A collection lives in memory: edits wait while the network is
 * away, as long as the page lives. What must survive a reload belongs into a `Replica`.
 */

import { newId } from "./client.js";
import { columnTypes, toLocal } from "./columns.js";
import { BadValue, isPassing, ResyncRequired, SyncError, WrongAccount } from "./errors.js";
import { changedFields, ownFields, pushOperations } from "./operations.js";
import { ELSEWHERE, incarnationOf } from "./resync.js";
import { Sweep } from "./sweep.js";
import { checkedFields, checkedId } from "./values.js";

/**
 * @typedef {import("./client.js").Row} Row
 * @typedef {{ begin(): void, write(message: any): void, commit(): unknown, truncate(): void, markReady(): void,
 *   markError(error?: unknown): void }} Sync
 * @typedef {{ type: "insert" | "update" | "delete", key: string, original: any, modified: any }} Mutation
 * @typedef {{ table: string, id?: string, retrySeconds?: number, onConflict?: (conflict: any) => void,
 *   onRenamed?: (names: { table: string, from: string, to: string }) => void, onError?: (error: Error) => void, [option: string]: any }} Options
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
export function syncappCollectionOptions(client, { table, retrySeconds = 2, onConflict, onRenamed, onError, ...rest }) {
  const synced = new Synced(client, table, { retrySeconds, onConflict, onRenamed, onError });
  const persist = (/** @type {any} */ { transaction }) => synced.push(transaction.mutations);
  return {
    id: table,
    getKey: (/** @type {Row} */ row) => row.id,
    rowUpdateMode: "full",
    schema: checkedSchema(table),
    sync: { sync: (/** @type {Sync} */ sync) => synced.begin(sync), rowUpdateMode: "full" },
    onInsert: persist,
    onUpdate: persist,
    onDelete: persist,
    utils: { refetch: () => synced.refetch(), pending: () => synced.pending, settled: () => synced.settled() },
    ...rest,
  };
}

/**
 * Refuse rows with values that JSON can't say as they are put; an app's own schema takes its place, and is asked instead.
 *
 * Source: the Standard Schema, by which TanStack DB validates.
 * @param {string} table
 */
function checkedSchema(table) {
  const validate = (/** @type {any} */ value) => {
    const message = problemOf(table, value);
    return message ? { issues: [{ message }] } : { value };
  };
  return { "~standard": { version: 1, vendor: "syncapp", validate } };
}

/** @param {string} table @param {any} row @returns {string | undefined} */
function problemOf(table, row) {
  try {
    checkedFields(table, row);
    if (row.id !== undefined) checkedId(row.id, `The ID of a row of ${table}`);
    return undefined;
  } catch (error) {
    if (error instanceof BadValue) return error.message;
    throw error;
  }
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
  /** @type {Promise<unknown>} */
  #order = Promise.resolve();
  #stop = new AbortController();
  /** Beginning anew, if that is under way. @type {Sweep | undefined} */
  #sweep;
  /** The account of this page's rows, once it is known. @type {string | undefined} */
  #account;
  /** The server's types of this table's columns. @type {Record<string, string> | undefined} */
  #types;
  /** By ids that rows were created with, those that the server has them under, and the version there. @type {Map<string, { id: string, baseVersion: number }>} */
  #renamed = new Map();
  /** Transactions whose turn has not come. @type {Set<Mutation[]>} */
  #waiting = new Set();
  /** Edits that the server has not confirmed. */
  pending = 0;

  /** @param {import("./client.js").SyncClient} client @param {string} table @param {any} options */
  constructor(client, table, { retrySeconds, onConflict, onRenamed, onError }) {
    this.client = client;
    this.client.deviceId ??= newId();
    this.table = table;
    this.retrySeconds = retrySeconds;
    this.onConflict = onConflict;
    this.onRenamed = onRenamed;
    this.onError = onError;
  }

  /** Begin a run of TanStack DB's: fetch, then listen. @param {Sync} sync @returns {() => void} ends it */
  begin(sync) {
    this.#stop = new AbortController();
    this.#sync = sync;
    this.#rows.clear();
    this.#cursor = null;
    this.#sweep = undefined;
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
    return this.#inOrder(() => this.#inTurn(async () => undefined));
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

  /**
   * Push one transaction after the other, also while the first is tried again: an edit must not overtake its row's creation.
   *
   * @template T @param {() => Promise<T>} work @returns {Promise<T>}
   */
  #inOrder(work) {
    const turn = this.#order.then(work, work);
    this.#order = turn.catch(() => undefined);
    return turn;
  }

  /** Try until the network is back, or the server. @template T @param {() => Promise<T>} work @param {AbortSignal} [signal] @returns {Promise<T>} */
  async #until(work, signal) {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        // Somebody else is logged in: what was typed waits for the one who typed it.
        if (error instanceof WrongAccount && !signal) this.onError?.(error);
        else if (!isPassing(error) || signal?.aborted) throw error;
        await new Promise((resume) => setTimeout(resume, this.retrySeconds * 1000));
      }
    }
  }

  // --- pull ----------------------------------------------------------------------------------------------------------

  async #pull() {
    await this.#settle();
    try {
      if (this.#sweep) await this.#swept(this.#sweep);
      for await (const { data, cursor } of this.client.pages({ cursor: this.#cursor, tables: [this.table] })) {
        this.#write(data[this.table] ?? []);
        this.#cursor = cursor;
      }
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      this.#sweep = new Sweep(this.client, [this.table], this.#cursor);
      await this.#pull();
    }
  }

  /** Refuse another account than the one whose rows these are, and know the columns' types. */
  async #settle() {
    this.#account = (await this.client.account(this.#account)) ?? this.#account;
    this.#types ??= (await columnTypes(this.client))[this.table] ?? {};
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
    if (!row.is_deleted) this.#sync?.write({ type: isKnown ? "update" : "insert", value: this.#shown(row) });
    else if (isKnown) this.#sync?.write({ type: "delete", key: row.id });
    const [kept, dropped] = row.is_deleted ? [this.#gone, this.#rows] : [this.#rows, this.#gone];
    kept.set(row.id, row);
    dropped.delete(row.id);
  }

  /** Give a row as the app sees it: a declared flag is true or false. @param {Row} row */
  #shown(row) {
    const flags = Object.entries(this.#types ?? {}).filter(([name, type]) => type === "boolean" && name in row && !MARKS.has(name));
    return { ...row, ...Object.fromEntries(flags.map(([name, type]) => [name, toLocal(row[name], type, "boolean")])) };
  }

  /** Begin anew, over the rows that are there, so that nobody sees an empty table. @param {Sweep} sweep */
  async #swept(sweep) {
    const held = () => [...this.#rows.values(), ...this.#gone.values()];
    while (!sweep.isDone) {
      const found = await sweep.page((_, ids) => held().filter(({ id }) => ids.includes(id)));
      this.#write(found.get(this.table) ?? []);
    }
    const { returned, gone } = await sweep.rest(this.table, [...this.#rows.values()]);
    this.#write([...returned, ...gone.map((row) => /** @type {Row} */ ({ ...row, is_deleted: 1 }))]);
    this.#cursor = sweep.cursor;
    this.#sweep = undefined;
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
    this.#waiting.add(mutations);
    try {
      const outcomes = await this.#inOrder(() => this.#until(() => this.#inTurn(() => this.#pushAndPull(operations, mutations))));
      for (const conflict of outcomes.flatMap(({ conflicts }) => conflicts)) this.onConflict?.(conflict);
      const rejected = outcomes.find(({ result }) => result.status === "rejected");
      if (rejected) throw rejectedFor(rejected.result.error);
    } finally {
      this.#waiting.delete(mutations);
      this.pending -= mutations.length;
    }
  }

  /** @param {import("./operations.js").Outgoing[]} operations @param {Mutation[]} mutations */
  async #pushAndPull(operations, mutations) {
    await this.#settle();
    this.#waiting.delete(mutations);
    for (const operation of operations) this.#follow(operation);
    if (mutations.some((mutation) => this.#isOfRefused(mutation))) throw rejectedFor("The row's creation was refused.");
    let outcomes;
    try {
      if (this.#sweep) await this.#pull();
      outcomes = await pushOperations(this.client, operations, { baseCursor: this.#cursor });
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      // A pull first, since this is another database by now: the operations' bases would be of the old one.
      const before = this.#cursor;
      await this.#pull();
      const isElsewhere = incarnationOf(before ?? "") !== incarnationOf(this.#cursor ?? "");
      for (const operation of operations) if (isElsewhere) Object.assign(operation, { baseVersion: operation.baseVersion && ELSEWHERE, opId: newId() });
      outcomes = await pushOperations(this.client, operations, { baseCursor: this.#cursor });
    }
    await this.#mend(operations, outcomes);
    operations.forEach((operation, place) => this.#noteId(operation, outcomes[place]));
    await this.#pull();
    return outcomes;
  }

  /** Note under which id the server has a row, if it is another. @param {import("./operations.js").Outgoing} sent @param {import("./operations.js").Outcome} outcome */
  #noteId({ data: { id: from } }, { row }) {
    if (!row || row.id === from) return;
    this.#renamed.set(from, { id: row.id, baseVersion: row.version });
    this.onRenamed?.({ table: this.table, from, to: row.id });
  }

  /** Have an edit that was typed before its row's creation was answered go to the id that the row has. @param {import("./operations.js").Outgoing} operation brought up to date */
  #follow(operation) {
    const renamed = operation.operation !== "create" && !operation.baseVersion && this.#renamed.get(operation.data.id);
    if (!renamed) return;
    operation.data = { ...operation.data, id: renamed.id };
    operation.baseVersion = renamed.baseVersion;
  }

  /**
   * Send a refused creation once more as its row is by now: an edit that waits may be the very repair.
   *
   * @param {import("./operations.js").Outgoing[]} operations @param {import("./operations.js").Outcome[]} outcomes brought up to date
   */
  async #mend(operations, outcomes) {
    for (const [place, { operation, opId, ...about }] of operations.entries()) {
      if (operation !== "create" || outcomes[place].result.status !== "rejected") continue;
      const edit = [...this.#waiting].flat().findLast(({ key }) => key === about.data.id);
      if (edit?.type !== "update") continue;
      const again = { ...about, operation, data: ownFields(edit.modified), opId: newId() };
      [outcomes[place]] = await pushOperations(this.client, [again], { baseCursor: this.#cursor });
    }
  }

  /**
   * Tell whether it edits a row whose creation was refused: both are taken back, and must not make a part of a row.
   *
   * @param {Mutation} mutation
   */
  #isOfRefused({ type, key, original }) {
    return type === "update" && !original?.version && !this.#renamed.has(key) && !this.#rows.has(key) && !this.#gone.has(key);
  }

  /** @param {Mutation} mutation @param {string} timestamp @returns {import("./operations.js").Outgoing} */
  #operationOf({ type, key, original, modified }, timestamp) {
    const message = type === "delete" ? undefined : problemOf(this.table, modified);
    if (message) throw rejectedFor(message);
    const about = { table: this.table, timestamp, opId: newId(), baseVersion: baseOf(original, modified) };
    if (type === "insert") return { ...about, operation: "create", data: ownFields(modified), baseVersion: 0 };
    if (type === "delete") return { ...about, operation: "delete", data: { id: key }, baseVersion: original?.version ?? 0 };
    const data = { ...changedFields(original, modified), id: key };
    return { ...about, operation: "update", data, whole: ownFields(modified) };
  }
}

/** Flags of the protocol, which stay as they are. */
const MARKS = new Set(["is_deleted", "server_synced"]);

/** Give the version that an edit was made on: that of the row as it was read, if an older one was put back. @param {any} original @param {any} modified */
function baseOf(original, modified) {
  const known = original?.version ?? 0;
  return Number.isInteger(modified?.version) && modified.version > 0 ? Math.min(modified.version, known) : known;
}

/** @param {string} [reason] */
const rejectedFor = (reason = "rejected") => new Rejected(reason, { code: "validation_error", status: 400 });
