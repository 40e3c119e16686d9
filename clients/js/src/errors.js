/**
 * What can go wrong between a client and the server, as classes that carry the server's own code.
 *
 * Knows: statuses and codes of the wire contract. Must not know: how a request is made, what is done about an error.
 */

/**
 * @typedef {{ path: string, error: string }} Detail
 * @typedef {{ code?: string, status?: number, details?: Detail[], requestId?: string, retryAfterSeconds?: number,
 *   cause?: unknown }} About
 */

/** Any failure of a call; `code` is the server's, or `unreachable` when there was no answer. */
export class SyncError extends Error {
  /** @param {string} message @param {About} [about] */
  constructor(message, about = {}) {
    super(message, { cause: about.cause });
    this.name = new.target.name;
    this.code = about.code ?? "internal_error";
    this.status = about.status ?? 0;
    this.details = about.details ?? [];
    this.requestId = about.requestId;
    this.retryAfterSeconds = about.retryAfterSeconds;
  }
}

/** No whole answer came: nobody knows whether the call was done. Send it again when the network is back. */
export class Unreachable extends SyncError {}

/** The session is over, and could not be renewed: somebody has to log in. */
export class SignedOut extends SyncError {}

/** Nothing of the call was done; it may be sent again after `retryAfterSeconds`. */
export class Busy extends SyncError {}

/** The cursor is of the past (a restore, a purge, an expired device): pull again from the start. */
export class ResyncRequired extends SyncError {}

/** The body has too many bytes or rows: send it in smaller parts. */
export class TooLarge extends SyncError {}

/** The server understood, and does not want it; the same again will be refused again. */
export class Refused extends SyncError {}

/** @type {Record<string, typeof SyncError>} */
const BY_CODE = {
  token_expired: SignedOut,
  unauthorized: SignedOut,
  invalid_credentials: Refused,
  resync_required: ResyncRequired,
  payload_too_large: TooLarge,
  request_timeout: Unreachable,
  rate_limited: Busy,
  busy: Busy,
};

/** Tell whether the server refuses something that a push holds, and not all that comes from here. @param {unknown} error */
export function isAboutRows(error) {
  if (error instanceof TooLarge || (error instanceof SyncError && error.code === "invalid_json")) return true;
  if (!(error instanceof Refused) || error.code !== "validation_error" || !error.details.length) return false;
  return error.details.every(({ path }) => path.startsWith("operations["));
}

/** Tell whether the same call may succeed later, without anybody doing anything. @param {unknown} error */
export function isPassing(error) {
  return error instanceof Unreachable || error instanceof Busy || (error instanceof SyncError && error.status >= 500);
}

/**
 * Make the error of an answer that is no success.
 *
 * What has no code is not our server's word but that of something between: a gateway, a proxy, the Wi-Fi of a hotel. Then
 * the call may or may not have arrived, as if the line had broken; only that a body is too large is to be believed.
 * @param {number} status @param {any} body what the answer held, or undefined if that was no JSON
 * @param {number} [retryAfterSeconds]
 */
export function errorOf(status, body, retryAfterSeconds) {
  if (!body?.code && status === 413) return new TooLarge("The body is too large.", { code: "payload_too_large", status });
  if (!body?.code && status !== 500) {
    return new Unreachable(`Something between answered ${status}.`, { code: "unreachable", status, retryAfterSeconds });
  }
  const kind = BY_CODE[body?.code] ?? (status >= 400 && status < 500 ? Refused : SyncError);
  const { code, details, requestId } = body ?? {};
  return new kind(body?.error ?? `The server answered ${status}.`, { code, status, details, requestId, retryAfterSeconds });
}
