/**
 * The tokens of a login: kept, and renewed by one call at a time.
 *
 * Knows: how a pair is renewed, where it is kept. Must not know: what calls need it. A refresh token counts once: the
 * server ends the whole session if it comes twice, unless the first answer was lost. So calls share one renewal, and tabs
 * take turns and read the store again before they renew.
 */

import { Refused, SignedOut } from "./errors.js";
import { exclusive } from "./tabs.js";

/**
 * @typedef {{ token?: string, refreshToken?: string }} Pair
 * @typedef {{ read(): Pair | null | Promise<Pair | null>, write(pair: Pair | null): unknown }} TokenStore
 */

/** Keep the pair in this page or process only. @param {Pair | null} [pair] @returns {TokenStore} */
export function memoryStore(pair = null) {
  return { read: () => pair, write: (next) => (pair = next) };
}

/** Keep the pair in localStorage, so that it survives a reload and all tabs share it. @returns {TokenStore} */
export function browserStore(name = "syncapp-tokens") {
  return {
    read: () => JSON.parse(localStorage.getItem(name) ?? "null"),
    write: (pair) => (pair ? localStorage.setItem(name, JSON.stringify(pair)) : localStorage.removeItem(name)),
  };
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
      if (error instanceof SignedOut || error instanceof Refused) return undefined;
      throw error;
    }
  }
}
