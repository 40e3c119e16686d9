import { createCollection } from "@tanstack/db";
import { replicateRxCollection } from "rxdb/plugins/replication";
import type { RxCollection } from "rxdb";
import { SyncClient } from "syncapp-client";
import { rxdbReplication } from "syncapp-client/rxdb";
import { syncappCollectionOptions } from "syncapp-client/tanstack-db";

const client = new SyncClient({ url: "https://sync.example.com", token: "token" });

export async function run(collection: RxCollection): Promise<void> {
  const replication = replicateRxCollection(rxdbReplication(client, { collection, onRejected: (doc, error) => console.log(doc["name"], error) }));
  await replication.awaitInSync();
  const users = createCollection(syncappCollectionOptions(client, { table: "end_user" }));
  users.insert({ id: "u1", name: "Asha" });
}
