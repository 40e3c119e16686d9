/**
 * The thin core: push, pull and live against one server, as one device of one tenant.
 *
 * Knows: the addresses, tokens with their renewal, Retry-After. Must not know: any library that keeps rows, or where a
 * cursor is kept.
 */

import { Busy, SignedOut } from "./errors.js";
import { send } from "./http.js";
import { Live } from "./live.js";
import { memoryStore, Tokens } from "./tokens.js";

/**
 * @typedef {Record<string, any> & { id: string, version: number, is_deleted: 0 | 1 }} Row a row as the server has it
 * @typedef {{ table: string, operation: "create" | "update" | "delete", data: Record<string, any>, timestamp?: string,
 *   baseVersion?: number, opId?: string }} Operation
 * @typedef {{ table: string, id: string, status: "created" | "updated" | "deleted" | "unchanged" | "merged" | "conflict" |
 *   "rejected", version?: number, error?: string, replayed?: boolean }} Result
 * @typedef {{ data: (Row | null)[], results: Result[], conflicts: any[], cursor: string, previousCursor: string,
 *   syncTimestamp: string }} Pushed
 * @typedef {{ data: Record<string, Row[]>, cursor: string, hasMore: boolean, syncTimestamp: string,
 *   digest?: Record<string, { count: number, hash: string }> }} Pulled
 * @typedef {{ url: string, token?: string, refreshToken?: string, store?: import("./tokens.js").TokenStore,
 *   signIn?: () => Promise<import("./tokens.js").Pair>, deviceId?: string, timeoutSeconds?: number,
 *   patienceSeconds?: number, fetch?: typeof fetch, io?: any }} Options
 */

/** Give an ID for a row, a device or an operation; unlike `crypto.randomUUID` also where a page came over plain http. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class SyncClient {
  /**
   * @param {Options} options `store` keeps the tokens (else they live as long as this object), `signIn` logs in anew when
   *   the session is over, `deviceId` should be kept by the app: by it the server tells this device's own edits from
   *   others'; `patienceSeconds` is how long a call waits in all when the server says `Retry-After`
   */
  constructor({ url, token, refreshToken, store, signIn, ...options }) {
    this.url = url.replace(/\/+$/, "");
    this.deviceId = options.deviceId;
    this.io = options.io;
    this.patienceSeconds = options.patienceSeconds ?? 30;
    this.http = { timeoutSeconds: options.timeoutSeconds, fetch: options.fetch };
    const pair = token || refreshToken ? { token, refreshToken } : null;
    const refresh = (/** @type {string} */ spent) => this.#account("refresh", { refreshToken: spent });
    this.tokens = new Tokens({ store: store ?? memoryStore(pair), refresh, signIn, name: this.url });
  }

  /**
   * Log in, and keep the tokens.
   *
   * @param {string} email @param {string} password @returns {Promise<any>} the customer; its `id` is the tenant's
   */
  async logIn(email, password) {
    const data = await this.#account("login", { email, password });
    await this.tokens.store.write({ token: data.token, refreshToken: data.refreshToken });
    return data.customer;
  }

  /** @param {string} action @param {unknown} body */
  async #account(action, body) {
    return (await send(`${this.url}/api/customers/${action}`, { method: "POST", body, ...this.http })).data;
  }

  /**
   * Push changes, in any of the forms that the server takes.
   *
   * A repeat of the very same push is harmless within a day, by its `Idempotency-Key`; give your own key to repeat it
   * after an `Unreachable`.
   * @param {Record<string, any>} body @param {{ idempotencyKey?: string }} [options] @returns {Promise<Pushed>}
   */
  push(body, { idempotencyKey = newId() } = {}) {
    return this.call("/api/client/sync/push", { body, headers: { "Idempotency-Key": idempotencyKey } });
  }

  /**
   * Pull one page.
   *
   * @param {{ cursor: string | null, tables?: string[], limit?: number, digest?: boolean }} wanted
   * @returns {Promise<Pulled>} @throws {import("./errors.js").ResyncRequired}
   */
  pull({ cursor, tables, limit, digest }) {
    return this.call("/api/client/sync/pull", { body: { cursor, entityTypes: tables, limit, digest } });
  }

  /**
   * Pull page after page from a cursor to the end. Keep each page and its cursor together before asking for the next.
   *
   * @param {{ cursor: string | null, tables?: string[], limit?: number, digest?: boolean }} wanted
   */
  async *pages(wanted) {
    let page;
    do {
      page = await this.pull({ ...wanted, cursor: page?.cursor ?? wanted.cursor });
      yield page;
    } while (page.hasMore);
  }

  /** Ask what the server's limits are. @returns {Promise<Record<string, any>>} */
  async limits() {
    return (await send(`${this.url}/api/limits`, this.http)).data;
  }

  /**
   * Listen. @param {import("./live.js").Listening} listening @returns {Live} `close()` ends it
   */
  live(listening) {
    return new Live(this, listening);
  }

  /**
   * Call an address that needs a token; renew it once, and wait when the server says so.
   *
   * @param {string} path @param {{ method?: string, body?: unknown, headers?: Record<string, string> }} [options]
   * @returns {Promise<any>}
   */
  async call(path, { method = "POST", body, headers } = {}) {
    let token = await this.tokens.current();
    let patience = this.patienceSeconds;
    for (let renewals = 0; ; ) {
      try {
        return await send(this.url + path, { method, body, headers: { ...headers, ...this.#who(token) }, ...this.http });
      } catch (error) {
        if (error instanceof SignedOut && renewals++ === 0) token = await this.tokens.renewed(token);
        else if (error instanceof Busy) patience = await waited(error, patience);
        else throw error;
      }
    }
  }

  /** @param {string} token @returns {Record<string, string>} */
  #who(token) {
    const device = this.deviceId ? { "X-Device-Id": this.deviceId } : undefined;
    return { Authorization: `Bearer ${token}`, ...device };
  }
}

/** Wait as long as the server asks, and give what is left of the patience. @param {Busy} busy @param {number} patience */
async function waited(busy, patience) {
  const seconds = busy.retryAfterSeconds ?? 1;
  if (seconds > patience) throw busy;
  await new Promise((resume) => setTimeout(resume, seconds * 1000));
  return patience - seconds;
}
