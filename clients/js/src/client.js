/**
 * The core client: push, pull and live updates with one server, as one device of one tenant.
 *
 * Knows: the addresses, tokens with their renewal, Retry-After. Must not know: any library that keeps rows, or where a
 * cursor is kept.
 */

import { Clock } from "./clock.js";
import { BadValue, Busy, foreign, Interrupted, SignedOut, Unreachable, WrongAccount } from "./errors.js";
import { fetchFile, send } from "./http.js";
import { Live } from "./live.js";
import { Portion } from "./portion.js";
import { accountOf, memoryStore, Tokens } from "./tokens.js";
import { checkedId } from "./values.js";

/**
 * @typedef {Record<string, any> & { id: string, version: number, is_deleted: 0 | 1 }} Row a row as the server has it
 * @typedef {{ table: string, operation: "create" | "update" | "delete", data: Record<string, any>, timestamp?: string,
 *   baseVersion?: number, opId?: string }} Operation
 * @typedef {{ table: string, id: string, status: "created" | "updated" | "deleted" | "unchanged" | "merged" | "conflict" |
 *   "rejected", version?: number, error?: string, replayed?: boolean }} Result
 * @typedef {{ data: (Row | null)[], results: Result[], conflicts: any[], cursor: string, previousCursor: string,
 *   syncTimestamp: string }} Pushed
 * @typedef {{ data: Record<string, Row[]>, cursor: string, hasMore: boolean, syncTimestamp: string, wentBack?: boolean,
 *   digest?: Record<string, { count: number, hash: string }> }} Pulled
 * @typedef {{ url: string, token?: string, refreshToken?: string, store?: import("./tokens.js").TokenStore,
 *   signIn?: () => Promise<import("./tokens.js").Pair>, deviceId?: string, timeoutSeconds?: number,
 *   patienceSeconds?: number, fetch?: typeof fetch, io?: any }} Options
 */

const PAGE_ROWS = 1000;
const [MOST_ROWS, LEAST_ROWS] = [10_000, 1];

