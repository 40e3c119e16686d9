// The record: what operators did, by a command or here.

import { get } from "./admin-api.js";
import { element } from "./dom.js";
import { shownTime, table, tenantLink } from "./admin-parts.js";

export async function show(page) {
  page.append(element("h1", {}, "Record"));
  const { entries, most } = await get("/api/record");
  const rows = entries.map(({ at, action, tenant, about, by }) => [
    shownTime(at), action, tenant ? tenantLink(tenant) : "–", about ?? "", by,
  ]);
  page.append(
    element("p", { className: "muted" }, `What operators did, the newest first, at most ${most}. The command actions lists more.`),
    table("Record", ["When", "What", "Tenant", "About", "By"], rows, "Nothing yet."),
  );
}
