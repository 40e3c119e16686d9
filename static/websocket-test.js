// The page /websocket-test.html: one connection, every event it receives, and forms that cause some.

import { wireAccount } from "./account.js";
import { ApiError, originOf, post } from "./api.js";
import { Connection } from "./connection.js";
import { byId, say, setText, whileBusy } from "./dom.js";
import { EventLog } from "./event-log.js";

const fields = { server: byId("serverUrl"), token: byId("token"), tenant: byId("tenantId") };
const log = new EventLog(byId("log"), byId("log-empty"));
let connection = null;
let place = { server: null, tenantId: null, cursor: null };

// --- the connection --------------------------------------------------------------------------------------------------

/** Give what the fields hold now. A cursor counts only where it was given: another tenant has other changes. */
function auth() {
  const handshake = { token: fields.token.value.trim() };
  const tenantId = fields.tenant.value.trim();
  if (tenantId) handshake.tenantId = tenantId;
  const isSamePlace = place.server === connection?.server && (!tenantId || place.tenantId === tenantId);
  if (place.cursor && isSamePlace) handshake.cursor = place.cursor;
  return handshake;
}

function connect() {
  connection?.close();
  for (const fact of ["fact-tenant", "fact-missed"]) setText(byId(fact), "–"); // The server sends them again.
  connection = new Connection(originOf(fields.server.value), auth, { state: showState, event: showEvent });
  connection.open();
}

function showState({ name, text, hint }) {
  if (byId("status").textContent !== text) log.add("note", text);
  byId("status").closest(".state").dataset.state = name;
  setText(byId("status"), text);
  setText(byId("hint"), hint);
  setText(byId("connect"), connection.isWanted ? "Disconnect" : "Connect");
  byId("ping").disabled = !connection.isOn;
  fields.server.readOnly = connection.isWanted; // A connection keeps its server; token and tenant are read again.
}

function showEvent(name, payload) {
  log.add("in", name, payload);
  if (name === "authenticated") joined(payload);
  if (name === "sync_notification" && payload?.cursor) remember(payload.cursor);
}

function joined({ tenantId, cursor, missed, resyncRequired }) {
  place = { server: connection.server, tenantId, cursor };
  setText(byId("fact-tenant"), tenantId);
  setText(byId("fact-missed"), resyncRequired ? `${missed} changes, resync required` : changes(missed));
  remember(cursor);
}

function changes(count) {
  return count === 1 ? "1 change" : `${count} changes`;
}

function remember(cursor) {
  place.cursor = cursor;
  setText(byId("fact-cursor"), cursor);
}

// --- what a person does ----------------------------------------------------------------------------------------------

/** Call the server with the token; the log shows what was sent and answered, and `message` says how it went. */
async function call(path, body, message) {
  log.add("out", `POST ${path}`, body);
  try {
    const answer = await post(originOf(fields.server.value), path, body, { token: fields.token.value.trim() });
    log.add("in", "answer", answer);
    say(message, "Sent.");
  } catch (error) {
    if (error instanceof ApiError && error.body) log.add("in", `answer ${error.status}`, error.body);
    say(message, error.message, true);
  }
}

function notify(type) {
  const body = { type, entityType: "end_user", message: byId("note").value || "Test notification" };
  return call("/api/client/notifications/test", body, byId("notify-message"));
}

function push(form) {
  const values = Object.fromEntries(new FormData(form));
  const data = parsed(values.data);
  if (data === null) return undefined;
  return call("/api/client/sync/push", { table: values.table.trim(), operation: values.operation, data }, byId("push-message"));
}

/** Read the JSON that was typed, or say what is wrong with it and give null. */
function parsed(text) {
  let data = null;
  let problem = "Data must be a JSON object.";
  try {
    data = JSON.parse(text);
  } catch (error) {
    problem = `Data is no valid JSON: ${error.message}`;
  }
  const isGood = typeof data === "object" && data !== null && !Array.isArray(data);
  byId("data").setAttribute("aria-invalid", String(!isGood));
  say(byId("push-message"), isGood ? "" : problem, !isGood);
  return isGood ? data : null;
}

function loggedIn({ token, customer }) {
  if (connection?.isWanted) connection.close();
  fields.token.value = token;
  fields.tenant.value = customer.id;
  byId("connect").focus();
}

// --- wiring ----------------------------------------------------------------------------------------------------------

/** Have a form call `work` instead of leaving the page. */
function onSubmit(id, work) {
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    work(event.target);
  });
}

fields.server.value = location.origin;
wireAccount(() => originOf(fields.server.value), loggedIn);
onSubmit("connection", () => (connection?.isWanted ? connection.close() : connect()));
onSubmit("push", (form) => whileBusy(form.querySelector("button"), () => push(form)));
byId("notify").addEventListener("click", ({ target }) => {
  if (target.dataset.type) whileBusy(target, () => notify(target.dataset.type));
});
byId("ping").addEventListener("click", () => {
  log.add("out", "ping");
  connection.emit("ping");
});
byId("clear").addEventListener("click", () => log.clear());
