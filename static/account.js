// Log in and register: the two forms of templates/_account.html. Passwords leave the page at once and are not kept.

import { post } from "./api.js";
import { byId, say, whileBusy } from "./dom.js";

/** Wire both forms. `server` gives the server's origin or throws; `done` gets {token, customer}. */
export function wireAccount(server, done) {
  for (const action of ["login", "register"]) {
    const form = byId(action);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      whileBusy(event.submitter ?? form.querySelector("button"), () => send(form, action, server, done));
    });
  }
}

async function send(form, action, server, done) {
  const message = byId("account-message");
  say(message, action === "login" ? "Logging in…" : "Registering…");
  try {
    const { data } = await post(server(), `/api/customers/${action}`, bodyOf(form));
    form.querySelector("[type=password]").value = "";
    say(message, `${action === "login" ? "Logged in" : "Registered"} as ${data.customer.name}, ${data.customer.companyName}.`);
    done(data);
  } catch (error) {
    say(message, error.message, true);
  }
}

/** Give what was filled in; what was left empty is left out. */
function bodyOf(form) {
  return Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
}
