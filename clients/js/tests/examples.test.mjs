// Each example, in Chromium: a person logs in, adds a name that reaches the server, and sees one that comes from there.
// Then another one logs in on the same page.
//
// First seen to fail: both accounts shared the tokens and the database.

import assert from "node:assert/strict";
import { test } from "node:test";
import { SyncClient } from "syncapp-client";
import { browser, hasChromium } from "./in_browser.mjs";
import { registered, url } from "./registered.mjs";
import { until } from "./until.mjs";

/** Somebody else on the same page: sees nothing of the first one's, and sends nothing of it. */
async function anotherLogsIn(tab, fill, names) {
  const { email } = await registered();
  const theirs = new SyncClient({ url });
  await theirs.logIn(email, "password123");
  await theirs.push({ changes: { end_user: [{ id: "own", name: "of the second account" }] } });
  await fill("login", { server: url, email, password: "password123" });
  await until(async () => (await tab(names).catch(() => "")) === "of the second account", "the second account's names alone");
  assert.equal((await theirs.pull({ cursor: null, tables: ["end_user"] })).data.end_user.length, 1);
}

for (const name of ["indexeddb", "dexie", "rxdb", "watermelondb", "tanstack-db"]) {
  test(`the ${name} example syncs both ways`, { skip: !hasChromium && "needs chromium" }, async () => {
    const { email } = await registered();
    const other = new SyncClient({ url });
    await other.logIn(email, "password123");
    const tab = await browser.open(`http://localhost/examples/${name}.html`);
    await until(() => tab("Boolean(document.forms.login)").catch(() => false), "the page");
    const fill = (form, fields) => tab(`for (const [name, value] of Object.entries(${JSON.stringify(fields)})) document.forms.${form}.elements[name].value = value; document.forms.${form}.requestSubmit()`);
    await tab("localStorage.clear()");
    await fill("login", { server: url, email, password: "password123" });
    await until(() => tab("!document.forms.add.hidden"), `the log-in (${await tab("document.querySelector('output').textContent")})`);
    await fill("add", { name: "typed in the page" });
    await until(async () => (await other.pull({ cursor: null, tables: ["end_user"] })).data.end_user[0]?.name === "typed in the page", "the name on the server");
    await other.push({ changes: { end_user: [{ id: "other", name: "from another device" }] } });
    const names = "[...document.querySelectorAll('li input')].map((field) => field.value).join()";
    await until(async () => (await tab(names)) === "from another device,typed in the page", `both in the page: ${await tab(names)}`);
    await anotherLogsIn(tab, fill, names);
    await tab("localStorage.clear()");
    assert.ok(await tab("document.querySelector('output').textContent === ''"));
  });
}
