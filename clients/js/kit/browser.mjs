/**
 * A headless Chromium with a profile of its own, spoken to over a pipe.
 *
 * Knows: the Chrome DevTools Protocol, as far as pages need it. Must not know: what the pages do. The pages come from
 * `contentOf` and no port: each request to http://localhost/ is answered here.
 */

import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { contentOf } from "../examples/serve.mjs";

const ARGUMENTS = [
  ..."--headless=new --no-sandbox --disable-gpu --no-first-run --disable-sync --disable-dev-shm-usage".split(" "),
  ..."--disable-background-networking --disable-component-update --remote-debugging-pipe --disable-extensions".split(" "),
  ..."--in-process-gpu --disable-breakpad --disable-component-extensions-with-background-pages".split(" "),
  ..."--disable-threaded-animation --disable-threaded-compositing".split(" "), // Nobody looks.
  "--disable-features=SpareRendererForSitePerProcess,LocalNetworkAccessChecks,PrivateNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
  ..."--disable-backgrounding-occluded-windows --disable-renderer-backgrounding --disable-background-timer-throttling".split(" "),
];

export class Browser {
  #number = 0;
  /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */
  #asked = new Map();
  #text = "";

  /** @param {string} folder of the profile; a browser that was killed may have left one behind */
  constructor(folder) {
    mkdirSync(folder, { recursive: true });
    endLeftOver(`${folder}/pid`);
    const program = process.env.CHROMIUM ?? "chromium";
    this.process = spawn(program, [...ARGUMENTS, `--user-data-dir=${folder}`], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    writeFileSync(`${folder}/pid`, String(this.process.pid));
    const [, , , into, out] = /** @type {any} */ (this.process.stdio);
    this.into = into;
    out.setEncoding("utf8").on("data", (/** @type {string} */ text) => this.#read(text));
    this.process.on("exit", () => this.#gone());
  }

  /** @param {string} method @param {any} [params] @param {string} [sessionId] @returns {Promise<any>} */
  send(method, params = {}, sessionId = undefined) {
    const id = ++this.#number;
    this.into.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#asked.set(id, { resolve, reject }));
  }

  /**
   * Open a page in a tab of its own.
   *
   * @param {string} address
   * @returns {Promise<((expression: string) => Promise<any>) & { close: () => Promise<any>, send: (method: string, params: any) => Promise<any> }>}
   *   evaluates; `close` closes it, `send` asks Chromium about it
   */
  async open(address) {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    await this.send("Runtime.enable", {}, sessionId);
    await this.send("Fetch.enable", { patterns: [{ urlPattern: "http://localhost/*" }] }, sessionId);
    await this.send("Page.navigate", { url: address }, sessionId);
    const evaluate = (/** @type {string} */ expression) => this.#evaluate(expression, sessionId);
    const send = (/** @type {string} */ method, /** @type {any} */ params) => this.send(method, params, sessionId);
    return Object.assign(evaluate, { send, close: () => this.send("Target.closeTarget", { targetId }) });
  }

  /** End it in good order, so that nothing is left to write. */
  async close() {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    void this.send("Browser.close").catch(() => undefined);
    const late = setTimeout(() => this.process.kill("SIGKILL"), 5000);
    await ended;
    clearTimeout(late);
  }

  /** @param {string} expression @param {string} sessionId */
  async #evaluate(expression, sessionId) {
    const about = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", about, sessionId);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** @param {string} text */
  #read(text) {
    const messages = (this.#text + text).split("\0");
    this.#text = messages.pop() ?? "";
    for (const message of messages) this.#take(JSON.parse(message));
  }

  /** @param {any} message */
  #take({ id, result, error, method, params, sessionId }) {
    if (method === "Fetch.requestPaused") this.#fulfil(params, sessionId).catch(() => undefined); // its tab may be closed
    if (method === "Runtime.consoleAPICalled") console.error(...params.args.map((/** @type {any} */ one) => one.value ?? one.description));
    if (method === "Runtime.exceptionThrown") console.error(params.exceptionDetails.exception?.description);
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (error) asked?.reject(new Error(error.message));
    else asked?.resolve(result);
  }

  /** @param {any} paused @param {string} sessionId */
  async #fulfil({ requestId, request }, sessionId) {
    const content = await contentOf(new URL(request.url).pathname);
    const responseHeaders = [{ name: "Content-Type", value: content?.type ?? "text/plain" }];
    const body = Buffer.from(content?.body ?? "").toString("base64");
    await this.send("Fetch.fulfillRequest", { requestId, responseCode: content ? 200 : 404, responseHeaders, body }, sessionId);
  }

  #gone() {
    for (const { reject } of this.#asked.values()) reject(new Error("Chromium has ended."));
    this.#asked.clear();
  }
}

/** End the browser whose driver was killed: its profile can be open once only. @param {string} file */
function endLeftOver(file) {
  try {
    const pid = Number(readFileSync(file, "utf8"));
    if (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--remote-debugging-pipe")) process.kill(pid, "SIGKILL");
  } catch {
    // There is none.
  }
}
