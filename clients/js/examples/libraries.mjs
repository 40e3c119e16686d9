/**
 * The libraries as ES modules that a page can import.
 *
 * Our own files and the examples are served as they are. Some libraries come from npm as CommonJS, or import others by
 * bare names by the hundred: esbuild turns them into modules, once, in memory, as a development server does.
 */

import { createRequire } from "node:module";
import { build } from "esbuild";

const ENTRIES = {
  "@nozbe/watermelondb": "@nozbe/watermelondb",
  "@nozbe/watermelondb/adapters/lokijs/index.js": "@nozbe/watermelondb/adapters/lokijs/index.js",
  "@nozbe/watermelondb/Schema/migrations/index.js": "@nozbe/watermelondb/Schema/migrations/index.js",
  "@nozbe/watermelondb/sync/index.js": "@nozbe/watermelondb/sync/index.js",
  "@tanstack/db": "@tanstack/db",
  dexie: "dexie",
  "rxdb/plugins/core": "rxdb/plugins/core",
  "rxdb/plugins/leader-election": "rxdb/plugins/leader-election",
  "rxdb/plugins/migration-schema": "rxdb/plugins/migration-schema",
  "rxdb/plugins/replication": "rxdb/plugins/replication",
  "rxdb/plugins/storage-dexie": "rxdb/plugins/storage-dexie",
  "rxdb/plugins/storage-memory": "rxdb/plugins/storage-memory",
  "socket.io-client": "socket.io-client",
};

const OWN = ["", "/rxdb", "/watermelondb", "/tanstack-db", "/replica", "/indexeddb", "/dexie", "/digest"];

/** The import map of a page that `serve.mjs` serves. */
export const importMap = {
  imports: {
    ...Object.fromEntries(Object.keys(ENTRIES).map((name) => [name, `/lib/${fileOf(name)}.js`])),
    ...Object.fromEntries(OWN.map((name) => [`syncapp-client${name}`, `/src${name || "/index"}.js`])),
  },
};

/** @param {string} name */
function fileOf(name) {
  return name.replace(/\.js$/, "").replaceAll(/[@/]+/g, "-").replace(/^-/, "");
}

/** Gives the entries that are CommonJS their named exports, which esbuild alone leaves on `default`. */
const namedExports = {
  name: "named exports",
  /** @param {import("esbuild").PluginBuild} building */
  setup(building) {
    const require = createRequire(import.meta.url);
    building.onResolve({ filter: /^@nozbe/ }, ({ path, kind }) => (kind === "entry-point" ? { path, namespace: "entry" } : undefined));
    building.onLoad({ filter: /./, namespace: "entry" }, ({ path }) => {
      const names = Object.keys(require(path)).filter((name) => !["default", "__esModule"].includes(name));
      const contents = `import * as whole from "${path}"; export default whole.default; export const { ${names.join(", ")} } = whole;`;
      return { contents, resolveDir: new URL("..", import.meta.url).pathname };
    });
  },
};

/** Give the modules, by path under /lib/. @returns {Promise<Map<string, Uint8Array>>} */
export async function libraries() {
  const root = new URL("..", import.meta.url).pathname;
  const entryPoints = Object.fromEntries(Object.entries(ENTRIES).map(([name, path]) => [fileOf(name), path]));
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints,
    outdir: "/lib",
    write: false,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "browser",
    define: { "process.env.NODE_ENV": '"production"' },
    logLevel: "error",
    plugins: [namedExports],
  });
  return new Map(outputFiles.map(({ path, contents }) => [path, contents]));
}
