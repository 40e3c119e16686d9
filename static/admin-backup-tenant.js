// One tenant out of a backup: what differs is counted first; then its rows are taken back, or all of it is replaced.

import { countOf, differences } from "./admin-differences.js";
import { resultOf, run, tell } from "./admin-jobs.js";
import { shownTime } from "./admin-parts.js";
import { element, say, whileBusy } from "./dom.js";

const LEFT_SOME = 3;

/** The dialog that compares or restores a tenant. */
export class TenantOf {
  constructor({ name, made }) {
    Object.assign(this, { name, made });
    this.input = element("input", { id: "whom", required: true, autocomplete: "off", spellcheck: false });
    this.message = element("p", { className: "message", role: "status" });
    this.place = element("div", {});
    this.compare = element("button", { type: "submit", className: "primary" }, "Compare");
    this.restore = element("button", { type: "button" }, "Restore");
    const close = element("button", { type: "button" }, "Close");
    this.form = element("form", { method: "dialog" }, element("h2", { id: "whom-title" }, `A tenant from ${name}`),
      element("p", {}, element("strong", {}, "Compare"), " counts in which rows the tenant differs from the backup, and changes nothing. Then you can take these rows back: as a new change, which devices pull, in the same epoch; what that undoes stays in the history."),
      element("p", {}, element("strong", {}, "Restore"), " replaces all that the tenant has now, history too, under a new epoch: devices pull everything again."),
      element("div", { className: "field" }, element("label", { htmlFor: "whom" }, "The customer's address or ID"), this.input),
      element("div", { className: "actions" }, this.compare, this.restore, close), this.message, this.place);
    this.dialog = element("dialog", { className: "card wide" }, this.form);
    this.dialog.setAttribute("aria-labelledby", "whom-title");
    close.addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => this.dialog.remove());
    this.input.addEventListener("input", () => this.place.replaceChildren());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#do(this.compare, () => this.#compare());
    });
    this.restore.addEventListener("click", () => this.form.reportValidity() && this.#offerRestore());
  }

  open() {
    document.body.append(this.dialog);
    this.dialog.showModal();
  }

  /** Do one thing at a time: the others wait, and so does the choice of whom. */
  async #do(button, work) {
    const others = [this.input, this.compare, this.restore].filter((one) => one !== button);
    for (const one of others) one.disabled = true;
    await whileBusy(button, async () => {
      try {
        await work();
      } catch (error) {
        say(this.message, error.message, true);
      }
    });
    for (const one of others) one.disabled = false;
  }

  async #compare() {
    const tenant = this.input.value.trim();
    this.place.replaceChildren();
    say(this.message, "Reading the backup and comparing. It may take a while.");
    const compared = await resultOf("/api/backups/compare", { name: this.name, tenant });
    const count = countOf(compared.tables);
    const asked = { name: this.name, tenant, seen: compared.from.cursor };
    say(this.message, "");
    this.message.append("Back to the backup of ", shownTime(this.made), `, change ${compared.to.change.toLocaleString("en")}`, count ? ":" : ". Nothing differs: all rows are as in the backup.");
    if (!count) return;
    this.place.replaceChildren(...differences(compared.tables, {
      words: `Take these ${count.toLocaleString("en")} rows back`,
      go: () => this.#take(asked),
      rows: (first) => this.#rows(asked, first),
      doing: (button, work) => this.#do(button, work),
    }));
  }

  /** Read a page of the rows; each reads the backup anew. */
  async #rows(asked, first) {
    const told = [...this.message.childNodes];
    say(this.message, "Reading the rows…");
    const { rows } = await resultOf("/api/backups/rows", { ...asked, first });
    this.message.replaceChildren(...told);
    return rows;
  }

  async #take(asked) {
    say(this.message, "Taking the rows back…");
    const { written } = await resultOf("/api/backups/rewind", asked, [0, LEFT_SOME]);
    const left = written.left ? ` ${written.left} changed meanwhile and were left: compare again.` : "";
    this.place.replaceChildren();
    say(this.message, `Rows written: ${written.rows}, as changes ${written.first} to ${written.last}.${left}`);
  }

  /** Say once more what is lost, since the button stands beside one that changes nothing. */
  #offerRestore() {
    const tenant = this.input.value.trim();
    const go = element("button", { type: "button", className: "bad" }, "Replace all that it has now");
    go.addEventListener("click", () => this.#do(go, () => this.#restore(tenant)));
    say(this.message, "");
    this.place.replaceChildren(
      element("p", {}, "What ", element("strong", {}, tenant), " has now, also what came after the backup, is taken away: its devices pull everything anew, and send what they have not sent."),
      element("div", { className: "actions" }, go));
    go.focus();
  }

  #restore(tenant) {
    this.place.replaceChildren();
    say(this.message, "Restoring…");
    return tell(this.message, () => run("/api/backups/restore", { name: this.name, tenant }));
  }
}
