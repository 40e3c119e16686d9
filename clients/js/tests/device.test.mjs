// A copy of what is kept on a device (a browser profile, a phone's backup) goes by the same name until the server tells.
//
// First seen to fail, each of them: the copy's edit took the place of the original's without a conflict, as its own.

import "fake-indexeddb/auto";
import assert from "node:assert/strict";
import { test } from "node:test";
import { appSchema, Database, Model, tableSchema } from "@nozbe/watermelondb";
import Loki from "@nozbe/watermelondb/adapters/lokijs/index.js";
import { synchronize } from "@nozbe/watermelondb/sync/index.js";
import { createRxDatabase } from "rxdb/plugins/core";
import { replicateRxCollection } from "rxdb/plugins/replication";
import { getRxStorageDexie } from "rxdb/plugins/storage-dexie";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
import { newId } from "syncapp-client";
import { rxdbReplication } from "syncapp-client/rxdb";
import { watermelonSync } from "syncapp-client/watermelondb";
import { deviceOf, registered } from "./server.mjs";
import { replicaOf, STORES } from "./support.mjs";

/** Ask a database for something, and give it. */
const asked = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** Copy all databases that have `from` in their name. */
async function copied(from, to) {
  for (const { name, version } of await indexedDB.databases()) {
    if (!name.includes(from)) continue;
    const [source, opening] = [await asked(indexedDB.open(name)), indexedDB.open(name.replace(from, to), version)];
    opening.onupgradeneeded = () => {
      for (const store of source.objectStoreNames) {
        const { keyPath, autoIncrement, indexNames } = source.transaction(store).objectStore(store);
        const made = opening.result.createObjectStore(store, { keyPath, autoIncrement });
        for (const one of indexNames) {
          const { keyPath: path, unique, multiEntry } = source.transaction(store).objectStore(store).index(one);
          made.createIndex(one, path, { unique, multiEntry });
        }
      }
    };
    const target = await asked(opening);
    for (const store of source.objectStoreNames) {
      const from = source.transaction(store).objectStore(store);
      const [values, keys] = await Promise.all([asked(from.getAll()), asked(from.getAllKeys())]);
      const into = target.transaction(store, "readwrite").objectStore(store);
      await Promise.all(values.map((value, at) => asked(into.keyPath === null ? into.put(value, keys[at]) : into.put(value))));
    }
    source.close();
    target.close();
  }
}

/** How an app of each library is opened on a database; `put` names the row "shared". */
const APPS = {
  ...Object.fromEntries(Object.keys(STORES).map((store) => [store, async (name, account) => {
    const replica = await replicaOf(store, account, { name });
    return {
      client: replica.client,
      put: (named) => replica.put("end_user", { id: "shared", name: named }),
      sync: () => replica.sync(),
      close: () => replica.close(),
    };
  }])),
  async rxdb(name, account, deviceId) {
    const db = await createRxDatabase({ name, storage: getRxStorageDexie(), multiInstance: false });
    const properties = { id: { type: "string", maxLength: 64 }, name: { type: "string" }, version: { type: "number" } };
    await db.addCollections({ end_user: { schema: { version: 0, primaryKey: "id", type: "object", properties } } });
    const client = deviceOf(account, { deviceId });
    client.live = () => ({ close() {} });
    return {
      client,
      put: async (named) => void (await (await db.end_user.findOne("shared").exec()).incrementalPatch({ name: named })),
      sync: async () => {
        for (let round = 0; round < 2; round++) {
          const state = replicateRxCollection(rxdbReplication(client, { collection: db.end_user }));
          await state.awaitInitialReplication();
          await state.awaitInSync();
          await state.cancel();
        }
      },
      close: () => db.close(),
    };
  },
  async watermelondb(name, account, deviceId) {
    const columns = ["name", "version"].map((one) => ({ name: one, type: one === "version" ? "number" : "string", isOptional: true }));
    const schema = appSchema({ version: 1, tables: [tableSchema({ name: "end_user", columns })] });
    const Adapter = Loki.default ?? Loki;
    const adapter = new Adapter({ schema, dbName: name, useWebWorker: false, useIncrementalIndexedDB: true });
    const database = new Database({ adapter, modelClasses: [class extends Model { static table = "end_user"; }] });
    const client = deviceOf(account, { deviceId });
    return {
      client,
      put: (named) => database.write(async () => (await database.get("end_user").find("shared")).update((record) => record._setRaw("name", named))),
      sync: watermelonSync(client, { database, synchronize }),
      // LokiJS saves by itself, twice a second: here at once.
      close: () => new Promise((saved) => database.adapter.unsafeExecute({ loki: (loki) => loki.saveDatabase(saved) })),
    };
  },
};

