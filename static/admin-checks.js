// What `doctor` finds beside this server, looked for at a click.

import { run } from "./admin-jobs.js";
import { element, say, whileBusy } from "./dom.js";

const KINDS = { ok: "on", warning: "lost", refused: "failed" };

export async function show(page) {
  const message = element("p", { className: "message", role: "status" });
  const list = element("ul", { className: "findings" });
  const button = element("button", { type: "button", className: "primary" }, "Check now");
  button.addEventListener("click", () => whileBusy(button, async () => {
    try {
      list.replaceChildren();
      say(message, "Checking: the machine, the data, every customer's database, the tables…");
      const { output, errors } = await run("/api/checks");
      const found = findingsIn(output);
      const good = found.filter(({ kind }) => kind === "ok");
      list.replaceChildren(...found.filter(({ kind }) => kind !== "ok").map(shown), ...(good.length ? [allGood(good)] : []));
      say(message, found.length ? summary(found) : errors.trim() || "It was cut off.", !found.length);
    } catch (error) {
      say(message, error.message, true);
    }
  }));
  page.append(
    element("h1", {}, "Checks"),
    element("p", { className: "muted" }, "The same as doctor does on the server, in a process of its own. With thousands of tenants it takes a while."),
    button, message, list,
  );
}

/** Read the lines of doctor that are findings; one goes on until the next begins. */
function findingsIn(output) {
  const found = [];
  for (const line of output.split("\n")) {
    const begun = /^(ok|warning|refused): ?(.*)$/.exec(line);
    if (begun) found.push({ kind: begun[1], text: begun[2] });
    else if (/^[A-Z_]+=|^\d+ checks,/.test(line)) break;
    else if (found.length && line.trim()) found.at(-1).text += `\n${line}`;
  }
  return found.sort((one, other) => rank(one) - rank(other));
}

const rank = ({ kind }) => ["refused", "warning", "ok"].indexOf(kind);

function summary(found) {
  const count = (kind) => found.filter((one) => one.kind === kind).length;
  return `${found.length} checks: ${count("refused")} would refuse a start, ${count("warning")} warn.`;
}

function stateOf(kind, words = kind) {
  const state = element("span", { className: "state" }, element("span", { className: "dot", ariaHidden: "true" }), words);
  state.dataset.state = KINDS[kind];
  return state;
}

function shown({ kind, text }) {
  return element("li", { className: "card" }, stateOf(kind), element("p", {}, text));
}

function allGood(found) {
  const lines = found.map(({ text }) => element("li", {}, text.replace(/^checked /, "")));
  return element("li", { className: "card" }, stateOf("ok", "ok, checked"), element("ul", {}, ...lines));
}
