// What several tests need: accounts of a real server, a server that answers as told, replicas in each store.

import "fake-indexeddb/auto";
import { createServer } from "node:http";
import { Dexie } from "dexie";
import { newId, SyncClient } from "syncapp-client";
import { dexieStore, syncStores } from "syncapp-client/dexie";
import { openIndexedDB } from "syncapp-client/indexeddb";
import { Replica } from "syncapp-client/replica";
import { registered, url } from "./registered.mjs";
import { until } from "./until.mjs";

export { registered, until, url };

/** A server that answers as `answerOf` says: `{ status, headers, body }`, a text, or nothing more. */
export async function served(t, answerOf) {
  const asked = [];
  const server = createServer(async (request, answer) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const one = { path: request.url, headers: request.headers, body: Buffer.concat(chunks) };
    asked.push(one);
    const { status = 200, headers = {}, body } = (await answerOf(one, answer)) ?? {};
    if (body === undefined) return;
    answer.writeHead(status, { "Content-Type": "application/json", ...headers });
    answer.end(typeof body === "string" ? body : JSON.stringify(body));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { asked, url: `http://127.0.0.1:${server.address().port}` };
}

/** An access token as the server makes them, as far as a client can see. */
export function tokenOf(customerId) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return [part({ alg: "HS256" }), part({ customerId, email: "é@example.com", type: "client" }), "signature"].join(".");
}

/** How each store is opened: with it an app writes in its own way. */
export const STORES = {
  async indexeddb(client, name, tables) {
    return new Replica(client, await openIndexedDB(name, tables), tables);
  },
  async dexie(client, name, tables) {
    const db = new Dexie(name);
    db.version(tables.length).stores({ ...Object.fromEntries(tables.map((table) => [table, "id"])), ...syncStores });
    const replica = new Replica(client, dexieStore(db, tables), tables);
    await db.open();
    return Object.assign(replica, { db });
  },
};

/** A replica of an account, in a database of its own unless `name` says which. */
export function replicaOf(store, account, { name = newId(), tables = ["end_user"], ...options } = {}) {
  return STORES[store](new SyncClient({ url, token: account.token, ...options }), name, tables);
}

/** Keep what is told of an event. */
export function heard(replica, event) {
  const found = [];
  replica.addEventListener(event, ({ detail }) => found.push(detail));
  return found;
}