/** Give an ID for a row, a device or an operation; unlike `crypto.randomUUID` also where a page came over plain http. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class SyncClient {
  /** The account that calls are made for, once `account` has told; calls with another's token are refused. @type {string | undefined} */
  tenantId;
  clock = new Clock();
  #portion = new Portion(MOST_ROWS, LEAST_ROWS);

  /**
   * @param {Options} options `store` keeps the tokens (else they live as long as this object), `signIn` logs in anew when
   *   the session is over, `deviceId` should be kept by the app: by it the server tells this device's own edits from
   *   others'; `timeoutSeconds` is how long nothing may come, however long an answer takes; `patienceSeconds` is how long a call waits in all when the server says `Retry-After`
   */
  constructor({ url, token, refreshToken, store, signIn, ...options }) {
    if (!/^https?:\/\/[^/]/.test(url)) throw new BadValue("`url` is the server's address, such as https://sync.example.com");
    this.url = url.replace(/\/+$/, "");
    this.deviceId = options.deviceId === undefined ? undefined : checkedId(options.deviceId, "The deviceId");
    this.io = options.io;
    this.patienceSeconds = options.patienceSeconds ?? 30;
    this.http = { timeoutSeconds: options.timeoutSeconds, fetch: options.fetch, clock: this.clock };
    const pair = token || refreshToken ? { token, refreshToken } : null;
    const refresh = (/** @type {string} */ spent) => this.#account("refresh", { refreshToken: spent });
    this.tokens = new Tokens({ store: store ?? memoryStore(pair), refresh, signIn, name: this.url });
  }

  /**
   * Log in, and keep the tokens.
   *
   * @param {string} email @param {string} password @returns {Promise<any>} the customer; its `id` is the tenant's
   * @throws {WrongAccount} if this client serves a database of another account
   */
  async logIn(email, password) {
    const data = await this.#account("login", { email, password });
    this.#checkAccount(data.token);
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
   * after an `Unreachable`. `isAnonymous` leaves the device's ID out, where it only passes on what somebody typed.
   * @param {Record<string, any>} body @param {{ idempotencyKey?: string, isAnonymous?: boolean }} [options]
   * @returns {Promise<Pushed>}
   */
  push(body, { idempotencyKey = newId(), isAnonymous } = {}) {
    return this.call("/api/client/sync/push", { body, headers: { "Idempotency-Key": idempotencyKey }, isAnonymous });
  }

  /**
   * Pull one page. On a slow line it has fewer rows than the limit, and says `hasMore`.
   *
   * `isAnonymous` leaves the device's ID out, where it fetches again what it has: its cursor is not up to where it got.
   * `deleted` asks, from the start, for deleted rows too.
   * @param {{ cursor: string | null, tables?: string[], limit?: number, digest?: boolean, deleted?: boolean, isAnonymous?: boolean }} wanted
   * @returns {Promise<Pulled>} @throws {import("./errors.js").ResyncRequired}
   */
  async pull({ cursor, tables, limit = PAGE_ROWS, digest, deleted, isAnonymous }) {
    for (;;) {
      const [beganAt, most] = [Date.now(), Math.min(limit, this.#portion.size)];
      try {
        const body = { cursor, entityTypes: tables, limit: most, digest, deleted };
        const page = checkedPage(await this.call("/api/client/sync/pull", { body, isAnonymous }));
        this.#portion.took(most, Date.now() - beganAt, !page.hasMore);
        return page;
      } catch (error) {
        if (!(error instanceof Interrupted) || !this.#portion.shrink(most)) throw error;
      }
    }
  }

  /**
   * Pull page after page from a cursor to the end. Keep each page and its cursor together before asking for the next.
   *
   * @param {Parameters<SyncClient["pull"]>[0]} wanted
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
   * Tell whose rows these are, and refuse calls for anybody else from now on.
   *
   * @param {string} [kept] the account that what is kept on this device belongs to, if it has been told before
   * @returns {Promise<string | undefined>} to be kept beside the rows @throws {WrongAccount}
   */
  async account(kept) {
    if (kept && this.tenantId && this.tenantId !== kept) throw new WrongAccount(kept, this.tenantId);
    this.tenantId ??= kept;
    const token = await this.token();
    return (this.tenantId ??= accountOf(token) ?? accountOf(await this.token(token)));
  }

  /**
   * Give a token of the account, another one than `refused`.
   *
   * @param {string} [refused] @returns {Promise<string>} @throws {WrongAccount}
   */
  async token(refused) {
    const token = await (refused === undefined ? this.tokens.current() : this.tokens.renewed(refused));
    this.#checkAccount(token);
    return token;
  }

  /** @param {string} token one that says nothing is refused by the server */
  #checkAccount(token) {
    const given = accountOf(token);
    if (this.tenantId && given && given !== this.tenantId) throw new WrongAccount(this.tenantId, given);
  }

  /** Learn how far the clock here is from the server's, if that is not known: not every page may read the header `Date`. */
  async measureClock() {
    const beganAt = Date.now();
    if (this.clock.isMeasured) return;
    try {
      const { timestamp } = await send(`${this.url}/api/client/sync/health`, this.http);
      this.clock.hear(timestamp, beganAt, Date.now());
    } catch (error) {
      if (error instanceof Unreachable) throw error;
    }
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
   * @param {string} path
   * @param {{ method?: string, body?: unknown, headers?: Record<string, string>, isAnonymous?: boolean }} [options]
   * @returns {Promise<any>}
   */
  call(path, options) {
    return this.#withToken(send, path, options);
  }

  /**
   * Call an address that needs a token, and give its answer as a file, such as the archive of an export.
   *
   * @param {string} path @param {unknown} body @param {string} type what it must be: a page of something between is none
   * @returns {Promise<Blob>}
   */
  async download(path, body, type) {
    const file = await this.#withToken(fetchFile, path, { body });
    if (file.type !== type) throw foreign(200);
    return file;
  }

  /**
   * @template T @param {(url: string, request: import("./http.js").Request) => Promise<T>} send @param {string} path
   * @param {{ method?: string, body?: unknown, headers?: Record<string, string>, isAnonymous?: boolean }} [options]
   * @returns {Promise<T>}
   */
  async #withToken(send, path, { method = "POST", body, headers, isAnonymous = false } = {}) {
    let token = await this.token();
    let patience = this.patienceSeconds;
    for (let renewals = 0; ; ) {
      try {
        return await send(this.url + path, { method, body, headers: { ...headers, ...this.#who(token, isAnonymous) }, ...this.http });
      } catch (error) {
        if (error instanceof SignedOut && renewals++ === 0) token = await this.token(token);
        else if (error instanceof Busy) patience = await waited(error, patience);
        else throw error;
      }
    }
  }

  /** @param {string} token @param {boolean} isAnonymous @returns {Record<string, string>} */
  #who(token, isAnonymous) {
    if (!/^[!-~]+$/.test(token)) throw new SignedOut("The token is no token. Log in again.", { code: "unauthorized", status: 401 });
    const device = this.deviceId && !isAnonymous ? { "X-Device-Id": this.deviceId } : undefined;
    return { Authorization: `Bearer ${token}`, ...device };
  }
}

/** Refuse what is no page, whoever sent it. @param {any} page @returns {Pulled} */
function checkedPage(page) {
  const { data, cursor } = page;
  if (data && typeof data === "object" && typeof cursor === "string" && Object.values(data).every(Array.isArray)) return page;
  throw foreign(200);
}

/** Wait as long as the server asks, and give what is left of the patience. @param {Busy} busy @param {number} patience */
async function waited(busy, patience) {
  const seconds = busy.retryAfterSeconds ?? 1;
  if (seconds > patience) throw busy;
  await new Promise((resume) => setTimeout(resume, seconds * 1000));
  return patience - seconds;
}
