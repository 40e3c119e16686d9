/**
 * A replica's store in an app's own Dexie database: what the app writes with Dexie is tracked, in the same transaction.
 *
 * Knows: Dexie's stack (its `DBCore`). Must not know: what the stores hold, the network. Dexie itself is not imported.
 */

import { newId } from "./client.js";
import { editOf, keyOf } from "./edits.js";
import { versionOf } from "./operations.js";
import { BASES, OUTBOX, STORES } from "./store.js";
import { checkedFields, checkedId } from "./values.js";

/**
 * @typedef {import("dexie").DBCore} DBCore
 * @typedef {import("dexie").DBCoreTable} DBCoreTable
 * @typedef {import("dexie").DBCoreMutateRequest} Mutation
 * @typedef {import("./edits.js").Row} Row
 */

/** The stores to declare beside one's own: `db.version(1).stores({ end_user: "id, name", ...syncStores })`. */
export const syncStores = STORES;

/**
 * Track what is written to the synced tables, and give the store for `new Replica(client, store, tables)`.
 *
 * @param {import("dexie").Dexie} db not opened yet; its synced tables have the primary key `id`
 * @param {string[]} tables @returns {import("./store.js").Store}
 */
export function dexieStore(db, tables) {
  const tracker = new Tracker(tables);
  db.use({ stack: "dbcore", name: "syncapp", level: 1, create: (down) => tracker.over(down) });
  return {
    name: db.name,
    transaction: (mode, of, work) => run(db, tracker, mode, of, work),
    onLocal: (hear) => (tracker.hear = hear),
    onLost: (hear) => tellLoss(db, hear),
    close: () => db.close(),
  };
}

/**
 * Tell of a connection that was lost; Dexie opens it again by itself, if it may.
 *
 * @param {import("dexie").Dexie} db @param {(why: import("./store.js").Loss) => void} hear
 */
function tellLoss(db, hear) {
  db.on("versionchange", ({ newVersion }) => hear(newVersion === null ? "deleted" : "newer"));
  // Dexie's own event `close` comes with the app's closing too, and before 4.4.7 `hasBeenClosed` does not tell the two apart.
  db.on("ready", () => void db.backendDB().addEventListener("close", () => void reopened(db).then(() => hear("cleared"))), true);
}

/**
 * Open a database that the browser closed: it may fail until all is cleared, and Dexie tries once only.
 *
 * @param {import("dexie").Dexie} db
 */
async function reopened(db) {
  for (let tries = 0; tries < REOPENINGS; tries++) {
    await new Promise((resume) => setTimeout(resume, 10 << tries));
    try {
      return await db.open();
    } catch {
      db.close({ disableAutoOpen: false }); // else it stays closed with this error
    }
  }
}

/** Together they wait for ten seconds. */
const REOPENINGS = 10;

/**
 * @template T @param {import("dexie").Dexie} db @param {Tracker} tracker @param {IDBTransactionMode} mode
 * @param {string[]} tables @param {(tx: import("./store.js").Transaction) => Promise<T>} work
 */
async function run(db, tracker, mode, tables, work) {
  const stores = [...tables, ...Object.keys(STORES)];
  const done = db.transaction(mode === "readonly" ? "r" : "rw", stores, (tx) => {
    tracker.own.add(/** @type {any} */ (tx).idbtrans);
    return work({
      get: (store, key) => tx.table(store).get(key),
      put: (store, value) => tx.table(store).put(value),
      delete: (store, key) => tx.table(store).delete(key),
      all: (store, after) => (after ? tx.table(store).where(":id").above(after) : tx.table(store)).toArray(),
      deleteRange: (store, first, last) => tx.table(store).where(":id").between(first, last, true, true).delete(),
      count: (store) => tx.table(store).count(),
      editsOf: (key) => tx.table(OUTBOX).where("key").equals(key).sortBy("number"),
    });
  });
  return done.catch((error) => {
    if (isUnopened(error)) db.close({ disableAutoOpen: false }); // else it stays closed with this error
    throw error;
  });
}

/** Tell whether a database did not open, and the app has not closed it. @param {any} error */
function isUnopened(error) {
  if (error?.name !== "OpenFailedError" && error?.name !== "DatabaseClosedError") return false;
  const names = [];
  for (let inner = error; inner && names.length < 5; inner = inner.inner) names.push(inner.name);
  return names.includes("AbortError");
}

