import { synchronize } from "@nozbe/watermelondb/sync";
import type { Database } from "@nozbe/watermelondb";
import { SyncClient } from "syncapp-client";
import { watermelonSync } from "syncapp-client/watermelondb";

const client = new SyncClient({ url: "https://sync.example.com", token: "token" });

export async function run(database: Database): Promise<void> {
  await watermelonSync(client, { database, synchronize, json: { end_user: ["phoneModel"] } })();
}
