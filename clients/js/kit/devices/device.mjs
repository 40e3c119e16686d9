/**
 * What the devices of all libraries have in common: requests by name, errors in the suite's words, a signed-in client.
 *
 * Runs in Node and in a page. A library's device extends this and has `open`, `put`, `delete`, `rows`, `pending`, `sync`.
 */

import { SyncClient } from "syncapp-client";

/** How long a sync may take before it is an error. */
const SYNC_SECONDS = 25;

export class BaseDevice {
  /** The open devices of this process, by instance. @type {Map<string, BaseDevice>} */
  static opened = new Map();

  /** Carry out one request of the suite. @param {any} request */
  static async answer({ do: action, instance = "first", ...request }) {
    try {
      if (action === "open") this.opened.set(instance, new this());
      const device = /** @type {any} */ (this.opened.get(instance));
      const ok = await limited(device[action](request));
      return { ok: ok ?? {} };
    } catch (error) {
      return { error: told(/** @type {any} */ (error)) };
    }
  }

  /** @param {any} options of the suite's `open` */
  clientOf({ url, token, refreshToken, deviceId, email, password }) {
    const signIn = async () => {
      const other = new SyncClient({ url });
      await other.logIn(email, password);
      return /** @type {any} */ (await other.tokens.store.read());
    };
    return new SyncClient({ url, token, refreshToken, deviceId, signIn, timeoutSeconds: 10, patienceSeconds: 10 });
  }

  async close() {}
}

/** @template T @param {Promise<T>} work @returns {Promise<T>} */
export function limited(work, seconds = SYNC_SECONDS) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`not done within ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/** @param {any} error */
function told(error) {
  const code = error.code === "unreachable" ? "offline" : error.code ?? error.name ?? "error";
  return { code, message: String(error.message ?? error), stack: error.stack };
}

/** Wait until `condition` holds. @param {() => unknown} condition */
export async function until(condition, what = "it", seconds = SYNC_SECONDS) {
  const end = Date.now() + seconds * 1000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`);
    await new Promise((resume) => setTimeout(resume, 20));
  }
}
