/**
 * A device of the scenario suite in a page of a browser, whichever that is.
 *
 * Knows: the suite's protocol, how a page answers. Must not know: how a browser is spoken to.
 */

import { readFileSync } from "node:fs";
import { serve } from "./protocol.mjs";

/**
 * @typedef {{ open: (address: string) => Promise<(expression: string) => Promise<any>>, close: () => Promise<any> }} AnyBrowser
 *   `open` opens a page in a tab of its own and gives what evaluates an expression there, awaited
 */

/**
 * Drive one library in a browser until the suite has no more to ask. A second instance is a second tab.
 *
 * @param {{ name: string, library: string, persists: boolean, origin: string, begin: (folder: string) => AnyBrowser }} options
 *   `persists`: the browser keeps its databases in `folder`; `origin` serves the pages
 */
export async function drive({ name, library, persists, origin, begin }) {
  const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  const device = readFileSync(new URL(`devices/${library}.mjs`, import.meta.url), "utf8");
  const features = JSON.parse(/export const features = (\[.*\]);/.exec(device)?.[1] ?? "[]");
  features.push(persists ? "persists" : "reopens"); // The profile of a browser is that of one device.
  const tabs = new Tabs(`${origin}/kit/page.html#${library}`, begin);
  await serve({ client: `syncapp-client ${version}, ${library} in ${name}`, features }, (request) => tabs.answer(request));
  await tabs.close();
  process.exit(0);
}

class Tabs {
  /** @type {AnyBrowser | undefined} */
  #browser;
  /** @type {Map<string, (expression: string) => Promise<any>>} */
  #open = new Map();

  /** @param {string} address @param {(folder: string) => AnyBrowser} begin */
  constructor(address, begin) {
    this.address = address;
    this.begin = begin;
  }

  /** @param {any} request @returns {Promise<any>} */
  async answer(request) {
    const { instance = "first" } = request;
    try {
      if (request.do === "open" && !this.#open.has(instance)) this.#open.set(instance, await this.#opened(request.folder));
      const tab = /** @type {(expression: string) => Promise<any>} */ (this.#open.get(instance));
      return await tab(`answer(${JSON.stringify(request)})`);
    } catch (error) {
      return { error: { code: "browser", message: String(error) } };
    }
  }

  close() {
    return this.#browser?.close();
  }

  /** @param {string} folder */
  async #opened(folder) {
    this.#browser ??= this.begin(folder);
    const tab = await this.#browser.open(this.address);
    for (let tries = 0; !(await tab("typeof answer === 'function'").catch(() => false)); tries++) {
      if (tries > 400) throw new Error("the page does not load");
      await new Promise((resume) => setTimeout(resume, 25));
    }
    return tab;
  }
}
