/**
 * A driver of the scenario suite in headless Chromium: `node kit/chromium.mjs indexeddb`.
 *
 * The device lives in a page, its replica in the profile's real IndexedDB: it survives a kill of the browser. A second
 * instance is a second tab of the same browser.
 */

import { readFileSync } from "node:fs";
import { Browser } from "./browser.mjs";
import { serve } from "./protocol.mjs";

const PERSISTS = new Set(["indexeddb", "dexie", "rxdb"]);
const name = process.argv[2] ?? "indexeddb";
const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
const device = readFileSync(new URL(`devices/${name}.mjs`, import.meta.url), "utf8");
const features = JSON.parse(/export const features = (\[.*\]);/.exec(device)?.[1] ?? "[]");
if (PERSISTS.has(name)) features.push("persists");

/** @type {Browser | undefined} */
let browser;
/** @type {Map<string, (expression: string) => Promise<any>>} */
const tabs = new Map();

/** @param {any} request @returns {Promise<any>} */
async function answer(request) {
  const { instance = "first" } = request;
  try {
    if (request.do === "open") await opened(instance, request.folder);
    const tab = /** @type {(expression: string) => Promise<any>} */ (tabs.get(instance));
    return await tab(`answer(${JSON.stringify(request)})`);
  } catch (error) {
    return { error: { code: "browser", message: String(error) } };
  }
}

/** @param {string} instance @param {string} folder */
async function opened(instance, folder) {
  browser ??= new Browser(`${folder}/chromium`);
  if (tabs.has(instance)) return;
  const tab = await browser.open(`http://localhost/kit/page.html#${name}`);
  tabs.set(instance, tab);
  for (let tries = 0; !(await tab("typeof answer === 'function'").catch(() => false)); tries++) {
    if (tries > 400) throw new Error("the page does not load");
    await new Promise((resume) => setTimeout(resume, 25));
  }
}

await serve({ client: `syncapp-client ${version}, ${name} in Chromium`, features }, answer);
await browser?.close();
process.exit(0);
