import { browserStore, Busy, digestOf, memoryStore, newId, SyncClient, SyncError, type Row } from "syncapp-client";

const client = new SyncClient({ url: "https://sync.example.com", store: memoryStore(), deviceId: newId() });

export async function all(): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const page of client.pages({ cursor: null, tables: ["end_user"], digest: true })) {
    rows.push(...(page.data["end_user"] ?? []));
  }
  return rows;
}

export async function save(name: string): Promise<string> {
  const pushed = await client.push({ table: "end_user", operation: "create", data: { name } });
  const status: "created" | string = pushed.results[0]?.status ?? "none";
  return `${status} ${digestOf(await all()).hash} ${browserStore.name}`;
}

export function wait(error: unknown): number {
  return error instanceof Busy ? (error.retryAfterSeconds ?? 1) : error instanceof SyncError ? 0 : -1;
}

export const live = client.live({ onPull: () => undefined, onState: (state, error) => console.log(state, error?.message) });
