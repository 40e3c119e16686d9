// The page /test-multi-app-sync.html: who is logged in, three devices of that tenant, and the demonstration on them.
//
// Tokens stay in this page: after a reload somebody logs in again, and meets the replicas that this browser keeps for
// that account.

import { memoryStore } from "/static/client/index.js";
import { wireAccount } from "./account.js";
import { originOf } from "./api.js";
import { AppView } from "./app-view.js";
import { databaseName, Device } from "./device.js";
import { byId, say, setText } from "./dom.js";
import { Story } from "./story.js";
import { Verdict } from "./verdict.js";
import { count } from "./words.js";

const NUMBERS = [1, 2, 3];
const views = NUMBERS.map((number) => new AppView(byId(`app-${number}`), nameOf));
const verdict = new Verdict();
const fields = { server: byId("serverUrl"), token: byId("token") };
let session = null;
let devices = [];
let story = null;
let isPlayWanted = false;

function nameOf(deviceId) {
  const found = devices.find((device) => deviceId && device.deviceId === deviceId);
  return found ? `App ${found.number}` : "Another device";
}

// --- coming and going ------------------------------------------------------------------------------------------------

/** Open the three devices of a tenant; whoever was there before leaves first. */
async function enter(pair, tenantId, who) {
  leave();
  const begun = { server: originOf(fields.server.value), tenantId, tokens: memoryStore(pair) };
  session = begun;
  const opened = await Promise.all(NUMBERS.map((number) => Device.open(begun, number)));
  if (session !== begun) return opened.forEach((device) => device.close()); // Somebody else came meanwhile.
  devices = opened;
  setText(byId("tenant"), `${who}, tenant ${tenantId}`);
  showSignIn(false);
  views.forEach((view, index) => view.attach(devices[index]));
  for (const device of devices) listen(device);
  verdict.watch(session, devices);
  await offerTidying();
  if (isPlayWanted) await play();
}

function listen(device) {
  device.addEventListener("change", () => device.isSignedOut && showSignIn(true));
  device.addEventListener("forgotten", () => leave("Another tab has removed the copies."));
}

function leave(why = "") {
  story?.stop();
  session = null;
  byId("tidy").hidden = true;
  for (const device of devices) device.close();
  devices = [];
  for (const view of views) view.detach();
  verdict.leave();
  setText(byId("tenant"), "");
  say(byId("session-message"), why);
  showSignIn(true);
}

/** Show the forms to log in; a session that is over stays in sight beside them. */
function showSignIn(isShown) {
  byId("sign-in").hidden = !isShown;
  byId("session").hidden = !session;
}

/** Remove what this browser keeps for this tenant. */
async function forget() {
  const waiting = devices.reduce((sum, device) => sum + device.waiting.length, 0);
  if (waiting && !confirm(`${count(waiting, "edit")} not sent yet would be lost. Remove them?`)) return;
  const gone = session;
  devices[0]?.postForgotten();
  leave("The copies in this browser are removed.");
  for (const number of NUMBERS) indexedDB.deleteDatabase(databaseName(gone, number));
}

// --- the demonstration -----------------------------------------------------------------------------------------------

async function play() {
  if (story) return story.stop();
  isPlayWanted = !session;
  if (!session) return askForAccount();
  const act = (number) => views.forEach((view, index) => (view.isActing = index + 1 === number));
  story = new Story(devices, verdict, { show: showCaption, act, made: (id) => devices[0].noteLeft(id), pauseMs: () => Number(byId("pace").value) });
  showPlaying(true);
  try {
    await story.play();
  } finally {
    story = null;
    showPlaying(false);
    await offerTidying();
  }
}

/** Lead somebody who wants to see the demonstration to what it needs first. */
function askForAccount() {
  showCaption({ text: "It plays on an account: log in or register, and it begins by itself." });
  byId("loginEmail").closest("details").open = true;
  byId("loginEmail").focus();
}

/** Offer to remove what the demonstration added, if some of it is there. */
async function offerTidying() {
  byId("tidy").hidden = Boolean(story) || !(await devices[0]?.leftRows())?.length;
}

async function tidy() {
  const [device] = devices;
  for (const id of await device.leftRows()) await device.remove(id);
  byId("tidy").hidden = true;
  showCaption({ text: "The rows of the demonstration are removed." });
}

function showPlaying(isPlaying) {
  if (isPlaying) byId("tidy").hidden = true;
  byId("verdict").classList.toggle("playing", isPlaying);
  byId("verdict").scrollIntoView({ block: "nearest" });
  setText(byId("play"), isPlaying ? "Stop" : "Play the demonstration");
}

function showCaption({ text, place = "" }) {
  setText(byId("caption-place"), place);
  setText(byId("caption"), text);
}

// --- wiring ----------------------------------------------------------------------------------------------------------

/** Read whose token it is; it is not checked here, the server does that. */
function tenantOf(token) {
  const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
  return JSON.parse(atob(payload)).customerId;
}

async function enterWithToken(event) {
  event.preventDefault();
  const token = fields.token.value.trim();
  try {
    await enter({ token }, tenantOf(token), "With a token");
  } catch {
    say(byId("session-message"), "This is no token of this server.", true);
  }
}

fields.server.value = location.origin;
verdict.leave();
wireAccount(
  () => originOf(fields.server.value),
  ({ token, refreshToken, customer }) => enter({ token, refreshToken }, customer.id, customer.name),
);
byId("connection").addEventListener("submit", enterWithToken);
byId("leave").addEventListener("click", () => leave());
byId("forget").addEventListener("click", forget);
byId("play").addEventListener("click", play);
byId("tidy").addEventListener("click", tidy);
if (typeof io === "undefined") say(byId("session-message"), "The Socket.IO client could not be loaded: apps hear of others only when they sync.", true);
