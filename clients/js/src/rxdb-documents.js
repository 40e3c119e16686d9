/**
 * Maps RxDB documents to the server's rows, and edits of documents to operations.
 *
 * Knows: an RxDB schema, revisions, the server's column types. Must not know: replication, the network.
 */

import { newId } from "./client.js";
import { toLocal, toServer } from "./columns.js";
import { BadValue } from "./errors.js";
import { changedFields, isSame, ownFields } from "./operations.js";
import { sha256 } from "./sha256.js";

/**
 * @typedef {Record<string, any>} Doc
 * @typedef {{ newDocumentState: Doc, assumedMasterState?: Doc }} WriteRow
 * @typedef {import("./operations.js").Outgoing} Outgoing
 */

/** @type {Record<string, import("./columns.js").Kind>} */
const KINDS = { boolean: "boolean", number: "number", integer: "number", string: "text", object: "json", array: "json" };

/** Tell what a property of the schema takes. @param {{ type?: string | string[] }} property */
function kindOf({ type = [] }) {
  const types = [type].flat().filter((one) => one !== "null");
  return types.length === 1 ? KINDS[types[0]] : undefined;
}

export class Documents {
  /** The server's types of this table's columns, once they are known. @type {Record<string, string>} */
  types = {};
  /** The fields that documents have been given, while what is held is to be given back. @type {string[]} */
  given = [];
  /** @type {WeakMap<Doc, string>} */
  #opIds = new WeakMap();

  /** @param {any} collection @param {string} table */
  constructor(collection, table) {
    this.collection = collection;
    this.table = table;
    const { properties, primaryKey } = collection.schema.jsonSchema;
    this.kinds = new Map(Object.entries(properties).filter(([name]) => !name.startsWith("_")).map(([name, about]) => [name, kindOf(about)]));
    this.names = [...this.kinds.keys()];
    this.own = Object.keys(ownFields(Object.fromEntries(this.names.map((name) => [name, null]))));
    this.primary = typeof primaryKey === "string" ? primaryKey : primaryKey.key;
  }

  /** @param {Doc} row @returns {Doc} the fields that the schema has; a validator would not have `null` for a text */
  docOf(row) {
    const entries = this.names.map((name) => [name, toLocal(row[name], this.types[name], this.kinds.get(name))]);
    const fields = Object.fromEntries(entries.filter(([, value]) => value !== null));
    return { ...fields, [this.primary]: row.id, _deleted: Boolean(row.is_deleted) };
  }

