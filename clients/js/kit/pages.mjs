/**
 * The server's own pages in a browser: `node kit/pages.mjs firefox http://127.0.0.1:3000`.
 *
 * Registers on the test page, connects and hears a push; then plays the demonstration of the page with three apps to its end.
 */

import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** @typedef {(expression: string) => Promise<any>} Tab */

const [name, url] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "pages-"));
const browser = name === "firefox" ? new (await import("./firefox.mjs")).Firefox(folder) : new (await import("./webkit.mjs")).WebKit();
const email = `${Date.now()}@example.com`;

/** @param {Tab} tab @param {string} condition */
async function until(tab, condition) {
  for (let tries = 0; !(await tab(condition)); tries++) {
    if (tries > 600) throw new Error(`waited for ${condition}; the page says: ${await tab("document.body.innerText")}`);
    await new Promise((resume) => setTimeout(resume, 50));
  }
}

/** @param {Record<string, string>} values by the fields' IDs */
const filled = (values) => `(${JSON.stringify(Object.entries(values))}.forEach(([id, text]) => (document.getElementById(id).value = text)), true)`;
const text = (/** @type {string} */ id) => `document.getElementById("${id}").textContent`;

/** The page's script fills it in when it has begun to listen to the forms. */
const begun = `document.getElementById("serverUrl").value !== ""`;

const test = await browser.open(`${url}/websocket-test.html`);
await until(test, begun);
await test(filled({ firstName: "Asha", lastName: "Rao", registerEmail: email, registerPassword: "password123" }));
await test(`(document.querySelector("#register button").click(), true)`);
await until(test, `document.getElementById("token").value.length > 20`);
await test(`(document.getElementById("connect").click(), true)`);
await until(test, `${text("status")} === "Connected"`);
await test(`(document.querySelector("#push button").click(), true)`);
await until(test, `${text("log")}.includes("sync_complete")`);

const apps = await browser.open(`${url}/test-multi-app-sync.html`);
await until(apps, begun);
await apps(filled({ pace: "0", loginEmail: email, loginPassword: "password123" }));
await apps(`(document.querySelector("#login button").click(), document.getElementById("play").click(), true)`);
await until(apps, `${text("caption-place")} === "10 of 10"`);
await until(apps, `${text("verdict-headline")} === "All three equal"`);

await browser.close();
console.log(`${name}: both pages work`);
process.exit(0);
