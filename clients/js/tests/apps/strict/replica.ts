import { Dexie } from "dexie";
import { SyncClient } from "syncapp-client";
import { dexieStore, syncStores } from "syncapp-client/dexie";
import { openIndexedDB } from "syncapp-client/indexeddb";
import { Replica } from "syncapp-client/replica";

const client = new SyncClient({ url: "https://sync.example.com", token: "token" });
const db = new Dexie("app");
db.version(1).stores({ end_user: "id, name", ...syncStores });

export async function run(): Promise<number> {
  const replica = new Replica(client, await openIndexedDB("app", ["end_user"]), ["end_user"]).start();
  await replica.put("end_user", { name: "Asha" });
  await replica.delete("end_user", "u1");
  const names: unknown[] = (await replica.all("end_user")).map((row) => row["name"]);
  const stop: () => void = replica.subscribe((table) => console.log(table?.length, names.length));
  stop();
  new Replica(client, dexieStore(db, ["end_user"]), ["end_user"]).start();
  return replica.pending();
}
