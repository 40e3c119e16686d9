/** How much goes at once over a line on which too much never arrives. Seen to fail: one request in three ran into the time limit. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Portion } from "../src/portion.js";

/** Take rows over a line on which more than `atMost` at once stop, and give how often that was tried. */
function carried(portion, rows, atMost) {
  let stopped = 0;
  while (rows > 0) {
    const taken = Math.min(portion.size, rows);
    if (taken > atMost) {
      stopped++;
      assert.ok(portion.shrink(taken), "nothing at all would be asked for");
    } else {
      rows -= taken;
      portion.took(taken, 100, rows === 0);
    }
  }
  return stopped;
}

for (const atMost of [1, 3, 100, 700]) {
  test(`a line that carries ${atMost} at once is seldom asked for more`, () => {
    const portion = new Portion(10_000, 1);
    const first = carried(portion, 30 * atMost, atMost);
    assert.ok(first <= 11, `${first} stopped`);
    const pages = 300;
    const stopped = carried(portion, pages * atMost, atMost);
    assert.ok(stopped <= pages / 8, `${stopped} of about ${pages} stopped`);
  });
}

test("a line that became better is found out", () => {
  const portion = new Portion(10_000, 1);
  carried(portion, 3000, 50);
  assert.equal(carried(portion, 300_000, 10_000), 0);
  assert.equal(portion.size, 10_000);
});

test("a larger one that was under way, and fails last, is no reason to ask for more", () => {
  const portion = new Portion(1000, 1);
  for (const taken of [1000, 250, 62, 1000]) portion.shrink(taken);
  for (let page = 0; page < 15; page++) portion.took(portion.size, 100, false);
  assert.equal(portion.size, 31);
});
