// The rows of one app on the page: shown, edited in place, deleted. It keeps elements, so that the focus stays.

import { element, setText } from "./dom.js";
import { fieldName, valueText } from "./words.js";

const SHOWN_AT_ONCE = 100;

/** `act.update(fields)` and `act.remove(id)` edit; both give a promise of whether it went well. */
export class RowList {
  constructor(list, more, act) {
    this.list = list;
    this.more = more;
    this.act = act;
    this.items = new Map();
    this.button = element("button", { type: "button", className: "small", onclick: () => this.#showMore() });
    this.clear();
  }

  /** Show `rows`, the newest first, and mark those whose ID is in `waiting`; what is new to the list lights up. */
  show(rows, waiting) {
    this.shown = { rows, waiting };
    const sorted = [...rows].sort(newestFirst);
    const shown = sorted.slice(0, this.most);
    this.#dropOthers(new Set(shown.map((row) => row.id)));
    shown.forEach((row, index) => this.#place(row, index, waiting.has(row.id)));
    this.isFirst = false;
    this.#offer(sorted.length - shown.length);
  }

  /** Forget what is shown, open forms too. */
  clear() {
    this.items.clear();
    this.list.replaceChildren();
    this.more.replaceChildren();
    this.most = SHOWN_AT_ONCE;
    this.isFirst = true;
  }

  /** Offer the rows that are not shown, some at a time. */
  #offer(left) {
    setText(this.button, `Show ${Math.min(left, SHOWN_AT_ONCE)} more of ${left}`);
    if (left > 0 !== this.more.contains(this.button)) this.more.replaceChildren(...(left > 0 ? [this.button] : []));
  }

  #showMore() {
    const next = this.list.childElementCount;
    this.most += SHOWN_AT_ONCE;
    this.isFirst = true; // They are no news.
    this.show(this.shown.rows, this.shown.waiting);
    this.list.children[next]?.querySelector("button").focus();
  }

  #dropOthers(kept) {
    for (const [id, item] of this.items) {
      if (kept.has(id)) continue;
      const hadFocus = item.element.contains(document.activeElement);
      const next = item.element.nextElementSibling ?? item.element.previousElementSibling;
      item.element.remove();
      this.items.delete(id);
      if (hadFocus) (next?.querySelector("button") ?? this.list.closest(".app").querySelector("input")).focus();
    }
  }

  #place(row, index, isWaiting) {
    const item = this.items.get(row.id) ?? new RowItem(this.act);
    this.items.set(row.id, item);
    const isNews = item.update(row, isWaiting);
    if (this.list.children[index] !== item.element) this.list.insertBefore(item.element, this.list.children[index] ?? null);
    if (isNews && !this.isFirst) flash(item.element);
  }
}

class RowItem {
  constructor(act) {
    this.act = act;
    this.name = element("strong");
    this.phone = element("span", { className: "muted" });
    this.mark = element("span", { className: "tag" }, "waits to be sent");
    this.edit = element("button", { type: "button", className: "small", onclick: () => this.#open() }, "Edit");
    this.remove = element("button", { type: "button", className: "small", onclick: () => act.remove(this.row.id) }, "Delete");
    const texts = element("div", { className: "row-text" }, this.name, this.phone, this.mark);
    this.view = element("div", { className: "row-view" }, texts, element("div", { className: "row-buttons" }, this.edit, this.remove));
    this.element = element("li", { className: "row" }, this.view);
  }

  /** Take a row's newest state, and return whether it shows; an open form is left alone, for someone is typing in it. */
  update(row, isWaiting) {
    const shown = this.element.textContent;
    this.row = row;
    const name = row.name || "(no name)";
    setText(this.name, name);
    setText(this.phone, row.phone ?? "");
    this.mark.hidden = !isWaiting;
    this.edit.setAttribute("aria-label", `Edit ${name}`);
    this.remove.setAttribute("aria-label", `Delete ${name}`);
    this.note?.(row);
    return shown !== this.element.textContent;
  }

  #open() {
    const name = element("input", { name: "name", value: this.row.name ?? "", required: true, autocomplete: "off" });
    const phone = element("input", { name: "phone", type: "tel", value: this.row.phone ?? "", autocomplete: "off" });
    const cancel = element("button", { type: "button", className: "small", onclick: () => this.#close() }, "Cancel");
    const save = element("button", { type: "submit", className: "small primary" }, "Save");
    const buttons = element("div", { className: "row-buttons" }, save, cancel);
    const note = element("p", { className: "muted" });
    const parts = [labelled("Name", name), labelled("Phone", phone), note, buttons];
    const form = element("form", { className: "row-edit", method: "post" }, ...parts);
    const base = this.row;
    this.note = (row) => setText(note, meanwhile(base, row));
    this.#wire(form, base);
    this.element.replaceChildren(form);
    name.focus();
  }

  /** Save what was changed of the row as it was when the form opened, so that others' edits since are kept. */
  #wire(form, base) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const typed = Object.fromEntries(new FormData(form));
      const fields = Object.fromEntries(Object.entries(typed).filter(([name, value]) => value !== (base[name] ?? "")));
      if (!Object.keys(fields).length || (await this.act.update({ id: base.id, ...fields }))) this.#close();
    });
    form.addEventListener("keydown", (event) => event.key === "Escape" && this.#close());
  }

  #close() {
    this.note = undefined;
    const hadFocus = this.element.contains(document.activeElement);
    this.element.replaceChildren(this.view);
    if (hadFocus) this.edit.focus();
  }
}

function labelled(text, input) {
  return element("label", { className: "field" }, text, input);
}

/** Tell someone who is typing what became of the row under the form. */
function meanwhile(base, row) {
  const changed = ["name", "phone"].filter((field) => (base[field] ?? "") !== (row[field] ?? ""));
  return changed.length ? `Meanwhile: ${changed.map((field) => `${fieldName(field)} is ${valueText(field, row[field])}`).join(", ")}.` : "";
}

/** Order by age; a row that the server has not seen yet has none, and is the newest. */
function newestFirst(a, b) {
  const [one, other] = [a, b].map((row) => `${row.createdAt ?? "~"} ${row.id}`);
  return one < other ? 1 : -1;
}

/** Light an element up for a moment; taking the class away first restarts it. */
function flash(target) {
  target.classList.remove("flash");
  requestAnimationFrame(() => target.classList.add("flash"));
}
