// Rows of a tenant, shown only to who asks, and the record has that.

import { post } from "./admin-api.js";
import { element, say, whileBusy } from "./dom.js";

/** The button behind a table's name; the rows come in a dialog. */
export function offerRows(path, table) {
  const button = element("button", { type: "button", className: "small" }, "Show rows");
  button.ariaLabel = `Show rows of ${table}, which is recorded`;
  button.addEventListener("click", () => open(path, table));
  return button;
}

function open(path, table) {
  const list = element("ol", { className: "rows-shown" });
  const message = element("p", { className: "message", role: "status" });
  const more = element("button", { type: "button", className: "primary" }, "Show rows");
  const close = element("button", { type: "button" }, "Close");
  let before;
  more.addEventListener("click", () => whileBusy(more, async () => {
    try {
      const found = await post(`${path}/rows`, before === undefined ? { table } : { table, before });
      list.append(...found.rows.map(shown));
      before = found.rows.at(-1)?.sequence;
      more.textContent = "Show more";
      more.hidden = !found.hasMore;
      say(message, list.childElementCount ? `${list.childElementCount} rows, those that changed last first.` : "There is no row.");
    } catch (error) {
      say(message, error.message, true);
    }
  }));
  close.addEventListener("click", () => dialog.close());
  const dialog = element("dialog", { className: "card wide" },
    element("h2", { id: "rows-title" }, `Rows of ${table}`),
    element("p", {}, "These are a customer's own data. The record will have that you looked at them."),
    list, element("div", { className: "actions" }, more, close), message);
  dialog.setAttribute("aria-labelledby", "rows-title");
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function shown({ row }) {
  const title = element("strong", {}, row.id, row.is_deleted ? " (deleted)" : "");
  return element("li", { className: "entry" }, title, element("pre", {}, JSON.stringify(row, null, 2)));
}
