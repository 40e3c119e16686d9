// Two tabs of one browser on one replica: both edit at once, one of them syncs, and one is closed in the middle.
//
// First seen to fail on a fault: an answered edit that takes later edits of its row out of the outbox with it; and a tab
// that does not take over when the one before is closed.

import assert from "node:assert/strict";
import { copyFileSync } from "node:fs";
import { test } from "node:test";
import { digestOf, newId, SyncClient } from "syncapp-client";
import { browser, folder, hasChromium } from "./in_browser.mjs";
import { registered, url } from "./registered.mjs";
import { until } from "./until.mjs";

async function opened(name, about) {
  const tab = await browser.open(`http://localhost/kit/page.html#${name}`);
  await until(() => tab("typeof answer === 'function'").catch(() => false), "the page");
  const ask = async (request) => {
    const { ok, error } = await tab(`answer(${JSON.stringify(request)})`);
    if (error) throw new Error(error.message);
    return ok;
  };
  await ask({ do: "open", ...about });
  await ask({ do: "live", on: true });
  const syncs = () => tab("performance.getEntriesByType('resource').filter(({ name }) => name.includes('/sync/')).length");
  return { ask, syncs, close: tab.close };
}

for (const name of ["indexeddb", "dexie"]) {
  test(`${name}: what two tabs type at once is on the server, one tab syncs, and the other takes over`, { skip: !hasChromium && "needs chromium" }, async () => {
    const account = await registered();
    const about = { url, folder: newId(), tables: ["end_user"], deviceId: newId(), token: account.token, email: account.email, password: "password123" };
    const [first, second] = [await opened(name, about), await opened(name, about)];
    const put = (tab, row) => tab.ask({ do: "put", table: "end_user", row });
    const typing = async (tab, field) => {
      for (let number = 0; number < 60; number++) await put(tab, { id: `row-${number % 3}`, [field]: `${field} ${number}` });
    };
    await Promise.all([typing(first, "name"), typing(second, "note")]);
    const server = new SyncClient({ url, token: account.token });
    const theirs = async () => (await server.pull({ cursor: null, tables: ["end_user"], digest: true }));
    await until(async () => (await first.ask({ do: "pending" })) === 0, "all to be sent");
    assert.equal(await second.syncs(), 0, "the second tab syncs too");
    const rows = new Map((await theirs()).data.end_user.map((row) => [row.id, row]));
    for (let number = 57; number < 60; number++) {
      const row = rows.get(`row-${number % 3}`);
      assert.deepEqual([row.name, row.note], [`name ${number}`, `note ${number}`]);
    }
    for (const row of rows.values()) {
      const history = await server.call(`/api/client/sync/history/end_user/${row.id}?limit=500`, { method: "GET" });
      const held = new Set(history.data.flatMap(({ row: { name, note } }) => [name, note]));
      for (let number = Number(row.id.at(-1)); number < 60; number += 3) assert.ok(held.has(`name ${number}`) && held.has(`note ${number}`), `${number}`);
    }
    await put(first, { id: "last-1", name: "as the tab closes" });
    await first.close();
    await put(second, { id: "last-2", name: "after it was closed" });
    await until(async () => (await theirs()).digest.end_user.count === 5, "the second tab to take over");
    await until(async () => (await second.ask({ do: "pending" })) === 0, "all to be sent");
    await second.ask({ do: "sync" });
    assert.deepEqual(digestOf(await second.ask({ do: "rows", table: "end_user" })), (await theirs()).digest.end_user);
  });
}

/** Storage as a browser has it, as far as claims need it. */
function storage() {
  const kept = new Map();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value), removeItem: (key) => void kept.delete(key) };
}

test("tabs without Web Locks take turns by a claim in localStorage, which ends with its tab", { skip: globalThis.navigator?.locks && "has Web Locks" }, async (t) => {
  Object.assign(globalThis, { localStorage: storage() });
  t.after(() => Reflect.deleteProperty(globalThis, "localStorage"));
  const tabs = await Promise.all([1, 2, 3].map(async (number) => {
    copyFileSync(new URL("../src/tabs.js", import.meta.url), `${folder}/tab-${number}.mjs`);
    return import(`${folder}/tab-${number}.mjs`);
  }));
  let [running, most, done] = [0, 0, 0];
  const work = async () => {
    most = Math.max(most, ++running);
    await new Promise((resume) => setTimeout(resume, 5));
    running--;
    if (++done % 3 === 0) throw new Error("work may fail");
  };
  await Promise.allSettled(Array.from({ length: 15 }, (_, number) => tabs[number % 3].exclusive("one", work)));
  assert.deepEqual([most, done], [1, 15]);
  localStorage.setItem("syncapp-lock:one", JSON.stringify({ own: "of a tab that was closed", until: Date.now() + 200 }));
  await tabs[0].exclusive("one", async () => assert.ok(Date.now()));
  assert.equal(localStorage.getItem("syncapp-lock:one"), null);
  localStorage.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };
  assert.equal(await tabs[0].exclusive("one", async () => "done all the same"), "done all the same");
});

test("two tabs without Web Locks whose token is refused at once spend the refresh token once", { skip: !hasChromium && "needs chromium" }, async () => {
  const account = await registered();
  const tabs = await Promise.all([1, 2].map(() => browser.open("http://localhost/kit/page.html#indexeddb")));
  for (const tab of tabs) {
    await until(() => tab("typeof answer === 'function'").catch(() => false), "the page");
    await tab("Object.defineProperty(navigator, 'locks', { value: undefined })");
  }
  await tabs[0](`localStorage.setItem("syncapp-tokens", ${JSON.stringify(JSON.stringify({ token: account.token, refreshToken: account.refreshToken }))})`);
  const spoil = `(() => { const pair = JSON.parse(localStorage.getItem("syncapp-tokens")); localStorage.setItem("syncapp-tokens", JSON.stringify({ ...pair, token: pair.token + "x" })); })()`;
  const pull = `import("syncapp-client").then(({ SyncClient, browserStore }) => new SyncClient({ url: ${JSON.stringify(url)}, store: browserStore() }).pull({ cursor: null })).then(({ hasMore }) => hasMore)`;
  for (let round = 0; round < 5; round++) {
    await tabs[0](spoil);
    assert.deepEqual(await Promise.all(tabs.map((tab) => tab(pull))), [false, false], `round ${round}`);
  }
});
