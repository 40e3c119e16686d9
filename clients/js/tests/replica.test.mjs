// A replica's rules: stale rows put back, refused creates, places of tables, a first sync that is broken off.

import assert from "node:assert/strict";
import { test } from "node:test";
import { newId, SyncClient, SyncError } from "syncapp-client";
import { heard, registered, replicaOf, served, STORES, tokenOf, url } from "./support.mjs";

const LONG = "x".repeat(70_000);
const rowsOf = async (account, table = "end_user") => (await new SyncClient({ url, token: account.token }).pull({ cursor: null, tables: [table] })).data[table];
/** Write as an app of this store does. */
const putter = (replica) => (row) => (replica.db ? replica.db.end_user.put(row) : replica.put("end_user", row));

for (const store of Object.keys(STORES)) {
  test(`${store}: a row that was read long ago and is put back overwrites nothing that it did not see`, async () => {
    const account = await registered();
    const [here, there] = [await replicaOf(store, account), await replicaOf(store, account)];
    await here.put("end_user", { id: "a", name: "Asha", phone: "1", note: "n" });
    await here.sync();
    const form = /** @type {any} */ (await here.get("end_user", "a"));
    await there.sync();
    await there.put("end_user", { id: "a", phone: "2", note: "of the other" });
    await there.sync();
    await here.sync(); // the form is still open, with what it showed
    const told = heard(here, "conflict");
    await putter(here)({ ...form, name: "Asha B.", note: "of the form" });
    await here.sync();
    const [row] = await rowsOf(account);
    assert.deepEqual([row.name, row.phone, row.note], ["Asha B.", "2", "of the form"]);
    assert.equal(told.length, 1);
    assert.deepEqual([(await here.get("end_user", "a"))?.phone, await here.pending()], ["2", 0]);
    for (const one of [here, there]) one.close();
  });

  test(`${store}: a row that was deleted elsewhere and is put back from a form is not made anew untold`, async () => {
    const account = await registered();
    const [here, there] = [await replicaOf(store, account), await replicaOf(store, account)];
    await here.put("end_user", { id: "a", name: "Asha" });
    await here.sync();
    const form = /** @type {any} */ (await here.get("end_user", "a"));
    await there.sync();
    await there.delete("end_user", "a");
    await there.sync();
    await here.sync();
    await putter(here)({ ...form, name: "typed into the form" });
    await here.sync();
    const server = new SyncClient({ url, token: account.token });
    const kept = await Promise.all(["conflicts?state=all", "history/end_user/a"].map((path) => server.call(`/api/client/sync/${path}`, { method: "GET" })));
    assert.ok(JSON.stringify(kept).includes("typed into the form"));
    assert.deepEqual([await here.all("end_user"), await rowsOf(account)], [[], []]);
    for (const one of [here, there]) one.close();
  });

  test(`${store}: a row that the server has under another id is here under that one, with the edits that waited`, async () => {
    const account = await registered();
    const [first, second] = [await replicaOf(store, account), await replicaOf(store, account)];
    const told = heard(second, "renamed");
    await first.sync();
    await second.sync();
    for (const [one, Unique_id, name, till] of /** @type {const} */ ([[first, "first", "Asha", "till-1"], [second, "second", "Ravi", "till-2"]])) {
      await one.put("end_user", { id: "local_1", Unique_id, name });
      await one.put("end_user", { id: "local_1", note: `of ${name}` });
      await one.put("end_user", { id: till, Unique_id: "tea", name: "Tea" });
      await one.put("end_user", { id: till, [till === "till-1" ? "note" : "phone"]: till });
    }
    await second.put("end_user", { id: "local_2", Unique_id: "first", name: "Asha" });
    await second.delete("end_user", "local_2");
    for (const one of [first, second, first, second]) await one.sync();
    const shown = async (/** @type {any} */ of) => (await of).map((/** @type {any} */ { id, name, note, phone }) => [id, name, note ?? "", phone ?? ""]).sort();
    const rows = await shown(rowsOf(account));
    assert.deepEqual(rows.map(([, ...typed]) => typed.join()).sort(), ["Ravi,of Ravi,", "Tea,till-1,till-2"]);
    for (const one of [first, second]) assert.deepEqual([await shown(one.all("end_user")), await one.pending()], [rows, 0]);
    const ravi = rows.find(([, name]) => name === "Ravi")[0];
    assert.deepEqual(told.map(({ from, to }) => [from, to]), [["local_1", ravi], ["till-2", "till-1"], ["local_2", "local_1"]]);
    for (const one of [first, second]) one.close();
  });

  test(`${store}: another phone's row that came under an id before its own was created there stays as it is`, async () => {
    const account = await registered();
    const [first, second] = [await replicaOf(store, account), await replicaOf(store, account)];
    await first.put("end_user", { id: "local_1", Unique_id: "first", name: "Asha", note: "of Asha" });
    await first.sync();
    await second.put("end_user", { id: "local_1", Unique_id: "second", name: "Ravi" });
    await second.put("end_user", { id: "local_1", phone: "7" });
    await second.sync(); // A first pull brings the other's before this device's is sent.
    const shown = (await second.all("end_user")).map(({ id, name, note, phone }) => [id === "local_1", name, note ?? null, phone ?? null]).sort();
    assert.deepEqual(shown, [[false, "Ravi", null, "7"], [true, "Asha", "of Asha", null]]);
    assert.deepEqual((await rowsOf(account)).map(({ name, phone }) => [name, phone ?? null]).sort(), [["Asha", null], ["Ravi", "7"]]);
    for (const one of [first, second]) one.close();
  });

  test(`${store}: a version that is none, or one that nobody knows yet, is no base`, async () => {
    const account = await registered();
    const replica = await replicaOf(store, account);
    await putter(replica)({ id: "a", name: "Asha" });
    await replica.sync();
    for (const version of [0, -1, 1.5, "1", null, 99]) {
      await putter(replica)({ ...(await replica.get("end_user", "a")), name: `v ${version}`, version });
      await replica.sync();
      assert.equal((await rowsOf(account))[0].name, `v ${version}`);
    }
    replica.close();
  });

  test(`${store}: a create that is refused and the edits after it arrive whole once they are mended, and not before`, async () => {
    const account = await registered();
    const replica = await replicaOf(store, account);
    const [put, refused] = [putter(replica), heard(replica, "rejected")];
    const typed = { id: "a", name: "Asha", phone: "1" };
    await put({ ...typed, note: LONG });
    await put({ ...(await replica.get("end_user", "a")), phone: "2" });
    await put({ id: "good", name: "of no fault" });
    await replica.sync();
    assert.deepEqual((await rowsOf(account)).map(({ id }) => id), ["good"]);
    assert.deepEqual((await replica.all("end_user")).map(({ id }) => id), ["good"]);
    const [{ data, opId }] = await replica.rejected();
    assert.deepEqual([data.name, data.phone, data.note.length, refused.length, refused[0].opId], ["Asha", "2", 70_000, 1, opId]);
    await replica.put("end_user", { id: "a", note: "short" }); // mended in the form that is still open
    await replica.sync();
    const row = (await rowsOf(account)).find(({ id }) => id === "a");
    assert.deepEqual([row.name, row.phone, row.note], ["Asha", "2", "short"]);
    assert.deepEqual([await replica.rejected(), await replica.pending(), (await replica.get("end_user", "a"))?.version], [[], 0, row.version]);
    replica.close();
  });

  test(`${store}: a create that is refused and deleted again, or forgotten, leaves nothing`, async () => {
    const account = await registered();
    const replica = await replicaOf(store, account);
    const put = putter(replica);
    await put({ id: "deleted", note: LONG });
    await replica.delete("end_user", "deleted");
    await put({ id: "dismissed", note: LONG });
    await replica.sync();
    const rejected = await replica.rejected();
    assert.deepEqual(rejected.map(({ id }) => id), ["dismissed"]);
    await replica.dismiss(rejected[0].opId);
    await put({ id: "dismissed", name: "made anew" });
    await replica.sync();
    assert.deepEqual((await rowsOf(account)).map(({ id, name }) => [id, name]), [["dismissed", "made anew"]]);
    assert.equal(await replica.pending(), 0);
    replica.close();
  });

  test(`${store}: an update that is refused is taken back alone`, async () => {
    const account = await registered();
    const replica = await replicaOf(store, account);
    await replica.put("end_user", { id: "a", name: "Asha" });
    await replica.sync();
    await replica.put("end_user", { id: "a", note: LONG });
    await replica.put("end_user", { id: "a", phone: "2" });
    await replica.sync();
    const [row] = await rowsOf(account);
    assert.deepEqual([row.name, row.phone, row.note], ["Asha", "2", null]);
    assert.deepEqual((await replica.rejected()).map(({ operation }) => operation), ["update"]);
    replica.close();
  });

  test(`${store}: a table of a new version is filled, also if that is broken off, and the others are not fetched again`, async () => {
    const account = await registered();
    const server = new SyncClient({ url, token: account.token });
    await server.push({ changes: { end_user: Array.from({ length: 30 }, (_, n) => ({ id: `u${n}` })), interactions: Array.from({ length: 30 }, (_, n) => ({ id: `i${n}`, extra: n })) } });
    const name = newId();
    const first = await replicaOf(store, account, { name });
    await first.sync();
    first.close();
    const asked = [];
    let pages = 0;
    const few = async (address, init) => {
      if (!address.endsWith("/pull")) return fetch(address, init);
      const wanted = JSON.parse(init.body);
      asked.push(wanted.entityTypes);
      if (++pages === 3) throw new TypeError("the line is cut");
      return fetch(address, { ...init, body: JSON.stringify({ ...wanted, limit: 10 }) });
    };
    const second = await replicaOf(store, account, { name, tables: ["end_user", "interactions"], fetch: /** @type {any} */ (few) });
    await second.put("interactions", { id: "typed", title: "before the first sync" });
    await assert.rejects(second.sync());
    assert.equal((await second.all("interactions")).length, 21);
    await second.sync();
    const rows = await second.all("interactions");
    assert.deepEqual([rows.length, rows.find(({ id }) => id === "i29")?.extra], [31, 29]);
    assert.deepEqual(asked.slice(0, 5), Array(5).fill(["interactions"]).with(4, ["end_user", "interactions"]));
    second.close();
  });
}

