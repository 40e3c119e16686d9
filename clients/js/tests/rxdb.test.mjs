// RxDB itself over its handlers: types as the schema wants them, and what a new version of the app adds.
//
// First seen to fail: “a flag” with 0 and 1 handed on as they are, which a validator refuses; “a field that a new schema
// version adds” with a checkpoint that does not say which fields it was for.

import "fake-indexeddb/auto";
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { addRxPlugin, createRxDatabase } from "rxdb/plugins/core";
import { RxDBMigrationSchemaPlugin } from "rxdb/plugins/migration-schema";
import { replicateRxCollection } from "rxdb/plugins/replication";
import { getRxStorageDexie } from "rxdb/plugins/storage-dexie";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
import { wrappedValidateAjvStorage } from "rxdb/plugins/validate-ajv";
import { newId } from "syncapp-client";
import { rxdbReplication } from "syncapp-client/rxdb";
import { calling, deviceOf, registered, rowsOf } from "./server.mjs";

addRxPlugin(RxDBMigrationSchemaPlugin);
/** @type {any} */
let account;

before(async () => {
  account = await registered();
});

const TEXT = { type: "string" };
const KEY = { id: { type: "string", maxLength: 64 }, name: TEXT, version: { type: "number" } };

/** Open a database of one collection, whose documents are validated. */
async function opened({ name = newId(), storage = getRxStorageMemory(), table = "end_user", properties, version = 0 }) {
  const db = await createRxDatabase({ name, storage: wrappedValidateAjvStorage({ storage }), multiInstance: false, closeDuplicates: true });
  const schema = { version, primaryKey: "id", type: "object", properties: { ...KEY, ...properties } };
  const migrationStrategies = Object.fromEntries(Array.from({ length: version }, (_, at) => [at + 1, (doc) => doc]));
  await db.addCollections({ [table]: { schema, migrationStrategies } });
  return db;
}

/** Begin a replication that hears of nothing: one that is not live can't be cancelled while it fails. */
function replicated(client, collection, more = {}) {
  client.live = () => ({ close() {} });
  return replicateRxCollection(rxdbReplication(client, { collection, retryTime: 100, ...more }));
}

/** Push and pull until both sides have the same. */
async function synced(client, collection, more = {}) {
  for (let round = 0; round < 2; round++) {
    const state = replicated(client, collection, more);
    const failed = new Promise((_, fail) => state.error$.subscribe((error) => fail(new Error(JSON.stringify(error.parameters)))));
    failed.catch(() => undefined);
    await Promise.race([state.awaitInitialReplication().then(() => state.awaitInSync()), failed]).finally(() => state.cancel());
  }
}

test("RxDB: a flag is true or false where the schema says boolean, and 0 or 1 where it says number", async () => {
  const client = deviceOf(account);
  await client.push({ changes: { end_user: [{ id: "flag-0", name: "n", active: 0 }, { id: "flag-1", name: "n", active: 1 }] } });
  const [flags, numbers] = [await opened({ properties: { active: { type: "boolean" } } }), await opened({ properties: { active: { type: ["number", "null"] } } })];
  for (const db of [flags, numbers]) await synced(deviceOf(account), db.end_user);
  const found = await flags.end_user.find({ selector: { active: true } }).exec();
  assert.deepEqual(found.map(({ id }) => id), ["flag-1"]);
  assert.equal((await numbers.end_user.findOne("flag-1").exec()).active, 1);
  await (await flags.end_user.findOne("flag-0").exec()).incrementalPatch({ active: true });
  await flags.end_user.insert({ id: "flag-2", name: "n", active: false });
  await synced(deviceOf(account), flags.end_user);
  const rows = new Map((await rowsOf(client, "end_user")).map((row) => [row.id, row]));
  assert.deepEqual(["flag-0", "flag-1", "flag-2"].map((id) => rows.get(id).active), [1, 1, 0]);
  assert.equal(rows.get("flag-1").version, 1, "what nobody edited was pushed");
});

test("RxDB: times are milliseconds where the schema says number, and JSON is text where it says string", async () => {
  const fetch = calling("interactions", { date: "timestamp", description: "date" });
  const client = deviceOf(account, { fetch });
  const row = { id: "when", date: "2025-06-29 23:45:26.002", description: "2025-06-29", metadata: { deep: [1] } };
  await client.push({ changes: { interactions: [row] } });
  const db = await opened({ table: "interactions", properties: { date: { type: "number" }, description: { type: "integer" }, metadata: TEXT, updatedAt: { type: "number" } } });
  await synced(client, db.interactions);
  const doc = await db.interactions.findOne("when").exec();
  assert.deepEqual([doc.date, doc.description, doc.metadata], [Date.UTC(2025, 5, 29, 23, 45, 26, 2), Date.UTC(2025, 5, 29), '{"deep":[1]}']);
  assert.ok(doc.updatedAt > Date.UTC(2024, 0));
  await doc.incrementalPatch({ date: Date.UTC(2026, 0, 1), metadata: '{"deep":[2]}' });
  await synced(client, db.interactions);
  const [{ date, description, metadata }] = (await rowsOf(client, "interactions")).filter(({ id }) => id === "when");
  assert.deepEqual([date, description, metadata], ["2026-01-01T00:00:00.000Z", "2025-06-29", { deep: [2] }]);
});

