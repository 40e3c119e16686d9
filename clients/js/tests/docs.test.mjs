// Each page of docs begins with the lines that a user copies: they are run as they stand, in a process of their own, with
// what they take for granted (a database, a device's ID, a session in localStorage) put beside them.
//
// First seen to fail on a fault: a page that imports a name that is not exported.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { SyncClient } from "syncapp-client";
import { importMap } from "../examples/libraries.mjs";
import { registered, url } from "./registered.mjs";

const RXDB = `
import { createRxDatabase } from "rxdb/plugins/core";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
globalThis.db = await createRxDatabase({ name: "docs", storage: getRxStorageMemory(), multiInstance: false });
const properties = { id: { type: "string", maxLength: 64 }, name: { type: "string" }, version: { type: "number" } };
await db.addCollections({ end_user: { schema: { version: 0, primaryKey: "id", type: "object", properties } } });
await db.end_user.insert({ id: "asha", name: "Asha" });`;

const WATERMELONDB = `
import { appSchema, Database, Model, tableSchema } from "@nozbe/watermelondb";
import Loki from "@nozbe/watermelondb/adapters/lokijs/index.js";
const columns = ["name", "phoneModel"].map((name) => ({ name, type: "string", isOptional: true }));
const schema = appSchema({ version: 1, tables: [tableSchema({ name: "end_user", columns })] });
const adapter = new (Loki.default ?? Loki)({ schema, dbName: "docs", useWebWorker: false, useIncrementalIndexedDB: true });
globalThis.database = new Database({ adapter, modelClasses: [class extends Model { static table = "end_user"; }] });
await database.write(() => database.get("end_user").create((record) => record._setRaw("name", "Asha")));`;

const BESIDE = { rxdb: RXDB, watermelondb: WATERMELONDB };

/** The lines of a page, and what is put before them. */
function script(name, pair, account) {
  const page = readFileSync(new URL(`../docs/${name}.md`, import.meta.url), "utf8");
  const [, lines] = /^# .*\n\n```js\n([^]*?)\n```/.exec(page) ?? [];
  assert.ok(lines, `${name}.md does not begin with the lines to copy`);
  assert.ok(lines.split("\n").filter((line) => line.trim()).length <= 10, `${name}.md has more than ten lines`);
  const told = lines
    .replace("https://sync.example.com", url)
    .replace("test@example.com", account.email)
    .replace("@nozbe/watermelondb/sync", "@nozbe/watermelondb/sync/index.js"); // bundlers find it, Node does not
  return `
    import "fake-indexeddb/auto";
    import { memoryStore } from "syncapp-client";
    const kept = new Map([["syncapp-tokens", ${JSON.stringify(JSON.stringify(pair))}]]);
    globalThis.localStorage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
    Object.assign(globalThis, { myDeviceId: "of-the-docs", myTokenStore: memoryStore(${JSON.stringify(pair)}) });
    ${BESIDE[name] ?? ""}
    await import("./${name}-${account.id}.lines.mjs");`.concat("\0", told);
}

for (const name of ["core", "indexeddb", "dexie", "rxdb", "watermelondb", "tanstack-db", "legend-state"]) {
  test(`the lines at the head of docs/${name}.md bring Asha to the server`, async (t) => {
    const { email, token, refreshToken, customer } = await registered();
    const [before, lines] = script(name, { token, refreshToken }, { email, id: customer.id }).split("\0");
    const files = [before, lines].map((text, place) => {
      const file = new URL(`${name}-${customer.id}.${place ? "lines" : "before"}.mjs`, import.meta.url);
      writeFileSync(file, text);
      t.after(() => rmSync(file));
      return file;
    });
    const child = spawn("node", [files[0].pathname], { stdio: ["ignore", "ignore", "pipe"] });
    t.after(() => child.kill("SIGKILL"));
    let said = "";
    child.stderr.on("data", (data) => void (said += data));
    const server = new SyncClient({ url, token });
    for (const end = Date.now() + 30_000; ; await new Promise((resume) => setTimeout(resume, 100))) {
      const { data } = await server.pull({ cursor: null, tables: ["end_user"] });
      if (data.end_user.some((row) => row.name === "Asha")) return;
      assert.ok(Date.now() < end && !child.exitCode, `Asha never came; ${said}`);
    }
  });
}

test("every library that a device or an example imports is in the import map of their pages", () => {
  for (const folder of ["kit/devices", "examples"]) {
    const root = new URL(`../${folder}/`, import.meta.url);
    for (const file of readdirSync(root).filter((name) => !/^(serve|libraries)\./.test(name))) {
      for (const [, library] of readFileSync(new URL(file, root), "utf8").matchAll(/\bfrom "([^."/][^"]*)"/g)) {
        assert.ok(library.startsWith("node:") || library in importMap.imports, `${file} imports ${library}`);
      }
    }
  }
});
