/**
 * Maps the types of columns between the server and a library's own schema.
 *
 * Knows: `GET /api/tables`, how a value of one type is said in another. Must not know: which library asks. On the wire a
 * flag is 0 or 1, a time is text, JSON is JSON; a library may want `true`, milliseconds, or JSON as text.
 */

import { BadValue, SyncError } from "./errors.js";
import { send } from "./http.js";

/**
 * @typedef {"boolean" | "number" | "text" | "json" | undefined} Kind what a library's schema wants; undefined: as it comes
 * @typedef {Record<string, Record<string, string>>} Types the server's types, by table and column
 */

const TIMES = new Set(["createdAt", "updatedAt", "last_updated"]);

/** Answers so far; tables change with a new version of the server only. @type {WeakMap<object, Promise<Types>>} */
const known = new WeakMap();

/**
 * Tell which type each column has on the server, which is asked once.
 *
 * @param {import("./client.js").SyncClient} client @returns {Promise<Types>} none of a server too old to tell
 */
export function columnTypes(client) {
  const types = known.get(client) ?? asked(client);
  known.set(client, types);
  types.catch(() => known.delete(client));
  return types;
}

/** @param {import("./client.js").SyncClient} client @returns {Promise<Types>} */
async function asked(client) {
  try {
    const { data } = await send(`${client.url}/api/tables`, client.http);
    const every = typesOf(data.everyRow);
    return Object.fromEntries(Object.entries(data.tables).map(([table, { columns }]) => [table, { ...every, ...typesOf(columns) }]));
  } catch (error) {
    if (error instanceof SyncError && error.status === 404) return {};
    throw error;
  }
}

/** @param {Record<string, { type: string }>} columns @returns {Record<string, string>} */
function typesOf(columns) {
  return Object.fromEntries(Object.entries(columns).map(([name, { type }]) => [name, TIMES.has(name) ? "timestamp" : type]));
}

/**
 * Say a value of the server's as a library's schema wants it.
 *
 * @param {any} value @param {string | undefined} type the server's @param {Kind} kind the library's
 * @returns {any} null where it can't be said
 */
export function toLocal(value, type, kind) {
  if (value === null || value === undefined) return null;
  if (kind === "boolean") return typeof value === "number" ? value !== 0 : typeof value === "boolean" ? value : null;
  if (kind === "number") return numberOf(value);
  if (kind === "text") return type === "json" || typeof value === "object" ? JSON.stringify(value) : String(value);
  if (kind === "json") return typeof value === "object" ? value : null;
  return kind === undefined && type === "boolean" && typeof value === "number" ? value !== 0 : value;
}

/**
 * Say a library's value as the server wants it.
 *
 * @param {any} value @param {string | undefined} type the server's @param {Kind} kind the library's
 * @returns {any} @throws {BadValue} of text that should be JSON and is not
 */
export function toServer(value, type, kind) {
  if (value === null || value === undefined) return value;
  if (kind === "text" && type === "json") return parsed(value);
  if (kind === "text" && (type === "integer" || type === "number")) return value.trim() && Number.isFinite(Number(value)) ? Number(value) : value;
  if (kind === "boolean" && (type === "integer" || type === "number")) return Number(value);
  if (kind === "number" && type === "timestamp") return timeOf(value, 24);
  return kind === "number" && type === "date" ? timeOf(value, 10) : value;
}

/** @param {any} value @returns {number | null} of a time its milliseconds since 1970; one without a zone is UTC */
function numberOf(value) {
  if (typeof value !== "string") return typeof value === "object" ? null : Number(value);
  const text = value.trim();
  const number = text === "" ? NaN : Number(text);
  if (!Number.isNaN(number)) return number;
  const time = /^\d{4}-\d\d-\d\d(?<clock>[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(?<zone>Z|[+-]\d\d:?\d\d)?)?$/i.exec(text)?.groups;
  const found = time ? Date.parse(text.replace(" ", "T") + (time.clock && !time.zone ? "Z" : "")) : NaN;
  return Number.isNaN(found) ? null : found;
}

/** @param {any} value milliseconds since 1970 @param {number} length how much of the text */
function timeOf(value, length) {
  const time = new Date(value);
  return typeof value === "number" && !Number.isNaN(time.getTime()) ? time.toISOString().slice(0, length) : value;
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BadValue(`A text that stands for JSON is none: ${/** @type {Error} */ (error).message}`, error);
  }
}
