// Legend-State 3 (beta) over the core, as its page of docs has it: both ways, and without a network for a while.
//
// First seen to fail: without `retry` an edit that was made offline never comes; without `transform` an older list of another device's does.

import assert from "node:assert/strict";
import { test } from "node:test";
import { observable, when } from "@legendapp/state";
import { syncedCrud } from "@legendapp/state/sync-plugins/crud";
import { newId } from "syncapp-client";
import { deviceOf, registered, rowsOf } from "./server.mjs";

/** As on the page, with a `refresh` in the test's hands. */
function usersOf(client) {
  const told = {};
  const push = (operation) => async (row) =>
    (await client.push({ operations: [{ table: "end_user", operation, data: row, opId: newId() }] })).data[0];
  const users$ = observable(syncedCrud({
    list: () => rowsOf(client, "end_user"),
    create: push("create"), update: push("update"), delete: push("delete"), updatePartial: true,
    transform: {
      load: (row) => ({ ...row, bankList: row.bankList && JSON.stringify(row.bankList) }),
      save: (row) => ({ ...row, bankList: row.bankList && JSON.parse(row.bankList) }),
    },
    retry: { infinite: true, delay: 50, maxDelay: 50 },
    subscribe: ({ refresh }) => void Object.assign(told, { refresh }),
  }));
  return { users$, told };
}

const until = async (holds, what) => {
  for (const end = Date.now() + 15_000; !(await holds()); await new Promise((resume) => setTimeout(resume, 20))) {
    if (Date.now() > end) throw new Error(`waited for ${what}`);
  }
};

test("Legend-State: edits go both ways, fields of both sides stay, and what is deleted elsewhere goes", async () => {
  const own = await registered();
  const other = deviceOf(own);
  await other.push({ changes: { end_user: [{ id: "a", name: "first", phone: "1" }, { id: "gone", name: "n" }] } });
  const { users$, told } = usersOf(deviceOf(own));
  await when(() => users$.a.name.get());
  await until(() => told.refresh, "the subscription");
  await other.push({ changes: { end_user: [{ id: "a", phone: "2" }, { id: "gone", is_deleted: 1 }] } });
  users$.a.name.set("typed");
  users$.made.set({ id: "made", name: "made here" });
  const there = async () => new Map((await rowsOf(other, "end_user")).map((row) => [row.id, row]));
  await until(async () => (await there()).get("made") && (await there()).get("a").name === "typed", "the edits on the server");
  assert.equal((await there()).get("a").phone, "2");
  told.refresh();
  await until(() => users$.a.phone.get() === "2" && !users$.gone.get(), "what the other device did");
  users$.made.delete();
  await until(async () => !(await there()).has("made"), "the deletion");
});

test("Legend-State: a list that another device added to stays when this one edits another field", async () => {
  const own = await registered();
  const other = deviceOf(own);
  await other.push({ changes: { end_user: [{ id: "a", name: "first", bankList: [{ bank: "one" }] }] } });
  const { users$, told } = usersOf(deviceOf(own));
  await when(() => users$.a.name.get());
  await other.push({ changes: { end_user: [{ id: "a", bankList: [{ bank: "one" }, { bank: "two" }] }] } });
  users$.a.name.set("typed");
  const there = async () => (await rowsOf(other, "end_user"))[0];
  await until(async () => (await there())?.name === "typed", "the name on the server");
  assert.deepEqual((await there()).bankList, [{ bank: "one" }, { bank: "two" }]);
  await until(() => told.refresh, "the subscription");
  told.refresh();
  await until(() => users$.a.bankList.get()?.includes("two"), "the list of the other device");
  users$.a.bankList.set(JSON.stringify([{ bank: "three" }]));
  await until(async () => (await there())?.bankList.length === 1, "the list on the server");
  assert.deepEqual((await there()).bankList, [{ bank: "three" }]);
});

test("Legend-State: what is typed without a network is sent when it is back", async () => {
  const own = await registered();
  let isOn = true;
  const cut = (...call) => (isOn ? fetch(...call) : Promise.reject(new TypeError("cut off")));
  const { users$ } = usersOf(deviceOf(own, { fetch: cut }));
  await when(() => users$.get());
  isOn = false;
  users$.typed.set({ id: "typed", name: "offline" });
  users$.typed.phone.set("2");
  await new Promise((resume) => setTimeout(resume, 150));
  isOn = true;
  await until(async () => (await rowsOf(deviceOf(own), "end_user"))[0]?.phone === "2", "the row");
  assert.equal((await rowsOf(deviceOf(own), "end_user"))[0].name, "offline");
});
