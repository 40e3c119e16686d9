// What became of a row: each version with what it changed, when, and by which device; and setting it back to one.

import { element, say, showAnew } from "../dom.js";
import { attempt, button, table, time } from "./parts.js";
import { deviceText, spoken, wholeText } from "./text.js";

const SHOWN_AT_ONCE = 20;
const LOADING = "Loading…";
const NO_NEWS = new Set(["version", "updatedAt", "last_updated", "sync_status", "server_synced", "device_id", "createdAt", "id"]);
const OPERATIONS = { create: "Created", update: "Changed", delete: "Deleted" };

export class History {
  #entries = [];
  #hasMore = false;
  #asked = null;

  /** `names()` gives the devices' names by ID; `done(text)` tells what was done. */
  constructor(session, root, names, done) {
    this.session = session;
    this.root = root;
    this.names = names;
    this.done = done;
    this.list = element("ol", { className: "versions" });
    this.message = element("p", { className: "message" });
    this.message.setAttribute("role", "status");
    this.more = element("p");
    root.append(this.message, this.list, this.more);
  }

  /** Show the newest versions of a row; `row` is what it is now. */
  async show(table, row, columns = this.columns) {
    const isOther = table !== this.table || row.id !== this.row.id;
    [this.table, this.row, this.columns] = [table, row, columns];
    if (isOther) this.#begin();
    if ((await attempt(this.message, () => this.#fetch(0))) && this.message.textContent === LOADING) say(this.message, "");
  }

  #begin() {
    this.list.replaceChildren();
    this.more.replaceChildren();
    say(this.message, LOADING);
  }

  /** Fetch versions before one, 0 for the newest; what was asked for meanwhile counts instead. */
  async #fetch(before) {
    const asked = (this.#asked = {});
    const query = new URLSearchParams({ limit: SHOWN_AT_ONCE + 1, ...(before && { before }) }); // The one before tells what changed.
    const { data } = await this.session.call(`${this.#path}?${query}`, { method: "GET" });
    if (asked !== this.#asked) return;
    if (!before) this.#entries = [];
    this.#hasMore = data.length > SHOWN_AT_ONCE;
    this.#entries.push(...data.slice(0, SHOWN_AT_ONCE));
    this.oldest = data[SHOWN_AT_ONCE] ?? null;
    this.#draw();
  }

  get #path() {
    return `/api/client/sync/history/${encodeURIComponent(this.table)}/${encodeURIComponent(this.row.id)}`;
  }

  #draw() {
    const entries = [...this.#entries, this.oldest];
    this.list.replaceChildren(...this.#entries.map((entry, place) => this.#item(entry, entries[place + 1] ?? null, place === 0)));
    showAnew(this.more, [this.#hasMore, this.#entries.length], () => {
      if (!this.#hasMore) return this.#entries.at(-1)?.operation === "create" ? [] : ["Older versions are no longer kept."];
      return [button("Show older versions", () => attempt(this.message, () => this.#fetch(this.#entries.at(-1).version)), { className: "small" })];
    });
  }

  #item(entry, before, isNewest) {
    const who = element("span", { className: "muted" }, "by ", deviceText(entry.deviceId, this.names()), ", ", time(entry.committedAt));
    const title = element("h3", {}, `${OPERATIONS[entry.operation]} `, element("span", { className: "muted" }, `version ${entry.version}`));
    const act = isNewest ? element("span", { className: "tag" }, "as it is now") : this.#revert(entry);
    const head = element("div", { className: "heading" }, element("div", {}, title, who), act);
    return element("li", {}, head, ...this.#changes(entry, before));
  }

  #changes(entry, before) {
    const names = (entry.fields ?? Object.keys(entry.row)).filter((name) => isNews(name, entry, before));
    if (!names.length) return [];
    const lines = names.map((name) => {
      const text = ({ row }) => wholeText(name, row[name], this.columns[name]);
      const title = name === "is_deleted" ? "Deleted" : spoken(name);
      return before ? [title, text(before), text(entry)] : [title, text(entry)];
    });
    return [table(before ? ["Field", "Before", "After"] : ["Field", "Value"], lines, "changes")];
  }

  #revert(entry) {
    const work = () => attempt(this.message, () => this.#setBack(entry.version));
    return button("Set back to this", work, { className: "small", label: `Set back to version ${entry.version}` });
  }

  async #setBack(version) {
    const { results } = await this.session.call(`${this.#path}/revert`, { body: { version } });
    await this.show(this.table, this.row);
    const isSame = results[0].status === "unchanged";
    say(this.message, isSame ? "The row is as it was at that version already." : `The row is again what it was at version ${version}.`);
    this.done("");
  }
}

/** Leave out what changes with every edit, and what a new row does not have. */
function isNews(name, { operation, fields, row }, before) {
  if (NO_NEWS.has(name)) return false;
  if (name === "is_deleted") return operation !== "create" && Boolean(row[name]) !== Boolean(before?.row[name]);
  return fields !== null || (row[name] !== null && row[name] !== undefined);
}
