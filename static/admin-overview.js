// The overview: how the server is now, and charts of the last hour and day.

import { get } from "./admin-api.js";
import { Charts } from "./admin-charts.js";
import { bytes, fact, facts, number, shownTime, table, tenantLink } from "./admin-parts.js";
import { element, setText, showAnew } from "./dom.js";

const EVERY_MS = 10_000;
const DAY_SECONDS = 86_400;
const SOON_DAYS = 30;
const TELLING_SAMPLES = 12; // As in operations/samples.py.
const STATES = {
  ok: ["on", "Healthy"],
  degraded: ["lost", "Degraded: see below"],
  storage_full: ["failed", "The disk is full: nothing is stored"],
  ending: ["lost", "Ending"],
};

export async function show(page) {
  const state = element("p", { className: "state" }, element("span", { className: "dot", ariaHidden: "true" }), element("span", { id: "state", role: "status" }));
  const warnings = element("div", { className: "warnings" });
  const now = element("section", { className: "card", ariaLabel: "Now" });
  const charts = new Charts();
  const busiest = element("section", { className: "below", ariaLabel: "Busiest tenants" });
  page.append(
    element("div", { className: "heading" }, element("h1", {}, "Overview"), state),
    warnings, now, charts.element, busiest,
  );
  const refresh = async () => {
    const found = await get("/api/overview");
    const [kind, words] = STATES[found.health.status] ?? ["lost", found.health.status];
    state.dataset.state = kind;
    setText(state.lastChild, words);
    const told = warningsOf(found);
    showAnew(warnings, told, () => warningsOf(found).map((parts) => element("p", { className: "card warning" }, ...parts)));
    now.replaceChildren(factsOf(found));
    charts.show(found);
    showAnew(busiest, found.busiest, () => busiestOf(found.busiest));
  };
  await refresh();
  follow(refresh, state);
}

/** Look again and again while somebody looks at the page; an answer that is late makes no queue. */
function follow(refresh, state) {
  setInterval(async () => {
    if (document.hidden) return;
    try {
      await refresh();
    } catch (error) {
      state.dataset.state = "failed";
      setText(state.lastChild, error.message);
    }
  }, EVERY_MS);
}

function factsOf({ health, tenants, requests, memoryBytes, disk, day }) {
  const { authenticated, unauthenticated } = health.sockets ?? { authenticated: health.connectedClients };
  return facts([
    fact("Version", health.version),
    fact("Runs since", shownTime(new Date(Date.now() - health.uptimeSeconds * 1000).toISOString())),
    fact("Tenants", element("a", { href: "/admin/tenants" }, tenants.toLocaleString("en"))),
    fact("Sockets", `${authenticated}${unauthenticated ? `, and ${unauthenticated} not authenticated yet` : ""}`),
    fact("Requests", `${requests.running} running, ${requests.waiting} waiting`),
    fact("Memory", memoryBytes === null ? "–" : bytes(memoryBytes)),
    disk && fact("Disk", `${bytes(disk.freeBytes)} of ${bytes(disk.sizeBytes)} free; ${forecast(disk, day)}`),
  ]);
}

function forecast({ fullInSeconds }, day) {
  if (fullInSeconds === null && day.at.length < TELLING_SAMPLES) return "how fast it fills is told after an hour";
  if (fullInSeconds === null) return "not filling, as far as the last day tells";
  const days = fullInSeconds / DAY_SECONDS;
  if (days > 3650) return "at today's pace it lasts for years";
  if (days < 2) return `full in ${Math.max(1, Math.round(days * 24))} hours at today's pace`;
  return `full in ${Math.round(days).toLocaleString("en")} days at today's pace`;
}

function busiestOf(found) {
  const rows = found.map((one) => [
    tenantLink(one.tenant_id, one.email), number(one.requests), number(one.rows_pushed), number(one.rows_pulled),
    number(one.bytes_in, bytes(one.bytes_in)), number(one.bytes_out, bytes(one.bytes_out)),
  ]);
  return [
    element("h2", {}, "Busiest today, by UTC"),
    table("Busiest today", ["Customer", "Requests", "Rows pushed", "Rows pulled", "In", "Out"], rows, "Nobody yet."),
  ];
}

/** What needs somebody's attention, as texts and links. */
function warningsOf({ day, disk, faults, health }) {
  const told = [];
  if (disk && disk.fullInSeconds !== null && disk.fullInSeconds < SOON_DAYS * DAY_SECONDS) {
    told.push([`The disk is ${forecast(disk, day)}.`]);
  }
  if (faults.count > 0) {
    const lines = Object.entries(faults.first).map(([id, fault]) => element("li", {}, tenantLink(id), `: ${fault}`));
    const more = faults.count - lines.length;
    if (more > 0) lines.push(element("li", {}, `and ${more.toLocaleString("en")} more`));
    told.push([`Missing or damaged files of tenants: ${faults.count.toLocaleString("en")}. docs/backups.md says what to do.`, element("ul", {}, ...lines)]);
  }
  const { backups, isDiskLow, maintenance } = health;
  if (backups && !["ok", "none"].includes(backups.state)) {
    told.push([`Backups: ${backups.state}. `, element("a", { href: "/admin/backups" }, "The runs say why"), "."]);
  }
  if (isDiskLow) told.push(["The disk is low: pushes are refused until there is room; pulls and deletes go on."]);
  if (maintenance) told.push([`In maintenance since ${maintenance.since}${maintenance.message ? `: ${maintenance.message}` : ""}. Changes are refused.`]);
  if (health.processes) told.push(["Several processes serve this installation. Each page shows the numbers of the one that answers."]);
  return told;
}
