// usage: run.mjs URL TOKEN
import { exchange } from "./core.mjs";

const [url, token] = globalThis.Deno?.args ?? process.argv.slice(2);
await exchange(url, token);
console.log("exchanged");
globalThis.Deno ? Deno.exit() : process.exit();
