/**
 * Sends one request over `fetch`: JSON, gzip for large bodies, a time limit for silence, errors as classes.
 *
 * Knows: HTTP. Must not know: tokens, retries, what a body means.
 */

import { BadValue, errorOf, foreign, Interrupted, SyncError, Unreachable } from "./errors.js";

/** Bodies from this size on are sent compressed; below it, the saving is less than a packet. */
const GZIP_BYTES = 4096;

/**
 * @typedef {{ method?: string, headers?: Record<string, string>, body?: unknown, timeoutSeconds?: number,
 *   fetch?: typeof fetch, clock?: import("./clock.js").Clock }} Request
 *   `timeoutSeconds` is how long nothing at all may come; `clock` learns from the answer
 */

/**
 * Send one request and give its answer's JSON.
 *
 * @param {string} url @param {Request} [options] @returns {Promise<any>}
 * @throws {import("./errors.js").SyncError} `Unreachable` if no whole answer came, else what the server said
 */
export function send(url, options = {}) {
  return exchanged(url, options, async (answer, silence) => {
    const text = await textOf(answer, silence);
    return checked(answer, parsed(text, answer));
  });
}

/**
 * Send one request and give the body of its answer as a file.
 *
 * @param {string} url @param {Request} [options] @returns {Promise<Blob>} @throws {import("./errors.js").SyncError} as `send`
 */
export function fetchFile(url, options = {}) {
  return exchanged(url, options, async (answer, silence) => {
    if (!answer.ok) return checked(answer, parsed(await textOf(answer, silence), answer));
    return blobOf(answer, silence);
  });
}

/**
 * @template T @param {string} url @param {Request} options @param {(answer: Response, silence: Silence) => Promise<T>} read
 */
async function exchanged(url, options, read) {
  const call = options.fetch ?? globalThis.fetch;
  if (!call) throw new SyncError("There is no `fetch` here: give one as an option of the client.", { code: "no_fetch" });
  const headers = { Accept: "application/json", ...options.headers };
  const init = { method: options.method ?? "GET", headers, ...(await encoded(options.body, headers)) };
  const silence = new Silence((options.timeoutSeconds ?? 60) * 1000);
  try {
    return await read(await answered(call, url, { ...init, signal: silence.signal }, options.clock), silence);
  } finally {
    silence.end();
  }
}

/** Ends a request when nothing was heard for too long, however long the whole takes. */
class Silence {
  #abort = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  signal = this.#abort.signal;

  /** @param {number} mostMs */
  constructor(mostMs) {
    this.mostMs = mostMs;
    this.heard();
  }

  heard() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#abort.abort(), this.mostMs);
  }

  end() {
    clearTimeout(this.#timer);
  }
}

/**
 * @param {typeof fetch} call @param {string} url @param {RequestInit} init @param {import("./clock.js").Clock} [clock]
 */
async function answered(call, url, init, clock) {
  const beganAt = Date.now();
  try {
    const answer = await call(url, init);
    clock?.hear(answer.headers.get("Date"), beganAt, Date.now(), 1000);
    return answer;
  } catch (error) {
    const kind = init.signal?.aborted ? Interrupted : Unreachable;
    throw new kind("The server can't be reached.", { code: "unreachable", cause: error });
  }
}

/** Read a body to its end, as it comes where that can be seen. @param {Response} answer @param {Silence} silence */
async function textOf(answer, silence) {
  const decoder = new TextDecoder();
  let text = "";
  const isSeen = await readParts(answer, silence, (part) => (text += decoder.decode(part, { stream: true })));
  return isSeen ? text + decoder.decode() : whole(answer, () => answer.text());
}

/** @param {Response} answer @param {Silence} silence @returns {Promise<Blob>} */
async function blobOf(answer, silence) {
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const parts = [];
  const isSeen = await readParts(answer, silence, (part) => parts.push(part));
  return isSeen ? new Blob(parts, { type: answer.headers.get("Content-Type") ?? "" }) : whole(answer, () => answer.blob());
}

/**
 * Give `take` the parts of a body as they come; false where they can't be seen (React Native).
 *
 * @param {Response} answer @param {Silence} silence @param {(part: Uint8Array<ArrayBuffer>) => unknown} take
 */
async function readParts(answer, silence, take) {
  const reader = answer.body?.getReader?.();
  if (!reader) return false;
  return whole(answer, async () => {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      silence.heard();
      take(part.value);
    }
    return true;
  });
}

/** @template T @param {Response} answer @param {() => Promise<T>} read @returns {Promise<T>} */
async function whole(answer, read) {
  try {
    return await read();
  } catch (error) {
    throw new Interrupted("The answer was cut off.", { code: "unreachable", status: answer.status, cause: error });
  }
}

/** @param {unknown} body @param {Record<string, string>} headers filled in */
async function encoded(body, headers) {
  if (body === undefined) return {};
  const text = said(body);
  headers["Content-Type"] = "application/json";
  if (text.length < GZIP_BYTES || typeof CompressionStream === "undefined") return { body: text };
  headers["Content-Encoding"] = "gzip";
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
  return { body: await new Response(stream).arrayBuffer() };
}

/** @param {unknown} body */
function said(body) {
  try {
    return JSON.stringify(body);
  } catch (error) {
    throw new BadValue(`JSON can't say this: ${/** @type {Error} */ (error).message}`, error);
  }
}

/** @param {string} text @param {Response} answer */
function parsed(text, answer) {
  try {
    return JSON.parse(text);
  } catch {
    if (answer.ok) throw foreign(answer.status);
    return undefined;
  }
}

/** @param {Response} answer @param {any} body */
function checked(answer, body) {
  if (answer.ok && body?.success === true) return body;
  if (answer.ok && body?.success !== false) throw foreign(answer.status);
  const wait = Number(answer.headers.get("Retry-After"));
  throw errorOf(answer.status, body, wait > 0 ? wait : undefined);
}
