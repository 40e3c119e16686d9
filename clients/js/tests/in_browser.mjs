// The browser that a file's tests share, closed after them; undefined where there is no Chromium.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { after } from "node:test";
import { Browser } from "../kit/browser.mjs";

export const hasChromium = spawnSync("which", [process.env.CHROMIUM ?? "chromium"]).status === 0;

/** Of its own for each file of tests: no two share a profile. */
export const folder = mkdtempSync(`${tmpdir()}/syncapp-browser-`);
export const browser = hasChromium ? new Browser(folder) : undefined;

after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});
