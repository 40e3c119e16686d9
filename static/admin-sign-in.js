// Uses a link of `admin-link`. Its secret is behind the #, which browsers send to nobody, and leaves the address at once.

import { byId, say, whileBusy } from "./dom.js";

const LOCAL = ["localhost", "127.0.0.1", "[::1]"];
const link = location.hash.slice(1);

if (link) {
  history.replaceState(null, "", location.pathname);
  byId("sign-in").hidden = false;
  byId("how").hidden = true;
}
byId("plain").hidden = location.protocol === "https:" || LOCAL.includes(location.hostname);
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  whileBusy(event.submitter, signIn);
});

async function signIn() {
  const headers = { "Content-Type": "application/json" };
  try {
    const answer = await fetch("/admin/sign-in", { method: "POST", headers, body: JSON.stringify({ link }) });
    if (answer.ok) return location.replace("/admin");
    const { error } = await answer.json();
    byId("sign-in").hidden = true;
    byId("how").hidden = false;
    say(byId("sign-in-message"), error, true);
  } catch {
    say(byId("sign-in-message"), "The server can't be reached. Try again.", true);
  }
}