for (const [what, fetch] of Object.entries({ "an answer of something between": () => new Response("<html>"), "an answer that is null": () => new Response("null"), "a fetch that fails oddly": () => { throw new RangeError("odd"); } })) {
  test(`what sync throws is one of ours: ${what}`, async () => {
    const replica = await replicaOf("indexeddb", { token: tokenOf("a") }, { fetch: /** @type {any} */ (async () => fetch()) });
    const told = heard(replica, "status");
    await replica.put("end_user", { name: "typed" });
    await assert.rejects(replica.sync(), (error) => error instanceof SyncError && error.code === "unreachable");
    assert.equal(told.at(-1).state, "offline");
    assert.equal(await replica.pending(), 1);
    replica.close();
  });
}

test("a database that fails is told as one of ours, and not as offline", async () => {
  const replica = await replicaOf("indexeddb", { token: tokenOf("a") });
  const told = heard(replica, "status");
  replica.store.transaction = async () => { throw new DOMException("The disk is full.", "QuotaExceededError"); };
  await assert.rejects(replica.sync(), (error) => error instanceof SyncError && error.code === "replica_failed" && /disk is full/.test(error.message));
  assert.equal(told.at(-1).state, "error");
  replica.close();
});

for (const [status, code] of /** @type {[number, string][]} */ ([[503, "maintenance"], [507, "storage_full"]])) {
  test(`while the server answers ${code} to pushes, rows of others come, the edit stays, and it is sent afterwards`, async () => {
    const account = await registered();
    let isRefusing = true;
    const refusing = /** @type {typeof fetch} */ (async (address, init) => {
      if (!isRefusing || !`${address}`.endsWith("/push")) return fetch(address, init);
      return Response.json({ success: false, error: "Not now.", message: "Not now.", code }, { status, headers: { "Retry-After": "30" } });
    });
    const [here, there] = [await replicaOf("indexeddb", account, { fetch: refusing }), await replicaOf("indexeddb", account)];
    await here.sync();
    await there.put("end_user", { id: "b", name: "of the other" });
    await there.sync();
    await here.put("end_user", { id: "a", name: "mine" });
    await assert.rejects(here.sync(), (error) => error instanceof SyncError && error.code === code);
    assert.deepEqual([(await here.get("end_user", "b"))?.name, await here.pending()], ["of the other", 1]);
    isRefusing = false;
    await here.sync();
    assert.deepEqual([(await rowsOf(account)).length, await here.pending()], [2, 0]);
    for (const one of [here, there]) one.close();
  });
}
