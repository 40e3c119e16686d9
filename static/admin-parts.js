// Parts that several pages of the console show: tables, numbers, times, links. Text goes in as text, never as HTML.

import { element } from "./dom.js";

/** A table in a card that can be scrolled sideways with the keyboard; cells are texts or elements. */
export function table(name, head, rows, empty) {
  if (rows.length === 0) return element("p", { className: "card empty muted" }, empty);
  const cells = (texts, tag) => texts.map((text) => (text instanceof HTMLTableCellElement ? text : element(tag, {}, text)));
  const made = element("table", { className: "grid" },
    element("thead", {}, element("tr", {}, ...head.map((text, column) => element("th", { scope: "col", className: rows[0][column].className === "number" ? "number" : "" }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row, "td")))),
  );
  const frame = element("div", { className: "card scroll", tabIndex: 0, role: "region", ariaLabel: name }, made);
  return frame;
}

/** A cell with a number, to the right. */
export function number(value, text = value?.toLocaleString("en")) {
  return element("td", { className: "number" }, value === undefined || value === null ? "–" : text);
}

export function bytes(value) {
  if (value === undefined || value === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, value > 0 ? Math.floor(Math.log2(value) / 10) : 0);
  return `${(value / 1024 ** power).toLocaleString("en", { maximumFractionDigits: power ? 1 : 0 })} ${units[power]}`;
}

/** A time in the reader's zone, with the exact one for who points at it. */
export function shownTime(text) {
  if (!text) return "–";
  const at = new Date(text);
  const shown = `${at.toLocaleDateString("sv")} ${at.toLocaleTimeString("sv")}`;
  return element("time", { dateTime: text, title: text }, shown);
}

/** A list of what something is; what is null is left out. */
export function facts(made) {
  return element("dl", { className: "facts wide-facts" }, ...made.filter(Boolean));
}

export function fact(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value ?? "–"));
}

/** The state of a tenant, told by more than its colour. */
export function stateTag({ state, fault }) {
  const kind = fault ? "failed" : { active: "on", suspended: "failed" }[state] ?? "lost";
  const made = element("span", { className: "state" }, element("span", { className: "dot", ariaHidden: "true" }), fault ? "damaged" : state);
  made.dataset.state = kind;
  return made;
}

export function tenantLink(id, text = id) {
  return element("a", { href: `/admin/tenants/${encodeURIComponent(id)}` }, text);
}
