// The pages for a forgotten password, a new one, and to confirm an address. The token of a link comes behind its #, which no
// browser sends to a server; it leaves the page in the body of a POST, once somebody sends the form.

import { post } from "./api.js";
import { byId, say, whileBusy } from "./dom.js";

const token = location.hash.slice(1);

/** Have a form send what `bodyOf` gives. `done` gets the answer's data once it was taken. */
function wire(id, path, bodyOf, done) {
  const form = byId(id);
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(form.querySelector("button"), () => send(form, path, bodyOf, done));
  });
  return form;
}

async function send(form, path, bodyOf, done) {
  const message = form.querySelector(".message");
  say(message, "Sending…");
  try {
    const { data } = await post(location.origin, path, bodyOf(form));
    say(message, done(data, form));
  } catch (error) {
    say(message, error.message, true);
  }
}

/** Take away what can't be sent twice; the link is spent and need not stay in the history. */
function spent(form) {
  for (const part of document.querySelectorAll(".lead, .field, form button, .below")) part.hidden = true;
  for (const part of form.querySelectorAll(".then")) part.hidden = false;
  history.replaceState(null, "", location.pathname);
  form.querySelector(".message").tabIndex = -1;
  form.querySelector(".message").focus(); // The button that had the focus is gone.
}

function mustHaveToken(form) {
  if (form === null || token !== "") return;
  form.querySelector("button").disabled = true;
  say(form.querySelector(".message"), "The link is not whole. Open it as it is in the mail, or copy all of it.", true);
}

function newPassword(form) {
  const { newPassword: chosen, again } = form.elements;
  if (chosen.value !== again.value) {
    again.focus();
    throw new Error("The two are not the same.");
  }
  return { token, newPassword: chosen.value };
}

wire("forgotten", "/api/customers/password/forgotten", ({ elements }) => ({ email: elements.email.value }), ({ message }) => {
  return `${message} If it does not come, look in the spam folder.`;
});

mustHaveToken(wire("reset", "/api/customers/password/reset", newPassword, ({ message }, form) => {
  form.reset();
  spent(form);
  return message;
}));

mustHaveToken(wire("confirm", "/api/customers/email/confirm", () => ({ token }), ({ email, message }, form) => {
  spent(form);
  return `${email}: ${message}`;
}));
