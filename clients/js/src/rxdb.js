/**
 * The handlers for RxDB's `replicateRxCollection`.
 *
 * Knows: RxDB's replication contract. Must not know: HTTP, sockets. The contract (rxdb.info/replication.html): a
 * checkpoint is an object; a page shorter than the batch size is the end; the answer of a push holds the conflicting
 * master rows and nothing else; deleted rows stay, marked. RxDB does not take a pulled row while an edit of it waits, and
 * does not ask for it again: so rows that a push gave back come once more with the next pull (`#echo`), and each push ends
 * in a `RESYNC`.
 */

import { newId } from "./client.js";
import { columnTypes } from "./columns.js";
import { BadValue, ResyncRequired } from "./errors.js";
import { pushOperations } from "./operations.js";
import { ELSEWHERE, lostRows } from "./resync.js";
import { Documents } from "./rxdb-documents.js";
import { askAgain, askedAgain, checkedDoc, refuseBadValues, settleAccount, settleDevice, tellDeviceApart } from "./rxdb-hooks.js";
import { Sweep } from "./sweep.js";

/**
 * @typedef {import("./rxdb-documents.js").Doc} Doc
 * @typedef {import("./rxdb-documents.js").WriteRow} WriteRow
 * @typedef {import("./operations.js").Outgoing} Outgoing
 * @typedef {import("./operations.js").Outcome} Outcome
 * @typedef {{ cursor: string | null, fields?: string[], fill?: { cursor: string | null, fields: string[] } | null,
 *   unbased?: string[], again?: string }} Checkpoint
 *   `cursor` is where the pull goes on; `fields` are those that the documents up to there have been given; `fill` is a pull
 *   from the start that gives them more, and where it goes on; `unbased` are documents with edits on a base that a restore took;
 *   `again` names the pull from the start that was asked for last and has begun
 * @typedef {{ rows: Doc[], place: Checkpoint, hasMore: boolean }} Page
 * @typedef {Page & { from: string, isStored: boolean }} Batch `isStored` tells whether RxDB has stored that it got to `place`
 * @typedef {{ collection: any, table?: string, replicationIdentifier?: string, batchSize?: number,
 *   onRejected?: (doc: Doc, error: string) => void, onConflict?: (conflict: any) => void,
 *   onRenamed?: (names: { table: string, from: string, to: string }) => void, onSignedOut?: (error: Error) => void, [option: string]: any }} Options
 *   what is not named here is passed on to `replicateRxCollection`
 */

/**
 * Give the options of `replicateRxCollection` for one collection.
 *
 * @param {import("./client.js").SyncClient} client with a `deviceId` that stays, one for each RxDB database
 * @param {Options} options `table` is the collection's name if not given. `onRejected` gets what the server will never
 *   take; the document stays as it was typed
 * @returns {any}
 */
export function rxdbReplication(client, { collection, table = collection.name, batchSize = 500, ...options }) {
  const { onRejected, onConflict, onRenamed, onSignedOut, ...rest } = options;
  const handlers = new Handlers(client, collection, table, { onRejected, onConflict, onRenamed });
  const live = rest.live !== false;
  const stream$ = live ? handlers.stream(onSignedOut) : undefined;
  return {
    replicationIdentifier: `syncapp:${client.url}:${table}`,
    collection,
    live,
    pull: { batchSize, handler: handlers.pull, stream$ },
    push: { batchSize, handler: handlers.push },
    ...rest,
  };
}

class Handlers {
  /** Rows of push answers that the next pull delivers (again). @type {Map<string, Doc>} */
  #echo = new Map();
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** Pushes that wait until a pull of this session has told which database it is. @type {Set<(error?: unknown) => void>} */
  #waiting = new Set();
  /** Up to where the documents are the server's; null until that is known. @type {string | null} */
  #cursor = null;
  /** A batch that is not whole yet: if a page fails, those before it are kept. @type {Batch | undefined} */
  #begun;
  /**
   * Up to where RxDB was given documents that it may not have stored: it asks for the next batch before. A pull from there is
   * anonymous, since an app that is closed meanwhile comes back with an earlier place, and would look like a copy.
   * @type {string | null | undefined}
   */
  #ahead;
  /** @type {Sweep | undefined} */
  #sweep;
  /** Documents with edits on a base of an incarnation that is lost, as far as they are known. @type {Map<string, Doc | undefined>} */
  #unbased = new Map();
  #isPushing = false;
  /** What the server answered to pushes of this session: the version, 0 if it refused. @type {Map<string, number>} */
  #confirmed = new Map();
  /** Why the last pull failed. @type {unknown} */
  #failure;
  /** @type {import("./columns.js").Types | undefined} */
  #types;

