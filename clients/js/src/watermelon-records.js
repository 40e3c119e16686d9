/**
 * Maps WatermelonDB's raw records to the server's rows, and changes of records to operations.
 *
 * Knows: WatermelonDB's schema and marks (`_status`, `_changed`), the server's column types. Must not know: the network, when
 * a sync is.
 */

import { toLocal, toServer } from "./columns.js";
import { BadValue } from "./errors.js";
import { canonical } from "./operations.js";
import { sha256 } from "./sha256.js";
import { checkedFields, checkedId } from "./values.js";

/**
 * @typedef {Record<string, any>} Raw
 * @typedef {{ created: Raw[], updated: Raw[], deleted: string[] }} ChangeSet
 * @typedef {import("./operations.js").Outgoing} Outgoing
 * @typedef {import("./operations.js").Outcome} Outcome
 * @typedef {{ operation?: Outgoing, outcome?: Outcome }} Made an operation, or why there is none
 */

/** @type {Record<string, import("./columns.js").Kind>} */
const KINDS = { string: "text", number: "number", boolean: "boolean" };

/** Older than any edit: what is not known to be later gives way. */
const NO_TIME = "1970-01-01T00:00:00.001Z";

const SERVERS = new Set(["sync_status", "version", "server_synced", "createdAt", "updatedAt", "is_deleted"]);

export class Records {
  /** The server's types, once they are known. @type {import("./columns.js").Types} */
  types = {};

  /**
   * @param {any} schema WatermelonDB's @param {Record<string, string[]>} json @param {Record<string, string[]>} dates
   * @param {(raw: Raw, table: string) => number | undefined} editedAt
   */
  constructor(schema, json, dates, editedAt) {
    this.schema = schema;
    this.json = json;
    this.dates = dates;
    this.editedAt = editedAt;
  }

  /** @param {string} table @returns {{ name: string, type: string }[]} */
  columnsOf(table) {
    return Object.values(this.schema.tables[table].columns);
  }

  /** @param {string} table @param {string} name */
  #typeOf(table, name) {
    if (this.json[table]?.includes(name)) return "json";
    return this.dates[table]?.includes(name) ? "timestamp" : this.types[table]?.[name];
  }

  /** @param {string} table @param {Raw} row @returns {Raw} the columns that the schema has, in WatermelonDB's types */
  rawOf(table, row) {
    const columns = this.columnsOf(table).filter(({ name }) => name in row);
    const entries = columns.map(({ name, type }) => [name, toLocal(row[name], this.#typeOf(table, name), KINDS[type])]);
    return { ...Object.fromEntries(entries), id: row.id };
  }

  /** @param {string} table @param {Raw} raw @param {(name: string) => boolean} isWanted @returns {Raw} @throws {BadValue} */
  #rowOf(table, raw, isWanted) {
    const columns = this.columnsOf(table).filter(({ name }) => name in raw && isWanted(name));
    const entries = columns.map(({ name, type }) => [name, toServer(raw[name], this.#typeOf(table, name), KINDS[type])]);
    return { ...Object.fromEntries(entries), id: raw.id };
  }

  /**
   * Give what the server is known to have had of a record: columns that were changed since are left out.
   *
   * @param {string} table @param {Raw} raw @returns {Raw}
   */
  heldOf(table, raw) {
    const edited = new Set(raw._changed.split(","));
    const row = this.#rowOf(table, raw, (name) => !edited.has(name) && this.#isSayable(table, raw, name));
    const touched = !edited.has("updated_at") && raw.updated_at > 0 ? new Date(raw.updated_at).toISOString() : undefined;
    return { ...row, version: row.version || 1, last_updated: row.last_updated || row.updatedAt || touched || NO_TIME };
  }

  /** @param {string} table @param {Raw} raw @param {string} name */
  #isSayable(table, raw, name) {
    try {
      this.#rowOf(table, raw, (one) => one === name);
      return true;
    } catch (error) {
      if (error instanceof BadValue) return false;
      throw error;
    }
  }

  /**
   * Give what was typed into a record, as it is stored.
   *
   * @param {string} table @param {Raw} raw @returns {Raw}
   */
  typedOf(table, raw) {
    const columns = this.columnsOf(table).filter(({ name }) => !SERVERS.has(name) && raw[name] !== null && raw[name] !== "");
    return Object.fromEntries(columns.map(({ name }) => [name, raw[name]]));
  }

  /**
   * Make the operations of a table's changes; one that can't be sent is refused here, and holds up no other.
   *
   * An operation is named by its content and by a nonce that changes after each push: a retry is known as one, and an edit
   * that comes back to an earlier value is not taken for one.
   * @param {string} table @param {ChangeSet} changes @param {string} nonce
   * @param {number | undefined} baseVersion of what is no creation, if the push states no base for all @returns {Made[]}
   */
  operationsOf(table, { created, updated, deleted }, nonce, baseVersion) {
    const isOwn = (/** @type {string} */ name) => !SERVERS.has(name);
    const named = (/** @type {any} */ operation, /** @type {Raw} */ raw, /** @type {Raw} */ data, /** @type {any} */ more = {}) => ({
      ...this.#stampOf(table, raw),
      ...(baseVersion === undefined ? undefined : { baseVersion: operation === "create" ? 0 : baseVersion }),
      ...more,
      table,
      operation,
      data: checkedFields(table, data),
      opId: sha256(canonical([nonce, table, operation, data])).slice(0, 48),
    });
    return [
      ...created.map((raw) => made(table, raw.id, () => named("create", raw, filled(this.#rowOf(table, raw, isOwn))))),
      ...updated.map((raw) => made(table, raw.id, () => {
        const changed = new Set(raw._changed.split(","));
        const whole = this.#rowOf(table, raw, (name) => isOwn(name) && (changed.has(name) || this.#isSayable(table, raw, name)));
        return named("update", raw, this.#rowOf(table, raw, (name) => isOwn(name) && changed.has(name)), { whole });
      })),
      ...deleted.map((id) => made(table, id, () => named("delete", { id }, { id }))),
    ];
  }

  /** @param {string} table @param {Raw} raw */
  #stampOf(table, raw) {
    const edited = this.editedAt(raw, table);
    return edited ? { timestamp: new Date(edited).toISOString() } : undefined;
  }
}

/** @param {string} table @param {string} id @param {() => Outgoing} make @returns {Made} */
function made(table, id, make) {
  try {
    checkedId(id, `The ID of a row of ${table}`);
    return { operation: make() };
  } catch (error) {
    if (!(error instanceof BadValue)) throw error;
    return { outcome: { result: { table, id, status: "rejected", error: error.message }, row: null, conflicts: [] } };
  }
}

/** What a new row does not say gets the server's defaults. @param {Raw} row */
const filled = (row) => Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null && value !== undefined));
