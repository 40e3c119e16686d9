// Backups: how it stands with them, the runs, and what is kept, which is asked for by a click since it may be far away.

import { get } from "./admin-api.js";
import { TenantOf } from "./admin-backup-tenant.js";
import { resultOf, run, tell } from "./admin-jobs.js";
import { bytes, fact, facts, number, shownTime, table } from "./admin-parts.js";
import { element, say, whileBusy } from "./dom.js";

const STATES = { good: "on", incomplete: "lost", running: "busy", failed: "failed", interrupted: "failed" };

export async function show(page) {
  const place = element("div", { className: "stack" });
  page.append(element("h1", {}, "Backups"), place);
  const now = await get("/api/backups");
  if (!now.to) return place.append(nowhere());
  const runs = element("section", { ariaLabel: "Runs" });
  const refresh = async () => runs.replaceChildren(...runsOf(await get("/api/backups")));
  place.append(aboutOf(now, refresh), new Kept().element, runs);
  runs.replaceChildren(...runsOf(now));
}

function nowhere() {
  return element("section", { className: "card" },
    element("p", {}, "There are no scheduled backups: BACKUP_TO is not set. docs/backups.md says how to set it, to a folder or to a bucket."),
    element("p", {}, "Each tenant can still be taken back to any moment of its own history: from its page under ", element("a", { href: "/admin/tenants" }, "Tenants"), "."));
}

function aboutOf({ to, everySeconds, keep, isEncrypted, status }, refresh) {
  const message = element("p", { className: "message", role: "status" });
  const button = element("button", { type: "button" }, "Back up now");
  button.addEventListener("click", () => whileBusy(button, async () => {
    say(message, "A backup is being made. It may take a while; this page need not stay open.");
    await tell(message, () => run("/api/backups/run"));
    await refresh();
  }));
  return element("section", { className: "card", ariaLabel: "How it stands" },
    facts([
      fact("Kept in", element("code", {}, to)), fact("Every", everySeconds ? duration(everySeconds) : "only when asked for"),
      fact("Retention", keep), fact("Encrypted", isEncrypted ? "yes" : "no"),
      status && fact("State", status.state), status && fact("Last good", shownTime(status.lastGood)), status && fact("Next due", shownTime(status.nextDue)),
    ]),
    element("div", { className: "actions spaced" }, button), message);
}

function runsOf({ runs }) {
  const rows = runs.map((one) => {
    const state = element("span", { className: "state" }, element("span", { className: "dot", ariaHidden: "true" }), one.state);
    state.dataset.state = STATES[one.state] ?? "lost";
    return [
      shownTime(one.startedAt), element("td", {}, state, one.error ? element("small", { className: "muted block" }, one.error) : ""),
      number(one.seconds, `${one.seconds} s`), number(one.tenants), number(one.changed), number(one.storedBytes, bytes(one.storedBytes)),
    ];
  });
  return [element("h2", {}, "Runs"), table("Runs", ["Begun", "State", "Time", "Tenants", "Changed", "Written"], rows, "None yet.")];
}

class Kept {
  constructor() {
    this.message = element("p", { className: "message", role: "status" });
    this.place = element("div", {});
    const button = element("button", { type: "button" }, "Show what is kept");
    button.addEventListener("click", () => whileBusy(button, () => this.#list()));
    this.element = element("section", { ariaLabel: "Kept" }, element("h2", {}, "Kept"),
      element("div", { className: "actions" }, button), this.message, this.place);
  }

  async #list() {
    say(this.message, "Reading what is kept…");
    try {
      const kept = await resultOf("/api/backups/list");
      say(this.message, "");
      this.place.replaceChildren(table("Kept", ["Backup", "Tenants", "Changed", "Faults", "Size", "Actions"], kept.map((one) => this.#row(one)), "There are no backups."));
    } catch (error) {
      say(this.message, error.message, true);
    }
  }

  #row(one) {
    if (one.error) return [one.name, element("td", { colSpan: 5 }, one.error)];
    const verify = element("button", { type: "button", className: "small" }, "Verify");
    verify.ariaLabel = `Verify ${one.name}`;
    verify.addEventListener("click", () => whileBusy(verify, () => {
      say(this.message, `Verifying ${one.name}: every tenant is restored into a scratch folder and read.`);
      return tell(this.message, () => run("/api/backups/verify", { name: one.name }));
    }));
    const restore = element("button", { type: "button", className: "small" }, "A tenant…");
    restore.ariaLabel = `Compare or restore a tenant from ${one.name}`;
    restore.addEventListener("click", () => new TenantOf(one).open());
    return [
      element("th", { scope: "row" }, one.name, element("small", { className: "muted block" }, shownTime(one.made))),
      number(one.tenants), number(one.changed), number(one.missing), number(one.sizeBytes, bytes(one.sizeBytes)),
      element("td", {}, element("div", { className: "row-buttons" }, verify, restore)),
    ];
  }
}

function duration(seconds) {
  if (seconds % 86_400 === 0) return `${seconds / 86_400} d`;
  if (seconds % 3600 === 0) return `${seconds / 3600} h`;
  return `${Math.round(seconds / 60)} min`;
}
