/**
 * A driver of the scenario suite in headless Chromium: `node kit/chromium.mjs indexeddb`.
 *
 * The device lives in a page, its replica in the profile's real IndexedDB: it survives a kill of the browser.
 */

import { Browser } from "./browser.mjs";
import { drive } from "./in-browser.mjs";

const PERSISTS = new Set(["indexeddb", "dexie", "rxdb"]);
const library = process.argv[2] ?? "indexeddb";

await drive({
  name: "Chromium",
  library,
  persists: PERSISTS.has(library),
  origin: "http://localhost",
  begin: (folder) => new Browser(`${folder}/chromium`),
});
