// A list of what happened: newest first, bounded, everything shown as text.

import { clock, element } from "./dom.js";

const MOST_ENTRIES = 500;
const MOST_CHARACTERS = 20_000;
const MARKS = { in: "received", out: "sent", note: "" };

export class EventLog {
  /** `list` gets the entries; `empty` is shown while there are none. */
  constructor(list, empty) {
    this.list = list;
    this.empty = empty;
    this.clear();
  }

  /** Add an entry; `kind` is "in" for what the server sent, "out" for what we did, "note" for the connection. */
  add(kind, name, payload) {
    const head = element("div", { className: "entry-head" }, element("time", {}, clock()), element("strong", {}, name));
    if (MARKS[kind]) head.append(element("span", { className: "tag" }, MARKS[kind]));
    const entry = element("li", { className: `entry ${kind}` }, head);
    if (payload !== undefined) entry.append(element("pre", {}, pretty(payload)));
    this.list.prepend(entry);
    if (this.list.childElementCount > MOST_ENTRIES) this.list.lastElementChild.remove();
    this.#show();
  }

  clear() {
    this.list.replaceChildren();
    this.#show();
  }

  #show() {
    this.empty.hidden = this.list.childElementCount > 0;
    this.list.hidden = !this.empty.hidden;
  }
}

function pretty(payload) {
  const text = typeof payload === "string" ? payload : JSON.stringify(payload, null, 2);
  return text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}\n… ${text.length} characters in all` : text;
}