  /** @param {import("./client.js").SyncClient} client @param {any} collection @param {string} table @param {any} hear */
  constructor(client, collection, table, hear) {
    this.client = client;
    this.collection = collection;
    this.table = table;
    this.hear = hear;
    this.documents = new Documents(collection, table);
    refuseBadValues(collection, table, this.documents.primary);
    // Whose edits these are is known from now on, also if it is long before a first sync.
    void this.#account().catch(() => undefined);
  }

  /** Refuse to go on for another account than the one whose documents these are. */
  async #account() {
    await settleDevice(this.collection, this.client);
    await settleAccount(this.collection, this.client);
  }

  // --- pull ----------------------------------------------------------------------------------------------------------

  /** @param {Checkpoint | undefined} checkpoint @param {number} batchSize */
  pull = async (checkpoint, batchSize) => {
    this.#failure = undefined;
    const echo = [...this.#echo.entries()];
    const found = await this.#pulled(checkpoint, batchSize).catch((error) => this.#reached(error));
    /** @type {Map<string, Doc>} */
    const documents = new Map(echo);
    for (const row of found.rows) documents.set(row.id, row);
    for (const [id, row] of echo) if (this.#echo.get(id) === row) this.#echo.delete(id);
    if (documents.size < batchSize) this.#ahead = undefined;
    else if (found.place.cursor !== checkpoint?.cursor) this.#ahead = found.place.cursor;
    if (!this.#sweep) {
      this.#cursor = found.place.cursor;
      this.#reached();
    }
    return { documents: [...documents.values()].map((row) => this.documents.docOf(row)), checkpoint: found.place };
  };

  /** @param {Checkpoint | undefined} checkpoint @param {number} limit @returns {Promise<Page>} */
  async #pulled(checkpoint, limit) {
    await this.#account();
    this.#types ??= await columnTypes(this.client);
    this.documents.types = this.#types[this.table] ?? {};
    const from = JSON.stringify(checkpoint ?? null);
    if (this.#begun?.from !== from) {
      const isStored = (checkpoint?.cursor ?? null) !== this.#ahead;
      this.#begun = { from, rows: [], place: await this.#begin(checkpoint), hasMore: true, isStored };
    }
    const batch = this.#begun;
    batch.rows.push(...(await this.#unedited()));
    while (batch.hasMore && batch.rows.length < limit) {
      const { rows, ...next } = await (this.#sweep ? this.#swept(batch.place, this.#sweep) : this.#page(batch, limit));
      Object.assign(batch, next);
      batch.rows.push(...rows);
    }
    this.#begun = undefined;
    return { ...batch, place: { ...batch.place, unbased: [...this.#unbased.keys()] } };
  }

  /** @param {Checkpoint | undefined} checkpoint */
  async #begin(checkpoint) {
    for (const id of checkpoint?.unbased ?? []) this.#unbased.set(id, undefined);
    // Documents without a checkpoint: a first pull was cut off, and a first pull has no tombstones of what went since.
    if (!checkpoint?.cursor && (await this.collection.count().exec())) this.#sweep ??= new Sweep(this.client, [this.table], null);
    return this.#placeOf(checkpoint, await askedAgain(this.collection));
  }

  /** @param {Batch} batch @param {number} limit @returns {Promise<Page & { isStored?: boolean }>} */
  async #page({ place, isStored }, limit) {
    try {
      const { deviceId } = this.client;
      const isAnonymous = Boolean(place.fill) || !isStored;
      const page = await this.client.pull({ cursor: (place.fill ?? place).cursor, tables: [this.table], limit, isAnonymous });
      await tellDeviceApart(this.collection, this.client, deviceId, page);
      return { rows: page.data[this.table] ?? [], place: passed(place, page), hasMore: page.hasMore || Boolean(place.fill), isStored: isStored && Boolean(place.fill) };
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      this.#sweep = new Sweep(this.client, [this.table], place.cursor);
      this.documents.given = place.fields ?? [];
      return { rows: [], place, hasMore: true };
    }
  }

  /**
   * Give a page of all rows; in the end also a tombstone for each document that the server no longer has.
   *
   * What may have been edited here goes back with its edit: only then RxDB says on which state that was made.
   * @param {Checkpoint} place the refused one, until the end @param {Sweep} sweep @returns {Promise<Page>}
   */
  async #swept(place, sweep) {
    const found = await sweep.page(async (_, ids) => this.#clean(await this.documents.stored(ids), true));
    /** @type {Doc[]} */
    const rows = (found.get(this.table) ?? []).filter((row) => !this.#lost([this.#unbased.get(row.id)], [row]).length);
    if (!sweep.isDone) return { rows, place, hasMore: true };
    this.#sweep = undefined;
    const { returned, gone } = await this.#rest(sweep);
    rows.push(...returned, ...gone.map((row) => ({ ...row, is_deleted: 1 })));
    // RxDB keeps no checkpoint of a page without documents, and would be here again.
    if (!rows.length) rows.push(...(await this.#unedited()));
    if (this.#unbased.size) setTimeout(() => this.#tell());
    return { rows, place: { ...place, cursor: sweep.cursor, fields: this.documents.names, fill: null }, hasMore: false };
  }

  /** @param {Sweep} sweep */
  async #rest(sweep) {
    try {
      return await sweep.rest(this.table, this.#clean(await this.documents.alive(), sweep.isRestored));
    } catch (error) {
      this.#begun = undefined; // With the pages so far: all begins anew.
      throw error;
    }
  }

  /** Give the rows of documents; after a restore, only of those that hold no edit. @param {Doc[]} docs @param {boolean} isRestored */
  #clean(docs, isRestored) {
    const isEdited = (/** @type {Doc} */ doc) => isRestored && this.documents.isEdited(doc);
    for (const doc of docs.filter(isEdited)) this.#unbased.set(doc[this.documents.primary], this.documents.heldOf(doc));
    return docs.filter((doc) => !isEdited(doc)).map((doc) => this.documents.heldOf(doc));
  }

  /** Give back, after the restore of a backup, what looked edited and was not: all edits have been pushed. @returns {Promise<Doc[]>} */
  async #unedited() {
    if (this.#sweep || this.#isPushing || !this.#unbased.size) return [];
    const stored = await this.documents.stored([...this.#unbased.keys()]);
    const outcomes = await pushOperations(this.client, this.#lost(stored.map((doc) => this.documents.heldOf(doc))));
    this.#unbased.clear();
    return outcomes.flatMap(({ row }) => row ?? []);
  }

  /**
   * Tell where to go on: from the start, if the schema has fields by now that the documents were never given.
   *
   * Deletions since `cursor` come after that, from `cursor` itself: a pull from the start has no tombstones.
   * The same if it was asked for: others may have rows under ids whose documents were let go.
   * @param {Checkpoint | undefined} checkpoint @param {string} [again] @returns {Checkpoint}
   */
  #placeOf(checkpoint, again) {
    const { names } = this.documents;
    if (!checkpoint?.cursor) return { cursor: null, fields: names, fill: null, again };
    const { cursor, fields = [], fill } = checkpoint;
    const covers = (/** @type {string[]} */ given) => names.every((name) => given.includes(name));
    const isAsked = again !== checkpoint.again;
    if (!isAsked && fill && covers(fill.fields)) return checkpoint;
    return { cursor, fields, fill: isAsked || !covers(fields) ? { cursor: null, fields: names } : null, again };
  }

  /** Let pushes go on, or fail as the pull did. @param {unknown} [error] @returns {any} */
  #reached(error) {
    for (const go of this.#waiting) go(error);
    this.#waiting.clear();
    this.#failure = error;
    if (error) throw error;
  }

  // --- push ----------------------------------------------------------------------------------------------------------

  /** @param {WriteRow[]} rows @returns {Promise<Doc[]>} the master rows of those in conflict */
  push = async (rows) => {
    this.#isPushing = true;
    try {
      await this.#account();
      await this.#placed();
      const outcomes = await this.#pushed(rows);
      return rows.flatMap((row, place) => this.#settle(row, outcomes[place]) ?? []);
    } finally {
      this.#isPushing = false;
      this.#tell();
    }
  };

  /** Wait for a pull, which tells which database it is; while none can, fail as it did. @returns {Promise<void>} */
  async #placed() {
    if (this.#cursor !== null) return;
    if (this.#failure) throw this.#failure;
    await new Promise((go, fail) => this.#waiting.add((error) => (error ? fail(error) : go(undefined))));
  }

  /** @param {WriteRow[]} rows @returns {Promise<Outcome[]>} */
  async #pushed(rows) {
    const stamps = await this.documents.stamps(rows, this.client.deviceId);
    const made = rows.map((row, place) => this.#made(row, stamps[place]));
    const operations = made.flatMap(({ operation }) => operation ?? []);
    const bases = await this.#giveBackHeld(rows);
    for (const operation of operations) {
      if (bases.has(operation.data.id)) Object.assign(operation, { baseVersion: bases.get(operation.data.id), opId: newId() });
    }
    const outcomes = await this.#send(operations);
    if (outcomes.some(({ row }, place) => row && row.id !== operations[place].data.id)) await askAgain(this.collection);
    for (const row of rows) this.#unbased.delete(this.#idOf(row));
    return made.map(({ outcome }) => outcome ?? /** @type {Outcome} */ (outcomes.shift()));
  }

  /**
   * Make an edit's operation, or refuse it here: what can't be sent would hold up all others.
   *
   * @param {WriteRow} row @param {{ opId: string, timestamp: string }} stamp @returns {{ operation?: Outgoing, outcome?: Outcome }}
   */
  #made(row, stamp) {
    try {
      checkedDoc(this.table, row.newDocumentState, this.documents.primary);
      return { operation: this.documents.operationOf(row, stamp, this.#confirmed.get(this.#idOf(row))) };
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      const result = { table: this.table, id: this.#idOf(row), status: /** @type {const} */ ("rejected"), error: error.message };
      return { outcome: { result, row: null, conflicts: [] } };
    }
  }

  /** @param {WriteRow} row @returns {string} */
  #idOf({ newDocumentState: doc }) {
    return doc[this.documents.primary];
  }

  /**
   * Give back, ahead of edits, the states that they were made on and that a restore took.
   *
   * @param {WriteRow[]} rows @returns {Promise<Map<string, number>>} on which version each edit then is, by ID
   */
  async #giveBackHeld(rows) {
    const unbased = rows.filter((row) => row.assumedMasterState && this.#unbased.has(this.#idOf(row)));
    const held = unbased.flatMap(({ assumedMasterState: doc }) => (doc ? this.documents.heldOf(doc) : []));
    const outcomes = await pushOperations(this.client, this.#lost(held));
    const taken = outcomes.filter(({ result }) => result.status === "created" || result.status === "updated");
    const elsewhere = held.map(({ id }) => /** @type {const} */ ([id, ELSEWHERE]));
    return new Map([...elsewhere, ...taken.map(({ result }) => /** @type {const} */ ([result.id, result.version ?? ELSEWHERE]))]);
  }

  /** Make operations of what a restore took. @param {(Doc | undefined)[]} held @param {Doc[]} [there] what the server has of it */
  #lost(held, there = []) {
    const rows = held.flatMap((row) => (row ? { table: this.table, row } : []));
    return lostRows(rows, { [this.table]: new Map(there.map((row) => [row.id, /** @type {any} */ (row)])) });
  }

  /** @param {Outgoing[]} operations */
  async #send(operations) {
    try {
      return await pushOperations(this.client, operations, { baseCursor: this.#cursor });
    } catch (error) {
      // Another database: the pull will find out too, and only then bases can be compared again.
      if (error instanceof ResyncRequired) this.#cursor = null;
      throw error;
    }
  }

  /** @param {WriteRow} row @param {Outcome} outcome @returns {Doc | undefined} */
  #settle({ newDocumentState: doc }, { result, row, conflicts }) {
    if (result.status === "rejected") this.hear.onRejected?.(doc, result.error);
    if (row && row.id !== doc[this.documents.primary]) return this.#renamed(doc, row);
    if (row || !this.#confirmed.get(doc[this.documents.primary])) this.#confirmed.set(doc[this.documents.primary], row?.version ?? 0);
    for (const conflict of conflicts) this.hear.onConflict?.(conflict);
    if (!row || result.version === 0) return undefined;
    this.#echo.set(row.id, row);
    const master = this.documents.docOf(row);
    return result.status === "conflict" && !this.documents.isTaken(doc, master) ? master : undefined;
  }

  /**
   * Let a document go whose row the server has under another id: as a conflict that the master won, so that no deletion is sent.
   *
   * Its row comes with the next pull, and from the start whatever another device has under the old id. An edit that was
   * typed meanwhile finds the row by its `Unique_id`, as long as it states no base.
   * @param {Doc} doc @param {Doc} row @returns {Doc}
   */
  #renamed(doc, row) {
    const from = doc[this.documents.primary];
    this.#confirmed.delete(from);
    this.#echo.set(row.id, row);
    this.hear.onRenamed?.({ table: this.table, from, to: row.id });
    return { ...doc, _deleted: true };
  }

  // --- live ----------------------------------------------------------------------------------------------------------

  #tell() {
    for (const listener of this.#listeners) listener();
  }

  /** Make the pull stream: of an Observable, RxDB needs `subscribe`. @param {((error: Error) => void)} [onSignedOut] */
  stream(onSignedOut) {
    return {
      subscribe: (/** @type {{ next: (event: "RESYNC") => void }} */ observer) => {
        const next = () => observer.next("RESYNC");
        const live = this.client.live({ cursor: () => this.#cursor, onPull: next, onSignedOut });
        this.#listeners.add(next);
        const unsubscribe = () => {
          this.#listeners.delete(next);
          live.close();
        };
        return { unsubscribe };
      },
    };
  }
}

/** Take a page into account. @param {Checkpoint} place @param {import("./client.js").Pulled} page @returns {Checkpoint} */
function passed({ cursor, fields, fill, again }, page) {
  if (!fill) return { cursor: page.cursor, fields, fill: null, again };
  if (page.hasMore) return { cursor, fields, fill: { ...fill, cursor: page.cursor }, again };
  return { cursor, fields: fill.fields, fill: null, again };
}
