/**
 * The suite's protocol: one JSON object a line, one answer for each request, in their order.
 *
 * Knows: tests/kit/README.md. Must not know: what drives which library.
 */

import { createInterface } from "node:readline";

/** Answer requests until stdin ends. @param {any} hello @param {(request: any) => Promise<any>} answer */
export async function serve(hello, answer) {
  for await (const line of createInterface({ input: process.stdin })) {
    if (!line.trim()) continue;
    const request = JSON.parse(line);
    const said = request.do === "hello" ? { ok: hello } : await answer(request);
    process.stdout.write(`${JSON.stringify({ id: request.id, ...said })}\n`);
  }
}
