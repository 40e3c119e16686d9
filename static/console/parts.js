// Elements that several views are made of. Text goes in as text and never as HTML.

import { element, say, whileBusy } from "../dom.js";
import { ago, problemText, timeText } from "./text.js";

/** Make a button that is off while `work` runs. */
export function button(text, work, { className = "", label } = {}) {
  const made = element("button", { type: "button", className }, text);
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", () => whileBusy(made, async () => work(made)));
  return made;
}

/** Say how long ago something was, with the time itself for who points at it. */
export function time(text) {
  return element("time", { dateTime: text, title: timeText(text) }, ago(text));
}

/** Make a table of texts and elements; the first cell of each row is its head. `labels` names cells where heads are hidden. */
export function table(heads, rows, className = "") {
  const head = element("tr", {}, ...heads.map((text) => headCell(text, "col")));
  const lines = rows.map((cells) => {
    const made = cells.map((cell, place) => (place ? element("td", {}, cell) : headCell(cell, "row")));
    made.forEach((cell, place) => (cell.dataset.label = heads[place]));
    return element("tr", {}, ...made);
  });
  return element("table", { className }, element("thead", {}, head), element("tbody", {}, ...lines));
}

function headCell(content, scope) {
  const cell = element("th", {}, content);
  cell.setAttribute("scope", scope);
  return cell;
}

export function labelled(text, input, hint) {
  const label = element("label", { htmlFor: input.id }, text);
  const more = hint ? [hint] : [];
  return element("div", { className: "field" }, label, input, ...more);
}

/** Run what somebody asked for; an error is said in `message`. Gives whether it went well. */
export async function attempt(message, work) {
  try {
    await work();
    return true;
  } catch (error) {
    if (!error.code) throw error;
    say(message, problemText(error), true);
    return false;
  }
}

/** Ask in a dialog of the page; gives what the form has, null if it was left. The dialog keeps the focus inside. */
export function asked(dialog) {
  const form = dialog.querySelector("form");
  return new Promise((resolve) => {
    let found = null;
    const submitted = (event) => {
      event.preventDefault();
      found = Object.fromEntries(new FormData(form));
      dialog.close();
    };
    form.addEventListener("submit", submitted);
    dialog.addEventListener("close", () => {
      form.removeEventListener("submit", submitted);
      form.reset();
      resolve(found);
    }, { once: true });
    dialog.showModal();
  });
}

/** Wire what all dialogs have: a button that closes, and a click beside them. */
export function wireClosing(dialog, leave = () => dialog.close()) {
  for (const one of dialog.querySelectorAll("[data-close]")) one.addEventListener("click", () => leave());
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    leave();
  });
}
