// What the libraries ask of their handlers, to the letter: with the real libraries, against a real server.
//
// First seen to fail on a fault: “does not resolve before” with the pull after the push left out; “may be of an empty
// tenant” with a timestamp of 0; “a full page” with the last page cut to the batch size; “nothing but the conflicting”
// with every row of the answer given back; “dies after each commit” with the cursor kept in a transaction of its own,
// ahead of the rows; “dies before each commit” with an edit taken out of the outbox before its push is answered; “sends it
// when it is woken” with a wake that does nothing; “nothing is left unhandled” with a failure that nobody takes; “does not
// wait for the next try” with a round that forgets who asked; “is told” with
// a socket that keeps to itself that its session is over.

import "fake-indexeddb/auto";
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { createCollection } from "@tanstack/db";
import { createRxDatabase } from "rxdb/plugins/core";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
import { digestOf, newId, SyncClient } from "syncapp-client";
import { openIndexedDB } from "syncapp-client/indexeddb";
import { Replica } from "syncapp-client/replica";
import { rxdbReplication } from "syncapp-client/rxdb";
import { syncappCollectionOptions } from "syncapp-client/tanstack-db";
import { watermelonSync } from "syncapp-client/watermelondb";
import { registered, url } from "./registered.mjs";

/** @type {any} */
let account;

before(async () => {
  account = await registered();
});

const device = (more = {}) => new SyncClient({ url, token: account.token, deviceId: newId(), ...more });

async function collection() {
  const db = await createRxDatabase({ name: newId(), storage: getRxStorageMemory(), multiInstance: false });
  const properties = { id: { type: "string", maxLength: 64 }, name: { type: "string" }, version: { type: "number" } };
  const schema = { version: 0, primaryKey: "id", type: "object", properties };
  return (await db.addCollections({ end_user: { schema } })).end_user;
}

/** What a checkpoint says of documents that have all their fields. */
const fields = ["id", "name", "version"];

const rows = (prefix, count, name = "n") => Array.from({ length: count }, (_, number) => ({ id: `${prefix}-${number}`, name }));

test("RxDB: a full page says go on, a short one is the end, a checkpoint is an object", async () => {
  const { pull } = rxdbReplication(device(), { collection: await collection(), live: false });
  const start = (await device().pull({ cursor: null, tables: ["end_user"] })).cursor;
  await device().push({ changes: { end_user: rows("page", 25) } });
  const first = await pull.handler({ cursor: start, fields }, 10);
  const second = await pull.handler(first.checkpoint, 10);
  const third = await pull.handler(second.checkpoint, 10);
  assert.deepEqual([first, second, third].map(({ documents }) => documents.length), [10, 10, 5]);
  assert.equal(typeof third.checkpoint, "object");
  assert.equal((await pull.handler(third.checkpoint, 10)).documents.length, 0);
});

test("RxDB: deleted rows stay, marked", async () => {
  const { pull } = rxdbReplication(device(), { collection: await collection(), live: false });
  await device().push({ changes: { end_user: [{ id: "gone", name: "n" }] } });
  const { cursor } = await device().pull({ cursor: null, limit: 10_000 });
  await device().push({ changes: { end_user: [{ id: "gone", is_deleted: 1 }] } });
  const { documents } = await pull.handler({ cursor, fields }, 10);
  assert.deepEqual(documents.map(({ id, _deleted }) => [id, _deleted]), [["gone", true]]);
});

test("RxDB: a push answers with nothing but the conflicting master rows", async () => {
  const documents = await collection();
  const { pull, push } = rxdbReplication(device(), { collection: documents, live: false });
  const base = (id) => ({ id, name: "base", version: 1, _deleted: false });
  await device().push({ changes: { end_user: [{ id: "c1", name: "base" }, { id: "c2", name: "base" }] } });
  await pull.handler(undefined, 1000);
  for (const id of ["c1", "c2"]) await documents.insert({ id, name: "ours, earlier", version: 1 });
  await device().push({ operations: [{ table: "end_user", operation: "update", data: { id: "c1", name: "theirs, later" }, baseVersion: 1 }] });
  const rowOf = (id) => ({ newDocumentState: { ...base(id), name: "ours, earlier" }, assumedMasterState: base(id) });
  const answered = await push.handler([rowOf("c1"), rowOf("c2")]);
  assert.deepEqual(answered.map(({ id, name, version, _deleted }) => [id, name, version, _deleted]), [["c1", "theirs, later", 2, false]]);
});

