/**
 * Sync for WatermelonDB, around its own `synchronize`.
 *
 * Knows: WatermelonDB's sync contract. Must not know: HTTP, sockets. The contract (watermelondb.dev, Sync): `timestamp` is
 * a number above 0, also of an empty tenant; a create of an existing ID is an update; a pushed record says which columns
 * changed, but not on which state of the row.
 *
 * Each page is one `synchronize` without a push, and then kept with the place after it; the push has one of its own. Beside
 * that place a base is kept, which advances only after a round that had nothing to push: so at any time it is a place at or
 * before which every unpushed record was edited, and an honest `baseCursor`. A row that was deleted elsewhere while its
 * record was being edited here is not taken away before the edit is with the server.
 */

import { newId } from "./client.js";
import { columnTypes } from "./columns.js";
import { goBy, tellApart } from "./device.js";
import { ResyncRequired } from "./errors.js";
import { pushOperations } from "./operations.js";
import { ELSEWHERE } from "./resync.js";
import { Sweep } from "./sweep.js";
import { exclusive } from "./tabs.js";
import { Records } from "./watermelon-records.js";
import { Renames } from "./watermelon-renames.js";
import { Tombstones } from "./watermelon-tombstones.js";

/**
 * @typedef {import("./watermelon-records.js").Raw} Raw
 * @typedef {import("./watermelon-records.js").ChangeSet} ChangeSet
 * @typedef {Map<string, Raw[]>} Rows by table
 * @typedef {{ cursor: string | null, columns: Record<string, string[]>, fill: { cursor: string | null, tables: string[] } | null }} Place
 *   `cursor` is where the pull goes on; `columns` are those, by table, that records up to there have been given; `fill` is a
 *   pull from the start for tables that have more by now, and where it goes on
 * @typedef {{ database: any, synchronize: (args: any) => Promise<void>, tables?: string[], json?: Record<string, string[]>,
 *   dates?: Record<string, string[]>, editedAt?: (raw: Raw, table: string) => number | undefined,
 *   onRejected?: (result: any) => void, onConflict?: (conflict: any) => void,
 *   onRenamed?: (names: { table: string, from: string, to: string }) => void, [option: string]: any }} Options
 *   `json` and `dates` name, by table, columns that hold JSON or times and that the server does not know as such; `editedAt`
 *   tells when a record was edited, in milliseconds (default: its `updated_at`, which WatermelonDB touches); what is not
 *   named here is passed on to `synchronize`
 */

const BASE = "syncapp_cursor";
const PLACE = "syncapp_place";
const ACCOUNT = "syncapp_account";
const NONCE = "syncapp_nonce";
const ANSWERED = "syncapp_answered";
const DEVICE = "syncapp_device";
const ROUNDS = 5;
/** In place of a base: edits were made on a database that a restore has replaced. */
const LOST = "-";

/**
 * Make the function that syncs: `await sync()`.
 *
 * @param {import("./client.js").SyncClient} client with a `deviceId` that stays @param {Options} options
 * @returns {() => Promise<void>} one at a time; call it again after an error
 */
export function watermelonSync(client, options) {
  const { database } = options;
  const name = `watermelondb:${client.url}:${database.adapter.dbName ?? ""}`;
  const sync = new Sync(client, options);
  return () => exclusive(name, () => sync.run());
}

class Sync {
  /** Beginning anew, if that is under way. @type {{ sweep: Sweep, held: Rows } | undefined} */
  #anew;
  /** @type {Place} */
  #place = { cursor: null, columns: {}, fill: null };
  /** Whether WatermelonDB has not said yet that it has the last page. */
  #isUnkept = false;
  #hasMore = false;
  #isPushed = false;
  #hasRejected = false;
  /** @type {import("./columns.js").Types | undefined} */
  #types;

  /** @param {import("./client.js").SyncClient} client @param {Options} options */
  constructor(client, { database, synchronize, tables, json = {}, dates = {}, editedAt, onRejected, onConflict, onRenamed, ...rest }) {
    this.client = client;
    this.database = database;
    this.synchronize = synchronize;
    this.tables = tables ?? Object.keys(database.schema.tables);
    const touchedAt = (/** @type {Raw} */ raw) => (raw.updated_at > 0 ? raw.updated_at : undefined);
    this.records = new Records(database.schema, json, dates, editedAt ?? touchedAt);
    this.tombstones = new Tombstones(database.adapter);
    this.renames = new Renames(database);
    this.hear = { onRejected, onConflict, onRenamed };
    this.rest = rest;
    /** All columns, by table. @type {Record<string, string[]>} */
    this.columns = Object.fromEntries(this.tables.map((table) => [table, this.records.columnsOf(table).map(({ name }) => name)]));
  }

