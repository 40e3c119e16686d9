/**
 * A driver of the scenario suite (tests/kit) in Node: `node kit/node.mjs rxdb`.
 *
 * IndexedDB is `fake-indexeddb` here, which ends with the process; what must survive a kill is driven in Chromium, by
 * `kit/chromium.mjs`. Console output goes to stderr: stdout is the protocol's.
 */

import { readFileSync } from "node:fs";
import "fake-indexeddb/auto";
import { serve } from "./protocol.mjs";

console.log = console.info = console.debug = console.warn = console.error;
process.env.NODE_ENV ??= "production";

const name = process.argv[2] ?? "indexeddb";
const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
const { Device, features } = await import(`./devices/${name}.mjs`);
const hello = { client: `syncapp-client ${version}, ${name} in Node`, features: [...features, "reopens"] };

await serve(hello, (/** @type {any} */ request) => Device.answer(request));
process.exit(0);
