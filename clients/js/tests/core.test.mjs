// The core against a real server (SYNCAPP_URL), and against one that fails as told: tokens, errors, Retry-After, gzip.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { before, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { Busy, digestOf, memoryStore, pushOperations, Refused, ResyncRequired, SignedOut, SyncClient, TooLarge, Unreachable } from "syncapp-client";
import { editOf } from "../src/edits.js";
import { sha256 } from "../src/sha256.js";
import { registered, url } from "./registered.mjs";

/** @type {any} */
let account;

before(async () => {
  account = await registered();
});

/** A server that answers as told, and keeps what it was asked. */
async function toldServer(t, ...answers) {
  const asked = [];
  const server = createServer(async (request, answer) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    asked.push({ path: request.url, headers: request.headers, body: Buffer.concat(chunks) });
    const { status = 200, headers = {}, body = { success: true }, cut } = answers.length > 1 ? answers.shift() : answers[0];
    answer.writeHead(status, { "Content-Type": "application/json", ...headers });
    if (!cut) return answer.end(JSON.stringify(body));
    answer.write('{"success": tr');
    answer.socket?.destroy();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return { asked, url: `http://127.0.0.1:${server.address().port}` };
}

const refusal = (status, code, headers) => ({ status, headers, body: { success: false, error: "No.", code, requestId: "r1" } });

test("a row that is pushed is pulled page by page, and the digest is the server's", async () => {
  const client = new SyncClient({ url, token: account.token, deviceId: "core-1" });
  await client.push({ changes: { end_user: Array.from({ length: 25 }, (_, number) => ({ id: `r${number}`, name: "é" })) } });
  const rows = [];
  let digest;
  for await (const page of client.pages({ cursor: null, tables: ["end_user"], limit: 10, digest: true })) {
    rows.push(...page.data.end_user);
    digest = page.digest?.end_user;
  }
  assert.equal(rows.length, 25);
  assert.deepEqual(digestOf(rows), digest);
});

test("ten calls with a spoiled token cause one refresh, and all succeed", async () => {
  const own = await registered();
  const refreshes = [];
  const counting = (address, init) => {
    if (address.endsWith("/refresh")) refreshes.push(address);
    return fetch(address, init);
  };
  const client = new SyncClient({ url, token: `${own.token}x`, refreshToken: own.refreshToken, fetch: counting });
  await Promise.all(Array.from({ length: 10 }, () => client.pull({ cursor: null })));
  assert.equal(refreshes.length, 1);
});

test("two clients on one store, as two tabs are, spend a refresh token once", async () => {
  const own = await registered();
  const store = memoryStore({ token: `${own.token}x`, refreshToken: own.refreshToken });
  const clients = [new SyncClient({ url, store }), new SyncClient({ url, store })];
  await Promise.all(clients.map((client) => client.pull({ cursor: null })));
  await clients[0].tokens.renewed((await store.read()).token);
});

test("a session that can't be renewed is SignedOut, or logged in anew where the app says how", async () => {
  const client = new SyncClient({ url, token: "spoiled", refreshToken: "spoiled" });
  await assert.rejects(client.pull({ cursor: null }), SignedOut);
  const other = new SyncClient({ url, token: "spoiled", signIn: async () => account });
  assert.equal((await other.pull({ cursor: null })).hasMore, false);
});

test("an unreachable refresh does not log anybody out", async (t) => {
  const told = await toldServer(t, refusal(401, "token_expired"), { cut: true });
  const store = memoryStore({ token: "old", refreshToken: "kept" });
  await assert.rejects(new SyncClient({ url: told.url, store }).pull({ cursor: null }), Unreachable);
  assert.deepEqual(await store.read(), { token: "old", refreshToken: "kept" });
});

test("a refresh whose answer was lost is sent again, and nobody has to log in", async () => {
  const own = await registered();
  let lost = 0;
  const losing = async (address, init) => {
    const answer = await fetch(address, init);
    if (address.endsWith("/refresh") && !lost++) throw new TypeError("the answer was lost");
    return answer;
  };
  const client = new SyncClient({ url, token: `${own.token}x`, refreshToken: own.refreshToken, fetch: losing });
  await assert.rejects(client.pull({ cursor: null }), Unreachable);
  assert.equal((await client.pull({ cursor: null })).hasMore, false);
  assert.equal(lost, 2);
});

test("errors are classes that carry the server's code", async (t) => {
  const client = new SyncClient({ url, token: account.token });
  await assert.rejects(client.pull({ cursor: "000000000000-5" }), (error) => error instanceof ResyncRequired && error.code === "resync_required" && error.status === 410);
  await assert.rejects(client.pull({ cursor: null, tables: ["none"] }), (error) => error instanceof Refused && error.code === "validation_error" && error.details.length > 0);
  const told = await toldServer(t, refusal(413, "payload_too_large"), { status: 502, body: "<html>" }, { cut: true });
  const other = new SyncClient({ url: told.url, token: "t" });
  await assert.rejects(other.push({}), TooLarge);
  await assert.rejects(other.push({}), Unreachable);
  await assert.rejects(other.push({}), Unreachable);
  await assert.rejects(new SyncClient({ url: "http://127.0.0.1:9", token: "t" }).pull({ cursor: null }), Unreachable);
});

test("Retry-After is obeyed with the same key, and not beyond the client's patience", async (t) => {
  const told = await toldServer(t, refusal(503, "busy", { "Retry-After": "1" }), { body: { success: true, results: [] } });
  await new SyncClient({ url: told.url, token: "t" }).push({ operations: [] });
  assert.equal(told.asked.length, 2);
  assert.equal(told.asked[0].headers["idempotency-key"], told.asked[1].headers["idempotency-key"]);
  const later = await toldServer(t, refusal(429, "rate_limited", { "Retry-After": "3600" }));
  await assert.rejects(new SyncClient({ url: later.url, token: "t" }).push({}), (error) => error instanceof Busy && error.retryAfterSeconds === 3600);
});

test("a large body goes compressed, a small one as it is", async (t) => {
  const told = await toldServer(t, {});
  const client = new SyncClient({ url: told.url, token: "t" });
  await client.push({ text: "x".repeat(10_000) });
  await client.push({ text: "x" });
  assert.equal(told.asked[0].headers["content-encoding"], "gzip");
  assert.equal(JSON.parse(gunzipSync(told.asked[0].body).toString()).text.length, 10_000);
  assert.equal(told.asked[1].headers["content-encoding"], undefined);
});

test("one poisoned operation of 2,500 is rejected alone, whatever the slices", async () => {
  const client = new SyncClient({ url, token: account.token, deviceId: "core-2" });
  const operations = Array.from({ length: 2500 }, (_, number) => ({
    table: number === 1234 ? "none" : "end_user",
    operation: /** @type {const} */ ("create"),
    data: { id: `many-${number}`, name: number === 7 ? "x".repeat(100_000) : "n" },
    opId: `many-${number}`,
  }));
  const outcomes = await pushOperations(client, operations);
  const rejected = outcomes.flatMap(({ result }, place) => (result.status === "rejected" ? [place] : []));
  assert.deepEqual(rejected, [7, 1234]);
});

for (const [status, code, headers] of [[404], [403], [400], [400, "validation_error", { "X-Of": "the device ID" }], [404, "tenant_not_found"], [405, "method_not_allowed"]]) {
  test(`${status} ${code ?? "of something between"} is no verdict on any edit`, async (t) => {
    const told = await toldServer(t, code ? refusal(status, code, headers) : { status, body: "<html>Welcome to the Wi-Fi of the hotel</html>" });
    const operations = ["a", "b"].map((id) => ({ table: "end_user", operation: /** @type {const} */ ("create"), data: { id }, opId: id }));
    await assert.rejects(pushOperations(new SyncClient({ url: told.url, token: "t" }), operations), (error) => error.status === status);
    assert.equal(told.asked.length, 1);
  });
}

test("a body that a proxy finds too large goes in halves", async (t) => {
  const answered = { body: { success: true, data: [null], results: [{ table: "end_user", id: "a", status: "unchanged" }], conflicts: [] } };
  const told = await toldServer(t, { status: 413, body: "<html>" }, answered);
  const operations = ["a", "b"].map((id) => ({ table: "end_user", operation: /** @type {const} */ ("create"), data: { id }, opId: id }));
  assert.equal((await pushOperations(new SyncClient({ url: told.url, token: "t" }), operations)).length, 2);
});

for (const [before, after, isEdit] of [[null, false, true], ["", false, true], ["1", true, true], [1, true, false], [false, 0, false], [0, true, true], [undefined, null, false], [{ a: 1, b: 2 }, { b: 2, a: 1 }, false], [{ a: 1 }, { a: true }, true], [[1], ["1"], true]]) {
  test(`${JSON.stringify(before)} to ${JSON.stringify(after)} is ${isEdit ? "an" : "no"} edit`, () => {
    const edit = editOf("end_user", "a", { id: "a", field: before, version: 1 }, { id: "a", field: after, version: 1 }, { opId: "o", timestamp: "t" });
    assert.equal(edit !== undefined, isEdit);
    if (edit) assert.deepEqual(edit.data, { id: "a", field: after });
  });
}

test("an update of a row that the server does not know makes the whole row", async () => {
  const client = new SyncClient({ url, token: account.token, deviceId: "core-3" });
  const update = { table: "end_user", operation: /** @type {const} */ ("update"), data: { id: "lost-1", name: "new" }, opId: "whole-1" };
  const [{ row }] = await pushOperations(client, [{ ...update, whole: { id: "lost-1", name: "new", phone: "1", version: 7 } }]);
  assert.deepEqual([row?.name, row?.phone], ["new", "1"]);
});

test("SHA-256 is Node's, for texts of all lengths around its blocks", () => {
  for (let length = 0; length < 200; length++) {
    const text = "é".repeat(length) + "x".repeat(length % 5);
    assert.equal(sha256(text), createHash("sha256").update(text).digest("hex"));
  }
});
