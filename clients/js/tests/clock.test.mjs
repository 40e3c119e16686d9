// A clock that is wrong: the time of an edit is the time at which it was made, by the server's clock.
//
// First seen to fail: of two edits of one field, a device an hour slow lost each time, however late it typed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { SyncClient } from "syncapp-client";
import { Clock } from "../src/clock.js";
import { registered, replicaOf, STORES, url } from "./support.mjs";

const HOUR_MS = 3_600_000;

test("a clock is corrected by the middle of a request, and left alone if it may be right", () => {
  const clock = new Clock();
  const at = Date.now();
  clock.hear(new Date(at + HOUR_MS).toISOString(), at - 100, at + 100);
  assert.equal(clock.offsetMs, HOUR_MS);
  assert.equal(clock.corrected("2026-01-01T00:00:00.000Z"), "2026-01-01T01:00:00.000Z");
  for (const [told, rounded] of [[0, 0], [90, 0], [-90, 0], [-1000, 1000], [-50, 1000]]) {
    clock.hear(new Date(at + told).toISOString(), at - 100, at + 100, rounded);
    assert.equal(clock.offsetMs, 0, `${told}`);
  }
  for (const none of [undefined, null, "", "soon"]) clock.hear(none, at, at);
  assert.equal(clock.corrected("soon"), "soon");
});

test("a clock that is wrong is measured to better than the second that Date has, and stays so", () => {
  const clock = new Clock();
  const at = Date.now();
  const hear = (told, rounded) => clock.hear(new Date(at + told).toISOString(), at - 50, at + 50, rounded);
  hear(HOUR_MS - 900, 1000);
  assert.ok(!clock.isMeasured, "a second off may turn who typed last");
  hear(HOUR_MS, 0);
  hear(HOUR_MS - 900, 1000);
  assert.deepEqual([clock.isMeasured, clock.offsetMs], [true, HOUR_MS]);
  hear(2 * HOUR_MS, 1000);
  assert.deepEqual([clock.isMeasured, Math.round(clock.offsetMs / HOUR_MS)], [false, 2], "it was set meanwhile");
  hear(0, 1000);
  assert.deepEqual([clock.isMeasured, clock.offsetMs], [true, 0]);
});

/** Have the clock of this process wrong while `work` runs. */
async function wrong(t, byMs, work) {
  const { now } = Date;
  const Right = Date;
  class Wrong extends Right {
    constructor(...given) {
      super(...(given.length ? given : [now() + byMs]));
    }
    static now = () => now() + byMs;
  }
  const back = () => void (globalThis.Date = Right);
  t.after(back);
  globalThis.Date = /** @type {any} */ (Wrong);
  return work().finally(back);
}

for (const store of Object.keys(STORES)) {
  for (const [way, byMs, hides] of [["slow", -HOUR_MS, false], ["fast", 30 * HOUR_MS, false], ["slow, in a page that may not read Date,", -HOUR_MS, true]]) {
    test(`${store}: what a device that is ${way} types last stays, also offline and after a restart`, async (t) => {
      const account = await registered();
      const name = `clock-${store}-${byMs}-${hides}`;
      const hiding = async (address, init) => {
        const answer = await fetch(address, init);
        const headers = new Headers(answer.headers);
        headers.delete("Date");
        return new Response(await answer.text(), { status: answer.status, headers });
      };
      const options = { name, fetch: hides ? hiding : undefined };
      const right = await replicaOf(store, account);
      await right.put("end_user", { id: "a", note: "first" });
      await right.sync();
      let replica = await replicaOf(store, account, options);
      await wrong(t, byMs, () => replica.sync());
      await right.put("end_user", { id: "a", note: "typed earlier" });
      await right.sync();
      await wrong(t, byMs, async () => replica.put("end_user", { id: "a", note: "typed later" })); // offline: it has not seen the other
      replica.close();
      replica = await replicaOf(store, account, options);
      await wrong(t, byMs, () => replica.sync());
      await right.put("end_user", { id: "a", note: "typed last" });
      await right.sync();
      await right.sync();
      await wrong(t, byMs, () => replica.sync());
      const [row] = (await new SyncClient({ url, token: account.token }).pull({ cursor: null, tables: ["end_user"] })).data.end_user;
      assert.equal(row.note, "typed last");
      assert.equal((await replica.get("end_user", "a"))?.note, "typed last");
      const history = await new SyncClient({ url, token: account.token }).call("/api/client/sync/history/end_user/a", { method: "GET" });
      assert.ok(history.data.some(({ row }) => row.note === "typed later"), JSON.stringify(history.data.map(({ row }) => row.note)));
      for (const one of [right, replica]) one.close();
    });
  }
}
