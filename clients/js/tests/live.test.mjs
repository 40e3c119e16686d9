// Listening, and what may be believed of notifications.

import assert from "node:assert/strict";
import { createServer, request as httpRequest } from "node:http";
import { before, test } from "node:test";
import { Chain, SyncClient } from "syncapp-client";
import { registered, url } from "./registered.mjs";

/** @type {any} */
let account;

before(async () => {
  account = await registered();
});

const note = (type, more = {}) => ({ type, entityType: "end_user", cursor: "e-2", previousCursor: "e-1", ...more });

test("a push whose rows all came along is a link", () => {
  const chain = new Chain();
  assert.equal(chain.take(note("data_available", { entityId: "u1", data: { id: "u1", name: "a" } })), undefined);
  const link = chain.take(note("sync_complete", { count: 1 }));
  assert.deepEqual(link, { rows: [{ table: "end_user", row: { id: "u1", name: "a" } }], previousCursor: "e-1", cursor: "e-2" });
});

test("a push whose rows did not all come along says pull", () => {
  for (const notes of [
    [note("data_available", { count: 2, data: { entityIds: ["u1", "u2"] } }), note("sync_complete", { count: 2 })],
    [note("data_available", { entityId: "u1" }), note("sync_complete", { count: 1 })],
    [note("sync_complete", { count: 1 })],
    [note("data_available", { entityId: "u1", data: { id: "u1" }, cursor: "e-9" }), note("sync_complete", { count: 1 })],
  ]) {
    const chain = new Chain();
    assert.equal(notes.map((one) => chain.take(one)).at(-1), "pull");
  }
});

test("a notification without a cursor, as after a restore, says pull", () => {
  assert.equal(new Chain().take({ type: "data_available", entityType: "batch" }), "pull");
});

/** Listen until `count` things were heard. */
async function heard(client, count, act, more = {}) {
  const found = [];
  await new Promise((resolve, reject) => {
    const hear = (/** @type {any} */ what) => found.push(what) >= count && resolve(undefined);
    const live = client.live({ onPull: () => hear("pull"), onLink: hear, onState: (state) => state === "live" && act(), ...more });
    setTimeout(() => reject(new Error(`heard ${JSON.stringify(found)}`)), 15_000).unref();
    client.ended = () => live.close();
  }).finally(() => client.ended());
  return found;
}

test("a listener that is up to date gets the row of a push, and where it belongs", async () => {
  const client = new SyncClient({ url, token: account.token });
  const { cursor } = await client.pull({ cursor: null });
  const push = () => void client.push({ table: "end_user", operation: "create", data: { id: "live-1", name: "L" } });
  const [link] = await heard(client, 1, push, { cursor: () => cursor });
  assert.equal(link.previousCursor, cursor);
  assert.equal(link.rows[0].row.name, "L");
});

test("a listener that missed something, or has no cursor, is told to pull", async () => {
  const client = new SyncClient({ url, token: account.token });
  assert.deepEqual(await heard(client, 1, () => undefined), ["pull"]);
});

test("a listener with a spoiled token renews it and comes in", async () => {
  const client = new SyncClient({ url, token: `${account.token}x`, refreshToken: account.refreshToken });
  assert.deepEqual(await heard(client, 1, () => undefined), ["pull"]);
});

test("a server under a path is listened to under that path, as calls are made", async (t) => {
  const proxy = createServer();
  const passed = (request) => {
    assert.ok(request.url.startsWith("/below/it/"), request.url);
    const path = request.url.replace("/below/it", "");
    return httpRequest({ host: new URL(url).hostname, port: new URL(url).port, path, method: request.method, headers: request.headers });
  };
  proxy.on("request", (request, answer) => {
    const on = passed(request);
    on.on("response", (theirs) => (answer.writeHead(theirs.statusCode ?? 0, theirs.headers), theirs.pipe(answer)));
    request.pipe(on);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", () => resolve(undefined)));
  t.after(() => (proxy.closeAllConnections(), proxy.close()));
  const client = new SyncClient({ url: `http://127.0.0.1:${/** @type {any} */ (proxy.address()).port}/below/it/`, token: account.token });
  assert.ok((await client.pull({ cursor: null })).cursor);
  assert.deepEqual(await heard(client, 1, () => undefined), ["pull"]);
});

test("a listener that can't start says so to the app, and in the console", async (t) => {
  const said = t.mock.method(console, "error", () => undefined);
  const io = () => { throw new Error("no library"); };
  const states = [];
  const live = new SyncClient({ url, token: account.token, io }).live({ onPull: () => undefined, onState: (state, error) => states.push([state, error?.message]) });
  await assert.rejects(live.opened);
  assert.deepEqual(states, [["connecting", undefined], ["unavailable", "no library"]]);
  assert.equal(said.mock.callCount(), 1);
  live.close();
});
