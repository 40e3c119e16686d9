// What the console says of tables, rows, values, times and devices. It knows no elements and makes no calls.

import { count, valueText } from "../words.js";
import { CONSOLE } from "./session.js";

const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [["year", 31_536_000], ["month", 2_592_000], ["day", 86_400], ["hour", 3600], ["minute", 60]];
const TITLES = ["name", "title", "label", "subject", "firstName", "description", "email", "phone"];
const LONGEST_CELL = 120;

/** Write a name of a program's as people do: end_user, firstName. */
export function spoken(name) {
  const words = name.replace(/[_-]+/g, " ").replace(/([a-z0-9])([A-Z])/g, (_, end, begin) => `${end} ${begin.toLowerCase()}`).trim();
  return words.charAt(0).toUpperCase() + words.slice(1) || name;
}

/** Say what a row is called, by what it has. */
export function titleOf(row) {
  const named = TITLES.find((name) => isText(row[name]));
  return shortened(named ? row[named] : row.id);
}

/** Name the column by which most of some rows are called, if there is one. */
export function titleColumn(rows) {
  const counts = new Map();
  for (const row of rows) {
    const named = TITLES.find((name) => isText(row[name]));
    counts.set(named, (counts.get(named) ?? 0) + 1);
  }
  return [...counts].sort(([, one], [, another]) => another - one)[0]?.[0];
}

const isText = (value) => typeof value === "string" && value.trim() !== "";

export function cellText(column, value) {
  if (column?.type === "boolean" && value !== null && value !== undefined) return value ? "Yes" : "No";
  if (column?.isTime && value) return ago(value);
  return shortened(valueText("", value));
}

/** Write a value whole, for a history or a conflict; `column` is what is declared of it, if it is. */
export function wholeText(name, value, column) {
  if (column?.type === "boolean" && value !== null && value !== undefined) return value ? "Yes" : "No";
  return valueText(name, value);
}

function shortened(text) {
  return text.length > LONGEST_CELL ? `${text.slice(0, LONGEST_CELL)}…` : text;
}

export const timeText = (text) => WHOLE.format(new Date(text));

/** Say how long ago a time was, or how long until then. */
export function ago(text, now = Date.now()) {
  const seconds = (Date.parse(text) - now) / 1000;
  if (Number.isNaN(seconds)) return text;
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  return Math.abs(seconds) < 45 ? "just now" : RELATIVE.format(Math.round(seconds / size), unit);
}

/** Name who made a change: a device by the name that people gave it. */
export function deviceText(deviceId, names) {
  if (!deviceId) return "a device without a name";
  return names.get(deviceId) || (deviceId.startsWith(CONSOLE) ? "the console" : deviceId);
}

/** Name it where a line begins. */
export function deviceTitle(deviceId, names) {
  const text = deviceText(deviceId, names);
  return text === deviceId || names.has(deviceId) ? text : text.charAt(0).toUpperCase() + text.slice(1);
}

export function lagText({ behind, expired, tables }) {
  if (expired) return "Away for too long: starts anew when it comes back";
  if (!tables.length) return "Has only sent, never fetched";
  return behind ? `${count(behind, "change")} behind` : "Up to date";
}

/** Say what an error means here and what to do. */
export function problemText(error) {
  if (error.code === "unreachable") return "The server can’t be reached. What you typed is still here: try again when it is back, it is done once.";
  if (error.code === "tenant_read_only") return "This account can only be read just now. Nothing was saved; what you typed is still here.";
  if (error.details?.length) return error.details.map(({ error: text, path }) => `${spoken(fieldOf(path))} ${text}`).join(". ");
  return error.message;
}

/** Name the field that the path of an error is about. */
export const fieldOf = (path) => path.split(/[.[\]]+/).filter(Boolean).at(-1) ?? path;
