// Small helpers for the page. Text goes in as text and never as HTML, so nothing a person or a server says can run.

export const byId = (id) => document.getElementById(id);

/** Make an element; `properties` are set on it, children are elements or texts. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Set a text only if it differs, so that screen readers do not hear it twice. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

const shownKeys = new WeakMap();

/** Fill `target` with what `make` gives, but only if `about` differs from the last time, so that a focus in it stays. */
export function showAnew(target, about, make) {
  const key = JSON.stringify(about);
  if (shownKeys.get(target) === key) return;
  shownKeys.set(target, key);
  target.replaceChildren(...make());
}

/** Show a message under a form; an error is told apart by more than its colour. */
export function say(target, text, isError = false) {
  target.classList.toggle("error", isError);
  setText(target, text);
}

/** Run `work` while a form's button is off, so that Enter twice sends once; the focus stays where it was. */
export async function whileBusy(button, work) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-busy");
  }
}

export function clock(date = new Date()) {
  const two = (number) => String(number).padStart(2, "0");
  const thousandths = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${thousandths}`;
}
