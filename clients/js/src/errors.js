/**
 * The errors between a client and the server, as classes that carry the server's code.
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

/** The answer began, or was waited for, and did not come to its end: less at once may get through. */
export class Interrupted extends Unreachable {}

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

/** What is kept on this device belongs to another account than the one that is logged in; nothing was sent or fetched. */
export class WrongAccount extends SyncError {
  /** @param {string} kept @param {string} [given] */
  constructor(kept, given) {
    super(
      `What is kept here belongs to the account ${kept}, and somebody else${given ? ` (${given})` : ""} is logged in. ` +
        "Log in to that account again, or open a database of another name; what was not sent yet stays.",
      { code: "wrong_account" },
    );
  }
}

/** A value that can't be kept or sent as it is; nothing was changed. */
export class BadValue extends SyncError {
  /** @param {string} message @param {unknown} [cause] */
  constructor(message, cause) {
    super(message, { code: "bad_value", cause });
  }
}

/** @type {Map<unknown, typeof SyncError>} */
const BY_CODE = new Map([
  ["token_expired", SignedOut],
  ["unauthorized", SignedOut],
  ["invalid_credentials", Refused],
  ["resync_required", ResyncRequired],
  ["payload_too_large", TooLarge],
  ["request_timeout", Interrupted],
  ["rate_limited", Busy],
  ["busy", Busy],
]);

/** Tell whether the server refuses something that a push holds, and not all that comes from here. @param {unknown} error */
export function isAboutRows(error) {
  if (error instanceof TooLarge || (error instanceof SyncError && error.code === "invalid_json")) return true;
  if (!(error instanceof Refused) || error.code !== "validation_error" || !error.details.length) return false;
  return error.details.every((detail) => `${detail?.path}`.startsWith("operations["));
}

/** Tell whether the same call may succeed later, without anybody doing anything. @param {unknown} error */
export function isPassing(error) {
  return error instanceof Unreachable || error instanceof Busy || (error instanceof SyncError && error.status >= 500);
}

const TAKES_NO_CHANGES = new Set(["maintenance", "tenant_read_only", "storage_full", "quota_exceeded"]);

/** Tell whether the server takes no changes for now, which may last for days, while it can be pulled from. @param {unknown} error */
export function takesNoChanges(error) {
  return error instanceof SyncError && TAKES_NO_CHANGES.has(error.code);
}

/**
 * Make the error of an answer that is no success.
 *
 * What has no code is not our server's word but that of something between: a gateway, a proxy, the Wi-Fi of a hotel. Then
 * the call may or may not have arrived, as if the line had broken; only that a body is too large is to be believed. Our
 * sentences hold no status: there are libraries that search them for one, and drop an edit for good over a 403 of a hotel.
 * @param {number} status @param {any} body what the answer held, or undefined if that was no JSON
 * @param {number} [retryAfterSeconds]
 */
export function errorOf(status, body, retryAfterSeconds) {
  const code = typeof body?.code === "string" ? body.code : undefined;
  if (!code && status === 413) return new TooLarge("The body is too large.", { code: "payload_too_large", status });
  if (!code && status !== 500) return foreign(status, retryAfterSeconds);
  const kind = BY_CODE.get(code) ?? (status >= 400 && status < 500 ? Refused : SyncError);
  const { error, requestId } = body ?? {};
  const details = Array.isArray(body?.details) ? body.details : undefined;
  const message = typeof error === "string" ? error : "The server has failed.";
  return new kind(message, { code, status, details, requestId, retryAfterSeconds });
}

/** @param {number} status @param {number} [retryAfterSeconds] */
export function foreign(status, retryAfterSeconds) {
  const kind = status === 408 || status === 504 ? Interrupted : Unreachable;
  const message = "The answer is not the server's, but of something between, such as a proxy.";
  return new kind(message, { code: "unreachable", status, retryAfterSeconds });
}
