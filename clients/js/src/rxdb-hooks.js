/**
 * What the handlers need of an RxDB database beside replication: whose it is, and that nothing is put that can't be sent.
 *
 * Knows: RxDB's internal store and its hooks. Must not know: replication, the network.
 */

import { checkedFields, checkedId } from "./values.js";

const [CONTEXT, KEY] = ["OTHER", "syncapp-account"];

/**
 * Refuse another account than the one whose documents these are; it is noted in the database itself.
 *
 * @param {any} collection @param {import("./client.js").SyncClient} client @throws {import("./errors.js").WrongAccount}
 */
export async function settleAccount(collection, client) {
  const { internalStore } = collection.database;
  const kept = async () => (await internalStore.findDocumentsById([`${CONTEXT}|${KEY}`], false))[0]?.data.tenant;
  const known = await kept();
  const tenant = await client.account(known);
  if (known || !tenant) return;
  const about = { id: `${CONTEXT}|${KEY}`, key: KEY, context: CONTEXT, data: { tenant } };
  const document = { ...about, _deleted: false, _attachments: {}, _meta: { lwt: Date.now() }, _rev: "1-syncapp" };
  await internalStore.bulkWrite([{ document }], "syncapp-account");
  await client.account(await kept()); // another collection, or tab, may have been faster
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
