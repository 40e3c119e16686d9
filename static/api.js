// The server's HTTP calls, and why a server cannot be reached. The token travels in a header, never in a URL.

const PROBE_MS = 5000;

/** What the server refused, or that it could not be asked; `body` is its answer, if there is one. */
export class ApiError extends Error {
  constructor(message, status = 0, body = null) {
    super(message);
    this.status = status;
    this.code = body?.code ?? "unreachable";
    this.body = body;
  }
}

/** Give the origin of what a person typed: a path would be taken for a Socket.IO namespace. */
export function originOf(text) {
  const url = new URL(text.trim());
  if (!["http:", "https:"].includes(url.protocol)) throw new TypeError("no web address");
  return url.origin;
}

export async function post(server, path, body, { token, device } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (device) headers["X-Device-Id"] = device;
  const options = { method: "POST", headers, body: JSON.stringify(body), credentials: "omit" };
  return checked(await reached(server, fetch(server + path, options)));
}

async function reached(server, request) {
  try {
    return await request;
  } catch {
    throw new ApiError(`Request failed: ${(await whyUnreachable(server)) ?? "the connection broke"}.`);
  }
}

async function checked(response) {
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  throw new ApiError(body?.error ?? `The server answered ${response.status}.`, response.status, body);
}

/** Say why pages here get no answer from a server, or null if they do. */
export async function whyUnreachable(server) {
  if (await answers(server, "cors")) return null;
  if (await answers(server, "no-cors")) {
    return `origin not allowed – add ${location.origin} to CORS_ORIGINS on the server`;
  }
  return "server not reachable";
}

async function answers(server, mode) {
  const options = { mode, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PROBE_MS) };
  return fetch(`${server}/health`, options).then(() => true, () => false);
}
