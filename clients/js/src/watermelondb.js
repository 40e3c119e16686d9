/**
 * Sync for WatermelonDB, around its own `synchronize`.
 *
 * Knows: WatermelonDB's sync contract. Must not know: HTTP, sockets. The contract (watermelondb.dev, Sync): `timestamp` is
 * a number above 0, also of an empty tenant; one answer holds everything; a create of an existing ID is an update; a
 * pushed record says which columns changed, but not on which state of the row.
 *
 * The cursor is kept beside the timestamp and advances only after a round that had nothing to push. So at any time it is
 * the place at or before which every unpushed record was edited, and thus an honest `baseCursor`; and the round after a
 * push fetches what the server made of it, whether or not the answer arrived. A row that was deleted elsewhere while its
 * record was being edited here is not taken away before the edit is with the server.
 */

import { newId } from "./client.js";
import { ResyncRequired } from "./errors.js";
import { canonical, pushOperations } from "./operations.js";
import { lostRows, resyncOf } from "./resync.js";
import { sha256 } from "./sha256.js";
import { exclusive } from "./tabs.js";

/**
 * @typedef {Record<string, any>} Raw
 * @typedef {{ created: Raw[], updated: Raw[], deleted: string[] }} ChangeSet
 * @typedef {{ database: any, synchronize: (args: any) => Promise<void>, tables?: string[], json?: Record<string, string[]>,
 *   editedAt?: (raw: Raw, table: string) => number | undefined, onRejected?: (result: any) => void,
 *   onConflict?: (conflict: any) => void, [option: string]: any }} Options
 *   `json` names, by table, the text columns that hold JSON; `editedAt` tells when a record was edited, in milliseconds
 *   (default: its `updated_at`, which WatermelonDB touches); what is not named here is passed on to `synchronize`
 */

const CURSOR = "syncapp_cursor";
const NONCE = "syncapp_nonce";
const ROUNDS = 5;

/**
 * Make the function that syncs: `await sync()`.
 *
 * @param {import("./client.js").SyncClient} client with a `deviceId` that stays @param {Options} options
 * @returns {() => Promise<void>} one at a time; call it again after an error
 */
export function watermelonSync(client, options) {
  const { database } = options;
  const name = `watermelondb:${client.url}:${database.adapter.dbName ?? ""}`;
  return () => exclusive(name, () => new Round(client, options).run());
}

class Round {
  /** @param {import("./client.js").SyncClient} client @param {Options} options */
  constructor(client, { database, synchronize, tables, json = {}, editedAt, onRejected, onConflict, ...rest }) {
    this.client = client;
    this.database = database;
    this.synchronize = synchronize;
    this.tables = tables ?? Object.keys(database.schema.tables);
    this.json = json;
    this.editedAt = editedAt ?? ((/** @type {Raw} */ raw) => (raw.updated_at > 0 ? raw.updated_at : undefined));
    this.hear = { onRejected, onConflict };
    this.rest = rest;
    /** @type {string | null} */
    this.cursor = null;
    this.reached = "";
    this.isPushed = false;
    this.hasRejected = false;
  }

  /** Sync until a round has nothing to push. */
  async run() {
    for (let round = 0; round < ROUNDS; round++) {
      this.isPushed = this.hasRejected = false;
      await this.synchronize({
        sendCreatedAsUpdated: true,
        ...this.rest,
        conflictResolver: (/** @type {[string, Raw, Raw, Raw]} */ ...sides) => this.#resolved(...sides),
        database: this.database,
        pullChanges: (/** @type {any} */ asked) => this.#pull(asked),
        pushChanges: (/** @type {any} */ asked) => this.#push(asked),
      });
      if (!this.isPushed) await this.#keep(CURSOR, this.reached);
      if (!this.isPushed || this.hasRejected) return;
    }
  }

  // --- pull ----------------------------------------------------------------------------------------------------------

