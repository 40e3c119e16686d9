// Who is logged in, and every call that this page makes. It knows the JavaScript client, and nothing of the page.
//
// Tokens stay in this page: after a reload somebody logs in again. When a session is over, whoever called waits until that
// somebody has logged in again, so that nothing that was typed is lost. The page is a device of its own while it is open,
// so that others see in a row's history that it was edited here.

import { memoryStore, newId, SignedOut, SyncClient, SyncError, Unreachable } from "/static/client/index.js";
import { coalesced } from "../pace.js";

export const CONSOLE = "console-";
const PATIENCE_SECONDS = 10;
const LOOK_MS = 3000;
const CHANGES_MS = 1000;

export class Session extends EventTarget {
  /** "live", "connecting", "offline" or "unavailable" */
  link = "connecting";
  /** What stands in the way of all calls: "", "offline", "suspended" or "out". */
  trouble = "";
  customer = null;
  #asking = null;
  #live = null;
  #looking = null;
  #isLeaving = false;

  /** `askAgain()` has somebody log in again, and gives false if they don't want to. */
  constructor(askAgain) {
    super();
    this.askAgain = askAgain;
    const options = { store: memoryStore(), deviceId: CONSOLE + newId().slice(0, 12), patienceSeconds: PATIENCE_SECONDS };
    this.client = new SyncClient({ url: location.origin, io: globalThis.io, ...options });
  }

  /** Log in, or log in again: then it must be the same account. */
  async logIn(email, password) {
    this.customer = await this.client.logIn(email, password);
    await this.client.account();
    this.#learn("");
    this.#listen();
  }

  /** Call an address; see `run`. */
  call(path, options) {
    return this.run((client) => client.call(path, options));
  }

  /** Give what `work(client)` gives; if the session is over, work again once somebody has logged in again. */
  async run(work) {
    for (;;) {
      try {
        const result = await work(this.client);
        this.#learn("");
        return result;
      } catch (error) {
        this.#learn(troubleOf(error));
        if (!(error instanceof SignedOut) || !(await this.ask())) throw error;
      }
    }
  }

  /** Have somebody log in again; all who wait share one question. Gives whether they did. */
  ask() {
    this.#live?.close(); // Else it asks again and again.
    this.#asking ??= this.askAgain().finally(() => (this.#asking = null));
    return this.#asking;
  }

  /** Take what the browser knows sooner than a call would. */
  note(trouble) {
    this.#learn(trouble);
  }

  /** End the session on the server too, if it can be reached. */
  async logOut() {
    this.#isLeaving = true;
    this.#live?.close();
    const forget = `/api/client/devices/${this.client.deviceId}`;
    for (const [path, method] of [[forget, "DELETE"], ["/api/customers/logout", "POST"]]) {
      await this.client.call(path, { method }).catch((error) => {
        if (!(error instanceof SyncError)) throw error;
      });
    }
  }

  /** Count the rows of each table that are not deleted, by two small calls: where the server is, and its digest there. */
  async counts(tables) {
    const { cursor } = await this.call("/api/client/sync/pull-pending", { body: {}, isAnonymous: true });
    const { digest } = await this.run((client) => client.pull({ cursor, tables, digest: true, isAnonymous: true }));
    return Object.fromEntries(Object.entries(digest ?? {}).map(([table, { count }]) => [table, count]));
  }

  #listen() {
    this.#live?.close();
    const changed = coalesced(async () => {
      this.#tell("changed");
      await new Promise((resume) => setTimeout(resume, CHANGES_MS)); // However many there are, views ask again once a second.
    });
    this.#live = this.client.live({
      onPull: changed,
      onNotification: ({ type }) => type === "conflict_detected" && this.#tell("conflict"),
      onState: (link) => this.#linked(link),
      onSignedOut: () => {
        this.#learn("out");
        void this.ask();
      },
    });
  }

  #linked(link) {
    if (this.#isLeaving) return;
    this.link = link;
    if (link === "live") return this.#learn("");
    if (link === "offline") this.look();
    this.#tell("state");
  }

  /** Find out what stands in the way, by a small call now and then until changes come by themselves again. */
  look = coalesced(async () => {
    clearTimeout(this.#looking);
    if (this.trouble === "out") return; // Somebody did not want to log in.
    await this.call("/api/customers/me", { method: "GET" }).catch((error) => {
      if (!(error instanceof SyncError)) throw error;
    });
    if (this.link !== "live") this.#looking = setTimeout(() => this.look(), LOOK_MS);
  });

  #learn(trouble) {
    if (trouble === null) return;
    this.trouble = trouble;
    this.#tell("state");
  }

  #tell(name) {
    this.dispatchEvent(new Event(name));
  }
}

/** Name what stands in the way of all calls, null if the error is about one call alone. */
function troubleOf(error) {
  if (error instanceof Unreachable) return "offline";
  if (error instanceof SignedOut) return "out";
  return error.code === "tenant_suspended" ? "suspended" : null;
}
