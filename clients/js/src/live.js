/**
 * Listens over Socket.IO: says when to pull, and passes on rows that came with a notification.
 *
 * Knows: the events, the renewal of a token, when to connect again. Must not know: where rows and cursor are kept.
 * Delivery is at most once, so whatever may have been missed ends in `onPull`.
 */

import { Chain } from "./chain.js";
import { SyncError } from "./errors.js";

/**
 * @typedef {import("./chain.js").Link} Link
 * @typedef {import("./chain.js").Notification} Notification
 * @typedef {"connecting" | "live" | "offline" | "unavailable"} State `unavailable`: it can't start, and never will
 * @typedef {{ cursor?: () => string | null | undefined | Promise<string | null | undefined>, onPull: () => void,
 *   onLink?: (link: Link) => void, onNotification?: (note: Notification) => void, onState?: (state: State, error?: Error) => void,
 *   onSignedOut?: (error: Error) => void }} Listening
 *   `cursor` tells up to where the app has seen everything; without `onLink` each push is answered by `onPull`;
 *   `onSignedOut` is told too if somebody else has logged in
 */

const RETRY_MILLISECONDS = 2000;

/** Codes of errors that only a log-in ends. */
const ENDS = new Set(["unauthorized", "wrong_account"]);

async function library() {
  try {
    return (await import("socket.io-client")).io;
  } catch (cause) {
    throw new SyncError("To listen, syncapp-client needs the package socket.io-client: install it, or give its `io` to the client.", {
      code: "live_unavailable",
      cause,
    });
  }
}

export class Live {
  #chain = new Chain();
  #isClosed = false;
  #askedAt = 0;
  /** @type {any} */
  #socket;
  /** @type {string | undefined} */
  #refused;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #again;

  /** @param {import("./client.js").SyncClient} client @param {Listening} listening */
  constructor(client, listening) {
    this.client = client;
    this.listening = listening;
    this.opened = this.#open();
    this.opened.catch((error) => {
      listening.onState?.("unavailable", error);
      console.error(error.message); // Who does not listen for it would never learn why nothing comes.
    });
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#again);
    this.#socket?.disconnect();
  }

  async #open() {
    this.listening.onState?.("connecting");
    const io = this.client.io ?? (await library());
    if (this.#isClosed) return;
    // The library takes a path for a namespace: a server below one has it in the option `path`.
    const [, origin, below] = /** @type {RegExpExecArray} */ (/^(https?:\/\/[^/?#]+)([^?#]*)/.exec(this.client.url));
    const auth = (/** @type {any} */ give) => void this.#authenticate(give);
    this.#socket = io(origin, { path: `${below}/socket.io/`, auth, forceNew: true });
    this.#socket.on("authenticated", (/** @type {any} */ greeting) => this.#greeted(greeting));
    this.#socket.on("sync_notification", (/** @type {Notification} */ note) => this.#hear(note));
    this.#socket.on("authentication_error", () => (this.#refused = this.token));
    this.#socket.on("disconnect", (/** @type {string} */ reason) => this.#lost(reason));
    this.#socket.on("connect_error", () => this.#lost("connect_error"));
  }

  /** @param {(auth: unknown) => void} give */
  async #authenticate(give) {
    try {
      this.token = await this.client.token(this.#refused);
      this.#refused = undefined;
      this.#askedAt = Date.now();
      const cursor = (await this.listening.cursor?.()) ?? undefined;
      give({ token: this.token, cursor, deviceId: this.client.deviceId });
    } catch (error) {
      if (ENDS.has(/** @type {any} */ (error).code)) this.listening.onSignedOut?.(/** @type {Error} */ (error));
      this.#socket.disconnect();
      this.#connectLater();
    }
  }

  /** @param {{ missed?: number, resyncRequired?: boolean, timestamp?: string }} greeting */
  #greeted(greeting) {
    this.client.clock.hear(greeting.timestamp, this.#askedAt, Date.now());
    this.listening.onState?.("live");
    if (greeting.missed !== 0 || greeting.resyncRequired) this.listening.onPull();
  }

  /** @param {Notification} note */
  #hear(note) {
    this.listening.onNotification?.(note);
    const found = this.#chain.take(note);
    if (found === "pull" || (found && !this.listening.onLink)) this.listening.onPull();
    else if (found) this.listening.onLink?.(found);
  }

  /** @param {string} reason */
  #lost(reason) {
    this.listening.onState?.("offline");
    // The library comes back by itself, except when the server ended the socket.
    if (reason === "io server disconnect") this.#connectLater();
  }

  #connectLater() {
    clearTimeout(this.#again);
    if (this.#isClosed) return;
    this.#again = setTimeout(() => this.#socket.connect(), RETRY_MILLISECONDS);
  }
}
