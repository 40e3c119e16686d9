// Accounts of the real server under test.

import { newId } from "syncapp-client";

export const url = process.env.SYNCAPP_URL ?? "http://127.0.0.1:3000";

/** Register somebody; without an account no test goes on, for some would wait for its rows without end. */
export async function registered() {
  const email = `${newId()}@example.com`;
  const body = JSON.stringify({ firstName: "J", lastName: "S", email, password: "password123" });
  const request = { method: "POST", headers: { "Content-Type": "application/json" }, body };
  const answer = await fetch(`${url}/api/customers/register`, request).catch((cause) => {
    throw new Error(`no server answers at ${url}: start one, and set SYNCAPP_URL`, { cause });
  });
  if (!answer.ok) throw new Error(`${url} does not register (RATE_LIMIT_REGISTER?): ${answer.status} ${await answer.text()}`);
  return { ...(await answer.json()).data, email };
}