/** Notes every edit of a synced table in the outbox, in the edit's own transaction. */
class Tracker {
  /** Transactions of the replica itself, which notes its edits by itself. @type {WeakSet<object>} */
  own = new WeakSet();
  hear = () => {};

  /** @param {string[]} tables */
  constructor(tables) {
    this.tables = new Set(tables);
  }

  /** @param {DBCore} down @returns {Partial<DBCore>} */
  over(down) {
    return {
      ...down,
      transaction: (stores, mode, options) => {
        const isTracked = mode === "readwrite" && stores.some((store) => this.tables.has(store));
        return down.transaction(isTracked ? [...new Set([...stores, OUTBOX, BASES])] : stores, mode, options);
      },
      table: (name) => {
        const table = down.table(name);
        if (!this.tables.has(name)) return table;
        return { ...table, mutate: (request) => (this.own.has(request.trans) ? table.mutate(request) : this.#track(down, table, request)) };
      },
    };
  }

  /**
   * Carry out a mutation and note it. Promises are chained and not awaited: Dexie's know their transaction, and an `await`
   * would forget it.
   * @param {DBCore} down @param {DBCoreTable} table @param {Mutation} asked
   */
  #track(down, table, asked) {
    const { trans } = asked;
    const request = checked(table.name, asked);
    const named = (/** @type {string[]} */ ids) => ids.map((id) => keyOf(table.name, id));
    return idsOf(table, request, (ids) =>
      table.getMany({ trans, keys: ids }).then((befores) =>
        table.mutate(request).then((answer) =>
          down.table(BASES).getMany({ trans, keys: named(ids) }).then((bases) => {
            const found = editsOf(table.name, ids, request, answer, befores, bases);
            return this.#note(down, trans, found).then(() => answer);
          }),
        ),
      ),
    );
  }

  /** @param {DBCore} down @param {import("dexie").DBCoreTransaction} trans @param {{ edit: Row, base?: Row }[]} found */
  #note(down, trans, found) {
    if (!found.length) return Promise.resolve();
    /** @type {any} */ (trans).addEventListener("complete", () => this.hear(), { once: true });
    const bases = found.flatMap(({ base }) => base ?? []);
    const put = () => down.table(BASES).mutate({ type: "put", trans, values: bases });
    const edits = found.map(({ edit }) => edit);
    const added = down.table(OUTBOX).mutate({ type: "add", trans, values: edits });
    return bases.length ? added.then(put) : added;
  }
}

/**
 * Give an ID to each row that has none, and refuse what can't be sent; the transaction ends with the error.
 *
 * @param {string} table @param {Mutation} request @returns {Mutation} @throws {import("./errors.js").BadValue}
 */
function checked(table, request) {
  if (request.type !== "add" && request.type !== "put") return request;
  const values = request.values.map(({ id = newId(), ...value }) => ({ ...checkedFields(table, value), id: checkedId(id, `${table}.id`) }));
  return { ...request, values };
}

/**
 * @template T @param {DBCoreTable} table @param {Mutation} request @param {(ids: string[]) => Promise<T>} go
 * @returns {Promise<T>}
 */
function idsOf(table, request, go) {
  if (request.type === "delete") return go(request.keys);
  if (request.type !== "deleteRange") return go(request.values.map(({ id }) => id));
  const query = { index: table.schema.primaryKey, range: request.range };
  return table.query({ trans: request.trans, values: false, query }).then(({ result }) => go(result));
}

/**
 * Find what was edited; a base comes along where no edit of the row waits already.
 *
 * @param {string} table @param {string[]} ids @param {Mutation} request
 * @param {import("dexie").DBCoreMutateResponse} answer @param {(Row | undefined)[]} befores @param {(Row | undefined)[]} bases
 * @returns {{ edit: Row, base?: Row }[]}
 */
function editsOf(table, ids, request, answer, befores, bases) {
  return ids.flatMap((id, place) => {
    if (answer.failures[place]) return [];
    const [before, base] = [befores[place], bases[place]];
    // `put` may have dropped the version from a row that is edited again; its base still has it.
    const known = before && base ? { ...before, version: base.row?.version } : before;
    const after = "values" in request ? request.values[place] : undefined;
    const edit = editOf(table, id, known, after, { opId: newId(), timestamp: new Date().toISOString() }, after && versionOf(after));
    if (!edit) return [];
    return base || !before?.version ? { edit } : { edit, base: { key: edit.key, table, row: before } };
  });
}
