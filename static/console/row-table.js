// One page of rows as a table, on a phone as cards: which columns, sorted by which, and the button that opens a row.

import { element, showAnew } from "../dom.js";
import { table } from "./parts.js";
import { cellText, spoken, titleColumn, titleOf } from "./text.js";

const SHOWN_AT_FIRST = 5;
const CHANGED = { type: "timestamp", isTime: true };
const SELDOM = new Set(["id", "Unique_id", "image"]);

export class RowTable {
  sort = "";
  isDescending = true;
  #columns = {};
  #chosen = null;
  #found = { rows: [], used: [] };

  /** `opened(id)` and `sorted()` tell what somebody pressed. */
  constructor(root, { opened, sorted }) {
    this.root = root;
    this.opened = opened;
    this.sorted = sorted;
    this.menu = document.getElementById("columns");
  }

  /** Use the columns of another table; which are shown depends on what its rows have. */
  use(columns) {
    [this.#columns, this.#chosen, this.sort, this.isDescending] = [columns, null, "", true];
    this.#found = { rows: [], used: [] };
    this.root.replaceChildren();
  }

  show(found) {
    this.#found = found;
    this.#draw();
  }

  sortBy(column, isDescending) {
    [this.sort, this.isDescending] = [column, isDescending];
    this.sorted();
  }

  /** Go back to the button that opens a row, if it is on this page. */
  focusOn(id) {
    this.root.querySelector(`[data-row="${CSS.escape(id ?? "")}"]`)?.focus();
  }

  get #shown() {
    if (this.#chosen) return [...this.#chosen];
    const used = Object.keys(this.#columns).filter((name) => this.#found.used.includes(name) && !SELDOM.has(name));
    return (used.length ? used : Object.keys(this.#columns).slice(0, 2)).slice(0, SHOWN_AT_FIRST);
  }

  #draw() {
    const title = titleColumn(this.#found.rows);
    const names = this.#shown.filter((name) => name !== title);
    const about = [names, this.sort, this.isDescending, this.#found.rows.map(({ id, version }) => [id, version])];
    const focused = document.activeElement?.dataset?.row;
    showAnew(this.root, about, () => (this.#found.rows.length ? [this.#table(names, title)] : []));
    if (focused) this.focusOn(focused);
    this.#offerColumns(this.#shown);
  }

  #table(names, title) {
    const lines = this.#found.rows.map((row) => [this.#opener(row), ...names.map((name) => cellText(this.#columns[name], row[name])), cellText(CHANGED, row.updatedAt)]);
    const made = table([title ? spoken(title) : "ID", ...names.map(spoken), "Changed"], lines, "rows-table");
    const heads = made.querySelectorAll("thead th");
    [title ?? "id", ...names, ""].forEach((name, place) => this.#sortable(heads[place], name));
    return made;
  }

  #opener(row) {
    const button = element("button", { type: "button", className: "link", onclick: () => this.opened(row.id) }, titleOf(row));
    button.dataset.row = row.id;
    return button;
  }

  #sortable(head, name) {
    const isSorted = name === this.sort;
    const onclick = () => this.sortBy(name, isSorted ? !this.isDescending : name === "");
    const arrow = element("span", { ariaHidden: "true", className: "arrow" }, isSorted ? (this.isDescending ? "▾" : "▴") : "");
    head.replaceChildren(element("button", { type: "button", className: "link", onclick }, head.textContent, " ", arrow));
    if (isSorted) head.setAttribute("aria-sort", this.isDescending ? "descending" : "ascending");
  }

  #offerColumns(shown) {
    const names = [...new Set([...Object.keys(this.#columns), ...this.#found.used.filter((name) => !(name in this.#columns) && !HIDDEN.has(name))])];
    showAnew(this.menu, [names, shown], () => names.map((name) => {
      const box = element("input", { type: "checkbox", checked: shown.includes(name) });
      box.addEventListener("change", () => this.#choose(names.filter((one) => (one === name ? box.checked : shown.includes(one))), name));
      return element("label", {}, box, " ", spoken(name));
    }));
  }

  #choose(names, changed) {
    this.#chosen = names;
    this.#draw();
    const place = [...this.menu.children].findIndex((label) => label.textContent.trim() === spoken(changed));
    this.menu.children[place]?.querySelector("input").focus();
  }
}

const HIDDEN = new Set(["id", "sync_status", "version", "last_updated", "is_deleted", "server_synced", "createdAt", "updatedAt"]);