test("rxdb: what RxDB had not stored before it was closed makes no copy of a device", async () => {
  const [account, deviceId, db] = [await registered(), newId(), await createRxDatabase({ name: newId(), storage: getRxStorageMemory() })];
  const properties = { id: { type: "string", maxLength: 64 }, name: { type: "string" }, version: { type: "number" } };
  await db.addCollections({ end_user: { schema: { version: 0, primaryKey: "id", type: "object", properties } } });
  // As on a slow line, where a batch takes several pages.
  const slow = (address, init) => fetch(address, !address.endsWith("/pull") ? init : { ...init, body: JSON.stringify({ ...JSON.parse(init.body), limit: 2 }) });
  const batches = async (client, checkpoint, count) => {
    const [{ handler }, found] = [rxdbReplication(client, { collection: db.end_user }).pull, [{ checkpoint }]];
    while (found.length <= count) found.push(await handler(found.at(-1).checkpoint, 4));
    return found;
  };
  const [client, server] = [deviceOf(account, { deviceId, fetch: slow }), deviceOf(account)];
  await server.push({ changes: { end_user: [{ id: "first", name: "n" }] } });
  const [, { checkpoint: kept }] = await batches(client, undefined, 1);
  await server.push({ changes: { end_user: Array.from({ length: 15 }, (_, at) => ({ id: `row-${at}`, name: "n" })) } });
  const [, { checkpoint: later }] = await batches(client, kept, 3); // RxDB asks for the next before it stored the last.
  await batches(client, kept, 2);
  const [, ...rest] = await batches(client, later, 4);
  assert.deepEqual(rest.map(({ documents }) => documents.length), [4, 4, 3, 0]);
  assert.equal(client.deviceId, deviceId);
  await batches(client, kept, 1);
  assert.notEqual(client.deviceId, deviceId, "what had all of it was stored: this is an older state");
  await db.close();
});

for (const store of Object.keys(STORES)) {
  test(`${store}: two tabs on one replica, a lost answer and a table that is added make no copy of a device`, async () => {
    const [account, name] = [await registered(), newId()];
    const server = deviceOf(account, { deviceId: undefined });
    let loses = 0;
    const losing = async (address, init) => {
      const answer = await fetch(address, init);
      if (address.endsWith("/pull") && loses-- > 0) throw new TypeError("the answer is lost");
      return answer;
    };
    const opened = (tables) => replicaOf(store, account, { name, tables, fetch: losing });
    const writes = () => server.push({ changes: { end_user: [{ id: newId(), name: "n" }], interactions: [{ id: newId(), title: "t" }] } });
    const tabs = [await opened(["end_user"]), await opened(["end_user"])];
    for (let round = 0; round < 4; round++) {
      for (const tab of tabs) {
        await writes();
        loses = round % 2;
        await tab.sync().catch(() => tab.sync());
      }
      await writes();
      await Promise.all(tabs.map((tab) => tab.sync()));
    }
    for (const tab of tabs) await tab.close();
    const wider = await opened(["end_user", "interactions"]);
    for (let round = 0; round < 2; round++) {
      await writes();
      await wider.sync();
    }
    const { data } = await server.call("/api/client/devices", { method: "GET" });
    assert.deepEqual(data.map(({ deviceId }) => deviceId), [wider.client.deviceId]);
    await wider.close();
  });
}

for (const [library, open] of Object.entries(APPS)) {
  test(`${library}: a copy of a device is another device, and stays it`, async () => {
    const [account, name, copy, deviceId] = [await registered(), newId(), newId(), newId()];
    const server = deviceOf(account);
    await server.push({ changes: { end_user: [{ id: "shared", name: "before" }] } });
    const first = await open(name, account, deviceId);
    await first.sync();
    await first.close();
    await copied(name, copy);
    const original = await open(name, account, deviceId);
    await original.put("of the original");
    for (let round = 0; round < 3; round++) await original.sync();
    const other = await open(copy, account, deviceId);
    await other.put("of the copy");
    await other.sync();
    assert.equal(original.client.deviceId, first.client.deviceId);
    assert.notEqual(other.client.deviceId, first.client.deviceId);
    const { data } = await server.call("/api/client/sync/conflicts?state=all", { method: "GET" });
    assert.deepEqual(data.map(({ fields: { name: { client, server: there } } }) => [client, there]), [["of the copy", "of the original"]]);
    const named = other.client.deviceId;
    await other.close();
    const again = await open(copy, account, deviceId);
    await again.sync();
    assert.equal(again.client.deviceId, named);
    await again.close();
    await original.close();
  });
}
