// Calls that meet something else than a good answer in time: every failure is one of ours, and a slow line is no failure.

import assert from "node:assert/strict";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { BadValue, Interrupted, pushOperations, SyncClient, SyncError, Unreachable } from "syncapp-client";
import { errorOf } from "../src/errors.js";
import { served, tokenOf } from "./support.mjs";

const operations = (count, text = "x") => Array.from({ length: count }, (_, number) => ({
  table: "end_user", operation: /** @type {const} */ ("create"), data: { id: `r${number}`, text }, opId: `o${number}`,
}));

const taken = ({ operations }) => ({
  body: { success: true, data: operations.map(() => null), results: operations.map(({ data }) => ({ table: "end_user", id: data.id, status: "created" })), conflicts: [] },
});

const NOT_OURS = {
  "a page of a hotel": "<html>Welcome</html>", "an empty object": {}, "null": "null", "a number": "7", "a list": "[]", "half an answer": '{"success": tr', nothing: "",
  "a success without its members": { success: true }, "members of other kinds": { success: true, data: 1, results: 2, conflicts: 3, cursor: 4 },
  "too few outcomes": { success: true, data: [], results: [], conflicts: [], cursor: "e-1", hasMore: false, ...{ data: [] } },
};

for (const [what, body] of Object.entries(NOT_OURS)) {
  test(`an answer that is ${what} is Unreachable, to a push and to a pull`, async (t) => {
    const told = await served(t, () => ({ body }));
    const client = new SyncClient({ url: told.url, token: tokenOf("a") });
    await assert.rejects(pushOperations(client, operations(2)), Unreachable);
    if (what !== "too few outcomes") await assert.rejects(client.pull({ cursor: null }), Unreachable);
  });
}

test("no sentence of ours holds a status, which some libraries search for", () => {
  for (let status = 400; status < 600; status++) {
    for (const body of [undefined, {}, { code: "busy" }, { code: "constructor" }]) assert.doesNotMatch(errorOf(status, body).message, /\d/);
  }
});

for (const deviceId of ["Касса", "till 1", "x".repeat(65), "", 7]) {
  test(`the deviceId ${JSON.stringify(deviceId)} is refused at once, and is not "offline"`, () => {
    assert.throws(() => new SyncClient({ url: "http://localhost", deviceId: /** @type {any} */ (deviceId) }), BadValue);
  });
}

test("a token of other letters is a session that is over, and not offline", async () => {
  await assert.rejects(new SyncClient({ url: "http://127.0.0.1:9", token: "жетон" }).pull({ cursor: null }), (error) => error.code === "unauthorized");
});

test("a client works where there is no AbortSignal.timeout and no stream of a body, as in React Native", async (t) => {
  const told = await served(t, () => ({ body: { success: true, data: { end_user: [] }, cursor: "e-1", hasMore: false } }));
  const { timeout } = AbortSignal;
  t.after(() => Object.assign(AbortSignal, { timeout }));
  Reflect.deleteProperty(AbortSignal, "timeout");
  const plain = async (address, init) => {
    const answer = await fetch(address, init);
    return { ok: answer.ok, status: answer.status, headers: answer.headers, text: () => answer.text() };
  };
  const client = new SyncClient({ url: told.url, token: tokenOf("a"), fetch: /** @type {any} */ (plain) });
  assert.equal((await client.pull({ cursor: null })).cursor, "e-1");
});

test("what JSON can't say is a BadValue, and a missing fetch says so", async () => {
  const client = new SyncClient({ url: "http://127.0.0.1:9", token: tokenOf("a") });
  await assert.rejects(client.push({ number: 1n }), BadValue);
  const kept = globalThis.fetch;
  Reflect.deleteProperty(globalThis, "fetch");
  await assert.rejects(client.pull({ cursor: null }), (error) => error instanceof SyncError && error.code === "no_fetch").finally(() => Object.assign(globalThis, { fetch: kept }));
});

