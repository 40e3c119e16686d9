/** What an app imports: the core. The handlers have entries of their own, so that none drags in another's library. */

export { Chain } from "./chain.js";
export { newId, SyncClient } from "./client.js";
export { digestOf } from "./digest.js";
export { BadValue, Busy, Interrupted, Refused, ResyncRequired, SignedOut, SyncError, TooLarge, Unreachable, WrongAccount } from "./errors.js";
export { pushOperations } from "./operations.js";
export { browserStore, memoryStore } from "./tokens.js";

/**
 * @typedef {import("./client.js").Options} Options
 * @typedef {import("./client.js").Row} Row
 * @typedef {import("./client.js").Operation} Operation
 * @typedef {import("./client.js").Result} Result
 * @typedef {import("./client.js").Pushed} Pushed
 * @typedef {import("./client.js").Pulled} Pulled
 * @typedef {import("./live.js").Listening} Listening
 * @typedef {import("./tokens.js").TokenStore} TokenStore
 */
