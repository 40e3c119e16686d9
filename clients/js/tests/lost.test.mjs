// A database that is lost under an open replica, and a newer version of the app in another tab.
//
// First seen to fail: the older tab kept the lead with a closed database, and nobody synced until it was gone; a database
// that was deleted stayed dead until the page was loaded again.

import assert from "node:assert/strict";
import { test } from "node:test";
import { newId, SyncClient } from "syncapp-client";
import { browser, hasChromium } from "./in_browser.mjs";
import { heard, registered, replicaOf, STORES, until, url } from "./support.mjs";

const deleted = (name) => new Promise((resolve, reject) => Object.assign(indexedDB.deleteDatabase(name), { onsuccess: resolve, onerror: reject }));
const server = (account) => new SyncClient({ url, token: account.token });
const theirs = async (account, table = "end_user") => (await server(account).pull({ cursor: null, tables: [table] })).data[table];

for (const store of Object.keys(STORES)) {
  test(`${store}: a database that is deleted under an open replica is made anew, filled and synced, and the app is told`, async () => {
    const account = await registered();
    const name = newId();
    const replica = (await replicaOf(store, account, { name })).start();
    const told = heard(replica, "closed");
    await replica.put("end_user", { id: "a", name: "there" });
    await until(async () => (await replica.pending()) === 0, "the first edit to be sent");
    await deleted(name);
    await until(async () => (await replica.all("end_user")).length === 1, "the row to come back");
    await replica.put("end_user", { id: "b", name: "after it" });
    await until(async () => (await theirs(account)).length === 2, "the edit after it on the server");
    await server(account).push({ changes: { end_user: [{ id: "c" }] } });
    await until(async () => (await replica.all("end_user")).length === 3, "a row of others");
    assert.deepEqual(told, ["deleted"]);
    replica.close();
  });

  test(`${store}: the app's own closing is no loss, and a closed replica stays closed`, async () => {
    const replica = await replicaOf(store, await registered());
    const told = heard(replica, "closed");
    replica.close();
    await assert.rejects(replica.put("end_user", { name: "too late" }));
    assert.deepEqual(told, []);
  });
}

test("indexeddb: a connection that the browser ends is opened again, also if nobody tells of it", async () => {
  const replica = await replicaOf("indexeddb", await registered());
  const told = heard(replica, "closed");
  const connections = [];
  const kept = IDBDatabase.prototype.transaction;
  IDBDatabase.prototype.transaction = function (...given) {
    connections.push(this);
    return kept.apply(this, given);
  };
  await replica.put("end_user", { id: "a", name: "before" });
  IDBDatabase.prototype.transaction = kept;
  connections[0].close(); // as by a page that was frozen
  await replica.put("end_user", { id: "a", phone: "1" });
  assert.deepEqual([(await replica.get("end_user", "a"))?.name, told], ["before", []]);
  replica.close();
});

/** Open a tab with a replica in it, as `replica`. */
async function tabOf(store, account, tables) {
  const tab = await browser.open(`http://localhost/kit/page.html#${store}`);
  await until(() => tab("typeof answer === 'function'").catch(() => false), "the page");
  await tab(`(async () => {
    const { SyncClient } = await import("syncapp-client");
    const { Replica } = await import("syncapp-client/replica");
    const client = new SyncClient({ url: ${JSON.stringify(url)}, token: ${JSON.stringify(account.token)} });
    const tables = ${JSON.stringify(tables)}, name = ${JSON.stringify(`lost-${account.customer.id}`)};
    const opened = {
      indexeddb: async () => (await import("syncapp-client/indexeddb")).openIndexedDB(name, tables),
      dexie: async () => {
        const [{ Dexie }, { dexieStore, syncStores }] = [await import("dexie"), await import("syncapp-client/dexie")];
        const db = new Dexie(name);
        db.version(tables.length).stores({ ...Object.fromEntries(tables.map((table) => [table, "id"])), ...syncStores });
        return dexieStore(db, tables);
      },
    };
    window.told = [];
    window.replica = new Replica(client, await opened.${store}(), tables);
    replica.addEventListener("closed", ({ detail }) => told.push(detail));
    replica.start();
    await replica.all("end_user");
  })()`);
  return tab;
}

for (const store of Object.keys(STORES)) {
  test(`${store} in Chromium: a newer version in another tab takes the lead, both tabs go on, and the older one takes it back`, { skip: !hasChromium && "needs chromium" }, async () => {
    const account = await registered();
    await server(account).push({ changes: { end_user: [{ id: "a" }], interactions: [{ id: "i" }] } });
    const older = await tabOf(store, account, ["end_user"]);
    await until(async () => (await older("replica.all('end_user')")).length === 1, "the older tab to sync");
    const newer = await tabOf(store, account, ["end_user", "interactions"]);
    await until(async () => (await newer("replica.all('interactions')")).length === 1, "the new table, with the older tab there");
    assert.deepEqual(await older("told"), ["newer"]);
    await older("replica.put('end_user', { id: 'b', name: 'typed in the older tab' })");
    await until(async () => (await theirs(account)).some(({ id }) => id === "b"), "the older tab's edit on the server");
    await newer("replica.put('interactions', { id: 'j', title: 'typed in the newer' })");
    await until(async () => (await theirs(account, "interactions")).length === 2, "the newer tab's edit on the server");
    await newer.close();
    await older("replica.put('end_user', { id: 'c', name: 'alone again' })");
    await until(async () => (await theirs(account)).some(({ id }) => id === "c"), "the older tab to lead again");
    await older.close();
  });

  test(`${store} in Chromium: a site's data cleared under an open page does not stop it`, { skip: !hasChromium && "needs chromium" }, async () => {
    const account = await registered();
    const tab = await tabOf(store, account, ["end_user"]);
    await tab("replica.put('end_user', { id: 'a', name: 'sent' })");
    await until(async () => (await theirs(account)).length === 1, "the first edit");
    await tab.send("Storage.clearDataForOrigin", { origin: "http://localhost", storageTypes: "indexeddb" });
    await until(async () => (await tab("told.length")) > 0, "the app to be told");
    await until(async () => (await tab("replica.all('end_user').catch(() => [])")).length === 1, "the row to come back"); // one that runs at that moment fails
    await tab("replica.put('end_user', { id: 'b', name: 'after it' })");
    await until(async () => (await theirs(account)).length === 2, "the edit after it");
    await tab.close();
  });
}
