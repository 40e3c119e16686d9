// The tables of the account and the rows of one of them: search, sort, page, choose columns; a row opens in a dialog.

import { byId, element, setText, showAnew } from "../dom.js";
import { coalesced } from "../pace.js";
import { count } from "../words.js";
import { button } from "./parts.js";
import { RowDialog } from "./row-dialog.js";
import { RowTable } from "./row-table.js";
import { TableData } from "./table-data.js";
import { spoken } from "./text.js";

const PAGE_ROWS = matchMedia("(max-width: 40rem)").matches ? 20 : 50; // On a phone a row is a card.
const TYPING_MS = 120;

/** Fold a menu up by Escape, or by a press beside it. */
function wireMenu(menu) {
  document.addEventListener("click", ({ target }) => !menu.contains(target) && (menu.open = false));
  menu.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}

export class TablesView {
  #data = new Map(); // What was opened once stays here, and is followed.
  #typing = null;
  #from = 0;
  #found = null;

  constructor(session, { tables, names, tell }) {
    this.session = session;
    this.tables = tables;
    this.counts = {};
    this.rows = new RowTable(byId("rows"), { opened: (id) => this.#go(id), sorted: () => this.#again() });
    this.dialog = new RowDialog(session, { names, done: tell, left: (id) => this.#left(id) });
    byId("search").addEventListener("input", () => this.#typed());
    byId("state").addEventListener("change", () => this.#again());
    byId("sort").addEventListener("change", () => this.rows.sortBy(byId("sort").value, byId("sort").value === ""));
    byId("direction").addEventListener("click", () => this.rows.sortBy(this.rows.sort, !this.rows.isDescending));
    byId("new-row").addEventListener("click", () => this.dialog.open(this.data, this.columns, null));
    byId("pages").append(...this.#pager());
    wireMenu(document.querySelector(".menu"));
    session.addEventListener("changed", () => this.#changed());
    this.#count();
  }

  get data() {
    return this.#data.get(this.table);
  }

  get columns() {
    return this.tables[this.table].columns;
  }

  /** Show a table, or the first one; and a row of it, if there is one in the address. */
  async show(table, id) {
    const name = table in this.tables ? table : Object.keys(this.tables)[0];
    if (name !== this.table) this.#choose(name);
    this.wanted = id;
    if (!id && this.dialog.isOpen) this.dialog.leave();
    await this.draw();
    if (id) await this.#openRow(id);
  }

  #choose(name) {
    this.table = name;
    this.#from = 0;
    this.rows.use(this.columns);
    byId("search").value = "";
    byId("state").value = "live";
    setText(byId("table-title"), spoken(name));
    const sorts = [["", "Latest change"], ["id", "ID"], ...Object.keys(this.columns).map((column) => [column, spoken(column)])];
    byId("sort").replaceChildren(...sorts.map(([value, text]) => element("option", { value }, text)));
    byId("pages").hidden = byId("rows-empty").hidden = true;
    setText(byId("range"), "");
    if (!this.data) this.#open(name);
    this.#list();
  }

  #open(name) {
    byId("loading").hidden = false; // Even the worker takes its time on a slow line.
    byId("loading-bar").removeAttribute("value");
    setText(byId("loading-text"), "Loading rows…");
    const data = new TableData(this.session, name);
    this.#data.set(name, data);
    data.addEventListener("change", () => this.table === name && this.draw());
    data.follow();
  }

  /** Draw what fits on one page; calls while that is under way share the next. */
  draw = coalesced(async () => {
    const { data } = this;
    const words = byId("search").value.split(/\s+/).filter(Boolean);
    const wanted = { words, isDeleted: byId("state").value === "deleted", sort: this.rows.sort, isDescending: this.rows.isDescending, from: this.#from, count: PAGE_ROWS };
    const found = await data.page(wanted);
    if (data !== this.data) return;
    [this.#found, this.#from] = [found, found.from];
    if (data.isWhole) this.counts[this.table] = found.live;
    this.rows.show(found);
    this.#showDirection();
    this.#explain(found, words.length > 0);
    this.#list();
    await this.dialog.refresh();
  });

  #showDirection() {
    const { isDescending } = this.rows;
    setText(byId("direction"), isDescending ? "▾" : "▴");
    byId("direction").setAttribute("aria-label", `${isDescending ? "Descending" : "Ascending"}: reverse the order`);
  }

  #explain({ total, from, rows, live, deleted }, isSearch) {
    const { data } = this;
    const known = this.counts[this.table] ?? 0;
    const isLoading = !data.isWhole && !data.problem;
    byId("loading").hidden = !isLoading;
    byId("loading-bar").max = Math.max(known, live, 1);
    byId("loading-bar").value = live;
    setText(byId("loading-text"), known > live ? `${live.toLocaleString("en")} of ${count(known, "row").replace(String(known), known.toLocaleString("en"))} loaded; you can look around meanwhile.` : "Loading rows…");
    setText(byId("range"), total ? `${(from + 1).toLocaleString("en")}–${(from + rows.length).toLocaleString("en")} of ${total.toLocaleString("en")}` : "");
    setText(byId("rows-problem"), data.problem && !data.isWhole ? `The rest could not be loaded: ${data.problem}` : "");
    byId("rows-empty").hidden = total > 0 || isLoading;
    setText(byId("rows-empty"), this.#emptyText(isSearch, live, deleted));
    byId("pages").hidden = total <= PAGE_ROWS;
    byId("previous").disabled = from === 0;
    byId("next").disabled = from + rows.length >= total;
  }

  #emptyText(isSearch, live, deleted) {
    if (isSearch) return "No row has all of these words. Search looks into every field of every row.";
    if (byId("state").value === "deleted") return "Nothing deleted is kept here. A row that you or an app deletes can be brought back from here for a while.";
    return deleted && !live ? "Every row of this table is deleted. Choose “Deleted” above to see them." : "No rows yet. They appear here as soon as one of your apps sends some; or add one yourself.";
  }

  /** List the tables, with how many rows each has. */
  #list() {
    const names = Object.keys(this.tables);
    showAnew(byId("tables"), [names, this.counts, this.table], () => names.map((name) => {
      const link = element("a", { href: `#/tables/${name}`, title: name }, spoken(name), " ", element("span", { className: "muted" }, (this.counts[name] ?? "").toLocaleString("en")));
      if (name === this.table) link.setAttribute("aria-current", "page");
      return element("li", {}, link);
    }));
  }

  #typed() {
    clearTimeout(this.#typing);
    this.#typing = setTimeout(() => this.#again(), TYPING_MS);
  }

  /** Begin at the first page again. */
  #again() {
    this.#from = 0;
    byId("sort").value = this.rows.sort;
    return this.draw();
  }

  #pager() {
    const turn = (by) => {
      this.#from = Math.max(0, this.#from + by * PAGE_ROWS);
      return this.draw();
    };
    const made = [button("Previous", () => turn(-1), { className: "small" }), button("Next", () => turn(1), { className: "small" })];
    [made[0].id, made[1].id] = ["previous", "next"];
    return made;
  }

  #changed() {
    for (const data of this.#data.values()) data.follow();
    this.#count();
  }

  #count = coalesced(async () => {
    this.counts = { ...this.counts, ...(await this.session.counts(Object.keys(this.tables)).catch(() => ({}))) };
    this.#list();
  });

  /** Open a row, if need be once it has come; unless somebody goes elsewhere meanwhile. */
  async #openRow(id) {
    const { data, columns } = this;
    let row = await data.get(id);
    for (; !row && !data.isWhole && !data.problem; row = await data.get(id)) {
      await new Promise((resolve) => data.addEventListener("change", resolve, { once: true }));
    }
    if (data !== this.data || this.wanted !== id) return;
    if (row) this.dialog.open(data, columns, row);
    else this.#go();
  }

  #left(id) {
    this.#go();
    this.rows.focusOn(id);
  }

  #go(id) {
    const address = `#/tables/${this.table}${id ? `/${encodeURIComponent(id)}` : ""}`;
    if (location.hash !== address) location.hash = address;
  }
}
