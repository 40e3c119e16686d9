// Takes a tenant back to a moment of its history: counts of what would change first, rows only to who asks for them.

import { get, post } from "./admin-api.js";
import { countOf, differences } from "./admin-differences.js";
import { shownTime } from "./admin-parts.js";
import { element, say, whileBusy } from "./dom.js";

/** The button that opens the time machine of a tenant. */
export function offerRewind(tenant, path, refresh) {
  const button = element("button", { type: "button" }, "Rewind");
  button.addEventListener("click", () => new TimeMachine(tenant, path, refresh).open());
  return button;
}

class TimeMachine {
  constructor(tenant, path, refresh) {
    Object.assign(this, { tenant, path, refresh });
    this.moment = element("input", { id: "moment", type: "datetime-local", step: 1, required: true });
    this.message = element("p", { className: "message", role: "status" });
    this.place = element("div", {});
    this.since = element("small", { className: "muted" });
    this.look = element("button", { type: "submit", className: "primary" }, "Show what would change");
    const close = element("button", { type: "button" }, "Close");
    const form = element("form", { method: "dialog" },
      element("h2", { id: "rewind-title" }, `Take ${tenant.email} back to a moment`),
      element("p", {}, "All rows become what they were then, as a new change, which devices pull. What that undoes stays in the history."),
      element("div", { className: "field" }, element("label", { htmlFor: "moment" }, "Moment, in this browser's time"), this.moment, this.since),
      element("div", { className: "actions" }, this.look, close), this.message, this.place);
    this.dialog = element("dialog", { className: "card wide" }, form);
    this.dialog.setAttribute("aria-labelledby", "rewind-title");
    close.addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => this.dialog.remove());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#do(this.look, () => this.#preview());
    });
    this.moment.addEventListener("input", () => this.place.replaceChildren());
  }

  async open() {
    document.body.append(this.dialog);
    this.dialog.showModal();
    await this.#do(this.look, async () => {
      const { since } = await get(`${this.path}/moments`);
      this.since.replaceChildren("Held since ", since.at ? shownTime(since.at) : "its beginning", ".");
    });
  }

  async #do(button, work) {
    await whileBusy(button, async () => {
      try {
        await work();
      } catch (error) {
        say(this.message, error.message, true);
      }
    });
  }

  async #preview() {
    this.place.replaceChildren();
    say(this.message, "Comparing…");
    const found = await post(`${this.path}/rewind/preview`, { to: new Date(this.moment.value).toISOString() });
    const asked = { to: String(found.to.change), seen: found.seen };
    const count = countOf(found.tables);
    this.message.replaceChildren(`Change ${found.to.change.toLocaleString("en")}, `, found.to.at ? shownTime(found.to.at) : "before the first", count ? ":" : ". Nothing differs: it is as it was then.");
    if (!count) return;
    this.place.replaceChildren(...differences(found.tables, {
      words: `Rewind ${count.toLocaleString("en")} rows`,
      go: () => this.#apply(asked),
      rows: async (first) => (await post(`${this.path}/rewind/rows`, { ...asked, first })).rows,
      doing: (button, work) => this.#do(button, work),
    }));
  }

  async #apply(asked) {
    const { message } = await post(`${this.path}/rewind`, asked);
    await this.refresh();
    this.place.replaceChildren();
    say(this.message, message);
  }
}
