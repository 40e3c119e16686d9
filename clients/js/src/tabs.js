/**
 * Tabs of one origin beside each other: one at a time, and news for the others.
 *
 * Knows: Web Locks and BroadcastChannel. Must not know: what is locked, what is told. Where a browser has no Web Locks
 * (pages over plain http, Node before 24), the lock holds within this page or process only.
 */

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
  const turn = (held.get(name) ?? Promise.resolve()).then(work, work);
  held.set(name, turn);
  return turn;
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
