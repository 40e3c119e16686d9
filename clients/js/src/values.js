/**
 * Checks what a row may hold: JSON values under safe names; anything else is refused before it is stored.
 *
 * Knows: JSON, and what the server takes for an ID. Must not know: which columns a table has, where rows are kept. What
 * can't be sent would sit in the outbox for ever, or arrive as something else.
 */

import { BadValue } from "./errors.js";

/** What the server takes as an ID: of a row, a device, an operation. */
const ID = /^[A-Za-z0-9_.:-]{1,64}$/;
const UNSAFE = new Set(["__proto__", "constructor", "prototype"]);
const DEEPEST = 60;

/** Refuse an ID that the server would not take as it is. @param {unknown} id @param {string} of what it names */
export function checkedId(id, of) {
  if (typeof id === "string" && ID.test(id)) return id;
  throw new BadValue(`${of} can't be ${shown(id)}: an ID is a text of 1 to 64 letters, digits or any of _ . : -`);
}

/**
 * Refuse a row that can't be sent as it is; `undefined` counts as not given.
 *
 * @template {Record<string, any>} T @param {string} table @param {T} fields @returns {T}
 * @throws {BadValue} with the place and what to do
 */
export function checkedFields(table, fields) {
  if (!isPlain(fields)) throw new BadValue(`A row of ${table} is an object with fields, and not ${shown(fields)}.`);
  for (const [name, value] of Object.entries(fields)) checkedValue(value, `${table}.${checkedName(name, table)}`, []);
  return fields;
}

/** @param {string} name @param {string} of */
function checkedName(name, of) {
  if (UNSAFE.has(name)) throw new BadValue(`${of} can't have a field called ${name}: each object in JavaScript has one already. Choose another name.`);
  return name;
}

/** @param {unknown} value @param {string} place @param {object[]} within the objects around it */
function checkedValue(value, place, within) {
  const problem = problemOf(value, within);
  if (problem) throw new BadValue(`${place} can't be ${shown(value)}: ${problem}`);
  if (typeof value !== "object" || value === null) return;
  if (Array.isArray(value)) {
    for (const [at, part] of Array.from(value).entries()) checkedPart(part, `${place}[${at}]`, [...within, value]);
  } else {
    for (const [name, part] of Object.entries(value)) checkedValue(part, `${place}.${checkedName(name, place)}`, [...within, value]);
  }
}

/** @param {unknown} part @param {string} place @param {object[]} within */
function checkedPart(part, place, within) {
  if (part === undefined) throw new BadValue(`${place} can't be undefined: JSON would make it null. Put null, or leave it out.`);
  checkedValue(part, place, within);
}

/** Say why JSON can't hold a value. @param {unknown} value @param {object[]} within @returns {string | undefined} */
function problemOf(value, within) {
  switch (typeof value) {
    case "number":
      return Number.isFinite(value) ? undefined : "JSON has no such number. Put null, or leave it out.";
    case "bigint":
      return "JSON has no such number. Put Number(value) if it is small, or text.";
    case "string":
      return problemOfText(value);
    case "symbol":
    case "function":
      return "it is code and no value.";
    case "object":
      return value === null ? undefined : problemOfObject(value, within);
  }
}

/** @param {string} text */
function problemOfText(text) {
  if (text.includes("\0")) return "text with U+0000 is not stored.";
  return /\p{Surrogate}/u.test(text) ? "it holds half of a surrogate pair, such as of an emoji that was cut." : undefined;
}

/** @param {object} value @param {object[]} within */
function problemOfObject(value, within) {
  if (within.includes(value)) return "it holds itself, and JSON would never end.";
  if (within.length > DEEPEST) return `it lies more than ${DEEPEST} levels deep.`;
  if (value instanceof Date) return "JSON has no dates. Put value.toISOString(), or a number.";
  if (Array.isArray(value) || isPlain(value)) return undefined;
  return "JSON has no such object. Put a plain object, an array or text made of it.";
}

/** Tell an object of JSON from one of a class, also one that comes from another frame. @param {unknown} value */
function isPlain(value) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** @param {unknown} value */
function shown(value) {
  if (typeof value === "string") return value.length > 40 ? "a text like that" : JSON.stringify(value);
  if (typeof value === "number" || value === null || value === undefined) return `${value}`;
  if (typeof value !== "object") return `a ${typeof value}`;
  return `a ${Array.isArray(value) ? "list" : (value.constructor?.name ?? "object")}`;
}