test("RxDB: RESYNC comes after each push and on each notification, and no more when nobody replicates", async () => {
  const client = listening(device());
  const { pull, push } = rxdbReplication(client, { collection: await collection() });
  const heard = [];
  const subscription = pull.stream$.subscribe({ next: (event) => heard.push(event) });
  await pull.handler(undefined, 1000);
  const typed = (id) => [{ newDocumentState: { id, name: "typed", _deleted: false } }];
  await push.handler(typed("resync-1"));
  client.told.onPull();
  assert.deepEqual(heard, ["RESYNC", "RESYNC"]);
  subscription.unsubscribe();
  await push.handler(typed("resync-2"));
  assert.deepEqual([heard.length, client.isClosed], [2, true]);
});

test("WatermelonDB: no record states a base, the push does, and only what was clean moves it on", async () => {
  const bodies = [];
  const spying = (address, init) => {
    if (address.endsWith("/push")) bodies.push(JSON.parse(init.body));
    return fetch(address, init);
  };
  const kept = new Map();
  const adapter = { dbName: newId(), getLocal: async (key) => kept.get(key), setLocal: async (key, value) => void kept.set(key, value), getDeletedRecords: async () => [], destroyDeletedRecords: async () => {} };
  const database = { adapter, schema: { tables: { end_user: { columns: { name: { name: "name", type: "string" } } } } }, get: () => ({ query: () => ({ fetch: async () => [] }) }), write: (work) => work(), read: (work) => work(), batch: async () => {} };
  const id = newId();
  let [round, last] = [0, null];
  const typed = { created: [{ id, name: "typed", _status: "created", _changed: "" }], updated: [], deleted: [] };
  const edited = { created: [], updated: [{ id, name: "typed again", _status: "updated", _changed: "name" }], deleted: [] };
  const synchronize = async ({ pullChanges, pushChanges }) => {
    last = (await pullChanges({ lastPulledAt: last })).timestamp;
    const changes = pushChanges && [null, typed, null, edited, null][round++];
    if (changes) await pushChanges({ changes: { end_user: changes }, lastPulledAt: last });
  };
  const sync = watermelonSync(device({ fetch: spying }), { database, synchronize });
  await sync(); // Nothing to push: here all is clean.
  const clean = kept.get("syncapp_cursor");
  await sync();
  await sync();
  assert.deepEqual(bodies.map(({ operations: [{ operation, baseVersion }] }) => [operation, baseVersion]), [["create", undefined], ["update", undefined]]);
  assert.equal(bodies[0].baseCursor, clean);
  assert.notEqual(bodies[1].baseCursor, clean);
});

test("WatermelonDB: the timestamp may be of an empty tenant, and a page is one synchronize, kept before the next", async () => {
  const kept = new Map();
  const adapter = { dbName: newId(), getLocal: async (key) => kept.get(key), setLocal: async (key, value) => void kept.set(key, value), getDeletedRecords: async () => [], destroyDeletedRecords: async () => {} };
  const database = { adapter, schema: { tables: { interactions: { columns: { title: { name: "title", type: "string" } } } } }, get: () => ({ query: () => ({ fetch: async () => [] }) }), write: (work) => work(), read: (work) => work(), batch: async () => {} };
  const answers = [];
  let last = null;
  const synchronize = async ({ pullChanges }) => {
    const answer = await pullChanges({ lastPulledAt: last });
    last = answer.timestamp;
    answers.push({ count: answer.changes.interactions.updated.length, timestamp: last, place: kept.get("syncapp_place") });
  };
  let pulls = 0;
  const cut = (address, init) => (address.endsWith("/pull") && ++pulls === 4 ? Promise.reject(new TypeError("cut off")) : fetch(address, init));
  const sync = watermelonSync(device({ fetch: cut }), { database, synchronize });
  await sync();
  assert.ok(answers[0].timestamp > 0);
  await device().push({ changes: { interactions: rows("all", 2500).map(({ id }) => ({ id, title: "t" })) } });
  await assert.rejects(sync(), { name: "Unreachable" });
  await sync();
  assert.deepEqual(answers.slice(2).map(({ count }) => count), [1000, 1000, 500, 0], "a page that was kept was fetched again");
  assert.equal(new Set(answers.slice(2).map(({ place }) => place)).size, 4);
});

