import { observable } from "@legendapp/state";
import { syncedCrud } from "@legendapp/state/sync-plugins/crud";
import { browserStore, newId, SyncClient } from "syncapp-client";
const client = new SyncClient({ url: "http://127.0.0.1:4177", store: browserStore() });
const push = (operation) => async (data) => (await client.push({ operations: [{ table: "end_user", operation, data, opId: newId() }] })).data[0];
const users$ = observable(syncedCrud({
  list: async () => (await client.pull({ cursor: null, tables: ["end_user"], limit: 10_000 })).data.end_user.filter((row) => !row.is_deleted),
  create: push("create"), update: push("update"), delete: push("delete"), updatePartial: true, retry: { infinite: true },
  subscribe: ({ refresh }) => void client.live({ onPull: refresh }) }));
users$.asha.set({ id: "asha", name: "Asha" });