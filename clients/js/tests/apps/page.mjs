// A page on the core and on the offline replica; its title says how it went.
import { SyncClient } from "syncapp-client";
import { openIndexedDB } from "syncapp-client/indexeddb";
import { Replica } from "syncapp-client/replica";
import { exchange } from "./core.mjs";

const [url, token] = decodeURIComponent(location.hash.slice(1)).split(" ");
try {
  const id = await exchange(url, token);
  const replica = new Replica(new SyncClient({ url, token }), await openIndexedDB(`app ${id}`, ["end_user"]), ["end_user"]);
  await replica.sync();
  document.title = (await replica.get("end_user", id)).name === "Asha" ? "exchanged" : "the row is not in the replica";
  replica.close();
} catch (error) {
  document.title = String(error);
}