test("a file comes as it is, a refusal in its place is that, and a page of a hotel is no file", async (t) => {
  const answers = {
    "/file": { headers: { "Content-Type": "application/zip" }, body: "PK and more" },
    "/refused": { status: 401, body: { success: false, code: "invalid_credentials", error: "The password is wrong." } },
    "/hotel": { headers: { "Content-Type": "text/html" }, body: "<html>Welcome</html>" },
  };
  const told = await served(t, ({ path }) => answers[path]);
  const client = new SyncClient({ url: told.url, token: tokenOf("a") });
  assert.equal(await (await client.download("/file", { password: "p" }, "application/zip")).text(), "PK and more");
  await assert.rejects(client.download("/refused", {}, "application/zip"), (error) => error instanceof SyncError && error.code === "invalid_credentials");
  await assert.rejects(client.download("/hotel", {}, "application/zip"), Unreachable);
});

test("an account that is suspended as its token is renewed is told as that, and keeps its tokens", async (t) => {
  const told = await served(t, ({ path }) => ({ status: 401, body: { success: false, error: "…", code: path.endsWith("/refresh") ? "tenant_suspended" : "token_expired" } }));
  const client = new SyncClient({ url: told.url, token: tokenOf("a"), refreshToken: "r" });
  await assert.rejects(client.pull({ cursor: null }), (error) => error instanceof SyncError && error.code === "tenant_suspended");
  assert.equal((await client.tokens.store.read())?.refreshToken, "r");
});

// --- slow lines ------------------------------------------------------------------------------------------------------

test("an answer that comes slowly, but comes, has no end set to it", async (t) => {
  const parts = JSON.stringify({ success: true, data: { end_user: [{ id: "a" }] }, cursor: "e-1", hasMore: false, pad: "x".repeat(30) });
  const told = await served(t, async (_, answer) => {
    answer.writeHead(200, { "Content-Type": "application/json" });
    for (const letter of parts) {
      answer.write(letter);
      await new Promise((resume) => setTimeout(resume, 10));
    }
    answer.end();
  });
  const client = new SyncClient({ url: told.url, token: tokenOf("a"), timeoutSeconds: 0.5 }); // the whole takes more than one
  assert.equal((await client.pull({ cursor: null })).data.end_user.length, 1);
});

test("pages shrink where only small ones come through, each is given, and they grow again", async (t) => {
  let most = 100;
  const limits = [];
  const told = await served(t, ({ body }, answer) => {
    const { cursor, limit } = JSON.parse(body.toString());
    limits.push(limit);
    const from = Number(cursor?.split("-")[1] ?? 0);
    if (limit > most) return void (answer.writeHead(200), answer.write('{"success": true, "data": {')); // and then silence
    const rows = Array.from({ length: Math.min(limit, 2500 - from) }, (_, number) => ({ id: `r${from + number}`, version: 1 }));
    if (from > 200) most = 10_000;
    return { body: { success: true, data: { end_user: rows }, cursor: `e-${from + rows.length}`, hasMore: from + rows.length < 2500 } };
  });
  const client = new SyncClient({ url: told.url, token: tokenOf("a"), timeoutSeconds: 0.3 });
  const rows = [];
  for await (const page of client.pages({ cursor: null })) rows.push(...page.data.end_user);
  assert.equal(new Set(rows.map(({ id }) => id)).size, 2500);
  assert.ok(limits.at(-1) > 100, `${limits}`);
});

test("a line that takes no page at all is Interrupted, and does not ask for ever", async (t) => {
  const told = await served(t, () => undefined);
  await assert.rejects(new SyncClient({ url: told.url, token: tokenOf("a"), timeoutSeconds: 0.02 }).pull({ cursor: null }), Interrupted);
  assert.ok(told.asked.length < 12);
});

test("slices of a push shrink where only small ones come through; none is sent under two names", async (t) => {
  const names = [];
  const told = await served(t, ({ body, headers }) => {
    const sent = JSON.parse((headers["content-encoding"] ? gunzipSync(body) : body).toString());
    if (sent.operations.length > 10) return undefined;
    names.push(...sent.operations.map(({ opId }) => opId));
    return taken(sent);
  });
  const client = new SyncClient({ url: told.url, token: tokenOf("a"), timeoutSeconds: 0.3 });
  const outcomes = await pushOperations(client, operations(40, "x".repeat(500)));
  assert.equal(outcomes.length, 40);
  assert.deepEqual([...new Set(names)].length, 40);
});
