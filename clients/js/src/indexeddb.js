/**
 * A replica's store in plain IndexedDB.
 *
 * Knows: IndexedDB. Must not know: what the stores hold, the network.
 */

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
  let db = await opened(name);
  const missing = [...tables, ...Object.keys(STORES)].filter((store) => !db.objectStoreNames.contains(store));
  if (missing.length) {
    const version = db.version + 1;
    db.close();
    db = await opened(name, version, missing);
  }
  db.onversionchange = () => db.close(); // another tab knows more tables: this one must let it
  return { name, transaction: (mode, of, work) => run(db, mode, of, work), close: () => db.close() };
}

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
 * @template T @param {IDBDatabase} db @param {IDBTransactionMode} mode @param {string[]} tables
 * @param {(tx: import("./store.js").Transaction) => Promise<T>} work awaits nothing but the transaction's own promises
 * @returns {Promise<T>} when all is committed
 */
async function run(db, mode, tables, work) {
  const durability = /** @type {const} */ ({ durability: "strict" });
  const native = db.transaction([...tables, ...Object.keys(STORES)], mode, durability);
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
    all: (store) => answered(of(store).getAll()),
    count: (store) => answered(of(store).count()),
    editsOf: (key) => answered(of(OUTBOX).index("key").getAll(key)),
  };
}