test("TanStack DB: a mutation does not resolve before it was pulled back, and is taken back when refused", async () => {
  const users = createCollection({ ...syncappCollectionOptions(device(), { table: "end_user" }), startSync: true });
  await users.preload();
  const id = newId();
  await users.insert({ id, name: "T" }).isPersisted.promise;
  assert.equal(users.get(id).version, 1);
  await users.update(id, (draft) => void (draft.name = "U")).isPersisted.promise;
  assert.deepEqual([users.get(id).name, users.get(id).version], ["U", 2]);
  const refused = users.insert({ id: newId(), name: "x".repeat(100_000) });
  await assert.rejects(refused.isPersisted.promise, /row/);
  assert.equal(users.toArray.filter(({ name }) => name.length > 1000).length, 0);
  await users.delete(id).isPersisted.promise;
  assert.equal(users.has(id), false);
  await users.cleanup();
});

test("TanStack DB: an edit waits while the server is busy or broken, and is not taken back", async () => {
  let failures = 0;
  const failing = async (address, init) => {
    if (!address.endsWith("/push") || failures === 2) return fetch(address, init);
    const [status, code] = failures++ ? [500, "internal_error"] : [429, "rate_limited"];
    return new Response(JSON.stringify({ success: false, error: "No.", code }), { status, headers: { "Retry-After": "60" } });
  };
  const options = syncappCollectionOptions(device({ fetch: failing, patienceSeconds: 0 }), { table: "end_user", retrySeconds: 0.05 });
  const users = createCollection({ ...options, startSync: true });
  await users.preload();
  const id = newId();
  await users.insert({ id, name: "typed" }).isPersisted.promise;
  assert.deepEqual([failures, users.get(id).version], [2, 1]);
  await users.cleanup();
});

/** A client whose live connection is in the test's hands. */
function listening(client) {
  client.live = (told) => Object.assign(client, { told }) && { close: () => void Object.assign(client, { isClosed: true }) };
  return client;
}

test("Replica: a row that comes along while it is closed is nobody's unhandled failure", async (t) => {
  const failures = [];
  const note = (error) => failures.push(error);
  process.on("unhandledRejection", note);
  t.after(() => process.off("unhandledRejection", note));
  const client = listening(device());
  const replica = new Replica(client, await openIndexedDB(newId(), ["end_user"]), ["end_user"]).start();
  await new Promise((resume) => replica.addEventListener("status", (event) => event.detail.state === "idle" && resume(undefined)));
  replica.close();
  client.told.onLink({ rows: [], previousCursor: "a-1", cursor: "a-2" });
  await new Promise((resume) => setTimeout(resume, 50));
  assert.deepEqual(failures, []);
});

test("Replica: whatever is asked for just as a round ends is done in the next", async () => {
  for (let hops = 0; hops < 12; hops++) {
    const [client, store] = [listening(device()), await openIndexedDB(newId(), ["end_user"])];
    let hear = () => {};
    const replica = new Replica(client, { ...store, onLocal: (told) => void (hear = told) }, ["end_user"]);
    let rounds = 0;
    const done = new Promise((resume) => {
      replica.addEventListener("status", async ({ detail }) => {
        if (detail.state !== "idle" || ++rounds === 2) return rounds === 2 && resume(undefined);
        for (let hop = 0; hop < hops; hop++) await undefined;
        hear();
      });
    });
    replica.start();
    await Promise.race([done, new Promise((_, fail) => setTimeout(() => fail(new Error(`never, after ${hops} hops`)), 2000))]);
    replica.close();
  }
});

