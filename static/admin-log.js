// The log of the process that answers, as it grows. The next lines are asked for once these are shown.

import { get } from "./admin-api.js";
import { tenantLink } from "./admin-parts.js";
import { element, say } from "./dom.js";

const MOST_LINES = 500;
const AGAIN_MS = 500;
const AFTER_A_FAULT_MS = 5000;
const LEVELS = ["info", "warning", "error"];
const KINDS = { warning: "lost", error: "failed", critical: "failed" };

export async function show(page) {
  const query = new URLSearchParams(location.search);
  const level = element("select", { id: "level" }, ...LEVELS.map((name) => element("option", {}, name)));
  const tenant = element("input", { id: "tenant", value: query.get("tenant") ?? "", autocomplete: "off", spellcheck: false, className: "mono" });
  const request = element("input", { id: "request", value: query.get("request") ?? "", autocomplete: "off", spellcheck: false, className: "mono" });
  if (LEVELS.includes(query.get("level"))) level.value = query.get("level");
  const pause = element("button", { type: "button", ariaPressed: "false" }, "Pause");
  const status = element("p", { className: "message muted", role: "status" });
  const list = element("ol", { id: "lines", className: "log", tabIndex: 0, ariaLabel: "Lines, the newest first" });
  page.append(
    element("div", { className: "heading" }, element("h1", {}, "Log"), pause),
    element("form", { className: "card filters log-filters", onsubmit: (event) => event.preventDefault() },
      field("Level from", level), field("Tenant's ID", tenant), field("Request ID", request)),
    status, element("section", { className: "card" }, list),
  );
  const asked = () => ({ level: level.value, tenant: tenant.value.trim(), request: request.value.trim() });
  const follower = new Follower(list, status, asked);
  for (const input of [level, tenant, request]) input.addEventListener("change", () => follower.begin());
  pause.addEventListener("click", () => {
    follower.pause(!follower.isPaused);
    pause.ariaPressed = String(follower.isPaused);
  });
  follower.begin();
}

function field(label, input) {
  return element("div", { className: "field" }, element("label", { htmlFor: input.id }, label), input);
}

class Follower {
  constructor(list, status, asked) {
    Object.assign(this, { list, status, asked, isPaused: false, round: 0 });
  }

  /** Begin anew, with what is asked for now. */
  begin() {
    this.list.replaceChildren();
    this.after = 0;
    this.#follow(++this.round);
  }

  pause(isPaused) {
    this.isPaused = isPaused;
    if (isPaused) {
      this.round += 1;
      say(this.status, "Paused.");
    } else {
      this.#follow(++this.round);
    }
  }

  async #follow(round) {
    while (round === this.round) {
      let wait = AGAIN_MS;
      try {
        const found = await get("/api/log", { ...this.asked(), after: this.after || "" });
        if (round !== this.round) return;
        this.after = found.newest;
        this.#add(found);
      } catch (error) {
        if (round !== this.round) return;
        say(this.status, `${error.message} It is tried again.`, true);
        wait = AFTER_A_FAULT_MS;
      }
      await new Promise((resolve) => { setTimeout(resolve, wait); });
      while (document.hidden && round === this.round) await new Promise((resolve) => { setTimeout(resolve, AGAIN_MS); });
    }
  }

  #add({ lines, left }) {
    if (left) this.list.prepend(element("li", { className: "entry note" }, `${left} lines more were left out here.`));
    this.list.prepend(...lines.map(shown).reverse());
    while (this.list.childElementCount > MOST_LINES) this.list.lastElementChild.remove();
    say(this.status, this.list.childElementCount ? "Following; the newest is on top." : "Following; there is no such line yet.");
  }
}

function shown({ time, level, logger, message, request_id: request, tenant, fields }) {
  const head = element("summary", { className: "entry-head" }, element("time", { dateTime: time }, time.slice(11, 23)));
  if (KINDS[level]) {
    const tag = element("span", { className: "state" }, element("span", { className: "dot", ariaHidden: "true" }), level);
    tag.dataset.state = KINDS[level];
    head.append(tag);
  }
  head.append(element("span", { className: "line" }, message));
  if (tenant) head.append(tenantLink(tenant, `tenant ${tenant.slice(0, 8)}…`));
  const about = { logger, ...(request ? { request_id: request } : {}), ...fields };
  const lines = Object.entries(about).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  return element("li", { className: "entry" }, element("details", {}, head, element("pre", {}, lines.join("\n"))));
}