  /** Sync until a round has nothing to push. */
  async run() {
    goBy(this.client, await this.#keptName());
    await this.#settleAccount();
    if (this.#isUnkept) this.#anew = undefined;
    this.#types ??= await columnTypes(this.client);
    this.records.types = this.#types;
    this.#place = await this.#keptPlace();
    await this.renames.load();
    for (let round = 0; round < ROUNDS; round++) {
      do await this.#exchange({ pullChanges: (/** @type {any} */ asked) => this.#pull(asked) });
      while (await this.#kept());
      this.#isPushed = this.#hasRejected = false;
      await this.#exchange({
        pullChanges: (/** @type {any} */ asked) => this.#given(new Map(), asked),
        pushChanges: (/** @type {any} */ asked) => this.#push(asked),
      });
      if (!this.#isPushed) await this.#keep(BASE, this.#place.cursor ?? "");
      if (!this.#isPushed || this.#hasRejected) return;
    }
  }

  /** @param {Record<string, unknown>} work */
  #exchange(work) {
    return this.synchronize({
      sendCreatedAsUpdated: true,
      ...this.rest,
      conflictResolver: (/** @type {[string, Raw, Raw, Raw]} */ ...sides) => this.#resolved(...sides),
      database: this.database,
      ...work,
    });
  }

  /** Refuse another account than the one whose records these are. */
  async #settleAccount() {
    const kept = await this.#read(ACCOUNT);
    const account = await this.client.account(kept);
    if (!kept && account) await this.#keep(ACCOUNT, account);
  }

  /** @returns {Promise<import("./device.js").Name | undefined>} */
  async #keptName() {
    return JSON.parse((await this.#read(DEVICE)) ?? "null") ?? undefined;
  }

  // --- pull ----------------------------------------------------------------------------------------------------------

  /** Give the place; one that was kept by an older version does not say which columns were filled. @returns {Promise<Place>} */
  async #keptPlace() {
    const kept = await this.#read(PLACE);
    return kept ? JSON.parse(kept) : { cursor: (await this.#read(BASE)) || null, columns: {}, fill: null };
  }

  /** Keep how far the last page went, now that WatermelonDB has it. @returns {Promise<boolean>} whether there is more */
  async #kept() {
    this.#isUnkept = false;
    await this.tombstones.keep();
    await this.#keep(ANSWERED, "");
    if (!this.#anew) await this.#keep(PLACE, JSON.stringify(this.#place));
    return this.#hasMore;
  }

  /** @param {{ lastPulledAt?: number | null }} asked */
  async #pull(asked) {
    // A database that was reset has no timestamp either.
    if (!asked.lastPulledAt && !this.#anew) await this.#begin();
    await this.#letGoRenamed();
    const answered = await this.#answered();
    const found = await (this.#anew ? this.#swept() : this.#page());
    this.#isUnkept = true;
    // Each row once, as it was found last: WatermelonDB takes none twice.
    const newest = (/** @type {string} */ table) => {
      const rows = [...(answered.get(table) ?? []), ...(found.get(table) ?? [])];
      return [...new Map(rows.map((row) => [row.id, row])).values()];
    };
    const rows = new Map();
    for (const table of this.tables) rows.set(table, await this.renames.withoutTaken(table, newest(table)));
    return this.#given(await this.#taken(rows), asked);
  }

  async #begin() {
    this.#place = { cursor: null, columns: this.columns, fill: null };
    await this.#keep(BASE, "");
    // Records from before: a first pull was cut off, and a first pull has no tombstones of what went since.
    if ([...(await this.#held()).values()].some((rows) => rows.length)) await this.#beginAnew(null);
  }

  /** @returns {Promise<Rows>} the next page since the place, or of what new columns and tables are to be filled with */
  async #page() {
    this.#place = { ...this.#place, fill: this.#fill() };
    const { cursor, tables } = this.#place.fill ?? { ...this.#place, tables: this.tables };
    try {
      const { deviceId } = this.client;
      const page = await this.client.pull({ cursor, tables, isAnonymous: Boolean(this.#place.fill) });
      await tellApart(this.client, deviceId, page, () => this.#keptName(), (name) => this.#keep(DEVICE, JSON.stringify(name)));
      this.#hasMore = page.hasMore || Boolean(this.#place.fill);
      this.#place = this.#passed(page);
      return new Map(tables.map((table) => [table, page.data[table] ?? []]));
    } catch (error) {
      if (!(error instanceof ResyncRequired)) throw error;
      await this.#beginAnew(this.#place.cursor);
      return this.#swept();
    }
  }

  /**
   * Tell what is to be pulled from the start: tables with columns that their records were never given.
   *
   * Deletions since `cursor` come after that, from `cursor` itself: a pull from the start has no tombstones.
   */
  #fill() {
    const { columns, fill, cursor } = this.#place;
    const lacks = (/** @type {string} */ table) => this.columns[table].some((name) => !columns[table]?.includes(name));
    const tables = cursor === null ? [] : this.tables.filter(lacks);
    if (fill && `${fill.tables}` === `${tables}`) return fill;
    return tables.length ? { cursor: null, tables } : null;
  }

  /** @param {import("./client.js").Pulled} page @returns {Place} */
  #passed(page) {
    const { cursor, columns, fill } = this.#place;
    if (fill && page.hasMore) return { cursor, columns, fill: { ...fill, cursor: page.cursor } };
    if (fill) return { cursor, columns: this.columns, fill: null };
    return { cursor: page.cursor, columns: this.columns, fill: null };
  }

  /** @param {string | null} before the refused cursor, which stays kept until the end: a crash on the way ends here again */
  async #beginAnew(before) {
    const held = await this.#held();
    const gone = await this.tombstones.all();
    for (const { table, row } of gone) held.get(table)?.push(row);
    await this.#keep(BASE, "");
    this.#anew = { sweep: new Sweep(this.client, this.tables, before), held };
  }

  /**
   * Take the next page of all rows. In the end, let go what the server no longer has.
   *
   * A record with edits that wait stays, and if the server does not know its row it is pushed whole.
   * @returns {Promise<Rows>}
   */
  async #swept() {
    const { sweep, held } = /** @type {{ sweep: Sweep, held: Rows }} */ (this.#anew);
    const found = await sweep.page((table, ids) => {
      const wanted = new Set(ids);
      return (held.get(table) ?? []).filter(({ id }) => wanted.has(id));
    });
    if (sweep.isRestored) await this.#keep(BASE, LOST);
    this.#hasMore = !sweep.isDone;
    if (!sweep.isDone) return found;
    this.#anew = undefined; // What fails from here on begins anew.
    for (const table of this.tables) {
      const { returned, gone } = await sweep.rest(table, (held.get(table) ?? []).filter((row) => !row.is_deleted));
      found.get(table)?.push(...returned);
      await this.#destroy(table, gone.map(({ id }) => id), true);
    }
    this.#place = { cursor: sweep.cursor, columns: this.columns, fill: null };
    return found;
  }

  /** Give the rows that the last push was answered with and that no pull gives: the server's were later. @returns {Promise<Rows>} */
  async #answered() {
    /** @type {[string, Raw][]} */
    const kept = JSON.parse((await this.#read(ANSWERED)) || "[]");
    return new Map(this.tables.map((table) => [table, kept.flatMap(([its, row]) => (its === table ? row : []))]));
  }

  /** Take away what is deleted, and give the rest. @param {Rows} rows @returns {Promise<Rows>} */
  async #taken(rows) {
    await this.tombstones.note(rows);
    for (const [table, some] of rows) await this.#destroy(table, some.filter((row) => row.is_deleted).map(({ id }) => id));
    return rows;
  }

  /** @param {Rows} rows @param {{ lastPulledAt?: number | null }} asked */
  #given(rows, { lastPulledAt }) {
    const alive = (/** @type {string} */ table) => (rows.get(table) ?? []).filter((row) => !row.is_deleted);
    const changes = this.tables.map((table) => {
      const updated = alive(table).map((row) => this.records.rawOf(table, row));
      return [table, { created: [], updated, deleted: [] }];
    });
    return { changes: Object.fromEntries(changes), timestamp: Math.max(Date.now(), (lastPulledAt ?? 0) + 1) };
  }

  /** Let records go whose rows are under other ids now; what others have under the old ones is then pulled from the start. */
  async #letGoRenamed() {
    const { tables, done } = await this.renames.letGo((table, id) => this.#destroy(table, [id]));
    if (!tables.length) return;
    const unfilled = Object.fromEntries(tables.map((table) => [table, []]));
    this.#place = { ...this.#place, columns: { ...this.#place.columns, ...unfilled }, fill: null };
    await this.#keep(PLACE, JSON.stringify(this.#place));
    await done();
  }

  /** Give all rows as the server had them, while nobody writes. @returns {Promise<Rows>} */
  #held() {
    return this.database.read(async () => {
      /** @type {Rows} */
      const found = new Map();
      for (const table of this.tables) {
        const raws = (await this.database.get(table).query().fetch()).map((/** @type {any} */ { _raw }) => _raw);
        const synced = raws.filter((/** @type {Raw} */ raw) => raw._status !== "created");
        found.set(table, synced.map((/** @type {Raw} */ raw) => this.records.heldOf(table, raw)));
      }
      return found;
    }, "syncapp-held");
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
    if (local._status === "created") Object.assign(resolved, this.records.typedOf(table, local));
    return this.rest.conflictResolver?.(table, local, remote, resolved) ?? resolved;
  }

  // --- push ----------------------------------------------------------------------------------------------------------

  /** Push what is waiting. @param {{ changes: Record<string, ChangeSet> }} asked */
  async #push({ changes }) {
    this.#isPushed = true;
    const nonce = (await this.#read(NONCE)) ?? (await this.#keep(NONCE, newId()));
    const base = (await this.#read(BASE)) ?? "";
    // Without a base nothing is known of the rows, which version 0 says.
    const baseVersion = base === LOST ? ELSEWHERE : base ? undefined : 0;
    const made = this.tables.flatMap((table) => this.records.operationsOf(table, changes[table] ?? NOTHING, nonce, baseVersion));
    const baseCursor = baseVersion === undefined ? base : this.#place.cursor;
    const operations = await this.renames.followed(made.flatMap(({ operation }) => operation ?? []));
    const outcomes = await pushOperations(this.client, operations, { baseCursor });
    for (const names of await this.renames.note(operations, outcomes)) this.hear.onRenamed?.(names);
    const beaten = outcomes.filter(({ result, row }) => row && !PULLED.has(result.status)).map(({ result, row }) => [result.table, row]);
    await this.#keep(ANSWERED, JSON.stringify(beaten));
    await this.#keep(NONCE, newId());
    await this.tombstones.noteOutcomes(outcomes);
    for (const conflict of outcomes.flatMap(({ conflicts }) => conflicts)) this.hear.onConflict?.(conflict);
    return { experimentalRejectedIds: this.#rejected([...outcomes, ...made.flatMap(({ outcome }) => outcome ?? [])]) };
  }

  /** @param {import("./operations.js").Outcome[]} outcomes what stays rejected is tried again with the next sync */
  #rejected(outcomes) {
    const rejected = outcomes.flatMap(({ result }) => (result.status === "rejected" ? result : []));
    this.#hasRejected = rejected.length > 0;
    for (const result of rejected) this.hear.onRejected?.(result);
    const idsOf = (/** @type {string} */ table) => rejected.filter((result) => result.table === table).map(({ id }) => id);
    return Object.fromEntries(this.tables.map((table) => [table, idsOf(table)]));
  }

  /** @param {string} key @returns {Promise<any>} */
  async #read(key) {
    return (await this.database.adapter.getLocal(key)) ?? undefined;
  }

  /** @param {string} key @param {string} value */
  async #keep(key, value) {
    await this.database.adapter.setLocal(key, value);
    return value;
  }
}

/** Outcomes that are changes, which the next pull brings. */
const PULLED = new Set(["created", "updated", "deleted", "rejected"]);

/** @type {ChangeSet} */
const NOTHING = { created: [], updated: [], deleted: [] };

/** @param {any} record */
const isClean = (record) => record._raw._status === "synced";

/** @param {any} record */
function asCreated(record) {
  return record.prepareUpdate((/** @type {any} */ { _raw }) => {
    _raw._status = "created";
    _raw._changed = "";
  });
}
