// The conflicts of the account: the same row changed in two places at once. Both sides beside each other, one press decides.

import { byId, element, say, setText, showAnew } from "../dom.js";
import { coalesced } from "../pace.js";
import { attempt, button, table, time } from "./parts.js";
import { deviceText, deviceTitle, spoken, titleOf, wholeText } from "./text.js";

const PAGE = 50;
const SIDES = ["client", "server"];

export class ConflictsView {
  #found = [];
  #hasMore = false;
  #titles = new Map(); // What rows are called, by table and ID.

  constructor(session, { names, tell }) {
    this.session = session;
    this.names = names;
    this.tell = tell;
    byId("conflict-state").addEventListener("change", () => this.show());
    session.addEventListener("conflict", () => this.refresh());
    session.addEventListener("changed", () => this.#found.length && this.refresh()); // Somebody else may have decided.
    this.refresh();
  }

  show() {
    return this.refresh();
  }

  /** Fetch the first conflicts again; more of them only if somebody asks. */
  refresh = coalesced(() => attempt(byId("conflicts-message"), async () => {
    this.#found = [];
    await this.#fetch();
    say(byId("conflicts-message"), "");
  }));

  async #fetch() {
    const state = byId("conflict-state").value;
    const query = new URLSearchParams({ state, limit: PAGE, after: this.#found.at(-1)?.conflictId ?? 0 });
    const { data, hasMore } = await this.session.call(`/api/client/sync/conflicts?${query}`, { method: "GET" });
    this.#found = [...this.#found, ...data];
    this.#hasMore = hasMore;
    this.#nameRows();
    if (state === "open") setText(byId("conflict-count"), this.#found.length ? `${this.#found.length}${hasMore ? "+" : ""}` : "");
    this.#draw(state);
  }

  /** Find out what the rows are called, one by one; what was found out once stays. */
  #nameRows = coalesced(async () => {
    for (const { table: name, id } of this.#found) {
      const key = `${name}/${id}`;
      if (this.#titles.has(key)) continue;
      this.#titles.set(key, id);
      const path = `/api/client/sync/history/${encodeURIComponent(name)}/${encodeURIComponent(id)}?limit=1`;
      const found = await this.session.call(path, { method: "GET" }).catch(() => null);
      if (found?.data.length) this.#titles.set(key, titleOf(found.data[0].row));
      for (const card of byId("conflict-list").children) if (card.dataset.about === key) this.#setTitle(card, name, key);
    }
  });

  #setTitle(card, name, key) {
    const text = `${spoken(name)}: ${this.#titles.get(key) ?? "…"}`;
    setText(card.querySelector("h3"), text);
    card.setAttribute("aria-label", text);
  }

  #draw(state) {
    const about = [state, this.#found, this.#hasMore, [...this.names()]];
    showAnew(byId("conflict-list"), about, () => {
      const more = button("Show more", () => attempt(byId("conflicts-message"), () => this.#fetch()));
      return [...this.#found.map((conflict) => this.#card(conflict)), ...(this.#hasMore ? [more] : [])];
    });
    byId("conflicts-empty").hidden = this.#found.length > 0;
    setText(byId("conflicts-empty"), state === "open" ? "No conflicts: nothing waits for your decision." : "No conflict was decided yet, or those that were are no longer kept.");
  }

  #card(conflict) {
    const { table: name, id, fields, detectedAt } = conflict;
    const link = element("a", { href: `#/tables/${name}/${encodeURIComponent(id)}` }, "Open the row");
    const about = element("p", { className: "muted" }, "Noticed ", time(detectedAt), ". ", link);
    const heads = ["Field", "Before", ...SIDES.map((side) => deviceTitle(conflict[side].deviceId, this.names()))];
    const lines = Object.entries(fields).map(([field, found]) => [fieldText(field), wholeText(field, found.base), ...SIDES.map((side) => this.#value(field, found, side))]);
    const sides = table(heads, lines, "sides");
    sides.append(element("tfoot", {}, this.#choices(conflict)));
    const card = element("article", { className: "card" }, element("h3"), about, sides);
    card.dataset.about = `${name}/${id}`;
    this.#setTitle(card, name, card.dataset.about);
    return card;
  }

  #value(field, found, side) {
    const text = wholeText(field, found[side]);
    if (found.winner !== side) return text;
    return element("span", {}, text, element("span", { className: "stands" }, "stands now"));
  }

  #choices(conflict) {
    const empty = [element("td"), element("td")];
    const cells = SIDES.map((side) => {
      const whose = deviceText(conflict[side].deviceId, this.names());
      const edited = element("p", { className: "muted" }, "edited ", time(conflict[side].editedAt));
      const choice = conflict.state === "open" ? [button("Keep this", () => this.#decide(conflict, side), { className: "small primary", label: `Keep what ${whose} has` })] : [];
      return element("td", {}, edited, ...choice);
    });
    return element("tr", {}, ...empty, ...cells);
  }

  /** Give the row the values of one side, whichever it has of them now. */
  async #decide(conflict, side) {
    const winners = Object.values(conflict.fields).map(({ winner }) => winner === side);
    const row = Object.fromEntries(Object.entries(conflict.fields).map(([name, found]) => [name, found[side]]));
    const body = winners.every(Boolean) ? { resolution: "keep" } : winners.some(Boolean) ? { resolution: "row", row } : { resolution: "other" };
    const isDone = await attempt(byId("conflicts-message"), () => this.session.call(`/api/client/sync/conflicts/${conflict.conflictId}/resolve`, { body }));
    if (!isDone) return;
    this.tell(`Decided: the row has what ${deviceText(conflict[side].deviceId, this.names())} said.`);
    await this.refresh();
    (byId("conflict-list").querySelector("button") ?? byId("conflict-state")).focus();
  }
}

const fieldText = (field) => (field === "is_deleted" ? "Deleted" : spoken(field));
