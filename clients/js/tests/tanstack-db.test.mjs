// TanStack DB itself over its options: types, values that can't be sent, refused rows, accounts.
//
// First seen to fail: the first four, with the handler as it was before, and the one about another id.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { createCollection, eq, queryOnce } from "@tanstack/db";
import { memoryStore, newId, SyncClient } from "syncapp-client";
import { syncappCollectionOptions } from "syncapp-client/tanstack-db";
import { deviceOf, registered, rowsOf, url } from "./server.mjs";

/** @type {any} */
let account;

before(async () => {
  account = await registered();
});

/** Open a collection that hears of nothing. */
async function opened(client, more = {}) {
  client.live = () => ({ close() {} });
  const users = createCollection({ ...syncappCollectionOptions(client, { table: "end_user", retrySeconds: 0.05, ...more }), startSync: true });
  await users.preload();
  return users;
}

test("TanStack DB: a declared flag is true or false, as it is typed and as it comes back", async () => {
  await deviceOf(account).push({ changes: { end_user: [{ id: "flag-0", active: 0 }, { id: "flag-1", active: 1 }] } });
  const users = await opened(deviceOf(account));
  const found = async () => (await queryOnce((query) => query.from({ user: users }).where(({ user }) => eq(user.active, true)))).map(({ id }) => id).sort();
  assert.deepEqual(await found(), ["flag-1"]);
  await users.insert({ id: "flag-2", active: true }).isPersisted.promise;
  await users.update("flag-0", (draft) => void (draft.active = true)).isPersisted.promise;
  await users.update("flag-1", (draft) => void (draft.active = false)).isPersisted.promise;
  assert.deepEqual([await found(), users.get("flag-1").is_deleted], [["flag-0", "flag-2"], 0]);
  const there = new Map((await rowsOf(deviceOf(account), "end_user")).map((row) => [row.id, row.active]));
  assert.deepEqual(["flag-0", "flag-1", "flag-2"].map((id) => there.get(id)), [1, 0, 1]);
  await users.cleanup();
});

test("TanStack DB: what JSON can't say is refused when it is put, in one sentence, and holds up nothing", async () => {
  const users = await opened(deviceOf(account));
  const circle = {};
  circle.itself = circle;
  for (const value of [12n, NaN, new Date(), new Map(), new Set(), new Blob([]), circle]) {
    assert.throws(() => users.insert({ id: newId(), name: "bad", phoneModel: value }), /end_user\.phoneModel/);
  }
  assert.throws(() => users.insert({ id: "with a space" }), /ID/);
  const { id } = users.insert({ id: newId(), name: "good" }).mutations[0].modified;
  assert.throws(() => users.update(id, (draft) => void (draft.phoneModel = -Infinity)), /phoneModel/);
  await users.utils.settled();
  assert.equal((await rowsOf(deviceOf(account), "end_user")).filter(({ name }) => name === "good" || name === "bad").length, 1);
  await users.cleanup();
});

test("TanStack DB: what an app's own schema lets through is refused before it is sent", async () => {
  const schema = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } };
  const users = await opened(deviceOf(account), { schema });
  const bad = users.insert({ id: newId(), name: "bad", phoneModel: { since: 5n } });
  await assert.rejects(bad.isPersisted.promise, { name: "Rejected" });
  await users.insert({ id: newId(), name: "after it" }).isPersisted.promise;
  assert.equal(users.utils.pending(), 0);
  await users.cleanup();
});

test("TanStack DB: a refused creation and the edits after it are taken back together, and leave nothing on the server", async () => {
  const own = await registered();
  const users = await opened(deviceOf(own));
  const id = newId();
  const creation = users.insert({ id, name: "kept", note: "x".repeat(100_000) });
  const edit = users.update(id, (draft) => void (draft.phone = "2"));
  const results = await Promise.allSettled([creation.isPersisted.promise, edit.isPersisted.promise]);
  assert.deepEqual(results.map(({ status }) => status), ["rejected", "rejected"]);
  await users.utils.settled();
  assert.deepEqual([users.has(id), await rowsOf(deviceOf(own), "end_user")], [false, []]);
  await users.insert({ id, name: "mended" }).isPersisted.promise;
  assert.deepEqual((await rowsOf(deviceOf(own), "end_user")).map(({ name }) => name), ["mended"]);
  await users.cleanup();
});

