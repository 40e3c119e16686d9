// What the console's pages ask the server. The session is a cookie that no script sees; the proof is in the page.

const PROOF = document.querySelector("meta[name=console-proof]").content;

/** What the server refused, or that it can't be reached. */
export class CallError extends Error {}

/** Ask for something; `query` has what goes behind the ?. */
export function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return call("GET", text ? `${path}?${text}` : path);
}

/** Have something done. */
export function post(path, body = {}) {
  return call("POST", path, JSON.stringify(body));
}

async function call(method, path, body) {
  const headers = { "X-Console-Proof": PROOF };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(`/admin${path}`, { method, headers, body }).catch(() => {
    throw new CallError("The server can't be reached.");
  });
  const found = await answer.json().catch(() => ({}));
  if (answer.status === 401) return signInAgain();
  if (!answer.ok) throw new CallError(found.error ?? `The server answered ${answer.status}.`);
  return found;
}

/** Show the page that says how to sign in: the session has ended. */
function signInAgain() {
  location.reload();
  return new Promise(() => {});
}
