// One tenant: what it has, who uses it, and what the operator may do to it.

import { get, post } from "./admin-api.js";
import { offerActions } from "./admin-tenant-actions.js";
import { bytes, fact, facts, number, shownTime, stateTag, table } from "./admin-parts.js";
import { element, say, whileBusy } from "./dom.js";
import { offerRows } from "./admin-rows.js";

export async function show(page, id) {
  const place = element("div", { className: "stack" });
  page.append(place);
  const refresh = async () => fill(place, await get(`/api/tenants/${encodeURIComponent(id)}`), refresh);
  await refresh();
}

function fill(place, tenant, refresh) {
  document.title = `${tenant.email} – syncapp console`;
  const path = `/api/tenants/${encodeURIComponent(tenant.id)}`;
  place.replaceChildren(
    element("div", { className: "heading" }, element("h1", {}, tenant.email), stateTag(tenant)),
    element("section", { className: "card", ariaLabel: "Account and use" }, aboutOf(tenant)),
    offerActions(tenant, path, refresh),
    ...(tenant.fault ? [] : [tablesOf(tenant, path), devicesOf(tenant)]),
    usageOf(tenant), sessionsOf(tenant, path, refresh),
    quotasOf(tenant),
  );
}

function aboutOf(tenant) {
  return facts([
    fact("Name", tenant.name), fact("Company", tenant.companyName), fact("Phone", tenant.phone),
    fact("ID", element("code", {}, tenant.id)), fact("Registered", shownTime(tenant.createdAt)),
    tenant.fault && fact("Fault", `Its database can't be read: ${tenant.fault}`),
    fact("Size", `${bytes(tenant.bytes)} of ${bytes(tenant.mostBytes)}, with history and deleted rows`),
    fact("Changes", tenant.changes?.toLocaleString("en")), fact("Last change", shownTime(tenant.lastChangeAt)),
    fact("Last seen", shownTime(tenant.lastSeenAt)), fact("Open conflicts", tenant.openConflicts?.toLocaleString("en")),
    fact("Sockets now", tenant.sockets),
    fact("In the record", element("a", { href: `/admin/record?tenant=${encodeURIComponent(tenant.id)}` }, "what operators did to it")),
    fact("In the log", element("a", { href: `/admin/log?tenant=${encodeURIComponent(tenant.id)}` }, "its newest lines")),
  ]);
}

function section(name, ...children) {
  return element("section", { ariaLabel: name }, element("h2", {}, name), ...children);
}

function tablesOf(tenant, path) {
  const rows = Object.entries(tenant.tables).map(([name, count]) => [name, number(count), offerRows(path, name)]);
  return section("Tables",
    element("p", { className: "muted" }, "No row is shown here unless you ask for it, and then the record says that you did."),
    table("Tables", ["Table", "Rows", "Actions"], rows, "No tables."));
}

function devicesOf(tenant) {
  const rows = tenant.deviceList.map((one) => [
    element("th", { scope: "row" }, one.name ?? one.deviceId, one.name ? element("small", { className: "muted block" }, one.deviceId) : ""),
    number(one.behind, one.behind === 0 ? "up to date" : `${one.behind.toLocaleString("en")} ${one.behind === 1 ? "change" : "changes"}`),
    shownTime(one.lastSeen), shownTime(one.firstSeen), one.expired ? "must pull from the start" : "",
  ]);
  const more = tenant.devices - tenant.deviceList.length;
  return section("Devices",
    ...(tenant.devicesFault ? [element("p", { className: "message error" }, tenant.devicesFault)] : []),
    table("Devices", ["Device", "Behind", "Last seen", "First seen", "Note"], rows, "No device has named itself."),
    ...(more > 0 ? [element("p", { className: "muted" }, `And ${more.toLocaleString("en")} that were seen longer ago.`)] : []));
}

function usageOf(tenant) {
  const rows = tenant.usage.map((one) => [
    one.day, number(one.requests), number(one.pushes), number(one.rows_pushed), number(one.rows_pulled),
    number(one.bytes_in, bytes(one.bytes_in)), number(one.bytes_out, bytes(one.bytes_out)), number(one.most_sockets),
  ]);
  return section("Use by day, UTC",
    table("Use by day", ["Day", "Requests", "Pushes", "Rows pushed", "Rows pulled", "In", "Out", "Most sockets"], rows, "Nothing was used in the last two weeks, or it is not stored yet: that is done each minute."));
}

function sessionsOf(tenant, path, refresh) {
  const message = element("p", { id: "ended", className: "message", role: "status", tabIndex: -1 });
  const rows = tenant.sessions.map((one) => {
    const button = element("button", { type: "button", className: "small" }, "End");
    button.ariaLabel = `End the session of ${one.createdAt}`;
    button.addEventListener("click", () => whileBusy(button, async () => {
      try {
        const { message: told } = await post(`${path}/end-sessions`, { session: one.id });
        await refresh();
        say(document.getElementById("ended"), told);
        document.getElementById("ended").focus(); // The button that was pressed is gone.
      } catch (error) {
        say(message, error.message, true);
      }
    }));
    return [element("code", {}, one.id), one.devices.join(", ") || "–", shownTime(one.createdAt), shownTime(one.expiresAt), button];
  });
  return section("Sessions", table("Sessions", ["Session", "Devices", "Logged in", "Expires", "Actions"], rows, "Nobody is logged in."), message);
}

function quotasOf(tenant) {
  const rows = tenant.remaining.map((one) => [
    one.name, number(one.limit), `${one.window_seconds} s`, number(one.remaining), one.reset_seconds ? `in ${one.reset_seconds} s` : "now",
  ]);
  const own = Object.entries(tenant.quotas ?? {}).map(([name, value]) => `${name} ${value}`).join(", ");
  return section("Quotas, at the process that answers",
    ...(own ? [element("p", { className: "muted" }, `Of its own: ${own}.`)] : []), table("Quotas", ["Of", "Most", "Within", "Left", "All again"], rows, "None."));
}
