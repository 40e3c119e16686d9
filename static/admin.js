// The console: marks where one is, and lets the module of the address fill the page.

import { post } from "./admin-api.js";
import { byId, element, say, whileBusy } from "./dom.js";

const [, , part = "", about = ""] = location.pathname.split("/");
const MODULES = {
  "": "./admin-overview.js",
  tenants: about ? "./admin-tenant.js" : "./admin-tenants.js",
  backups: "./admin-backups.js",
  log: "./admin-log.js",
  settings: "./admin-settings.js",
  checks: "./admin-checks.js",
  record: "./admin-record.js",
};

for (const link of byId("admin-nav").children) {
  if (link.pathname === `/admin${part && `/${part}`}`) link.setAttribute("aria-current", "page");
}
byId("sign-out").addEventListener("click", (event) => {
  whileBusy(event.currentTarget, async () => {
    await post("/sign-out");
    location.assign("/admin/sign-in");
  });
});

const page = byId("page");
try {
  const { show } = await import(MODULES[part]);
  await show(page, decodeURIComponent(about));
  page.dataset.ready = "true";
} catch (error) {
  const message = element("p", { className: "card message" });
  say(message, error.message, true);
  page.append(message);
}
