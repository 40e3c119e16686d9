/** What tests of the handlers need of the server under test: devices, what it has, and what it says of its columns. */

import { newId, SyncClient } from "syncapp-client";
import { url } from "./support.mjs";

export { registered, url } from "./support.mjs";

/** Make a device of an account. @param {any} account @param {any} [more] */
export const deviceOf = (account, more = {}) => new SyncClient({ url, token: account.token, deviceId: newId(), ...more });

/** Give all rows that are not deleted. @param {SyncClient} client @param {string} table @returns {Promise<any[]>} */
export async function rowsOf(client, table) {
  const rows = new Map();
  for await (const { data } of client.pages({ cursor: null, tables: [table] })) for (const row of data[table]) rows.set(row.id, row);
  return [...rows.values()].filter((row) => !row.is_deleted);
}

/** A server that calls columns of a table other types than they have. @param {string} table @param {Record<string, string>} types */
export function calling(table, types) {
  return async (/** @type {string} */ address, /** @type {any} */ init) => {
    const answer = await fetch(address, init);
    if (!address.endsWith("/api/tables")) return answer;
    const body = await answer.json();
    for (const [name, type] of Object.entries(types)) body.data.tables[table].columns[name] = { type };
    return Response.json(body);
  };
}
