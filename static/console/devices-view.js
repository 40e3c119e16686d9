// The devices of the account: how far each is behind, when it was last here; naming one, and locking out one that was lost.

import { byId, element, setText } from "../dom.js";
import { count } from "../words.js";
import { asked, attempt, button, table, time, wireClosing } from "./parts.js";
import { CONSOLE } from "./session.js";
import { lagText } from "./text.js";

const PATH = "/api/client/devices";
const SESSIONS = "/api/customers/me/sessions";
export const MOST_SHOWN = 200; // An app that names itself anew at each start comes to thousands.

/** Say how many of a list are not shown, if any. */
export function leftOut({ length }, what, order) {
  return length > MOST_SHOWN ? `The ${MOST_SHOWN} ${order} of ${count(length, what)}.` : "";
}

export class DevicesView {
  devices = [];

  constructor(session, { tell }) {
    this.session = session;
    this.tell = tell;
    this.message = byId("devices-message");
    wireClosing(byId("end-device"));
    wireClosing(byId("name-device"));
  }

  show() {
    return attempt(this.message, () => this.refresh());
  }

  /** Read the devices and the sessions; consoles whose session is over are forgotten. */
  async refresh() {
    const [devices, sessions] = await Promise.all([PATH, SESSIONS].map((path) => this.session.call(path, { method: "GET" })));
    const live = new Set(sessions.data.map(({ sessionId }) => sessionId));
    this.all = devices.data;
    this.devices = this.all.filter(({ deviceId }) => !deviceId.startsWith(CONSOLE));
    this.sessions = sessions.data;
    this.#draw(live);
    const gone = this.all.filter(({ deviceId, sessionId }) => deviceId.startsWith(CONSOLE) && !live.has(sessionId));
    for (const { deviceId } of gone) await this.session.call(`${PATH}/${deviceId}`, { method: "DELETE" }).catch(() => {});
  }

  /** Give the names that people gave to devices, by ID. */
  names() {
    return new Map(this.devices.map(({ deviceId, name }) => [deviceId, name || deviceId]));
  }

  #draw(live) {
    const lines = this.devices.slice(0, MOST_SHOWN).map((device) => {
      const name = element("span", {}, element("strong", {}, device.name || device.deviceId), element("span", { className: "muted code" }, device.name ? device.deviceId : ""));
      const lag = element("span", { className: device.behind || device.expired ? "late" : "fine" }, lagText(device));
      const login = live.has(device.sessionId) ? "Logged in" : device.sessionId ? "Logged out" : "Not known yet";
      return [name, lag, time(device.lastSeen), login, this.#buttons(device, live.has(device.sessionId))];
    });
    byId("device-list").replaceChildren(...(lines.length ? [table(["Device", "Rows", "Last seen", "Log-in", "Actions"], lines, "list-table")] : []));
    byId("devices-empty").hidden = lines.length > 0;
    setText(byId("devices-more"), leftOut(this.devices, "device", "seen last"));
  }

  #buttons(device, isLive) {
    const name = device.name || device.deviceId;
    const rename = button("Rename", () => this.#rename(device), { className: "small", label: `Rename ${name}` });
    const end = button(isLive ? "Lock out…" : "Forget…", () => this.#end(device, isLive), { className: "small", label: `${isLive ? "Lock out" : "Forget"} ${name}` });
    return element("div", { className: "actions" }, rename, end);
  }

  async #rename(device) {
    byId("device-name").value = device.name ?? "";
    const given = await asked(byId("name-device"));
    if (given?.name) await this.#change(`Its name is ${given.name}.`, () => this.session.call(`${PATH}/${device.deviceId}`, { method: "PATCH", body: { name: given.name } }));
  }

  async #end(device, isLive) {
    const name = device.name || device.deviceId;
    const isOwn = this.sessions.some(({ sessionId, current }) => current && sessionId === device.sessionId);
    const others = this.devices.filter((other) => other !== device && isLive && other.sessionId === device.sessionId).map((other) => other.name || other.deviceId);
    setText(byId("end-device-title"), isLive ? `Lock out ${name}?` : `Forget ${name}?`);
    setText(byId("end-device-text"), explained({ isLive, isOwn, others }));
    byId("end-device-confirm").textContent = isLive && !isOwn ? "Lock it out" : "Forget it";
    if (!(await asked(byId("end-device")))) return;
    await this.#change(isLive && !isOwn ? `${name} is locked out.` : `${name} is forgotten.`, async () => {
      if (isLive && !isOwn) await this.session.call(`${SESSIONS}/${device.sessionId}`, { method: "DELETE" });
      await this.session.call(`${PATH}/${device.deviceId}`, { method: "DELETE" });
    });
  }

  async #change(said, work) {
    const isDone = await attempt(this.message, async () => {
      await work();
      await this.refresh();
    });
    if (isDone) this.tell(said);
  }
}

/** Say what will happen, and what will not. */
function explained({ isLive, isOwn, others }) {
  if (isOwn) return "It uses the same log-in as this page, so it can’t be locked out alone: log out here to end that. It is forgotten now, and counts as new when it comes back.";
  if (!isLive) return "Its log-in has ended already. It disappears from this list, and counts as new if it comes back.";
  const shared = others.length ? ` The same log-in is used by ${others.join(", ")}, which then has to log in again too.` : "";
  return `It is logged out at once and gets nothing any more. What it holds already stays on it, and what it has not sent is lost to you.${shared} Whoever knows the password can log in again: change it too if the device may be in wrong hands.`;
}
