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
import { columnTypes, toLocal, toServer } from "./columns.js";
import { ResyncRequired } from "./errors.js";
import { changedFields, isSame, ownFields, pushOperations } from "./operations.js";
import { lostRows, resyncOf } from "./resync.js";
import { sha256 } from "./sha256.js";

/**
 * @typedef {Record<string, any>} Doc
 * @typedef {{ cursor: string | null, fields?: string[], fill?: { cursor: string | null, fields: string[] } | null }} Checkpoint
 *   `cursor` is where the pull goes on; `fields` are those that the documents up to there have been given; `fill` is a pull
 *   from the start that gives them more, and where it goes on
 * @typedef {{ newDocumentState: Doc, assumedMasterState?: Doc }} WriteRow
 * @typedef {{ collection: any, table?: string, replicationIdentifier?: string, batchSize?: number,
 *   onRejected?: (doc: Doc, error: string) => void, onConflict?: (conflict: any) => void,
 *   onSignedOut?: (error: Error) => void, [option: string]: any }} Options
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
  const { onRejected, onConflict, onSignedOut, ...rest } = options;
  const handlers = new Handlers(client, collection, table, { onRejected, onConflict });
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
  /** @type {WeakMap<Doc, string>} */
  #names = new WeakMap();
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** Pushes that wait until a pull of this session has told which database it is. @type {Set<(error?: unknown) => void>} */
  #waiting = new Set();
  /** @type {string | null} */
  #cursor = null;
  /** The server's types of this table's columns. @type {Record<string, string> | undefined} */
  #types;

  /** @param {import("./client.js").SyncClient} client @param {any} collection @param {string} table @param {any} hear */
  constructor(client, collection, table, hear) {
    this.client = client;
    this.collection = collection;
    this.table = table;
    this.hear = hear;
    const { properties, primaryKey } = collection.schema.jsonSchema;
    this.kinds = new Map(Object.entries(properties).filter(([name]) => !name.startsWith("_")).map(([name, about]) => [name, kindOf(about)]));
    this.names = [...this.kinds.keys()];
    this.primary = typeof primaryKey === "string" ? primaryKey : primaryKey.key;
  }

  // --- pull ----------------------------------------------------------------------------------------------------------

  /** @param {Checkpoint | undefined} checkpoint @param {number} batchSize */
  pull = async (checkpoint, batchSize) => {
    const echo = [...this.#echo.entries()];
    const found = await this.#pulled(checkpoint, batchSize).catch((error) => this.#reached(error));
    /** @type {Map<string, Doc>} */
    const documents = new Map(echo);
    for (const row of found.rows) documents.set(row.id, row);
    for (const [id, row] of echo) if (this.#echo.get(id) === row) this.#echo.delete(id);
    this.#cursor = found.place.cursor;
    this.#reached();
    return { documents: [...documents.values()].map((row) => this.#docOf(row)), checkpoint: found.place };
  };

  /** @param {Checkpoint | undefined} checkpoint @param {number} limit @returns {Promise<{ rows: Doc[], place: Checkpoint }>} */
  async #pulled(checkpoint, limit) {
    await this.#described();
    // Documents without a checkpoint: a first pull was cut off, and a first pull has no tombstones of what went since.
    if (!checkpoint?.cursor && (await this.collection.count().exec())) return this.#resync(null);
    let place = this.#placeOf(checkpoint);
    /** @type {Doc[]} */
    const rows = [];
    try {
      for (let hasMore = true; hasMore && rows.length < limit; ) {
        const page = await this.client.pull({ cursor: (place.fill ?? place).cursor, tables: [this.table], limit });
        rows.push(...(page.data[this.table] ?? []));
        hasMore = page.hasMore || Boolean(place.fill);
        place = passed(place, page);
      }
    } catch (error) {
      if (error instanceof ResyncRequired) return this.#resync(place.cursor);
      throw error;
    }
    return { rows, place };
  }

  /**
   * Tell where to go on: from the start, if the schema has fields by now that the documents were never given.
   *
   * Deletions since `cursor` come after that, from `cursor` itself: a pull from the start has no tombstones.
   * @param {Checkpoint | undefined} checkpoint @returns {Checkpoint}
   */
  #placeOf(checkpoint) {
    if (!checkpoint?.cursor) return { cursor: null, fields: this.names, fill: null };
    const { cursor, fields = [], fill } = checkpoint;
    const covers = (/** @type {string[]} */ given) => this.names.every((name) => given.includes(name));
    if (fill && covers(fill.fields)) return checkpoint;
    return covers(fields) ? { cursor, fields, fill: null } : { cursor, fields, fill: { cursor: null, fields: this.names } };
  }

  /**
   * Give all rows in one answer, and a tombstone for each document that the server no longer has.
   *
   * @param {string | null} before the cursor that was refused @returns {Promise<{ rows: Doc[], place: Checkpoint }>}
   */
  async #resync(before) {
    const { known, isRestored, cursor } = await resyncOf(this.client, [this.table], before);
    const held = await this.#held([...known[this.table].keys()]);
    const lost = isRestored ? lostRows(held.map((/** @type {Doc} */ row) => ({ table: this.table, row })), known) : [];
    const returned = new Map((await pushOperations(this.client, lost)).map(({ result, row }) => [result.id, row]));
    const gone = held.filter((/** @type {Doc} */ { id, is_deleted }) => !is_deleted && !known[this.table].has(id) && !returned.has(id));
    const rows = new Map(/** @type {Map<string, Doc>} */ (known[this.table]));
    for (const [id, row] of returned) if (row) rows.set(id, row);
    for (const row of gone) rows.set(row.id, { ...row, is_deleted: 1 });
    return { rows: [...rows.values()], place: { cursor, fields: this.names, fill: null } };
  }

  /** Let pushes go on, or fail as the pull did. @param {unknown} [error] @returns {any} */
  #reached(error) {
    for (const go of this.#waiting) go(error);
    this.#waiting.clear();
    if (error) throw error;
  }

  /** Give what is stored: all documents, and the deleted ones of these IDs. @param {string[]} ids @returns {Promise<Doc[]>} */
  async #held(ids) {
    const alive = (await this.collection.find().exec()).map((/** @type {any} */ found) => found.toMutableJSON());
    const deleted = (await this.collection.storageInstance.findDocumentsById(ids, true)).filter((/** @type {Doc} */ doc) => doc._deleted);
    return [...alive, ...deleted].map((doc) => this.#rowOf(doc));
  }

  // --- push ----------------------------------------------------------------------------------------------------------

  /** @param {WriteRow[]} rows @returns {Promise<Doc[]>} the master rows of those in conflict */
  push = async (rows) => {
    if (this.#cursor === null) await new Promise((go, fail) => this.#waiting.add((error) => (error ? fail(error) : go(undefined))));
    const stamps = await this.#stamps(rows);
    const operations = rows.map((row, place) => this.#operationOf(row, stamps[place]));
    const outcomes = await this.#pushed(operations);
    const conflicts = rows.flatMap((row, place) => this.#settle(row, outcomes[place]) ?? []);
    this.#tell();
    return conflicts;
  };

  /** @param {import("./operations.js").Outgoing[]} operations */
  async #pushed(operations) {
    try {
      return await pushOperations(this.client, operations, { baseCursor: this.#cursor });
    } catch (error) {
      // Another database: the pull will find out too, and only then bases can be compared again.
      if (error instanceof ResyncRequired) this.#cursor = null;
      if (error instanceof ResyncRequired) this.#tell();
      throw error;
    }
  }

  /** @param {WriteRow} row @param {import("./operations.js").Outcome} outcome @returns {Doc | undefined} */
  #settle({ newDocumentState: doc }, { result, row, conflicts }) {
    if (result.status === "rejected") this.hear.onRejected?.(doc, result.error);
    for (const conflict of conflicts) this.hear.onConflict?.(conflict);
    if (!row || result.version === 0) return undefined;
    this.#echo.set(row.id, row);
    const master = this.#docOf(row);
    return result.status === "conflict" && !this.#isTaken(doc, master) ? master : undefined;
  }

  /** Tell whether the master row says what was typed. @param {Doc} doc @param {Doc} master */
  #isTaken(doc, master) {
    const names = Object.keys(ownFields(Object.fromEntries(this.names.map((name) => [name, null]))));
    return doc._deleted === master._deleted && names.every((name) => isSame(doc[name], master[name]));
  }

  /**
   * Name each edit, so that the server knows it if it comes again, and tell when it was made.
   *
   * RxDB gives states only. The revision of the stored document names its edit, also after a crash; if the document was
   * edited again meanwhile, the name holds for the retries of this call, which RxDB makes with the same objects.
   * @param {WriteRow[]} rows
   */
  async #stamps(rows) {
    const ids = rows.map(({ newDocumentState }) => newDocumentState[this.primary]);
    const stored = await this.collection.storageInstance.findDocumentsById(ids, true);
    const byId = new Map(stored.map((/** @type {any} */ found) => [found[this.primary], found]));
    return rows.map(({ newDocumentState: doc }) => {
      const found = /** @type {any} */ (byId.get(doc[this.primary]));
      const isIt = found && Object.keys(doc).every((name) => isSame(doc[name], found[name]));
      if (!this.#names.has(doc)) this.#names.set(doc, isIt ? this.#nameOf(found) : newId());
      const edited = new Date(isIt ? found._meta.lwt : Date.now());
      return { opId: /** @type {string} */ (this.#names.get(doc)), timestamp: edited.toISOString() };
    });
  }

  /** @param {any} found */
  #nameOf(found) {
    return sha256(`${this.client.deviceId}:${this.table}:${found[this.primary]}:${found._rev}`).slice(0, 48);
  }

  /**
   * @param {WriteRow} row @param {{ opId: string, timestamp: string }} stamp
   * @returns {import("./operations.js").Outgoing}
   */
  #operationOf({ newDocumentState, assumedMasterState: master }, stamp) {
    const doc = this.#rowOf(newDocumentState);
    // Version 0: nothing is known of such a row, so what others did to it counts as a conflict.
    const about = { table: this.table, baseVersion: master?.version ?? 0, ...stamp };
    if (newDocumentState._deleted && (!master || !master._deleted)) return { ...about, operation: "delete", data: { id: doc.id } };
    if (!master) return { ...about, operation: "create", data: ownFields(doc) };
    const data = { ...changedFields(this.#rowOf(master), doc), id: doc.id };
    return { ...about, operation: "update", data, whole: ownFields(doc) };
  }

  // --- documents and rows --------------------------------------------------------------------------------------------

  /** Know the server's types, from the first pull or push on. */
  async #described() {
    this.#types ??= (await columnTypes(this.client))[this.table] ?? {};
  }

  /** @param {Doc} row @returns {Doc} the fields that the schema has; a validator would not have `null` for a text */
  #docOf(row) {
    const entries = this.names.map((name) => [name, toLocal(row[name], this.#types?.[name], this.kinds.get(name))]);
    const fields = Object.fromEntries(entries.filter(([, value]) => value !== null));
    return { ...fields, [this.primary]: row.id, _deleted: Boolean(row.is_deleted) };
  }

  /** @param {Doc} doc @returns {Doc} */
  #rowOf(doc) {
    const entries = this.names.filter((name) => name in doc).map((name) => [name, toServer(doc[name], this.#types?.[name], this.kinds.get(name))]);
    return { ...Object.fromEntries(entries), id: doc[this.primary], is_deleted: doc._deleted ? 1 : 0 };
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
function passed({ cursor, fields, fill }, page) {
  if (!fill) return { cursor: page.cursor, fields, fill: null };
  if (page.hasMore) return { cursor, fields, fill: { ...fill, cursor: page.cursor } };
  return { cursor, fields: fill.fields, fill: null };
}

/** @type {Record<string, import("./columns.js").Kind>} */
const KINDS = { boolean: "boolean", number: "number", integer: "number", string: "text", object: "json", array: "json" };

/** Tell what a property of the schema takes. @param {{ type?: string | string[] }} property */
function kindOf({ type = [] }) {
  const types = [type].flat().filter((one) => one !== "null");
  return types.length === 1 ? KINDS[types[0]] : undefined;
}
