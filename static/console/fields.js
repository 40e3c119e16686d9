// The fields of a row as a form: one input for each column by its type, and for what the table does not know. It gives what
// was changed, as the server takes it.

import { element } from "../dom.js";
import { labelled } from "./parts.js";
import { spoken } from "./text.js";

const LONG_CHARACTERS = 60;
const LONG_NAMES = new Set(["note", "notes", "description", "comment", "text", "body"]);
const HINTS = {
  date: "Year-month-day, such as 2026-11-29",
  time: "Hours:minutes, such as 23:45",
  timestamp: "Such as 2026-11-29T23:45:26Z",
  json: "JSON: a list, an object, a number or a text in quotes",
};

let made = 0;

/** One field: `name`, its `element`, and `change()`: undefined if nothing was typed, else `{ value }` or `{ error }`. */
export class Field {
  constructor(name, column, value, isNew) {
    this.name = name;
    this.column = column;
    this.value = value;
    this.id = `field-${++made}`;
    this.input = this.#input(isNew);
    this.typed = isNew ? "" : this.input.value;
    this.hint = element("small", { id: `${this.id}-hint`, className: "muted" }, HINTS[column.type] ?? "");
    this.input.setAttribute("aria-describedby", this.hint.id);
    this.element = labelled(spoken(name) + (column.required ? " *" : ""), this.input, this.hint);
    this.element.title = name;
  }

  get isChanged() {
    return this.input.value !== this.typed;
  }

  change() {
    this.complain("");
    if (!this.isChanged) return undefined;
    try {
      return { value: this.#read(this.input.value) };
    } catch (error) {
      this.complain(error.message);
      return { error: error.message };
    }
  }

  complain(text) {
    this.input.setAttribute("aria-invalid", String(Boolean(text)));
    this.hint.textContent = text || (HINTS[this.column.type] ?? "");
    this.hint.classList.toggle("wrong", Boolean(text));
  }

  #input(isNew) {
    const { type, enum: choices, required } = this.column;
    const value = isNew ? (this.column.default ?? null) : this.value;
    const common = { id: this.id, name: this.name, autocomplete: "off" };
    if (choices) return select(common, choices.map((one) => [String(one), String(one)]), value, required);
    if (type === "boolean") return select(common, [["1", "Yes"], ["0", "No"]], value === null ? null : Number(value), required);
    const text = writtenAs(type, value);
    if (type === "json" || isLong(this.name, text)) return element("textarea", { ...common, rows: Math.min(8, 2 + text.split("\n").length), value: text });
    if (type === "date" && (!text || /^\d{4}-\d\d-\d\d$/.test(text))) return element("input", { ...common, type: "date", value: text });
    const input = element("input", { ...common, value: text });
    if (type === "integer" || type === "number") input.inputMode = "decimal";
    return input;
  }

  #read(typed) {
    const { type, enum: choices, required } = this.column;
    if (typed === "") {
      if (required) throw new Error("must have a value");
      return null;
    }
    if (choices) return choices.find((one) => String(one) === typed) ?? null;
    if (type === "boolean") return Number(typed);
    if (type === "json") return parsed(typed);
    return type === "integer" || type === "number" ? numberOf(typed, type) : typed;
  }
}

function select(common, choices, value, isRequired) {
  const texts = isRequired && value !== null ? choices : [["", "–"], ...choices];
  const known = value === null || value === undefined || choices.some(([own]) => own === String(value));
  if (!known) texts.push([String(value), String(value)]); // What an earlier declaration took.
  const made = element("select", common, ...texts.map(([own, text]) => element("option", { value: own }, text)));
  made.value = value === null || value === undefined ? "" : String(value);
  return made;
}

function writtenAs(type, value) {
  if (value === null || value === undefined) return "";
  return type === "json" || typeof value === "object" ? JSON.stringify(value, null, 2) : String(value);
}

const isLong = (name, text) => text.length > LONG_CHARACTERS || text.includes("\n") || LONG_NAMES.has(name);

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("is no valid JSON");
  }
}

function numberOf(text, type) {
  const number = Number(text.trim().replace(",", "."));
  if (!Number.isFinite(number)) throw new Error("must be a number");
  if (type === "integer" && !Number.isSafeInteger(number)) throw new Error("must be a whole number that is not too large");
  return number;
}

/** Take a field that the table does not know for what it holds: a text stays a text. */
export function unknownColumn(value) {
  const type = { string: "text", number: "number" }[typeof value] ?? "json";
  return { type, required: false, default: null, enum: null };
}
