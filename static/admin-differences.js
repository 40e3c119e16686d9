// What would change if a tenant went back: counts by table first, rows to who asks for them, and the button that does it.

import { number, table } from "./admin-parts.js";
import { element } from "./dom.js";

const KINDS = { added: "comes back", changed: "changes", gone: "goes" };

/** How many rows would change. */
export const countOf = (tables) => Object.values(tables).flatMap(Object.values).reduce((sum, one) => sum + one, 0);

/** `words` are on the button that does it, `go()`; `rows(first)` gives a page of rows; `doing(button, work)` runs either. */
export function differences(tables, { words, go, rows, doing }) {
  const act = element("button", { type: "button", className: "primary" }, words);
  const more = element("button", { type: "button" }, "Show the rows, which is recorded");
  const list = element("ol", { className: "rows-shown" });
  act.addEventListener("click", () => doing(act, go));
  more.addEventListener("click", () => doing(more, async () => {
    list.append(...(await rows(list.childElementCount)).map(shown));
    more.textContent = "Show more rows";
    more.hidden = list.childElementCount >= countOf(tables);
    if (more.hidden) act.focus();
  }));
  return [countsOf(tables), list, element("div", { className: "actions spaced" }, act, more)];
}

function countsOf(tables) {
  const lines = Object.entries(tables).map(([name, { added, changed, gone }]) => [name, number(added), number(changed), number(gone)]);
  return table("What would change", ["Table", "Come back", "Change", "Go"], lines, "");
}

function shown({ table: name, id, kind, fields }) {
  const isSaid = ({ now, then }) => (now ?? then ?? null) !== null; // A new row has each column that it leaves empty, too.
  const lines = Object.entries(fields).filter(([, sides]) => isSaid(sides)).map(([field, { now, then }]) => `${field}: ${written(now)} → ${written(then)}`);
  return element("li", { className: "entry" }, element("strong", {}, `${name} ${id}`), ` ${KINDS[kind]}`, element("pre", {}, lines.join("\n")));
}

const written = (value) => (value === undefined ? "–" : JSON.stringify(value));
