/**
 * A headless Firefox with a profile of its own, spoken to by WebDriver BiDi; as a program, a driver of the scenario suite:
 * `node kit/firefox.mjs indexeddb`.
 *
 * Knows: WebDriver BiDi, as far as pages need it. Must not know: what the pages do. Source: W3C, WebDriver BiDi.
 */

import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import WebSocket from "ws";
import { listen } from "../examples/serve.mjs";
import { drive } from "./in-browser.mjs";

const LISTENING = /WebDriver BiDi listening on (ws:\/\/\S+)/;

export class Firefox {
  #number = 0;
  /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */
  #asked = new Map();
  /** @type {Promise<WebSocket> | undefined} */
  #connected;

  /** @param {string} folder of the profile */
  constructor(folder) {
    mkdirSync(folder, { recursive: true });
    const program = process.env.FIREFOX ?? "firefox-esr";
    const settings = ["--headless", "--no-remote", "--profile", folder, "--remote-debugging-port=0", "about:blank"];
    this.process = spawn(program, settings, { stdio: ["ignore", "ignore", "pipe"] });
    process.once("exit", () => this.process.kill("SIGKILL"));
  }

  /** @param {string} address @returns {Promise<(expression: string) => Promise<any>>} */
  async open(address) {
    const { context } = await this.#send("browsingContext.create", { type: "tab" });
    await this.#send("browsingContext.navigate", { context, url: address, wait: "complete" });
    return (expression) => this.#evaluate(expression, context);
  }

  async close() {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    void this.#send("browser.close").catch(() => undefined);
    const late = setTimeout(() => this.process.kill("SIGKILL"), 5000);
    await ended;
    clearTimeout(late);
  }

  /** @param {string} expression @param {string} context */
  async #evaluate(expression, context) {
    const about = { expression: `(async () => JSON.stringify(await (${expression})))()`, awaitPromise: true, target: { context } };
    const { result, exceptionDetails } = await this.#send("script.evaluate", about);
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return result.value === undefined ? undefined : JSON.parse(result.value);
  }

  /** @param {string} method @param {any} [params] @returns {Promise<any>} */
  async #send(method, params = {}) {
    const socket = await (this.#connected ??= this.#connect());
    return this.#ask(socket, method, params);
  }

  /** @param {WebSocket} socket @param {string} method @param {any} params @returns {Promise<any>} */
  #ask(socket, method, params) {
    const id = ++this.#number;
    socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve, reject) => this.#asked.set(id, { resolve, reject }));
  }

  async #connect() {
    const socket = new WebSocket(`${await this.#address()}/session`);
    socket.on("message", (/** @type {Buffer} */ text) => this.#take(JSON.parse(text.toString())));
    socket.on("close", () => this.#gone());
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
    await this.#ask(socket, "session.new", { capabilities: {} });
    return socket;
  }

  /** @returns {Promise<string>} what Firefox says of where it listens */
  #address() {
    let said = "";
    return new Promise((resolve, reject) => {
      this.process.once("exit", () => reject(new Error(`Firefox has ended: ${said}`)));
      this.process.stderr.setEncoding("utf8").on("data", (/** @type {string} */ text) => {
        said += text;
        const found = LISTENING.exec(said);
        if (found) resolve(found[1]);
      });
    });
  }

  /** @param {any} message */
  #take({ id, type, result, error, message }) {
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (type === "error") asked?.reject(new Error(`${error}: ${message}`));
    else asked?.resolve(result);
  }

  #gone() {
    for (const { reject } of this.#asked.values()) reject(new Error("Firefox has ended."));
    this.#asked.clear();
  }
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const library = process.argv[2] ?? "indexeddb";
  const begin = (/** @type {string} */ folder) => new Firefox(`${folder}/firefox`);
  await drive({ name: "Firefox", library, persists: false, origin: await listen(0), begin });
}
