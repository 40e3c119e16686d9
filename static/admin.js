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
    try {
      await post("/sign-out");
      location.assign("/admin/sign-in");
    } catch (error) {
      failed(`You are still signed in. ${error.message}`);
    }
  });
});

const page = byId("page");

function failed(text) {
  const message = element("p", { className: "card message", role: "alert" });
  page.prepend(message);
  say(message, text, true);
}

try {
  const { show } = await import(MODULES[part]);
  await show(page, decodeURIComponent(about));
  document.title = `${page.querySelector("h1").textContent} – syncapp console`;
  page.dataset.ready = "true";
} catch (error) {
  failed(error.message);
}
