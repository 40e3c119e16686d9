/**
 * Coordinates the tabs of one origin: one syncs at a time, and posts its news to the others.
 *
 * Knows: Web Locks, BroadcastChannel, and what stands in for the former. Must not know: what is locked, what is told. A
 * page over plain http has no Web Locks: there a claim in localStorage, which ends by itself with its tab, holds the others
 * off. Without localStorage too (Node before 24) the lock holds within this process only.
 */

/** How long a claim counts without being renewed: its tab may have been closed. */
const CLAIM_MILLISECONDS = 10_000;
/** Longer than two tabs take to look at a claim and write theirs over it: who still reads its own then has it. */
const SETTLE_MILLISECONDS = 30;

/** @type {Map<string, Promise<unknown>>} */
const held = new Map();

/**
 * Run `work` while nobody else of this origin runs under the same name.
 *
 * @template T @param {string} name @param {() => Promise<T>} work @returns {Promise<T>}
 */
export function exclusive(name, work) {
  const locks = globalThis.navigator?.locks;
  if (locks) return /** @type {Promise<T>} */ (locks.request(`syncapp:${name}`, () => work()));
  const alone = () => claimed(`syncapp-lock:${name}`, work);
  const turn = (held.get(name) ?? Promise.resolve()).then(alone, alone);
  held.set(name, turn);
  return turn;
}

/** @template T @param {string} key @param {() => Promise<T>} work @returns {Promise<T>} */
async function claimed(key, work) {
  const store = localStore();
  if (!store) return work();
  const own = `${Math.random()}`;
  const isOurs = () => claimIn(store, key)?.own === own;
  const write = () => kept(store, key, { own, until: Date.now() + CLAIM_MILLISECONDS });
  while (!isOurs()) {
    if (!claimIn(store, key) && !write()) return work();
    await new Promise((resume) => setTimeout(resume, SETTLE_MILLISECONDS));
  }
  const renewing = setInterval(write, CLAIM_MILLISECONDS / 4);
  try {
    return await work();
  } finally {
    clearInterval(renewing);
    if (isOurs()) store.removeItem(key);
  }
}

/** Give the claim that counts. @param {Storage} store @param {string} key @returns {{ own: string, until: number } | undefined} */
function claimIn(store, key) {
  const claim = JSON.parse(store.getItem(key) ?? "null");
  return claim?.until > Date.now() ? claim : undefined;
}

/** Keep a claim; false if there is no room for it. @param {Storage} store @param {string} key @param {object} claim */
function kept(store, key, claim) {
  try {
    store.setItem(key, JSON.stringify(claim));
    return true;
  } catch {
    return false;
  }
}

/** Give localStorage. @returns {Storage | undefined} nothing where there is none, or a page may not store anything */
export function localStore() {
  try {
    return globalThis.localStorage ?? undefined;
  } catch {
    return undefined;
  }
}

/**
 * Be the one of all tabs that does `work`, now or when the one before has gone; `work` ends when `signal` is aborted.
 *
 * @param {string} name @param {AbortSignal} signal @param {() => Promise<void>} work
 */
export async function lead(name, signal, work) {
  const locks = globalThis.navigator?.locks;
  if (!locks) return work();
  try {
    await locks.request(`syncapp:${name}:leader`, { signal }, work);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** Wait until what was asked for before stands in the queue: news may otherwise arrive sooner than the request for a lock. */
export async function queued() {
  await globalThis.navigator?.locks?.query();
}

/** A channel to the other tabs; without BroadcastChannel nobody hears. */
export class News {
  /** @param {string} name @param {(message: any) => void} hear */
  constructor(name, hear) {
    if (typeof BroadcastChannel === "undefined") return;
    this.channel = new BroadcastChannel(`syncapp:${name}`);
    this.channel.onmessage = (event) => hear(event.data);
    // Node: a channel must not keep the process alive.
    /** @type {any} */ (this.channel).unref?.();
  }

  /** @param {unknown} message */
  tell(message) {
    this.channel?.postMessage(message);
  }

  close() {
    this.channel?.close();
    this.channel = undefined;
  }
}
