// What the page says of devices, edits and conflicts, in words. It knows no elements and makes no calls.

const FIELDS = { name: "Name", phone: "Phone", is_deleted: "Deleted" };

export const fieldName = (field) => FIELDS[field] ?? field;

export function valueText(field, value) {
  if (field === "is_deleted") return value ? "yes" : "no";
  if (value === null || value === undefined || value === "") return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

export const waitingText = ({ waiting }) => `${count(waiting.length, "edit")} waiting`;

/** Say how a device is: a name for the colour, and words. */
export function stateOf({ isOn, isSignedOut, problem, sync, link }) {
  if (!isOn) return { name: "off", text: "Offline" };
  if (isSignedOut) return { name: "failed", text: "Signed out" };
  if (problem) return { name: "failed", text: problem };
  if (sync === "offline" || (link === "offline" && sync !== "syncing")) return { name: "lost", text: "Server not reachable" };
  if (sync === "syncing") return { name: "busy", text: "Syncing…" };
  return link === "connecting" ? { name: "busy", text: "Connecting…" } : { name: "on", text: "Online" };
}

/** Say what an edit in the queue does; `names` has the rows' names by ID. */
export function editText({ operation, id, data, base }, names) {
  const name = base?.name || names.get(id) || "a row";
  if (operation === "delete") return `Delete ${name}`;
  if (operation === "create") return `Add ${data.name || "a row"}`;
  const changes = Object.entries(data).filter(([field]) => field !== "id");
  return `Edit ${name}: ${changes.map(([field, value]) => `${fieldName(field)} → ${valueText(field, value)}`).join(", ")}`;
}

/** Judge whether all devices hold what the server holds: `theirs` is its digest, null if it can't be asked. */
export function verdictOf(devices, theirs) {
  const against = theirs ?? devices[0].digest;
  const reasons = devices.flatMap((device) => reasonOf(device, against, theirs !== null));
  if (reasons.length) return { isEqual: false, headline: "Not all equal", reasons };
  const rows = `${count(against.count, "row")}, hash ${against.hash}`;
  if (theirs) return { isEqual: true, headline: "All three equal", reasons: [`${rows}, the same as the server’s.`] };
  return { isEqual: false, headline: "The server can’t be asked", reasons: [`Among themselves the three are equal: ${rows}.`] };
}

function reasonOf(device, against, isServer) {
  const isSame = device.digest.hash === against.hash && device.digest.count === against.count;
  if (isSame && !device.waiting.length) return [];
  const words = [stateOf(device).text.toLowerCase().replace("…", "")];
  if (device.waiting.length) words.push(waitingText(device));
  else words.push(differenceText(device.digest, against, isServer ? "the server" : "App 1"));
  return [`App ${device.number}: ${words.join(", ")}.`];
}

function differenceText(mine, against, whose) {
  if (mine.count !== against.count) return `${count(mine.count, "row")} where ${whose} has ${against.count}`;
  return `other versions of some rows than ${whose}`;
}
