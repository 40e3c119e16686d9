/**
 * The page that all examples share: a log-in, a list of people, a field to add one.
 *
 * Knows: the document. Must not know: which library keeps the rows; an example gives `open(client, name)`.
 */

import { browserStore, newId, SyncClient } from "syncapp-client";

/**
 * @typedef {{ id: string, name?: string }} Person
 * @typedef {{ all(): Promise<Person[]>, add(name: string): Promise<unknown>, rename(id: string, name: string): Promise<unknown>,
 *   remove(id: string): Promise<unknown>, subscribe(hear: () => void): unknown }} People
 */

/**
 * @typedef {{ server: string, id: string }} Account whose tokens, device and database are its own
 * @typedef {(client: SyncClient, name: string) => Promise<People>} Open `name` is the database's
 */

/** @param {Open} open */
export async function app(open) {
  document.body.append(template());
  const login = /** @type {HTMLFormElement} */ (document.forms.namedItem("login"));
  login.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { server, email, password } = Object.fromEntries(new FormData(login));
    await said(loggedIn(open, String(server), String(email), String(password)));
  });
  const kept = localStorage.getItem("account");
  if (kept) await said(begin(open, JSON.parse(kept)));
}

/** @param {Open} open @param {string} server @param {string} email @param {string} password */
async function loggedIn(open, server, email, password) {
  const client = new SyncClient({ url: server });
  const { id } = await client.logIn(email, password);
  await clientFor({ server, id }).tokens.store.write(await client.tokens.store.read());
  const isAnother = localStorage.getItem("account") !== null;
  localStorage.setItem("account", JSON.stringify({ server, id }));
  if (isAnother) location.reload(); // What the one before has opened goes with the page.
  else await begin(open, { server, id });
}

/** @param {Account} account */
function clientFor({ server, id }) {
  const device = `device ${location.pathname} ${id}`;
  const deviceId = localStorage.getItem(device) ?? newId();
  localStorage.setItem(device, deviceId);
  return new SyncClient({ url: server, store: browserStore(`tokens ${id}`), deviceId });
}

/** @param {Open} open @param {Account} account */
async function begin(open, account) {
  const people = await open(clientFor(account), `example${location.pathname.replaceAll(/\W/g, "-")}-${account.id}`);
  const add = /** @type {HTMLFormElement} */ (document.forms.namedItem("add"));
  add.hidden = false;
  add.onsubmit = (event) => {
    event.preventDefault();
    void said(people.add(String(new FormData(add).get("name"))));
    add.reset();
  };
  const draw = async () => element("ul").replaceChildren(...(await people.all()).sort(byName).slice(0, 100).map((one) => item(one, people)));
  people.subscribe(() => void draw());
  await draw();
}

/** @param {Person} one @param {People} people */
function item({ id, name }, people) {
  const line = document.createElement("li");
  const field = Object.assign(document.createElement("input"), { value: name ?? "", ariaLabel: "Name" });
  field.onchange = () => void said(people.rename(id, field.value));
  const remove = Object.assign(document.createElement("button"), { textContent: "Delete", ariaLabel: `Delete ${name}` });
  remove.onclick = () => void said(people.remove(id));
  line.append(field, " ", remove);
  return line;
}

/** Say on the page what went wrong. @param {Promise<unknown>} work */
async function said(work) {
  element("output").textContent = "";
  await work.catch((error) => (element("output").textContent = error.message));
}

/** @param {Person} one @param {Person} other */
const byName = (one, other) => (one.name ?? "").localeCompare(other.name ?? "");

/** @param {string} selector */
const element = (selector) => /** @type {HTMLElement} */ (document.querySelector(selector));

function template() {
  const made = document.createElement("template");
  made.innerHTML = `
    <form name="login">
      <label>Server <input name="server" value="http://localhost:3000" required></label>
      <label>E-mail <input name="email" type="email" autocomplete="username" required></label>
      <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
      <button>Log in</button>
    </form>
    <form name="add" hidden><label>Name <input name="name" required></label> <button>Add</button></form>
    <output></output>
    <ul></ul>`;
  return made.content;
}
