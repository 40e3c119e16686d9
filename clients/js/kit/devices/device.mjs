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

  /** What the app is told to have another id by now. @type {{ table: string, from: string, to: string }[]} */
  names = [];

  async renamed() {
    return this.names;
  }

  /** Carry out one request of the suite. @param {any} request */
  static async answer({ do: action, instance = "first", ...request }) {
    try {
      if (action === "open") {
        await this.opened.get(instance)?.replaced();
        this.opened.set(instance, new this());
        setClock(request.clockOffsetMs ?? 0);
      }
      const device = /** @type {any} */ (this.opened.get(instance));
      const ok = await limited(device[action](request));
      if (action === "close") this.opened.delete(instance);
      return { ok: ok ?? {} };
    } catch (error) {
      return { error: told(/** @type {any} */ (error)) };
    }
  }

  /** @param {any} options of the suite's `open` */
  clientOf({ url, token, refreshToken, deviceId, email, password, timeoutSeconds = 10 }) {
    this.credentials = { email, password };
    const signIn = async () => {
      const other = new SyncClient({ url });
      await other.logIn(this.credentials.email, this.credentials.password);
      return /** @type {any} */ (await other.tokens.store.read());
    };
    return (this.client = new SyncClient({ url, token, refreshToken, deviceId, signIn, timeoutSeconds, patienceSeconds: 10 }));
  }

  /** Somebody logs in: the app has one store of tokens, whoever that is. @param {any} session */
  async login({ token, refreshToken, email, password }) {
    this.credentials = { email, password };
    await this.client.tokens.store.write({ token, refreshToken });
  }

  /** A new version of the app comes in its place. */
  async replaced() {}

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

const RightDate = Date;

/** Have the clock of this process, or page, wrong. @param {number} byMs */
function setClock(byMs) {
  globalThis.Date = byMs ? /** @type {any} */ (wrongDate(byMs)) : RightDate;
}

/** @param {number} byMs */
function wrongDate(byMs) {
  return class extends RightDate {
    constructor(...given) {
      super(.../** @type {[]} */ (given.length ? given : [RightDate.now() + byMs]));
    }

    static now() {
      return RightDate.now() + byMs;
    }
  };
}
