// The page /console: who is logged in, which view is open, what stands in the way, what was just done.

import { byId, element, say, setText, whileBusy } from "../dom.js";
import { AccountView } from "./account-view.js";
import { ConflictsView } from "./conflicts-view.js";
import { DevicesView } from "./devices-view.js";
import { attempt, button, wireClosing } from "./parts.js";
import { Session } from "./session.js";
import { TablesView } from "./tables-view.js";

const TOLD_MS = 12_000;
const LINKS = { live: ["on", "Live"], connecting: ["busy", "Connecting…"], offline: ["lost", "Not connected"], unavailable: ["lost", "No live updates"] };
const TROUBLES = {
  offline: "The server can’t be reached. You see what was loaded before; what you type stays here until it can be saved.",
  suspended: "This account is suspended: nothing can be read or changed just now, and nothing is lost. Ask the operator of this server.",
  out: "You are logged out. What you typed is still here.",
};
const NAMES = { tables: "Tables", conflicts: "Conflicts", devices: "Devices", account: "Account" };

const session = new Session(askAgain);
let views = null;
let hiding = null;

// --- coming and going ------------------------------------------------------------------------------------------------

async function enter(event) {
  event.preventDefault();
  const message = byId("sign-in-message");
  const { email, password } = Object.fromEntries(new FormData(event.target));
  say(message, "Logging in…");
  if (!(await attempt(message, () => session.logIn(email, password)))) return;
  event.target.reset();
  await attempt(message, () => begin());
}

/** Open the views, once it is known which tables there are. */
async function begin() {
  const { data } = await session.call("/api/tables", { method: "GET" });
  const devices = new DevicesView(session, { tell });
  const names = () => devices.names();
  const shared = { tell, names, devices };
  attempt(byId("devices-message"), () => devices.refresh()); // Others name devices by it.
  views = { tables: new TablesView(session, { tables: data.tables, ...shared }), conflicts: new ConflictsView(session, shared), devices, account: new AccountView(session, shared) };
  byId("sign-in").hidden = true;
  byId("sections").hidden = byId("link").hidden = byId("leave").hidden = false;
  await route();
}

/** Have somebody log in again, over whatever is open; gives whether they did. */
function askAgain() {
  const dialog = byId("again");
  const message = byId("again-message");
  byId("again-email").value = session.customer?.email ?? "";
  say(message, "");
  const submitted = (event) => {
    event.preventDefault();
    whileBusy(byId("again-submit"), async () => {
      const isIn = await attempt(message, () => session.logIn(byId("again-email").value, byId("again-password").value));
      if (isIn) dialog.close("in");
    });
  };
  dialog.returnValue = "";
  dialog.addEventListener("submit", submitted);
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.removeEventListener("submit", submitted);
      byId("again-password").value = "";
      resolve(dialog.returnValue === "in");
    }, { once: true });
  });
}

async function logOut() {
  await session.logOut();
  location.hash = "";
  location.reload(); // Nothing of the account stays in the page.
}

// --- views -----------------------------------------------------------------------------------------------------------

async function route() {
  if (!views) return;
  const [name, ...rest] = parts(location.hash);
  const chosen = name in views ? name : "tables";
  for (const one of Object.keys(views)) byId(`view-${one}`).hidden = one !== chosen;
  for (const link of byId("sections").querySelectorAll("a")) {
    if (link.hash === `#/${chosen}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${NAMES[chosen]} – syncapp console`;
  await views[chosen].show(...rest);
}

function parts(hash) {
  try {
    return hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  } catch {
    return []; // Somebody's own address.
  }
}

// --- what there is to say --------------------------------------------------------------------------------------------

function showState() {
  const [name, text] = LINKS[session.trouble === "offline" ? "offline" : session.link];
  byId("link").dataset.state = name;
  setText(byId("link-text"), text);
  const trouble = views ? session.trouble : "";
  byId("trouble").hidden = !trouble;
  setText(byId("trouble-text"), TROUBLES[trouble] ?? "");
  byId("log-in-again").hidden = trouble !== "out";
}

/** Say what was done, with a way back if there is one. */
function tell(text, undo) {
  if (!text) return;
  clearTimeout(hiding);
  const more = undo ? [button("Undo", () => attempt(byId("told"), undo), { className: "small" })] : [];
  byId("told").replaceChildren(element("span", {}, text), ...more);
  byId("told").hidden = false;
  hiding = setTimeout(() => (byId("told").hidden = true), TOLD_MS);
}

// --- wiring ----------------------------------------------------------------------------------------------------------

byId("sign-in-form").addEventListener("submit", (event) => whileBusy(byId("sign-in-submit"), () => enter(event)));
byId("leave").addEventListener("click", logOut);
byId("log-in-again").addEventListener("click", () => session.ask());
wireClosing(byId("again"));
session.addEventListener("state", showState);
addEventListener("hashchange", route);
addEventListener("beforeunload", (event) => views?.tables.dialog.isTyped && event.preventDefault());
addEventListener("offline", () => session.note("offline"));
addEventListener("online", () => session.look());
if (typeof io === "undefined") say(byId("sign-in-message"), "The Socket.IO client could not be loaded: changes of others appear only when you reload.", true);