test("RxDB: a field that a new schema version adds is filled, page by page, and what was deleted meanwhile goes", async () => {
  const own = await registered();
  const [client, name] = [deviceOf(own), newId()];
  const rows = Array.from({ length: 25 }, (_, at) => ({ id: `row-${at}`, name: "n", phone: `${at}`, active: 1 }));
  await client.push({ changes: { end_user: rows } });
  const before = await opened({ name, storage: getRxStorageDexie() });
  await synced(deviceOf(own), before.end_user);
  await before.end_user.insert({ id: "typed", name: "not sent yet" });
  await (await before.end_user.findOne("row-3").exec()).incrementalPatch({ name: "typed" });
  await before.close();
  await client.push({ changes: { end_user: [{ id: "row-7", is_deleted: 1 }, { id: "row-3", phone: "three" }] } });
  const after = await opened({ name, storage: getRxStorageDexie(), version: 1, properties: { phone: TEXT, active: { type: "boolean" } } });
  await synced(deviceOf(own), after.end_user, { batchSize: 10 });
  const found = (await after.end_user.find().exec()).map((doc) => [doc.id, doc.phone, doc.active]);
  const wanted = rows.filter(({ id }) => id !== "row-7").map(({ id, phone }) => [id, id === "row-3" ? "three" : phone, true]);
  assert.deepEqual(found.sort(), [...wanted, ["typed", undefined, true]].sort());
  const there = new Map((await rowsOf(client, "end_user")).map((row) => [row.id, row]));
  assert.deepEqual([there.get("row-3").name, there.get("row-3").phone, there.get("typed").name], ["typed", "three", "not sent yet"]);
  assert.equal(there.get("row-5").version, 1, "what nobody edited was pushed");
});

test("RxDB: edits of one account are not sent for another, and wait for their own", async () => {
  const [asha, ben] = [await registered(), await registered()];
  const db = await opened({});
  const unreached = deviceOf(asha, { fetch: () => Promise.reject(new TypeError("offline")) });
  const offline = replicated(unreached, db.end_user);
  const failed = new Promise((resume) => offline.error$.subscribe(resume));
  await db.end_user.insert({ id: "of-asha", name: "typed by Asha" });
  await failed;
  await offline.cancel();
  await assert.rejects(synced(deviceOf(ben), db.end_user), /wrong_account|another|account/i);
  assert.deepEqual(await rowsOf(deviceOf(ben), "end_user"), []);
  await synced(deviceOf(asha), db.end_user);
  assert.deepEqual((await rowsOf(deviceOf(asha), "end_user")).map(({ name }) => name), ["typed by Asha"]);
  await assert.rejects(synced(deviceOf(ben), db.end_user), /account/i);
});

test("RxDB: what JSON can't say is refused when it is put, in one sentence", async () => {
  const db = await createRxDatabase({ name: newId(), storage: getRxStorageMemory(), multiInstance: false });
  await db.addCollections({ end_user: { schema: { version: 0, primaryKey: "id", type: "object", properties: { ...KEY, phoneModel: {}, active: { type: "number" } } } } });
  rxdbReplication(deviceOf(account), { collection: db.end_user, live: false });
  const bad = { phoneModel: [new Map(), new Date(), { __proto__: null, constructor: 1 }], active: [NaN, 12n], id: ["with a space", ""] };
  for (const [name, values] of Object.entries(bad)) {
    for (const value of values) await assert.rejects(db.end_user.insert({ id: newId(), [name]: value }), { name: "BadValue" }, name);
  }
  const doc = await db.end_user.insert({ id: newId(), name: "good" });
  await assert.rejects(doc.incrementalPatch({ active: Infinity }), { name: "BadValue" });
  assert.equal(await db.end_user.count().exec(), 1);
});

test("RxDB: one document that can't be sent holds up no other, and is told", async () => {
  const own = await registered();
  const db = await opened({ table: "interactions", properties: { metadata: TEXT, title: TEXT } });
  await db.interactions.bulkInsert([{ id: "bad", title: "kept as typed", metadata: "{not JSON" }, { id: "good", title: "n", metadata: "[1]" }]);
  const refused = [];
  await synced(deviceOf(own), db.interactions, { onRejected: (doc, error) => refused.push([doc.id, error]) });
  assert.deepEqual(refused.map(([id]) => id), ["bad"]);
  assert.match(refused[0][1], /JSON/);
  assert.deepEqual((await rowsOf(deviceOf(own), "interactions")).map(({ id }) => id), ["good"]);
  await (await db.interactions.findOne("bad").exec()).incrementalPatch({ metadata: "[2]" });
  await synced(deviceOf(own), db.interactions);
  const there = (await rowsOf(deviceOf(own), "interactions")).find(({ id }) => id === "bad");
  assert.deepEqual([there.title, there.metadata], ["kept as typed", [2]]);
});

