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
    /** @type {Record<string, Raw[]>} */
    const rows = Object.fromEntries(this.tables.map((table) => [table, []]));
    try {
      for await (const page of this.client.pages({ cursor: this.cursor, tables: this.tables })) {
        for (const table of this.tables) for (const row of page.data[table]) rows[table].push(row);
        this.reached = page.cursor;
      }
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      return this.#resync();
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
   * Begin anew: fetch all, give back what a restore lost, let go what the server no longer has.
   *
   * A record with edits that wait stays, and is pushed whole, without a base: edits cannot be compared with another
   * database. The refused cursor stays kept until a round had nothing to push, so that a crash on the way ends here again.
   */
  async #resync() {
    const { data, versions, isRestored, cursor } = await resyncOf(this.client, this.tables, this.cursor);
    const held = await this.#held();
    const lost = isRestored ? lostRows(held.filter(({ row }) => row._status === "synced").map(stripped), versions) : [];
    const returned = new Set((await pushOperations(this.client, lost)).map(({ result }) => `${result.table}/${result.id}`));
    for (const table of this.tables) {
      const gone = held.filter(({ table: its, row }) => its === table && !versions[table].has(row.id) && !returned.has(`${table}/${row.id}`));
      await this.#destroy(table, gone.map(({ row }) => row.id), true);
    }
    this.cursor = null;
    this.reached = cursor;
    return data;
  }

  /** @returns {Promise<{ table: string, row: Raw }[]>} */
  async #held() {
    const found = [];
    for (const table of this.tables) {
      for (const { _raw } of await this.database.get(table).query().fetch()) found.push({ table, row: this.#rowOf(table, _raw) });
    }
    return found;
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

  // --- push ----------------------------------------------------------------------------------------------------------

  /** @param {{ changes: Record<string, ChangeSet> }} asked */
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
    const stamp = (/** @type {Raw} */ raw) => this.#stampOf(table, raw, nonce);
    return [
      ...created.map((raw) => ({ ...stamp(raw), operation: /** @type {const} */ ("create"), data: this.#rowOf(table, raw, true) })),
      ...updated.map((raw) => this.#updateOf(table, raw, stamp(raw))),
      ...deleted.map((id) => ({ ...stamp({ id }), operation: /** @type {const} */ ("delete"), data: { id } })),
    ];
  }

  /** @param {string} table @param {Raw} raw @param {any} stamp */
  #updateOf(table, raw, stamp) {
    const whole = this.#rowOf(table, raw, true);
    const names = raw._changed.split(",").filter((/** @type {string} */ name) => name in whole);
    const data = Object.fromEntries(names.map((/** @type {string} */ name) => [name, whole[name]]));
    return { ...stamp, operation: /** @type {const} */ ("update"), data: { ...data, id: raw.id }, whole };
  }

  /**
   * Name an operation by its content, and by what changes after each push: a retry is known, and an edit that comes back
   * to an earlier value is not taken for one. Without a cursor nothing is known of the row, which version 0 says.
   * @param {string} table @param {Raw} raw @param {string} nonce
   */
  #stampOf(table, raw, nonce) {
    const edited = this.editedAt(raw, table);
    return {
      table,
      opId: sha256(canonical([nonce, table, raw])).slice(0, 48),
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

/** @param {any} record */
const isClean = (record) => record._raw._status === "synced";

/** @param {any} record */
function asCreated(record) {
  return record.prepareUpdate((/** @type {any} */ { _raw }) => {
    _raw._status = "created";
    _raw._changed = "";
  });
}

/** @param {{ table: string, row: Raw }} held */
function stripped({ table, row }) {
  const { _status, _changed, ...rest } = row;
  return { table, row: rest };
}

/** @param {string} type @param {unknown} value */
function valueFor(type, value) {
  if (value === null || value === undefined) return null;
  if (type === "boolean") return Boolean(value);
  if (type === "number") return typeof value === "number" ? value : Number(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}
