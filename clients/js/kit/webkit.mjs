/**
 * WebKitGTK's MiniBrowser, spoken to by WebDriver; as a program, a driver of the scenario suite: `node kit/webkit.mjs indexeddb`.
 *
 * Knows: WebDriver, as far as pages need it. Must not know: what the pages do. It needs a screen: run it under `xvfb-run`.
 * Source: W3C, WebDriver.
 */

import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { listen } from "../examples/serve.mjs";
import { drive } from "./in-browser.mjs";

const ASYNC = "const done = arguments[arguments.length - 1]; (async () => JSON.stringify(await (EXPRESSION)))().then((text) => done({ text }), (error) => done({ error: String(error) }));";

export class WebKit {
  /** @type {Promise<string> | undefined} */
  #session;
  /** @type {Promise<unknown>} */
  #turn = Promise.resolve();
  #tabs = 0;

  /** @param {string} address @returns {Promise<(expression: string) => Promise<any>>} */
  open(address) {
    return this.#alone(async () => {
      const session = await (this.#session ??= this.#begin());
      const handle = this.#tabs++ ? (await call("POST", `${session}/window/new`, { type: "tab" })).handle : await call("GET", `${session}/window`);
      await call("POST", `${session}/window`, { handle });
      await call("POST", `${session}/url`, { url: address });
      return (/** @type {string} */ expression) => this.#alone(() => evaluate(session, handle, expression));
    });
  }

  async close() {
    if (this.#session) await call("DELETE", await this.#session).catch(() => undefined);
    this.process?.kill();
  }

  /** One window is spoken to at a time. @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  #alone(work) {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #begin() {
    const port = await freePort();
    this.process = spawn(process.env.WEBKIT_DRIVER ?? "WebKitWebDriver", [`--port=${port}`], { stdio: "ignore" });
    process.once("exit", () => this.process?.kill());
    const server = `http://127.0.0.1:${port}`;
    for (let tries = 0; !(await fetch(`${server}/status`).catch(() => undefined)); tries++) {
      if (tries > 200) throw new Error("WebKitWebDriver does not answer");
      await new Promise((resume) => setTimeout(resume, 50));
    }
    const { sessionId } = await call("POST", `${server}/session`, { capabilities: { alwaysMatch: { timeouts: { script: 60_000 } } } });
    return `${server}/session/${sessionId}`;
  }
}

/** @param {string} session @param {string} handle @param {string} expression */
async function evaluate(session, handle, expression) {
  await call("POST", `${session}/window`, { handle });
  const { text, error } = await call("POST", `${session}/execute/async`, { script: ASYNC.replace("EXPRESSION", () => expression), args: [] });
  if (error) throw new Error(error);
  return text === undefined || text === null ? undefined : JSON.parse(text);
}

/** @param {string} method @param {string} url @param {any} [body] @returns {Promise<any>} */
async function call(method, url, body) {
  const answer = await fetch(url, { method, body: body && JSON.stringify(body) });
  const { value } = /** @type {any} */ (await answer.json());
  if (value?.error) throw new Error(`${value.error}: ${value.message}`);
  return value;
}

/** @returns {Promise<number>} */
function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  return new Promise((resolve) =>
    probe.once("listening", () => {
      const { port } = /** @type {import("node:net").AddressInfo} */ (probe.address());
      probe.close(() => resolve(port));
    }),
  );
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const library = process.argv[2] ?? "indexeddb";
  await drive({ name: "WebKit", library, persists: false, origin: await listen(0), begin: () => new WebKit() });
}