test("Replica: a field that is undefined is not given, and null clears it", async () => {
  const replica = new Replica(device(), await openIndexedDB(newId(), ["end_user"]), ["end_user"]);
  const { id } = await replica.put("end_user", { name: "typed", note: "n" });
  await replica.put("end_user", { id, name: undefined, note: null });
  await replica.sync();
  const { name, note } = /** @type {any} */ (await replica.get("end_user", id));
  assert.deepEqual([name, note], ["typed", null]);
  replica.close();
});

test("Replica: what the server will never take is kept aside with its reason, and holds up nothing", async () => {
  const replica = new Replica(device(), await openIndexedDB(newId(), ["end_user"]), ["end_user"]);
  const [bad, good] = [await replica.put("end_user", { name: "x".repeat(100_000) }), await replica.put("end_user", { name: "good" })];
  await replica.sync();
  const [rejected] = await replica.rejected();
  assert.deepEqual([rejected.id, rejected.data.name.length, await replica.pending()], [bad.id, 100_000, 0]);
  assert.match(String(rejected.error), /row/i);
  assert.equal((await replica.get("end_user", good.id))?.version, 1);
  assert.equal(await replica.get("end_user", bad.id), undefined);
  replica.close();
});

test("Replica: an edit whose transaction fails leaves neither row nor outbox entry", async () => {
  const store = await openIndexedDB(newId(), ["end_user"]);
  const replica = new Replica(device(), store, ["end_user"]);
  await assert.rejects(replica.put("end_user", { name: () => "not to be stored" }));
  assert.deepEqual([await replica.all("end_user"), await replica.pending()], [[], 0]);
  replica.close();
});

/** A store that dies around its `at`-th transaction that writes, and stays dead. */
function dying(store, at, isCommitted) {
  let count = 0;
  const transaction = async (mode, tables, work) => {
    if (count >= at) throw new Error("dead");
    const isLast = mode === "readwrite" && ++count === at;
    const result = await store.transaction(mode, tables, async (tx) => {
      const found = await work(tx);
      if (isLast && !isCommitted) throw new Error("died before the commit");
      return found;
    });
    if (isLast) throw new Error("died after the commit");
    return result;
  };
  return { ...store, transaction };
}

for (const isCommitted of [false, true]) {
  test(`Replica: dies ${isCommitted ? "after" : "before"} each commit of a sync, and goes on from there`, async () => {
    const { token } = await registered();
    const server = new SyncClient({ url, token });
    await server.push({ changes: { end_user: rows("r", 200) } });
    for (let at = 1, isDone = false; !isDone; at++) {
      const name = newId();
      const device = () => new SyncClient({ url, token, deviceId: name });
      const store = await openIndexedDB(name, ["end_user"]);
      const first = new Replica(device(), dying(store, Infinity), ["end_user"]);
      await first.sync();
      await first.put("end_user", { id: `typed-${at}`, name: "typed" });
      await first.put("end_user", { id: "r-1", note: `typed ${at}` });
      await server.push({ changes: { end_user: rows("more", 1100, `changed ${at}`) } });
      isDone = await new Replica(device(), dying(store, at, isCommitted), ["end_user"]).sync().then(() => true, () => false);
      const again = new Replica(device(), store, ["end_user"]);
      await again.sync();
      await again.sync();
      const held = await again.all("end_user");
      const { digest } = await last(server.pages({ cursor: null, tables: ["end_user"], limit: 10_000, digest: true }));
      assert.deepEqual(digestOf(held), digest.end_user, `died at commit ${at}`);
      assert.deepEqual([held.find(({ id }) => id === "r-1").note, await again.pending()], [`typed ${at}`, 0]);
      assert.ok(held.some(({ id }) => id === `typed-${at}`));
      again.close();
    }
  });
}

