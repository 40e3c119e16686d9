// The record: what operators did, by a command or here.

import { get } from "./admin-api.js";
import { element } from "./dom.js";
import { shownTime, table, tenantLink } from "./admin-parts.js";

export async function show(page) {
  page.append(element("h1", {}, "Record"));
  const tenant = new URLSearchParams(location.search).get("tenant") ?? "";
  const { entries, most } = await get("/api/record", { tenant });
  const rows = entries.map(({ at, action, tenant: to, about, by }) => [
    shownTime(at), action, to ? tenantLink(to, `${to.slice(0, 8)}…`) : "–", about ?? "", by,
  ]);
  page.append(
    element("p", { className: "muted" }, `What operators did${tenant && ` to the tenant ${tenant}`}, the newest first, at most ${most}. The command actions lists more.`),
    table("Record", ["When", "What", "Tenant", "About", "By"], rows, "Nothing yet."),
  );
}
