// The rows of one app on the page: shown, edited in place, deleted. It keeps elements, so that the focus stays.

import { element, setText } from "./dom.js";

const MOST_SHOWN = 100;

/** `act.update(row, fields)` and `act.remove(row)` send; both give a promise of whether it went well. */
export class RowList {
  constructor(list, more, act) {
    this.list = list;
    this.more = more;
    this.act = act;
    this.items = new Map();
  }

  /** Show `rows`, the newest first; those named in `changed` light up. */
  show(rows, changed = []) {
    const sorted = [...rows.values()].sort(newestFirst);
    const shown = sorted.slice(0, MOST_SHOWN);
    this.#dropOthers(new Set(shown.map((row) => row.id)));
    shown.forEach((row, index) => this.#place(row, index));
    changed.forEach((id) => flash(this.items.get(id)?.element));
    setText(this.more, sorted.length > shown.length ? `and ${sorted.length - shown.length} more` : "");
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

  #place(row, index) {
    const item = this.items.get(row.id) ?? new RowItem(this.act);
    this.items.set(row.id, item);
    item.update(row);
    if (this.list.children[index] !== item.element) this.list.insertBefore(item.element, this.list.children[index] ?? null);
  }
}

class RowItem {
  constructor(act) {
    this.act = act;
    this.name = element("strong");
    this.phone = element("span", { className: "muted" });
    this.edit = element("button", { type: "button", className: "small", onclick: () => this.#open() }, "Edit");
    this.remove = element("button", { type: "button", className: "small", onclick: () => act.remove(this.row) }, "Delete");
    const texts = element("div", { className: "row-text" }, this.name, this.phone);
    this.view = element("div", { className: "row-view" }, texts, element("div", { className: "row-buttons" }, this.edit, this.remove));
    this.element = element("li", { className: "row" }, this.view);
  }

  /** Take a row's newest state; an open form is left alone, for someone is typing in it. */
  update(row) {
    this.row = row;
    const name = row.name || "(no name)";
    setText(this.name, name);
    setText(this.phone, row.phone ?? "");
    this.edit.setAttribute("aria-label", `Edit ${name}`);
    this.remove.setAttribute("aria-label", `Delete ${name}`);
  }

  #open() {
    const name = element("input", { name: "name", value: this.row.name ?? "", required: true, autocomplete: "off" });
    const phone = element("input", { name: "phone", type: "tel", value: this.row.phone ?? "", autocomplete: "off" });
    const cancel = element("button", { type: "button", className: "small", onclick: () => this.#close() }, "Cancel");
    const save = element("button", { type: "submit", className: "small primary" }, "Save");
    const buttons = element("div", { className: "row-buttons" }, save, cancel);
    const form = element("form", { className: "row-edit", method: "post" }, labelled("Name", name), labelled("Phone", phone), buttons);
    this.#wire(form, this.row);
    this.element.replaceChildren(form);
    name.focus();
  }

  /** Send what was changed of the row as it was when the form opened, so that others' edits since are kept. */
  #wire(form, base) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const typed = Object.fromEntries(new FormData(form));
      const fields = Object.fromEntries(Object.entries(typed).filter(([name, value]) => value !== (base[name] ?? "")));
      if (!Object.keys(fields).length || (await this.act.update(base, fields))) this.#close();
    });
    form.addEventListener("keydown", (event) => event.key === "Escape" && this.#close());
  }

  #close() {
    const hadFocus = this.element.contains(document.activeElement);
    this.element.replaceChildren(this.view);
    if (hadFocus) this.edit.focus();
  }
}

function labelled(text, input) {
  return element("label", { className: "field" }, text, input);
}

function newestFirst(a, b) {
  return (b.createdAt ?? "").localeCompare(a.createdAt ?? "") || a.id.localeCompare(b.id);
}

/** Light an element up for a moment; taking the class away first starts it anew. */
function flash(target) {
  if (!target) return;
  target.classList.remove("flash");
  requestAnimationFrame(() => target.classList.add("flash"));
}
