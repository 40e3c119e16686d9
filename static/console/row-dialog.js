// One row in a dialog: its fields to edit, what the server keeps of it, delete and bring back; its history in a second tab.
// What is typed stays until it is saved or somebody says to discard it.

import { byId, element, say, setText, whileBusy } from "../dom.js";
import { Field, unknownColumn } from "./fields.js";
import { History } from "./history.js";
import { attempt, time, wireClosing } from "./parts.js";
import { EditPush } from "./edit-push.js";
import { deviceTitle, fieldOf, spoken, titleOf, wholeText } from "./text.js";

const KEPT_BY_SERVER = new Set(["id", "Unique_id", "sync_status", "version", "last_updated", "device_id", "is_deleted", "server_synced", "createdAt", "updatedAt"]);

export class RowDialog {
  #fields = [];
  #row = null;
  #data = null;

  /** `done(text, undo?)` tells what was done; `left()` is called when the dialog closes. */
  constructor(session, { done, left, names }) {
    this.session = session;
    this.done = done;
    this.names = names;
    this.dialog = byId("row");
    this.message = byId("row-message");
    this.history = new History(session, byId("row-history"), names, (text) => this.done(text));
    this.dialog.addEventListener("close", () => left(this.#row?.id));
    wireClosing(this.dialog, () => this.leave());
    byId("row-form").addEventListener("submit", (event) => this.#submitted(event));
    byId("row-delete").addEventListener("click", (event) => whileBusy(event.currentTarget, () => this.#delete()));
    byId("row-back").addEventListener("click", (event) => whileBusy(event.currentTarget, () => this.#bringBack()));
    this.#wireTabs();
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** Tell whether something was typed that is not saved. */
  get isTyped() {
    return this.isOpen && this.#fields.some((field) => field.isChanged);
  }

  /** Open a row of a table, or a new one if `row` is null. */
  open(data, columns, row) {
    [this.#data, this.#row, this.columns] = [data, row, columns];
    this.push = new EditPush(this.session, data.table);
    setText(byId("row-title"), row ? titleOf(row) : `New row in ${spoken(data.table)}`);
    byId("row-tabs").hidden = !row;
    this.#fill(row);
    this.#select(byId("row-tab-fields"));
    if (!this.isOpen) this.dialog.showModal();
    this.dialog.querySelector(".row-body").scrollTop = 0;
    (row ? byId("row-tab-fields") : this.#fields[0].input).focus({ preventScroll: true }); // No keyboard over a phone's screen yet.
  }

  /** Close, unless something was typed that nobody wants to discard. */
  leave() {
    if (this.isTyped && !confirm("Discard what you typed?")) return false;
    this.dialog.close();
    return true;
  }

  /** Say what became of the row elsewhere while it is open; what nobody has typed in shows it. */
  async refresh() {
    if (!this.isOpen || !this.#row) return;
    const now = await this.#data.get(this.#row.id);
    if (!now || now.version <= this.#row.version || !this.isOpen) return;
    if (!this.isTyped) return this.#told(now);
    const changed = this.#fields.filter(({ name }) => wholeText(name, now[name]) !== wholeText(name, this.#row[name]));
    const news = changed.map(({ name }) => `${spoken(name)} is ${wholeText(name, now[name])}`).join(", ");
    say(this.message, now.is_deleted ? "Meanwhile this row was deleted elsewhere." : `Changed elsewhere meanwhile: ${news || "nothing that is shown here"}. What you typed is kept.`);
  }

  /** Show the row as it is now; whoever is in a field stays there. */
  #told(row) {
    const { name } = document.activeElement;
    this.#fill(row);
    this.#fields.find((field) => field.name === name)?.input.focus();
    if (!byId("row-history").hidden) this.history.show(this.#data.table, row, this.columns);
    say(this.message, "This row was just changed elsewhere; you see it as it is now.");
  }

  // --- the form ---

  #fill(row) {
    this.#row = row;
    const own = Object.entries(this.columns).map(([name, column]) => new Field(name, column, row?.[name] ?? null, !row));
    const others = Object.keys(row ?? {}).filter((name) => !(name in this.columns) && !KEPT_BY_SERVER.has(name));
    const unknown = others.map((name) => new Field(name, unknownColumn(row[name]), row[name], false));
    this.#fields = [...own, ...unknown];
    byId("row-fields").replaceChildren(...own.map((field) => field.element));
    byId("row-others").hidden = !unknown.length;
    byId("row-other-fields").replaceChildren(...unknown.map((field) => field.element));
    byId("row-facts").replaceChildren(...(row ? this.#facts(row) : []));
    this.#offer(row);
    say(this.message, "");
  }

  /** Offer what can be done with it: a deleted row is brought back first, and edited then. */
  #offer(row) {
    const isDeleted = Boolean(row?.is_deleted);
    byId("row-deleted").hidden = !isDeleted;
    byId("row-back").hidden = !isDeleted;
    byId("row-save").hidden = isDeleted;
    byId("row-delete").hidden = !row || isDeleted;
    for (const { input } of this.#fields) input.disabled = isDeleted;
    setText(byId("row-save"), row ? "Save" : "Add row");
  }

  #facts(row) {
    const facts = [["ID", row.id], ["Version", String(row.version)], ["Created", time(row.createdAt)], ["Changed", time(row.updatedAt)]];
    if (row.Unique_id) facts.push(["Unique ID", row.Unique_id]);
    if (row.device_id) facts.push(["Device", deviceTitle(row.device_id, this.names())]);
    return facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  }

  #submitted(event) {
    event.preventDefault();
    whileBusy(byId("row-save"), () => this.#save());
  }

  async #save() {
    const changes = this.#fields.map((field) => [field, field.change()]).filter(([, change]) => change);
    const wrong = changes.find(([, change]) => change.error);
    if (wrong) return this.#showWrong(wrong[0]);
    if (!changes.length && this.#row) return say(this.message, "Nothing was changed.");
    const values = Object.fromEntries(changes.map(([{ name }, { value }]) => [name, value]));
    say(this.message, "Saving…");
    await this.#send(() => (this.#row ? this.push.update(this.#row, values) : this.push.create(values)));
  }

  /** Go to a field that is wrong, and have in sight what is wrong with it. */
  #showWrong({ input, element: field }) {
    input.focus();
    field.scrollIntoView({ block: "nearest" });
  }

  async #delete() {
    const row = this.#row;
    await this.#send(() => this.push.delete(row), () => this.push.bringBack(row));
  }

  #bringBack() {
    return this.#send(() => this.push.bringBack(this.#row));
  }

  /** Send, and close when it is stored; else what was typed stays, with what is wrong beside it. */
  async #send(work, undo) {
    const data = this.#data;
    const isDone = await attempt(this.message, async () => {
      const said = await work().catch((error) => this.#point(error));
      this.#fields = [];
      this.dialog.close();
      this.done(said, undo && (async () => this.done(await undo())));
    });
    if (isDone) data.follow();
  }

  /** Point to the fields that the server found wrong. */
  #point(error) {
    for (const { path, error: text } of error.details ?? []) this.#fields.find(({ name }) => name === fieldOf(path))?.complain(text);
    throw error;
  }

  // --- tabs ---

  #wireTabs() {
    const tabs = [byId("row-tab-fields"), byId("row-tab-history")];
    for (const [place, tab] of tabs.entries()) {
      tab.addEventListener("click", () => this.#select(tab));
      tab.addEventListener("keydown", ({ key }) => {
        if (key !== "ArrowRight" && key !== "ArrowLeft") return;
        this.#select(tabs[1 - place]);
        tabs[1 - place].focus();
      });
    }
  }

  #select(chosen) {
    for (const tab of [byId("row-tab-fields"), byId("row-tab-history")]) {
      const isChosen = tab === chosen;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !isChosen;
    }
    byId("row-actions").hidden = chosen !== byId("row-tab-fields");
    if (chosen === byId("row-tab-history")) this.history.show(this.#data.table, this.#row, this.columns);
  }
}