test("RxDB: a creation that is refused and the edit that repairs it are one row on the server, as the user sees it", async () => {
  const own = await registered();
  const db = await opened({ properties: { phone: TEXT, note: TEXT } });
  await db.end_user.insert({ id: "big", name: "kept", phone: "1", note: "x".repeat(100_000) });
  const refused = [];
  const onRejected = (doc) => refused.push(doc.id);
  await synced(deviceOf(own), db.end_user, { onRejected });
  const doc = await db.end_user.findOne("big").exec();
  await doc.incrementalPatch({ phone: "2" });
  await synced(deviceOf(own), db.end_user, { onRejected });
  assert.deepEqual([refused, await rowsOf(deviceOf(own), "end_user")], [["big", "big"], []], "a part of a row was made");
  await doc.incrementalPatch({ note: "short" });
  await synced(deviceOf(own), db.end_user, { onRejected });
  const [{ name, phone, note }] = await rowsOf(deviceOf(own), "end_user");
  assert.deepEqual([name, phone, note], ["kept", "2", "short"]);
});

test("RxDB: an old document that is put back takes back nothing of others", async () => {
  const own = await registered();
  const [client, db] = [deviceOf(own), await opened({ properties: { phone: TEXT } })];
  await client.push({ changes: { end_user: [{ id: "stale", name: "first", phone: "1" }] } });
  await synced(deviceOf(own), db.end_user);
  const read = (await db.end_user.findOne("stale").exec()).toMutableJSON();
  await client.push({ changes: { end_user: [{ id: "stale", phone: "2" }] } });
  await synced(deviceOf(own), db.end_user);
  await db.end_user.upsert({ ...read, name: "second" });
  await synced(deviceOf(own), db.end_user);
  const { name, phone } = await db.end_user.findOne("stale").exec();
  assert.deepEqual([name, phone, (await rowsOf(client, "end_user"))[0].phone], ["second", "2", "2"]);
});

test("RxDB: a row that the server has under another id is here under that one, and no deletion of the old one is sent", async () => {
  const own = await registered();
  const fields = { Unique_id: TEXT, note: TEXT };
  await deviceOf(own).push({ changes: { end_user: [{ id: "local_1", Unique_id: "first", name: "Asha" }, { id: "till-1", Unique_id: "tea", name: "Tea" }] } });
  const [client, db] = [deviceOf(own), await opened({ properties: fields })];
  await db.end_user.insert({ id: "local_1", Unique_id: "second", name: "Ravi" });
  await db.end_user.insert({ id: "till-2", Unique_id: "tea", name: "Tea" });
  const [sent, told, push] = [[], [], client.push.bind(client)];
  client.push = async (body, options) => {
    sent.push(...body.operations);
    const answer = await push(body, options);
    // Typed before the answer came.
    if (sent.length === body.operations.length) await (await db.end_user.findOne("local_1").exec()).incrementalPatch({ note: "of Ravi" });
    return answer;
  };
  await synced(client, db.end_user, { onRenamed: (names) => told.push(names) });
  await synced(client, db.end_user);
  const shown = (rows) => rows.map(({ id, name, note }) => [id, name, note ?? null]).sort();
  const rows = shown(await rowsOf(client, "end_user"));
  assert.deepEqual(rows.map(([, ...typed]) => typed).sort(), [["Asha", null], ["Ravi", "of Ravi"], ["Tea", null]]);
  assert.deepEqual(shown((await db.end_user.find().exec()).map((doc) => doc.toJSON())), rows);
  assert.deepEqual(sent.filter(({ operation }) => operation === "delete"), []);
  assert.deepEqual([...new Set(told.map(({ from }) => from))].sort(), ["local_1", "till-2"]);
  await db.close();
});

test("RxDB: another device's row under an id that a document had comes also if all ends between the answer and the next pull", async () => {
  const own = await registered();
  const name = newId();
  const open = () => opened({ name, storage: getRxStorageDexie(), properties: { Unique_id: TEXT } });
  const [client, before] = [deviceOf(own), await open()];
  await synced(deviceOf(own), before.end_user);
  await deviceOf(own).push({ changes: { end_user: [{ id: "local_1", Unique_id: "first", name: "Asha" }] } });
  await before.end_user.insert({ id: "local_1", Unique_id: "second", name: "Ravi" });
  const [push, pull] = [client.push.bind(client), client.pull.bind(client)];
  let isOver = false;
  client.push = (...asked) => push(...asked).finally(() => (isOver = true));
  client.pull = (...asked) => (isOver ? new Promise(() => undefined) : pull(...asked));
  const state = replicated(client, before.end_user);
  while (await before.end_user.findOne("local_1").exec()) await new Promise((resume) => setTimeout(resume, 20));
  await Promise.race([state.cancel(), new Promise((resume) => setTimeout(resume, 100))]);
  await before.close();
  const after = await open();
  await synced(deviceOf(own), after.end_user);
  const names = (await after.end_user.find().exec()).map((doc) => doc.name);
  assert.deepEqual(names.sort(), ["Asha", "Ravi"]);
  await after.close();
});