test("TanStack DB: an edit does not overtake the creation that is tried again, and mends it", async () => {
  const own = await registered();
  let isOn = true;
  const cut = (...call) => (isOn ? fetch(...call) : Promise.reject(new TypeError("cut off")));
  const users = await opened(deviceOf(own, { fetch: cut }));
  isOn = false;
  const id = newId();
  const made = [
    users.insert({ id, name: "whole", note: "x".repeat(100_000) }),
    users.update(id, (draft) => void (draft.phone = "typed after it")),
    users.update(id, (draft) => void (draft.note = "mended")),
  ];
  await new Promise((resume) => setTimeout(resume, 120));
  isOn = true;
  await Promise.all(made.map(({ isPersisted }) => isPersisted.promise));
  const [{ name, phone, note }] = await rowsOf(deviceOf(own), "end_user");
  assert.deepEqual([name, phone, note, users.get(id).note], ["whole", "typed after it", "mended", "mended"]);
  await users.cleanup();
});

test("TanStack DB: edits of one account are not sent for another, and wait for their own", async () => {
  const [asha, ben] = [await registered(), await registered()];
  let isOn = true;
  const store = memoryStore({ token: asha.token });
  const cut = (...call) => (isOn ? fetch(...call) : Promise.reject(new TypeError("cut off")));
  const errors = [];
  const users = await opened(new SyncClient({ url, store, deviceId: newId(), fetch: cut }), { onError: (error) => errors.push(error.code) });
  isOn = false;
  const typed = users.insert({ id: "of-asha", name: "typed by Asha" });
  store.write({ token: ben.token });
  isOn = true;
  await assert.rejects(users.utils.refetch(), { code: "wrong_account" });
  while (!errors.length) await new Promise((resume) => setTimeout(resume, 10));
  assert.deepEqual([await rowsOf(deviceOf(ben), "end_user"), users.utils.pending()], [[], 1]);
  store.write({ token: asha.token });
  await typed.isPersisted.promise;
  assert.deepEqual((await rowsOf(deviceOf(asha), "end_user")).map(({ name }) => name), ["typed by Asha"]);
  await users.cleanup();
});

test("TanStack DB: a row that the server has under another id is here under that one, with the edits that waited", async () => {
  const own = await registered();
  const users = await opened(deviceOf(own), { onRenamed: (names) => told.push(names) });
  const told = [];
  await deviceOf(own).push({ changes: { end_user: [{ id: "local_1", Unique_id: "first", name: "Asha" }, { id: "till-1", Unique_id: "tea", name: "Tea" }] } });
  users.insert({ id: "local_1", Unique_id: "second", name: "Ravi" });
  users.insert({ id: "till-2", Unique_id: "tea", name: "Tea" });
  const edits = ["local_1", "till-2"].map((id) => users.update(id, (draft) => void (draft.note = `of ${id}`)));
  await Promise.all(edits.map(({ isPersisted }) => isPersisted.promise));
  const shown = (rows) => rows.map(({ id, name, note }) => [id, name, note ?? null]).sort();
  const rows = shown(await rowsOf(deviceOf(own), "end_user"));
  assert.deepEqual(rows.map(([, ...typed]) => typed).sort(), [["Asha", null], ["Ravi", "of local_1"], ["Tea", "of till-2"]]);
  assert.deepEqual(shown(users.toArray), rows);
  assert.deepEqual(told.map(({ from }) => from), ["local_1", "till-2"]);
  await users.cleanup();
});
