// An app on the core: one row pushed, pulled, and heard of. It runs in Node, Bun and Deno, and in what bundlers make of it.
import { SyncClient } from "syncapp-client";

/** Push a row and give what another pull and a listener have of it. */
export async function exchange(url, token) {
  const client = new SyncClient({ url, token });
  const id = `${Date.now()}-${Math.random().toString(16).slice(2)}`;
  const heard = new Promise((resolve, reject) => {
    const live = client.live({
      onPull: () => undefined,
      onState: (state) => state === "live" && void push(client, id).catch(reject),
      onNotification: (note) => note.entityId === id && (live.close(), resolve(note.entityId)),
    });
    live.opened.catch(reject);
  });
  const told = await heard;
  const { data } = await client.pull({ cursor: null, tables: ["end_user"] });
  if (!data.end_user.some((row) => row.id === told)) throw new Error("the row that was heard of is not pulled");
  return told;
}

function push(client, id) {
  return client.push({ table: "end_user", operation: "create", data: { id, name: "Asha" } });
}
