/**
 * A replica's store in plain IndexedDB.
 *
 * Knows: IndexedDB, and how a connection to it is lost and opened again. Must not know: what the stores hold, the network.
 */

import { SyncError } from "./errors.js";
import { OUTBOX, STORES } from "./store.js";

/** @param {IDBRequest} request @returns {Promise<any>} */
function answered(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * Open, or make, a database with one object store a table; `id` is the key.
 *
 * @param {string} name @param {string[]} tables another table may be added later
 * @returns {Promise<import("./store.js").Store>}
 */
export async function openIndexedDB(name, tables) {
  const connection = new Connection(name, [...tables, ...Object.keys(STORES)]);
  await connection.open();
  return {
    name,
    transaction: (mode, of, work) => connection.transaction(mode, of, work),
    onLost: (hear) => (connection.hear = hear),
    close: () => connection.close(),
  };
}

/** A connection that is made anew if it was lost: a newer version of the app, a person or the browser may end it. */
class Connection {
  /** @type {Promise<IDBDatabase> | undefined} */
  #db;
  #isClosed = false;
  /** @type {(why: import("./store.js").Loss) => void} */
  hear = () => {};

  /** @param {string} name @param {string[]} stores */
  constructor(name, stores) {
    this.name = name;
    this.stores = stores;
  }

  /** @returns {Promise<IDBDatabase>} */
  open() {
    if (this.#isClosed) throw new SyncError("This replica was closed.", { code: "closed" });
    this.#db ??= this.#opened().catch((error) => {
      this.#db = undefined;
      throw error;
    });
    return this.#db;
  }

  async #opened() {
    const db = await withStores(this.name, this.stores);
    // Another tab must not wait for this one.
    db.onversionchange = ({ newVersion }) => this.#lost(db, newVersion === null ? "deleted" : "newer");
    db.onclose = () => this.#lost(db, "cleared");
    return db;
  }

  /** @param {IDBDatabase} db @param {import("./store.js").Loss} why */
  #lost(db, why) {
    db.close();
    if (this.#isClosed) return;
    this.#db = undefined;
    this.hear(why);
  }

  /**
   * @template T @param {IDBTransactionMode} mode @param {string[]} tables
   * @param {(tx: import("./store.js").Transaction) => Promise<T>} work @returns {Promise<T>} when all is committed
   */
  async transaction(mode, tables, work) {
    const stores = [...tables, ...Object.keys(STORES)];
    const native = begun(await this.open(), mode, stores) ?? (await this.#again()).transaction(stores, mode, DURABLE);
    return run(native, work);
  }

  /** Open it again: nobody tells of every loss. @returns {Promise<IDBDatabase>} */
  #again() {
    this.#db?.then((db) => db.close());
    this.#db = undefined;
    return this.open();
  }

  close() {
    this.#isClosed = true;
    this.#db?.then((db) => db.close(), () => undefined);
  }
}

const DURABLE = /** @type {const} */ ({ durability: "strict" });

/** @param {IDBDatabase} db @param {IDBTransactionMode} mode @param {string[]} stores @returns {any} nothing if it is closed */
function begun(db, mode, stores) {
  try {
    return db.transaction(stores, mode, DURABLE);
  } catch (error) {
    if (LOST.has(/** @type {Error} */ (error).name)) return undefined;
    throw error;
  }
}

/** A connection that was closed, and one to a database that somebody else made meanwhile. */
const LOST = new Set(["InvalidStateError", "NotFoundError"]);

/** @param {string} name @param {string[]} stores @returns {Promise<IDBDatabase>} */
async function withStores(name, stores) {
  let db = await opened(name);
  for (let missing = lacking(db, stores); missing.length; missing = lacking(db, stores)) {
    const version = db.version + 1;
    db.close();
    db = await opened(name, version, missing).catch((error) => {
      if (error.name !== "VersionError") throw error;
      return opened(name); // Another tab was faster, and may have made them.
    });
  }
  return db;
}

/** @param {IDBDatabase} db @param {string[]} stores */
const lacking = (db, stores) => stores.filter((store) => !db.objectStoreNames.contains(store));

/** @param {string} name @param {number} [version] @param {string[]} [missing] @returns {Promise<IDBDatabase>} */
function opened(name, version, missing = []) {
  const request = indexedDB.open(name, version);
  request.onupgradeneeded = () => {
    const there = request.result.objectStoreNames;
    for (const store of missing) if (!there.contains(store)) makeStore(request.result, store);
  };
  return answered(request);
}

/** @param {IDBDatabase} db @param {string} store */
function makeStore(db, store) {
  const [key, ...indexes] = (STORES[store] ?? "id").split(", ");
  const made = db.createObjectStore(store, { keyPath: key.replace("++", ""), autoIncrement: key.startsWith("++") });
  for (const index of indexes) made.createIndex(index, index);
}

/**
 * @template T @param {IDBTransaction} native @param {(tx: import("./store.js").Transaction) => Promise<T>} work awaits nothing
 *   but the transaction's own promises
 * @returns {Promise<T>} when all is committed
 */
async function run(native, work) {
  const ended = new Promise((resolve, reject) => {
    native.oncomplete = () => resolve(undefined);
    native.onabort = () => reject(native.error ?? new Error("The transaction was aborted."));
  });
  ended.catch(() => undefined); // work's own error comes first
  let result;
  try {
    result = await work(wrapped(native));
  } catch (error) {
    try { native.abort(); } catch { /* it has ended by itself */ }
    throw error;
  }
  await ended;
  return result;
}

/** @param {IDBTransaction} native @returns {import("./store.js").Transaction} */
function wrapped(native) {
  const of = (/** @type {string} */ store) => native.objectStore(store);
  return {
    get: (store, key) => answered(of(store).get(key)),
    put: (store, value) => answered(of(store).put(value)),
    delete: (store, key) => answered(of(store).delete(key)),
    all: (store, after) => answered(of(store).getAll(after ? IDBKeyRange.lowerBound(after, true) : undefined)),
    deleteRange: (store, first, last) => answered(of(store).delete(IDBKeyRange.bound(first, last))),
    count: (store) => answered(of(store).count()),
    editsOf: (key) => answered(of(OUTBOX).index("key").getAll(key)),
  };
}