  /** @param {{ lastPulledAt?: number | null }} asked */
  async #pull({ lastPulledAt }) {
    // A database that was reset has no timestamp either.
    this.cursor = lastPulledAt ? ((await this.#kept(CURSOR)) ?? null) : null;
    const rows = await this.#pulled();
    const changes = Object.fromEntries(this.tables.map((table) => [table, this.#changesOf(table, rows[table])]));
    return { changes, timestamp: Math.max(Date.now(), (lastPulledAt ?? 0) + 1) };
  }

  /** @returns {Promise<Record<string, Raw[]>>} everything since the cursor; what is deleted has gone already */
  async #pulled() {
    if (this.cursor === null) return this.#snapshot(null);
    /** @type {Record<string, Raw[]>} */
    const rows = Object.fromEntries(this.tables.map((table) => [table, []]));
    try {
      for await (const page of this.client.pages({ cursor: this.cursor, tables: this.tables })) {
        for (const table of this.tables) for (const row of page.data[table]) rows[table].push(row);
        this.reached = page.cursor;
      }
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      return this.#snapshot(this.cursor);
    }
    for (const table of this.tables) await this.#destroy(table, rows[table].filter((row) => row.is_deleted).map(({ id }) => id));
    return rows;
  }

  /** @param {string} table @param {Raw[]} rows @returns {ChangeSet} */
  #changesOf(table, rows) {
    const updated = rows.filter((row) => !row.is_deleted).map((row) => this.#rawOf(table, row));
    return { created: [], updated, deleted: [] };
  }

  /**
   * Fetch all, give back what a restore lost, and let go what the server no longer has: a first pull has no tombstones.
   *
   * A record with edits that wait stays, and is pushed whole, without a base: edits cannot be compared with another
   * database. The refused cursor stays kept until a round had nothing to push, so that a crash on the way ends here again.
   * @param {string | null} before the cursor that is refused, if there was one
   */
  async #snapshot(before) {
    const { known, isRestored, cursor } = await resyncOf(this.client, this.tables, before);
    const held = await this.#held();
    const lost = isRestored ? lostRows(held.filter(({ row }) => row._status !== "created").map(unedited), known) : [];
    const returned = new Set((await pushOperations(this.client, lost)).map(({ result }) => `${result.table}/${result.id}`));
    for (const table of this.tables) {
      const gone = held.filter(({ table: its, row }) => its === table && !known[table].has(row.id) && !returned.has(`${table}/${row.id}`));
      await this.#destroy(table, gone.map(({ row }) => row.id), true);
    }
    this.cursor = null;
    this.reached = cursor;
    return Object.fromEntries(this.tables.map((table) => [table, [...known[table].values()]]));
  }

  /** Give all records, while nobody writes. @returns {Promise<{ table: string, row: Raw }[]>} */
  #held() {
    return this.database.read(async () => {
      const found = [];
      for (const table of this.tables) {
        for (const { _raw } of await this.database.get(table).query().fetch()) found.push({ table, row: this.#rowOf(table, _raw) });
      }
      return found;
    }, "syncapp-snapshot");
  }

  /**
   * Take records away, except those with edits that wait: within one writer, so that no edit slips in between.
   *
   * @param {string} table @param {string[]} ids @param {boolean} [isUnknown] the server does not know them: those that
   *   stay are to be created anew, with all their columns
   */
  async #destroy(table, ids, isUnknown = false) {
    if (!ids.length) return;
    const collection = this.database.get(table);
    await this.database.write(async () => {
      const wanted = new Set(ids);
      const found = (await collection.query().fetch()).filter((/** @type {any} */ { id }) => wanted.has(id));
      const [clean, edited] = [found.filter(isClean), found.filter((/** @type {any} */ record) => !isClean(record))];
      const again = isUnknown ? edited.map(asCreated) : [];
      await this.database.batch([...clean.map((/** @type {any} */ record) => record.prepareDestroyPermanently()), ...again]);
      const forgotten = (await this.database.adapter.getDeletedRecords(table)).filter((/** @type {string} */ id) => wanted.has(id));
      await this.database.adapter.destroyDeletedRecords(table, forgotten);
    }, "syncapp-deletions");
  }

  /**
   * Keep what was typed into a record that both sides created under one ID: WatermelonDB notes changed columns of updated
   * records only, and would take the server's row as it is.
   * @param {string} table @param {Raw} local @param {Raw} remote @param {Raw} resolved
   */
  #resolved(table, local, remote, resolved) {
    if (local._status === "created") Object.assign(resolved, filled(this.#rowOf(table, local, true), ""), this.#jsonOf(table, local));
    return this.rest.conflictResolver?.(table, local, remote, resolved) ?? resolved;
  }

  /** @param {string} table @param {Raw} raw @returns {Raw} the columns that hold JSON, as they are stored */
  #jsonOf(table, raw) {
    return Object.fromEntries((this.json[table] ?? []).filter((name) => raw[name]).map((name) => [name, raw[name]]));
  }

  // --- push ----------------------------------------------------------------------------------------------------------

  /**
   * Push what is waiting.
   *
   * An operation is named by its content and by a nonce that changes after each push: a retry is known as one, and an edit
   * that comes back to an earlier value is not taken for one.
   * @param {{ changes: Record<string, ChangeSet> }} asked
   */
  async #push({ changes }) {
    this.isPushed = true;
    const nonce = (await this.#kept(NONCE)) ?? (await this.#keep(NONCE, newId()));
    const operations = this.tables.flatMap((table) => this.#operationsOf(table, changes[table], nonce));
    const outcomes = await pushOperations(this.client, operations, { baseCursor: this.cursor });
    await this.#keep(NONCE, newId());
    for (const conflict of outcomes.flatMap(({ conflicts }) => conflicts)) this.hear.onConflict?.(conflict);
    return { experimentalRejectedIds: this.#rejected(outcomes) };
  }

  /** @param {import("./operations.js").Outcome[]} outcomes what stays rejected is tried again with the next sync */
  #rejected(outcomes) {
    /** @type {Record<string, string[]>} */
    const ids = {};
    for (const { result } of outcomes.filter(({ result }) => result.status === "rejected")) {
      this.hasRejected = true;
      (ids[result.table] ??= []).push(result.id);
      this.hear.onRejected?.(result);
    }
    return ids;
  }

  /** @param {string} table @param {ChangeSet} changes @param {string} nonce @returns {import("./operations.js").Outgoing[]} */
  #operationsOf(table, { created, updated, deleted }, nonce) {
    const named = (/** @type {any} */ operation, /** @type {Raw} */ raw, /** @type {Raw} */ data) => ({
      ...this.#stampOf(table, raw),
      operation,
      data,
      opId: sha256(canonical([nonce, table, operation, data])).slice(0, 48),
    });
    return [
      ...created.map((raw) => named("create", raw, filled(this.#rowOf(table, raw, true)))),
      ...updated.map((raw) => ({ ...named("update", raw, this.#changedOf(table, raw)), whole: this.#rowOf(table, raw, true) })),
      ...deleted.map((id) => named("delete", { id }, { id })),
    ];
  }

  /** @param {string} table @param {Raw} raw */
  #changedOf(table, raw) {
    const changed = new Set(["id", ...raw._changed.split(",")]);
    return Object.fromEntries(Object.entries(this.#rowOf(table, raw, true)).filter(([name]) => changed.has(name)));
  }

  /** Without a cursor nothing is known of the row, which version 0 says. @param {string} table @param {Raw} raw */
  #stampOf(table, raw) {
    const edited = this.editedAt(raw, table);
    return {
      table,
      ...(edited ? { timestamp: new Date(edited).toISOString() } : undefined),
      ...(this.cursor === null ? { baseVersion: 0 } : undefined),
    };
  }

  // --- records and rows ----------------------------------------------------------------------------------------------

  /** @param {string} table @param {Raw} row @returns {Raw} the columns that the schema has, in WatermelonDB's types */
  #rawOf(table, row) {
    /** @type {Raw} */
    const raw = { id: row.id };
    for (const { name, type } of Object.values(this.database.schema.tables[table].columns)) {
      if (name in row) raw[name] = valueFor(type, row[name]);
    }
    return raw;
  }

  /** @param {string} table @param {Raw} raw @param {boolean} [isOwn] without what is WatermelonDB's or the server's */
  #rowOf(table, raw, isOwn = false) {
    const json = this.json[table] ?? [];
    const entries = Object.entries(raw).filter(([name]) => !isOwn || !(name.startsWith("_") || SERVERS.has(name)));
    return Object.fromEntries(entries.map(([name, value]) => [name, json.includes(name) && value ? JSON.parse(value) : value]));
  }

  /** @param {string} key @returns {Promise<any>} */
  async #kept(key) {
    return (await this.database.adapter.getLocal(key)) ?? undefined;
  }

  /** @param {string} key @param {string} value */
  async #keep(key, value) {
    await this.database.adapter.setLocal(key, value);
    return value;
  }
}

const SERVERS = new Set(["sync_status", "version", "server_synced", "createdAt", "updatedAt", "is_deleted"]);

/** What a new row does not say gets the server's defaults. @param {Raw} row @param {unknown} [empty] */
const filled = (row, empty = null) => Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null && value !== empty));

/** @param {any} record */
const isClean = (record) => record._raw._status === "synced";

/** @param {any} record */
function asCreated(record) {
  return record.prepareUpdate((/** @type {any} */ { _raw }) => {
    _raw._status = "created";
    _raw._changed = "";
  });
}

/** Give what the server is known to have had of a record: its changed columns are pushed by themselves. @param {{ table: string, row: Raw }} held */
function unedited({ table, row }) {
  const edited = new Set(["_status", "_changed", ...row._changed.split(",")]);
  return { table, row: Object.fromEntries(Object.entries(row).filter(([name]) => !edited.has(name))) };
}

/** @param {string} type @param {unknown} value */
function valueFor(type, value) {
  if (value === null || value === undefined) return null;
  if (type === "boolean") return Boolean(value);
  if (type === "number") return typeof value === "number" ? value : Number(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}
