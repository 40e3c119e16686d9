/**
 * Stores the tokens of a login, and refreshes them in one call at a time.
 *
 * Knows: how a pair is renewed, where it is kept. Must not know: what calls need it. A refresh token counts once: the
 * server ends the whole session if it comes twice, unless the first answer was lost. So calls share one renewal, and tabs
 * take turns and read the store again before they renew.
 */

import { Refused, SignedOut } from "./errors.js";
import { exclusive, localStore } from "./tabs.js";

/**
 * @typedef {{ token?: string, refreshToken?: string }} Pair
 * @typedef {{ read(): Pair | null | Promise<Pair | null>, write(pair: Pair | null): unknown }} TokenStore
 */

/** Keep the pair in this page or process only. @param {Pair | null} [pair] @returns {TokenStore} */
export function memoryStore(pair = null) {
  return { read: () => pair, write: (next) => (pair = next) };
}

/**
 * Keep the pair in localStorage, so that it survives a reload and all tabs share it; where there is none (a server that
 * renders the page), in memory.
 *
 * @param {string} [name] give each account its own, if several use the app at once @returns {TokenStore}
 */
export function browserStore(name = "syncapp-tokens") {
  if (!localStore()) return memoryStore();
  return {
    read: () => pairIn(localStorage.getItem(name)),
    write: (pair) => (pair ? localStorage.setItem(name, JSON.stringify(pair)) : localStorage.removeItem(name)),
  };
}

/** @param {string | null} text @returns {Pair | null} nothing if somebody else wrote it */
function pairIn(text) {
  try {
    const pair = JSON.parse(text ?? "null");
    return typeof pair === "object" ? pair : null;
  } catch {
    return null;
  }
}

/**
 * Read from an access token whose it is, without asking the server: it is what rows are kept under on this device.
 *
 * @param {string} token @returns {string | undefined} the customer's ID, which is the tenant's; nothing if it is no token
 */
export function accountOf(token) {
  try {
    const { customerId } = JSON.parse(decoded(token.split(".")[1]));
    return typeof customerId === "string" ? customerId : undefined;
  } catch {
    return undefined;
  }
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** Decode base64url; `atob` is not everywhere (React Native). @param {string} text */
function decoded(text) {
  let [bits, held, out] = [0, 0, ""];
  for (const character of text.replace(/=+$/, "")) {
    bits = (bits << 6) | BASE64.indexOf(character);
    held += 6;
    if (held >= 8) out += String.fromCharCode((bits >> (held -= 8)) & 255);
    bits &= 0xffff;
  }
  return out;
}

export class Tokens {
  /** @type {Promise<string> | undefined} */
  #renewing;

  /**
   * @param {{ store: TokenStore, refresh: (refreshToken: string) => Promise<Pair>, signIn?: () => Promise<Pair>,
   *   name: string }} options `signIn` logs in anew when the session can't be renewed; `name` is the lock's
   */
  constructor({ store, refresh, signIn, name }) {
    this.store = store;
    this.refresh = refresh;
    this.signIn = signIn;
    this.name = name;
  }

  /** Give a token to try. @returns {Promise<string>} */
  async current() {
    return (await this.store.read())?.token ?? this.renewed(undefined);
  }

  /**
   * Give another token than `refused`; many callers cause one renewal.
   *
   * @param {string | undefined} refused @returns {Promise<string>}
   * @throws {SignedOut} if somebody has to log in
   */
  renewed(refused) {
    this.#renewing ??= exclusive(`tokens:${this.name}`, () => this.#renew(refused)).finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  /** @param {string | undefined} refused */
  async #renew(refused) {
    const kept = await this.store.read();
    if (kept?.token && kept.token !== refused) return kept.token; // another tab was faster
    const pair = (kept?.refreshToken && (await this.#refreshed(kept.refreshToken))) || (await this.signIn?.());
    if (!pair?.token) throw new SignedOut("The session is over. Log in again.", { code: "unauthorized", status: 401 });
    await this.store.write(pair);
    return pair.token;
  }

  /** @param {string} refreshToken */
  async #refreshed(refreshToken) {
    try {
      return await this.refresh(refreshToken);
    } catch (error) {
      if (error instanceof Refused && error.code === "tenant_suspended") throw error; // It counts again after that.
      if (error instanceof SignedOut || error instanceof Refused) return undefined;
      throw error;
    }
  }
}
