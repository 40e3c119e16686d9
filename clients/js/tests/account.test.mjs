// One replica, one account: another log-in on the same database sends nothing, fetches nothing and loses nothing.
//
// First seen to fail: the rows and tombstones of the first account went into the second's tenant.

import assert from "node:assert/strict";
import { test } from "node:test";
import { memoryStore, newId, SyncClient, WrongAccount } from "syncapp-client";
import { accountOf } from "../src/tokens.js";
import { registered, replicaOf, STORES, tokenOf, until, url } from "./support.mjs";

test("an access token tells whose it is, whatever else it holds", async () => {
  const account = await registered();
  assert.equal(accountOf(account.token), account.customer.id);
  for (const id of ["a", "ab", "abc", "abcd", "é-ü"]) assert.ok(accountOf(tokenOf(id)));
  for (const none of ["", "x", "a.b.c", "a.e30.c", "..."]) assert.equal(accountOf(none), undefined);
});

for (const store of Object.keys(STORES)) {
  test(`${store}: somebody else's log-in is refused, keeps nothing, and the first one's edits wait for the first one`, async () => {
    const [first, second] = [await registered(), await registered()];
    const name = newId();
    const one = await replicaOf(store, first, { name });
    await one.put("end_user", { id: "a", name: "sent" });
    await one.put("end_user", { id: "gone", name: "deleted" });
    await one.sync();
    await one.delete("end_user", "gone");
    await one.put("end_user", { id: "b", name: "not sent yet" });
    one.close();

    const other = await replicaOf(store, second, { name });
    await assert.rejects(other.sync(), (error) => error instanceof WrongAccount && error.message.includes(first.customer.id));
    await other.put("end_user", { id: "c", name: "typed meanwhile" });
    await assert.rejects(other.sync(), WrongAccount);
    assert.deepEqual((await new SyncClient({ url, token: second.token }).pull({ cursor: null, tables: ["end_user"] })).data.end_user, []);
    assert.equal(await other.pending(), 3);
    other.close();

    const again = await replicaOf(store, first, { name });
    await again.sync();
    const theirs = (await new SyncClient({ url, token: first.token }).pull({ cursor: null, tables: ["end_user"] })).data.end_user;
    assert.deepEqual(theirs.map(({ id }) => id).sort(), ["a", "b", "c"]);
    again.close();
  });
}

test("a log-in of somebody else in another tab, which shares the tokens, stops this one's calls", async () => {
  const [first, second] = [await registered(), await registered()];
  const store = memoryStore({ token: first.token });
  const client = new SyncClient({ url, store });
  assert.equal(await client.account(), first.customer.id);
  await store.write({ token: second.token });
  await assert.rejects(client.pull({ cursor: null }), WrongAccount);
  await assert.rejects(client.account(second.customer.id), WrongAccount);
});

test("a client that serves a database refuses the log-in of somebody else, and keeps the session", async () => {
  const [first, second] = [await registered(), await registered()];
  const client = new SyncClient({ url, token: first.token });
  await client.account();
  await assert.rejects(client.logIn(second.email, "password123"), WrongAccount);
  assert.equal((await client.tokens.store.read())?.token, first.token);
  await client.logIn(first.email, "password123");
});

test("a session that signIn renews as somebody else is refused", async () => {
  const [first, second] = [await registered(), await registered()];
  const client = new SyncClient({ url, token: `${first.token}x`, signIn: async () => second });
  await client.account();
  await assert.rejects(client.pull({ cursor: null }), WrongAccount);
});

test("a listener does not come in as somebody else", async () => {
  const [first, second] = [await registered(), await registered()];
  const store = memoryStore({ token: second.token });
  const client = new SyncClient({ url, store });
  client.tenantId = first.customer.id;
  const told = [];
  const live = client.live({ onPull: () => told.push("pull"), onSignedOut: (error) => told.push(error) });
  await until(() => told.length, "the refusal");
  live.close();
  assert.ok(told[0] instanceof WrongAccount);
});
