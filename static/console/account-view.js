// The account: who it is, its sessions, a new password, and an archive of everything to take away.

import { byId, element, say, setText, whileBusy } from "../dom.js";
import { count } from "../words.js";
import { leftOut, MOST_SHOWN } from "./devices-view.js";
import { asked, attempt, button, table, time, wireClosing } from "./parts.js";
import { CONSOLE } from "./session.js";

const SESSIONS = "/api/customers/me/sessions";
const LEAST_BYTES = 8;
const MOST_BYTES = 72;

export class AccountView {
  constructor(session, { devices, tell }) {
    this.session = session;
    this.devices = devices;
    this.tell = tell;
    byId("password-form").addEventListener("submit", (event) => this.#onSubmit(event, () => this.#changePassword()));
    byId("export-form").addEventListener("submit", (event) => this.#onSubmit(event, () => this.#export()));
    byId("end-others").addEventListener("click", () => this.#endOthers());
    wireClosing(byId("sure"));
  }

  async show() {
    const { name, email, companyName } = this.session.customer;
    byId("account-facts").replaceChildren(...[["Name", name], ["E-mail", email], ["Company", companyName]].map(fact));
    byId("password-user").value = email;
    await this.refresh();
  }

  refresh() {
    return attempt(byId("sessions-message"), async () => {
      await this.devices.refresh();
      this.#draw();
    });
  }

  #draw() {
    const { sessions } = this.devices;
    const lines = sessions.slice(0, MOST_SHOWN).map(({ sessionId, current, createdAt, expiresAt }) => {
      const act = current ? element("span", { className: "tag" }, "this page") : button("End", () => this.#end(sessionId), { className: "small" });
      return [this.#usedBy(sessionId), time(createdAt), time(expiresAt), act];
    });
    byId("session-list").replaceChildren(table(["Used by", "Logged in", "Ends", "Actions"], lines, "list-table"));
    setText(byId("sessions-more"), leftOut(sessions, "session", "newest"));
    byId("end-others").hidden = sessions.length < 2;
  }

  /** Name the devices that came with a session last. */
  #usedBy(id) {
    const used = this.devices.all.filter(({ sessionId }) => sessionId === id);
    const names = used.map(({ deviceId, name }) => name || (deviceId.startsWith(CONSOLE) ? "Console in a browser" : deviceId));
    return names.length ? [...new Set(names)].join(", ") : "A device without a name";
  }

  async #end(sessionId) {
    const isDone = await attempt(byId("sessions-message"), () => this.session.call(`${SESSIONS}/${sessionId}`, { method: "DELETE" }));
    if (isDone) this.tell("That session has ended.");
    await this.refresh();
  }

  async #endOthers() {
    if (!(await asked(byId("sure")))) return;
    await attempt(byId("sessions-message"), async () => {
      const { data } = await this.session.call(SESSIONS, { method: "DELETE" });
      this.tell(`${count(data.ended, "session")} ended.`);
    });
    await this.refresh();
  }

  #onSubmit(event, work) {
    event.preventDefault();
    whileBusy(event.target.querySelector("[type=submit]"), work);
  }

  async #changePassword() {
    const form = byId("password-form");
    const message = byId("password-message");
    const { oldPassword, newPassword, again } = Object.fromEntries(new FormData(form));
    const bytes = new TextEncoder().encode(newPassword.normalize()).length;
    if (newPassword !== again) return say(message, "The two new passwords differ.", true);
    if (bytes < LEAST_BYTES || bytes > MOST_BYTES) return say(message, `The new password must have ${LEAST_BYTES} to ${MOST_BYTES} bytes: letters of most alphabets but the Latin count two or more.`, true);
    const isDone = await attempt(message, () => this.session.call("/api/customers/me/password", { body: { oldPassword, newPassword } }));
    if (!isDone) return;
    form.reset();
    byId("password-user").value = this.session.customer.email;
    say(message, "The password is changed. All other sessions have ended: your apps ask for the new one.");
    await this.refresh();
  }

  async #export() {
    const form = byId("export-form");
    const message = byId("export-message");
    say(message, "The archive is being made. With many rows this takes a while; keep this page open.");
    const { password } = Object.fromEntries(new FormData(form));
    await attempt(message, async () => {
      const file = await this.session.run((client) => client.download("/api/customers/me/export", { password }, "application/zip"));
      form.reset();
      save(file, `syncapp-${new Date().toISOString().slice(0, 10)}.zip`);
      say(message, `Done: ${sizeText(file.size)}. Your browser has saved it with your downloads.`);
    });
  }
}

function fact([name, value]) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}

/** Hand a file to the browser's downloads. */
function save(file, name) {
  const address = URL.createObjectURL(file);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function sizeText(bytes) {
  return bytes < 1_000_000 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;
}
