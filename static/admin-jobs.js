// What takes longer than a request: begun by a click, asked for until it has ended.

import { get, post } from "./admin-api.js";
import { element, say, whileBusy } from "./dom.js";

const EVERY_MS = 1000;

/** Run a job and give how it ended, with the end of what it printed. */
export async function run(path, body) {
  const { job } = await post(path, body);
  for (;;) {
    const state = await get(`/api/jobs/${job}`);
    if (state.exitCode !== null) return { ...state, job };
    await new Promise((resolve) => { setTimeout(resolve, EVERY_MS); });
  }
}

/** The last line that a command printed: what it has to say. */
const lastLine = (text) => text.trim().split("\n").at(-1);
const whyNot = (errors) => lastLine(errors) || "It was cut off.";

/** Run a command that prints JSON, and give that; `fine` are the exit codes with which it did. */
export async function resultOf(path, body, fine = [0]) {
  const { exitCode, errors, job } = await run(path, body);
  if (!fine.includes(exitCode)) throw new Error(whyNot(errors));
  return get(`/api/jobs/${job}/output`);
}

/** Run a job and say how it ended, in the command's own last words. */
export async function tell(message, begin) {
  try {
    const { exitCode, output, errors } = await begin();
    say(message, exitCode === 0 ? lastLine(output) || "Done." : whyNot(errors), exitCode !== 0);
  } catch (error) {
    say(message, error.message, true);
  }
}

/** The button that exports a tenant. */
export function offerExport(path, message) {
  const button = element("button", { type: "button" }, "Export");
  button.addEventListener("click", () => whileBusy(button, async () => {
    try {
      say(message, "Writing the archive: account, rows, history, conflicts, devices. The record has that you asked for it.");
      const { exitCode, errors, job } = await run(`${path}/export`);
      if (exitCode !== 0) return say(message, whyNot(errors), true);
      say(message, "The archive is ready: ");
      message.append(element("a", { href: `/admin/api/jobs/${job}/result`, download: "" }, "download it"), " within an hour.");
    } catch (error) {
      say(message, error.message, true);
    }
  }));
  return [button];
}
