// The page /test-multi-app-sync.html: three apps of one tenant, each with its own connection, cursor and rows.

import { wireAccount } from "./account.js";
import { originOf } from "./api.js";
import { Connection } from "./connection.js";
import { byId, clock, setText, whileBusy } from "./dom.js";
import { newId, Replica } from "./replica.js";
import { RowList } from "./row-list.js";

const RETRY_MS = 3000;
const serverField = byId("serverUrl");
const tokenField = byId("token");

/** One app: a replica, a connection that tells it when to catch up, and its part of the page. */
class App {
  constructor(root) {
    this.root = root;
    this.device = `web-app-${root.dataset.number}`;
    this.find = (selector) => root.querySelector(selector);
    const act = { update: (row, fields) => this.update(row, fields), remove: (row) => this.remove(row) };
    this.list = new RowList(this.find(".rows"), this.find(".more"), act);
    this.find(".create").addEventListener("submit", (event) => this.create(event));
  }

  // --- going on line and off ---

  /** Begin a session with nothing known, as a newly installed app does. */
  start(session) {
    this.stop();
    this.replica = new Replica(session, this.device, (ids) => this.show(ids));
    const hear = { state: (state) => this.showState(state), event: (name, payload) => this.hear(name, payload) };
    this.connection = new Connection(session.server, () => this.auth(session), hear);
    this.show([]);
    this.connection.open();
  }

  stop() {
    clearTimeout(this.retry);
    this.connection?.close();
    this.complain("");
  }

  auth({ token }) {
    const said = { token, deviceId: this.device };
    return this.replica.cursor === null ? said : { ...said, cursor: this.replica.cursor };
  }

  // --- receiving ---

  hear(name, payload) {
    setText(this.find(".last"), `${payload?.type ?? name} at ${clock()}`);
    if (name === "authenticated") setText(byId("tenant"), `Tenant ${payload.tenantId}`);
    if (name === "authenticated" && (payload.missed > 0 || this.replica.cursor !== payload.cursor)) this.catchUp();
    if (name === "sync_notification" && payload?.type === "data_available") this.catchUp();
  }

  /** Catch up; what fails for a passing reason is tried again. */
  async catchUp() {
    clearTimeout(this.retry);
    const replica = this.replica;
    try {
      await replica.catchUp();
      if (replica === this.replica) this.complain("");
    } catch (error) {
      if (replica !== this.replica) return;
      this.complain(error.message);
      if (this.connection.isOn) this.retry = setTimeout(() => this.catchUp(), RETRY_MS);
    }
  }

  // --- sending: all changes pass here, so that an app that is off line can keep them ---

  async send(operation, data, baseVersion) {
    try {
      await this.replica.send(operation, data, baseVersion);
    } catch (error) {
      this.complain(error.message);
      return false;
    }
    this.complain("");
    if (!this.connection.isOn) this.catchUp(); // Nobody will tell it of its own change.
    return true;
  }

  create(event) {
    event.preventDefault();
    const form = event.target;
    const { name, phone } = Object.fromEntries(new FormData(form));
    whileBusy(form.querySelector("button"), async () => {
      const data = { id: newId(), name, ...(phone && { phone }) };
      if (!(await this.send("create", data))) return;
      form.reset();
      form.elements.name.focus();
    });
  }

  update(row, fields) {
    return this.send("update", { id: row.id, ...fields }, row.version);
  }

  remove(row) {
    return this.send("delete", { id: row.id }, row.version);
  }

  // --- showing ---

  show(ids) {
    setText(this.find(".count"), String(this.replica.rows.size));
    setText(this.find(".cursor"), this.replica.cursor ?? "–");
    this.list.show(this.replica.rows, ids);
  }

  showState({ name, text, hint }) {
    this.find(".state").dataset.state = name;
    setText(this.find(".status"), text);
    setText(this.find(".hint"), hint);
    this.find(".create button").disabled = name === "off";
    showButton();
  }

  complain(text) {
    setText(this.find(".problem"), text);
  }
}

const apps = [...document.querySelectorAll(".app")].map((root) => new App(root));
const areWanted = () => apps.some((app) => app.connection?.isWanted);

function showButton() {
  setText(byId("connect"), areWanted() ? "Disconnect all" : "Connect all");
}

function start() {
  const session = { server: originOf(serverField.value), token: tokenField.value.trim() };
  apps.forEach((app) => app.start(session));
}

function loggedIn({ token }) {
  tokenField.value = token;
  start();
}

serverField.value = location.origin;
wireAccount(() => originOf(serverField.value), loggedIn);
byId("connection").addEventListener("submit", (event) => {
  event.preventDefault();
  if (areWanted()) apps.forEach((app) => app.stop());
  else start();
});
