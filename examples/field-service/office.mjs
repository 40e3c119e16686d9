// A device in the office: hears of each open job, and sends somebody.
import { SyncClient } from "../../clients/js/src/index.js";

const client = new SyncClient({ url: process.env.SYNCAPP_URL ?? "http://localhost:3000", deviceId: "office" });
await client.logIn("tutorial@example.com", "password123");
let cursor = null;

async function catchUp() {
  for await (const page of client.pages({ cursor, tables: ["job"] })) {
    for (const job of page.data.job) {
      console.log("the office sees:", job.title, job.status, job.assignee ?? "nobody yet");
      if (job.status === "open") await send(job);
    }
    cursor = page.cursor;
  }
}

async function send(job) {
  const changes = { job: [{ id: job.id, status: "under_way", assignee: "Asha" }] };
  await client.push({ changes });
}

let turn = Promise.resolve();
client.live({ onPull: () => (turn = turn.then(catchUp)) });
