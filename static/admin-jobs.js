// What takes longer than a request: begun by a click, asked for until it has ended.

import { get, post } from "./admin-api.js";
import { element, say, whileBusy } from "./dom.js";

const EVERY_MS = 1000;

/** Run a job and give how it ended; `report` gets what it printed so far. */
export async function run(path, body, report = () => {}) {
  const { job } = await post(path, body);
  for (;;) {
    const state = await get(`/api/jobs/${job}`);
    report(state);
    if (state.exitCode !== null) return { ...state, job };
    await new Promise((resolve) => { setTimeout(resolve, EVERY_MS); });
  }
}

/** Run a job and say how it ended, in the command's own last words. */
export async function tell(message, begin) {
  try {
    const { exitCode, output, errors } = await begin();
    const last = (text) => text.trim().split("\n").at(-1);
    say(message, exitCode === 0 ? last(output) || "Done." : last(errors) || "It was cut off.", exitCode !== 0);
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
      if (exitCode !== 0) return say(message, errors.trim().split("\n").at(-1) || "It was cut off.", true);
      say(message, "The archive is ready: ");
      message.append(element("a", { href: `/admin/api/jobs/${job}/result`, download: "" }, "download it"), " within an hour.");
    } catch (error) {
      say(message, error.message, true);
    }
  }));
  return [button];
}