test("Replica: tells of its connection and what it hears, lists what waits, and sends it when it is woken", async () => {
  const { token } = await registered();
  let isOn = true;
  const cut = (...call) => (isOn ? fetch(...call) : Promise.reject(new TypeError("cut off")));
  const name = newId();
  const replica = new Replica(new SyncClient({ url, token, fetch: cut }), await openIndexedDB(name, ["end_user"]), ["end_user"]);
  const heard = (event, wanted) => new Promise((resume) => {
    replica.addEventListener(event, ({ detail }) => wanted(detail) && resume(detail));
  });
  const live = heard("live", (state) => state === "live");
  const idle = heard("status", ({ state }) => state === "idle");
  replica.start();
  await Promise.all([live, idle]);
  const note = heard("notification", ({ type }) => type === "data_available");
  await new SyncClient({ url, token }).push({ changes: { end_user: [{ id: "theirs", name: "n" }] } });
  assert.equal((await note).entityId, "theirs");
  isOn = false;
  const offline = heard("status", ({ state }) => state === "offline");
  await replica.put("end_user", { id: "typed", name: "n" });
  await offline;
  assert.deepEqual((await replica.outbox()).map(({ operation, id, base }) => [operation, id, base]), [["create", "typed", null]]);
  isOn = true;
  const again = heard("status", ({ state }) => state === "idle");
  replica.wake();
  await again;
  assert.deepEqual(await replica.outbox(), []);
  replica.close();
});

test("Replica: who wakes it while a round is failing does not wait for the next try", async () => {
  const { token } = await registered();
  let isOn = true;
  /** @type {(() => void) | undefined} */
  let fail;
  const cut = (...call) => (isOn ? fetch(...call) : new Promise((_, reject) => (fail = () => reject(new TypeError("cut off")))));
  const replica = new Replica(new SyncClient({ url, token, fetch: cut }), await openIndexedDB(newId(), ["end_user"]), ["end_user"]);
  const state = (wanted) => new Promise((resume) => {
    replica.addEventListener("status", ({ detail }) => detail.state === wanted && resume(undefined));
  });
  const idle = state("idle");
  replica.start();
  await idle;
  isOn = false;
  const syncing = state("syncing");
  await replica.put("end_user", { id: "typed", name: "n" });
  await syncing;
  while (!fail) await new Promise((resume) => setTimeout(resume, 10));
  isOn = true;
  const began = performance.now();
  const again = state("idle");
  replica.wake();
  fail();
  await again;
  assert.ok(performance.now() - began < 4000, "it waited for the next try");
  replica.close();
});

test("Replica: a session that ends while nothing is to be sent is told", async () => {
  const { token } = await registered();
  const replica = new Replica(new SyncClient({ url, token }), await openIndexedDB(newId(), ["end_user"]), ["end_user"]);
  const signedOut = new Promise((resume) => {
    replica.addEventListener("status", ({ detail }) => detail.error?.name === "SignedOut" && resume(detail.state));
  });
  await new Promise((resume) => {
    replica.addEventListener("live", ({ detail }) => detail === "live" && resume(undefined));
    replica.start();
  });
  await fetch(`${url}/api/customers/logout`, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  assert.equal(await signedOut, "error");
  replica.close();
});

test("Replica: rows that came along and could not be kept are fetched, and nothing is left unhandled", async () => {
  const { token } = await registered();
  const name = newId();
  const store = await openIndexedDB(name, ["end_user"]);
  let isBroken = false;
  const transaction = (mode, ...more) => {
    if (!isBroken || mode === "readonly") return store.transaction(mode, ...more);
    isBroken = false;
    return Promise.reject(new Error("the disk is full"));
  };
  const replica = new Replica(new SyncClient({ url, token, deviceId: newId() }), { ...store, transaction }, ["end_user"]);
  let [link, state] = ["", ""];
  replica.addEventListener("live", ({ detail }) => (link = detail));
  replica.addEventListener("status", ({ detail }) => (state = detail.state));
  const until = async (holds) => {
    while (!(await holds())) await new Promise((resume) => setTimeout(resume, 10));
  };
  replica.start();
  await until(() => link === "live" && state === "idle");
  isBroken = true;
  await new SyncClient({ url, token }).push({ changes: { end_user: [{ id: "theirs", name: "n" }] } });
  await until(async () => (await replica.all("end_user")).length === 1);
  replica.close();
});

async function last(pages) {
  let found;
  for await (const page of pages) found = page;
  return found;
}
