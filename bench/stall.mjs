// How long does the server hold a newcomer up? A process of its own asks the cheapest endpoint every 5 ms, whether the
// last was answered or not, so that a long stall counts for as many newcomers as would have met it. When its standard
// input ends it prints all round trips, as [when it was due, milliseconds]. It is run with real-time priority where that
// is allowed, so that the load generator, with which it shares a core, does not count as a stall.
import { Connection, request } from './lib/http.mjs';

const EVERY_MS = 5;
const bytes = request('GET', '/health');
const idle = []; const trips = [];
let ended = false; let waiting = 0;
process.stdin.on('data', () => {}).on('end', () => { ended = true; });

/** Ask once, on a connection that no other question is waiting on. */
async function ask(due) {
  const connection = idle.pop() ?? new Connection(Number(process.argv[2]));
  waiting += 1;
  try {
    await connection.send(bytes);
    trips.push([due + performance.timeOrigin, performance.now() - due]);
    idle.push(connection);
  } catch { connection.close(); }
  waiting -= 1;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
await Promise.all(Array.from({ length: 50 }, () => ask(performance.now()))); // So that no connection is opened under load.
trips.length = 0;
for (let due = performance.now(); !ended; due += EVERY_MS) {
  await sleep(due - performance.now());
  ask(due);
}
for (let i = 0; i < 500 && waiting; i++) await sleep(10);
process.stdout.write(JSON.stringify(trips), () => process.exit(0));
