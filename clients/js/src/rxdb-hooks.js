/**
 * Hooks in an RxDB database beside replication: they check its account, and refuse what can't be sent.
 *
 * Knows: RxDB's internal store and its hooks. Must not know: replication, the network.
 */

import { newId } from "./client.js";
import { goBy, tellApart } from "./device.js";
import { checkedFields, checkedId } from "./values.js";

const [CONTEXT, ACCOUNT, AGAIN, DEVICE] = ["OTHER", "syncapp-account", "syncapp-again", "syncapp-device"];

/**
 * Refuse another account than the one whose documents these are; it is noted in the database itself.
 *
 * @param {any} collection @param {import("./client.js").SyncClient} client @throws {import("./errors.js").WrongAccount}
 */
export async function settleAccount(collection, client) {
  const { database } = collection;
  const kept = async () => (await noted(database, ACCOUNT))?.data.tenant;
  const known = await kept();
  const tenant = await client.account(known);
  if (known || !tenant) return;
  await note(database, ACCOUNT, { tenant });
  await client.account(await kept()); // another collection, or tab, may have been faster
}

/** Go by the name that was taken after a copy was told apart, if one was. @param {any} collection @param {import("./client.js").SyncClient} client */
export async function settleDevice({ database }, client) {
  goBy(client, (await noted(database, DEVICE))?.data);
}

/**
 * Take a name of its own if a pull says that a copy goes by the same one.
 *
 * @param {any} collection @param {import("./client.js").SyncClient} client @param {string | undefined} asked @param {{ wentBack?: boolean }} page
 */
export async function tellDeviceApart({ database }, client, asked, page) {
  await tellApart(client, asked, page, async () => (await noted(database, DEVICE))?.data, (name) => note(database, DEVICE, name));
}

/** Name the pull from the start that was asked for last, whenever that was. @param {any} collection @returns {Promise<string | undefined>} */
export async function askedAgain(collection) {
  return (await noted(collection.database, `${AGAIN}-${collection.name}`))?.data.name;
}

/** Ask for a pull from the start, also if all ends before it. @param {any} collection */
export async function askAgain({ database, name }) {
  await note(database, `${AGAIN}-${name}`, { name: newId() });
}

/** @param {any} database @param {string} key @returns {Promise<any>} */
async function noted({ internalStore }, key) {
  return (await internalStore.findDocumentsById([`${CONTEXT}|${key}`], false))[0];
}

/** @param {any} database @param {string} key @param {Record<string, any>} data */
async function note({ internalStore }, key, data) {
  const previous = await noted({ internalStore }, key);
  const about = { id: `${CONTEXT}|${key}`, key, context: CONTEXT, data, _deleted: false, _attachments: {} };
  const [number, lwt] = previous ? [Number(previous._rev.split("-")[0]) + 1, previous._meta.lwt + 1] : [1, 0];
  const document = { ...about, _meta: { lwt: Math.max(Date.now(), lwt) }, _rev: `${number}-syncapp` };
  await internalStore.bulkWrite([{ previous, document }], key);
}

/** @type {WeakSet<any>} */
const hooked = new WeakSet();

/** Refuse documents with values that JSON can't say, as they are put. @param {any} collection @param {string} table @param {string} primary */
export function refuseBadValues(collection, table, primary) {
  if (hooked.has(collection)) return;
  hooked.add(collection);
  const check = (/** @type {Record<string, any>} */ doc) => void checkedDoc(table, doc, primary);
  collection.preInsert(check, false);
  collection.preSave(check, false);
}

/**
 * @param {string} table @param {Record<string, any>} doc @param {string} primary
 * @throws {import("./errors.js").BadValue}
 */
export function checkedDoc(table, doc, primary) {
  checkedId(doc[primary], `The ID of a row of ${table}`);
  const fields = Object.entries(doc).filter(([name]) => !name.startsWith("_"));
  checkedFields(table, Object.fromEntries(fields));
  return doc;
}
