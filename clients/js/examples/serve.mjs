/**
 * Serves the examples: `node examples/serve.mjs`, or `PORT=8080 node examples/serve.mjs`.
 *
 * HTML and modules go out as they are; into each page goes the import map, in the place of `<!-- import map -->`.
 */

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, normalize } from "node:path";
import { importMap, libraries } from "./libraries.mjs";

const ROOT = new URL("..", import.meta.url).pathname;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css" };

/** @type {Promise<Map<string, Uint8Array>> | undefined} */
let built;

/** Give what is at a path. @param {string} path @returns {Promise<{ type: string, body: Uint8Array } | undefined>} */
export async function contentOf(path) {
  const type = `${TYPES[/** @type {keyof TYPES} */ (extname(path))] ?? "text/plain"}; charset=utf-8`;
  if (path.startsWith("/lib/")) return found(type, (await (built ??= libraries())).get(path));
  if (!/^\/(src|examples|kit)\//.test(normalize(path))) return undefined;
  const body = await readFile(ROOT + normalize(path)).catch(() => undefined);
  if (extname(path) !== ".html") return found(type, body);
  const map = `<script type="importmap">${JSON.stringify(importMap)}</script>`;
  return found(type, body && new TextEncoder().encode(body.toString().replace("<!-- import map -->", map)));
}

/** @param {string} type @param {Uint8Array | undefined} body */
const found = (type, body) => body && { type, body };

/** Serve on a port, 0 for any that is free. @param {number} port @returns {Promise<string>} the address */
export async function listen(port) {
  const server = createServer(async (request, answer) => {
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    const content = await contentOf(path === "/" ? "/examples/index.html" : path);
    answer.writeHead(content ? 200 : 404, { "Content-Type": content?.type ?? "text/plain", "Cache-Control": "no-store" });
    answer.end(content?.body);
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(undefined)));
  return `http://localhost:${/** @type {any} */ (server.address()).port}`;
}

if (process.argv[1] === new URL(import.meta.url).pathname) console.log(await listen(Number(process.env.PORT ?? 8080)));
