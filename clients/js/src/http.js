/**
 * One request and its answer over `fetch`: JSON, gzip where it pays, an end to waiting, errors as classes.
 *
 * Knows: HTTP. Must not know: tokens, retries, what a body means.
 */

import { errorOf, Unreachable } from "./errors.js";

/** Bodies from this size on are sent compressed; below it, the saving is less than a packet. */
const GZIP_BYTES = 4096;

/**
 * Send one request and give its answer's JSON.
 *
 * @param {string} url
 * @param {{ method?: string, headers?: Record<string, string>, body?: unknown, timeoutSeconds?: number,
 *   fetch?: typeof fetch }} [options]
 * @returns {Promise<any>}
 * @throws {import("./errors.js").SyncError} `Unreachable` if no whole answer came in time, else what the server said
 */
export async function send(url, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  const init = { method: options.method ?? "GET", headers, ...(await encoded(options.body, headers)) };
  const call = options.fetch ?? fetch;
  try {
    const answer = await call(url, { ...init, signal: AbortSignal.timeout((options.timeoutSeconds ?? 60) * 1000) });
    const text = await answer.text();
    return checked(answer, parsed(text, answer));
  } catch (error) {
    // fetch says a broken line as TypeError, a cut-off answer likewise, a timeout as DOMException.
    if (error instanceof TypeError || error instanceof DOMException) {
      throw new Unreachable("The server can't be reached.", { code: "unreachable", cause: error });
    }
    throw error;
  }
}

/** @param {unknown} body @param {Record<string, string>} headers filled in */
async function encoded(body, headers) {
  if (body === undefined) return {};
  const text = JSON.stringify(body);
  headers["Content-Type"] = "application/json";
  if (text.length < GZIP_BYTES || typeof CompressionStream === "undefined") return { body: text };
  headers["Content-Encoding"] = "gzip";
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
  return { body: await new Response(stream).arrayBuffer() };
}

/** @param {string} text @param {Response} answer */
function parsed(text, answer) {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (!answer.ok) return undefined;
    throw new Unreachable("The answer was cut off.", { code: "unreachable", status: answer.status, cause: error });
  }
}

/** @param {Response} answer @param {any} body */
function checked(answer, body) {
  if (answer.ok && body?.success !== false) return body;
  const wait = Number(answer.headers.get("Retry-After"));
  throw errorOf(answer.status, body, wait > 0 ? wait : undefined);
}