  /** @param {Doc} doc @returns {Doc} @throws {BadValue} of a text that should be JSON and is not */
  rowOf(doc) {
    const entries = this.names.filter((name) => name in doc).map((name) => [name, this.#said(name, doc[name])]);
    return { ...Object.fromEntries(entries), id: doc[this.primary], is_deleted: doc._deleted ? 1 : 0 };
  }

  /**
   * Give the row as the server had it: without what can't be said, and null where a field that it was asked for has nothing.
   *
   * @param {Doc} doc @returns {Doc}
   */
  heldOf(doc) {
    const nothing = Object.fromEntries(this.given.filter((name) => this.own.includes(name)).map((name) => [name, null]));
    return { ...nothing, ...this.#sayable(doc) };
  }

  /** @param {Doc} doc */
  #sayable(doc) {
    return this.rowOf(Object.fromEntries(Object.entries(doc).filter(([name, value]) => this.#isSayable(name, value))));
  }

  /** @param {string} name @param {any} value */
  #said(name, value) {
    return toServer(value, this.types[name], this.kinds.get(name));
  }

  /** @param {string} name @param {any} value */
  #isSayable(name, value) {
    try {
      this.#said(name, value);
      return true;
    } catch (error) {
      if (error instanceof BadValue) return false;
      throw error;
    }
  }

  /** Tell whether the master's document says what was typed. @param {Doc} doc @param {Doc} master */
  isTaken(doc, master) {
    return doc._deleted === master._deleted && this.own.every((name) => isSame(doc[name], master[name]));
  }

  /** Give what is stored of these IDs, deleted documents too. @param {string[]} ids @returns {Promise<Doc[]>} */
  stored(ids) {
    return this.collection.storageInstance.findDocumentsById(ids, true);
  }

  /** Give all documents that are not deleted. @returns {Promise<Doc[]>} */
  async alive() {
    return (await this.collection.find().exec()).map((/** @type {any} */ found) => found.toMutableJSON(true));
  }

  /**
   * Tell whether a stored document may hold an edit that is not sent: its last write was no pull's.
   *
   * After a conflict that the master won it may also be that, and hold none. @param {Doc} stored
   */
  isEdited({ _meta, _rev }) {
    return _meta.o?._rev !== Number(_rev.split("-")[0]);
  }

  /**
   * Name each edit, so that the server knows it if it comes again, and tell when it was made.
   *
   * RxDB gives states only. The revision of the stored document names its edit, also after a crash; if the document was
   * edited again meanwhile, the name holds for the retries of this call, which RxDB makes with the same objects.
   * @param {WriteRow[]} rows @param {string | undefined} deviceId
   * @returns {Promise<{ opId: string, timestamp: string }[]>}
   */
  async stamps(rows, deviceId) {
    const stored = await this.stored(rows.map(({ newDocumentState }) => newDocumentState[this.primary]));
    const byId = new Map(stored.map((found) => [found[this.primary], found]));
    return rows.map(({ newDocumentState: doc }) => {
      const found = byId.get(doc[this.primary]);
      const isIt = found && Object.keys(doc).every((name) => isSame(doc[name], found[name]));
      const opId = this.#opIds.get(doc) ?? (isIt ? this.#opIdOf(/** @type {Doc} */ (found), deviceId) : newId());
      this.#opIds.set(doc, opId);
      return { opId, timestamp: new Date(isIt ? found?._meta.lwt : Date.now()).toISOString() };
    });
  }

  /** @param {Doc} stored @param {string | undefined} deviceId */
  #opIdOf(stored, deviceId) {
    return sha256(`${deviceId}:${this.table}:${stored[this.primary]}:${stored._rev}`).slice(0, 48);
  }

  /**
   * Make the operation of an edit.
   *
   * Where the server has confirmed nothing of a document, its creation was refused: then all of it goes, since the edit may
   * be the very repair, and alone would make a part of a row.
   * @param {WriteRow} row @param {{ opId: string, timestamp: string }} stamp
   * @param {number} [confirmed] the version that was answered last in this session, 0 if it was refused @returns {Outgoing}
   */
  operationOf({ newDocumentState, assumedMasterState: master }, stamp, confirmed) {
    const doc = this.rowOf(newDocumentState);
    const about = { table: this.table, baseVersion: baseOf(doc, master) || confirmed || 0, ...stamp };
    // Without a base the server may have the row under another id: its other name goes along.
    const named = !about.baseVersion && doc.Unique_id ? { Unique_id: doc.Unique_id } : undefined;
    if (newDocumentState._deleted && (!master || !master._deleted)) return { ...about, operation: "delete", data: { ...named, id: doc.id } };
    const isRefused = confirmed === 0 || (confirmed === undefined && this.kinds.has("version"));
    if (!master || (!about.baseVersion && isRefused)) return { ...about, operation: "create", data: ownFields(doc) };
    const data = { ...named, ...changedFields(this.#sayable(master), doc), id: doc.id };
    return { ...about, operation: "update", data, whole: ownFields(doc) };
  }
}

/**
 * Give the version that an edit was made on: that of the document as it was read, if an older one was put back.
 *
 * Version 0: nothing is known of such a row, so what others did to it counts as a conflict.
 * @param {Doc} doc @param {Doc} [master]
 */
function baseOf(doc, master) {
  const known = master?.version ?? 0;
  return Number.isInteger(doc.version) && doc.version > 0 ? Math.min(doc.version, known) : known;
}
