// A table's rows in a thread of their own: each message names what to do, and is answered with what came of it.

import { RowIndex } from "./row-index.js";

const index = new RowIndex();

addEventListener("message", ({ data: { number, action, about } }) => {
  postMessage({ number, result: index[action](about) });
});
