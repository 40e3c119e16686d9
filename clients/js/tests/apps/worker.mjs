import { exchange } from "./core.mjs";

self.onmessage = async ({ data: [url, token] }) => {
  self.postMessage(await exchange(url, token).then(() => "exchanged", String));
};
