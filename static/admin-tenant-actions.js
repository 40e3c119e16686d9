// What the operator may do to a tenant. What can't be taken back asks in a dialog first.

import { post } from "./admin-api.js";
import { element, say, whileBusy } from "./dom.js";
import { offerExport } from "./admin-jobs.js";
import { offerRewind } from "./admin-rewind.js";

export function offerActions(tenant, path, refresh) {
  const message = element("p", { id: "done", className: "message", role: "status", tabIndex: -1 });
  const act = async (call, body) => {
    const { message: told, link } = await post(`${path}/${call}`, body);
    if (call === "delete") return location.assign("/admin/tenants");
    await refresh();
    const done = document.getElementById("done");
    say(done, told);
    if (link) done.append(element("code", { className: "block" }, link));
  };
  return element("section", { className: "card", ariaLabel: "Actions" },
    element("h2", {}, "Actions"),
    element("div", { className: "actions" }, ...actionsOf(tenant).map((action) => buttonOf(action, act)), offerRewind(tenant, path, refresh), ...offerExport(path, message)),
    message,
  );
}

function actionsOf(tenant) {
  const { email, state } = tenant;
  const states = {
    suspended: ["Suspend", `${email} is refused everything, and its sockets close. Nothing is lost.`],
    "read-only": ["Read only", `Pushes of ${email} are refused; devices pull and listen, and send later what they could not.`],
    active: ["Resume", `${email} may do everything again.`],
  };
  const changes = Object.entries(states).filter(([name]) => name !== state).map(([name, [words, about]]) => ({ words, about, call: "state", body: { state: name } }));
  return [
    ...changes,
    { words: "Change address", about: `${email} logs in with another address then. Sessions go on.`, call: "email", ask: { name: "email", label: "New address", type: "email" } },
    { words: "Set password", about: `All sessions of ${email} end.`, call: "password", ask: { name: "password", label: "New password", type: "password", autocomplete: "new-password", minLength: 8 } },
    { words: "Reset link", about: `Makes a link by which ${email} sets a new password. One that was made before counts no more.`, call: "reset-link", body: {} },
    { words: "End sessions", about: `All sessions of ${email} end. Who knows the password may log in again.`, call: "end-sessions", body: {} },
    { words: "Delete", about: `The account and all its data are removed for good; backups keep theirs. To confirm, type ${email}`, call: "delete", ask: { name: "email", label: "The customer's address", type: "text" } },
  ];
}

function buttonOf(action, act) {
  const button = element("button", { type: "button" }, action.words);
  button.addEventListener("click", () => confirmWith(action, act));
  return button;
}

/** Ask in a dialog, with what the action needs to know; the browser gives the focus back when it closes. */
function confirmWith({ words, about, call, body, ask }, act) {
  const message = element("p", { className: "message", role: "status" });
  const input = ask && element("input", { id: "asked", autocomplete: "off", spellcheck: false, required: true, ...ask, label: undefined });
  const go = element("button", { type: "submit", className: "primary" }, words);
  const cancel = element("button", { type: "button" }, "Cancel");
  const form = element("form", { method: "dialog" },
    element("h2", { id: "dialog-title" }, words), element("p", {}, about),
    ...(ask ? [element("div", { className: "field" }, element("label", { htmlFor: "asked" }, ask.label), input)] : []),
    element("div", { className: "actions" }, go, cancel), message,
  );
  const dialog = element("dialog", { className: "card" }, form);
  dialog.setAttribute("aria-labelledby", "dialog-title");
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(go, async () => {
      try {
        await act(call, ask ? { [ask.name]: input.value } : body);
        dialog.close();
        document.getElementById("done")?.focus(); // The button that was pressed was made anew.
      } catch (error) {
        say(message, error.message, true);
      }
    });
  });
  document.body.append(dialog);
  dialog.showModal();
}
