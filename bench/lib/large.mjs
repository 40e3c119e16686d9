// A large tenant beside a small one on the same server: single pushes, changes after a cursor, the first page, the digest; and
// while an operator's backup and a purge run.
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Connection } from './http.mjs';
import { cursorNow, recent } from './reads.mjs';
import { percentile, until } from './report.mjs';
import { KNOWN } from './rows.mjs';
import { heldUp } from './stalls.mjs';
import { Database, each } from './tenants.mjs';
import { checked, singles } from './writes.mjs';

const CLOCK = path.resolve(import.meta.dirname, '../clock');
const AHEAD_DAYS = 200; // Beyond HISTORY_DAYS.

/** Push rows that are there already if `round` is not 0, a thousand a request. */
async function fill(server, token, count, round) {
  const starts = Array.from({ length: Math.ceil(count / 1000) }, (_, i) => i * 1000);
  const connections = Array.from({ length: 2 }, () => new Connection(server.port));
  await each(starts, async (start) => {
    const connection = connections.pop();
    const rows = Array.from({ length: Math.min(1000, count - start) }, (_, i) => KNOWN.make(`l-${String(start + i).padStart(9, '0')}`, round));
    await checked(connection.send(server.pushOf(token, server.many(rows))));
    connections.push(connection);
  }, connections.length);
  connections.forEach((one) => one.close());
}

/** Ask the same again and again; ms. */
async function asked(server, token, body, times) {
  const connection = new Connection(server.port); const took = [];
  for (let i = 0; i < times; i++) {
    const began = performance.now();
    await checked(connection.send(server.pullOf(token, body)));
    took.push(performance.now() - began);
  }
  connection.close();
  return { p50: percentile(took, 50), most: Math.max(...took) };
}

/** What a tenant's requests take, in ms. */
async function requests(server, token, seconds) {
  const push = await singles(server, token, 1, seconds);
  const page = await asked(server, token, server.page(null, 1000), 40);
  const few = await recent(server, token, 40);
  const digest = server.digest && await asked(server, token, server.digest(await cursorNow(server, token)), 40);
  return { 'push of one row, CPU of the server': push.cpu, 'push of one row, p50': push.p50, 'pull of 100 changes, p50': few.p50,
    'digest, p50': digest?.p50, 'first page of 1,000, p50': page.p50, 'first page of 1,000, most': page.most };
}

/** Run the operator's backup on the server's core; its seconds, and what newcomers waited meanwhile. */
async function backup(server) {
  const [python] = server.command; let seconds;
  const run = async () => {
    const began = performance.now();
    await promisify(execFile)('taskset', ['-c', String(server.core), python, 'syncapp.py', 'backup', '--to', `${server.data}-backups`], { cwd: server.folder, env: server.environment });
    seconds = (performance.now() - began) / 1000;
  };
  const held = await heldUp(server, run);
  return { seconds, p99: percentile(held, 99), most: Math.max(...held) };
}

/** Start in a later time, so that all that was replaced is too old; what its removal takes, and what newcomers wait meanwhile. */
async function purge(server, count) {
  await server.restart({ ...server.extra, PYTHONPATH: CLOCK, BENCH_AHEAD_SECONDS: String(AHEAD_DAYS * 86_400), PURGE_SECONDS: '1' });
  const db = new Database(largestFile(server.data), { readonly: true });
  const isThere = db.prepare('SELECT 1 FROM _changes WHERE seq = ?').pluck();
  let seconds; let cpu;
  const held = await heldUp(server, async () => {
    await until(() => !isThere.get(1), 60); // From the oldest on; the first `count` changes were all replaced.
    const from = performance.timeOrigin + performance.now(); const used = server.cpu();
    await until(() => !isThere.get(count), 600);
    [seconds, cpu] = [(performance.timeOrigin + performance.now() - from) / 1000, server.cpu() - used];
    return { from };
  });
  db.close();
  return { seconds, cpu, p99: percentile(held, 99), most: Math.max(...held) };
}

function largestFile(folder) {
  const files = fs.readdirSync(folder, { recursive: true }).filter((name) => name.endsWith('.db')).map((name) => path.join(folder, name));
  return files.reduce((most, one) => (fs.statSync(one).size > fs.statSync(most).size ? one : most));
}

/** `count` rows and twice as many changes, beside 10,000 rows and as many changes. */
export async function large(server, note, count, seconds) {
  const [small, big] = [await server.tenant(), await server.tenant()];
  for (const round of [0, 1]) { await fill(server, small, 10_000, round); await fill(server, big, count, round); }
  const size = `${count.toLocaleString('en')} rows, twice as many changes`;
  const [usual, here] = [await requests(server, small, seconds), await requests(server, big, seconds)];
  for (const [name, ms] of Object.entries(here)) {
    note(`${size}: ${name}`, 'ms', ms);
    if (!name.endsWith('most')) note(`${size}: ${name}, to that of 10,000 rows`, 'times', ms / usual[name], { goal: ['≤', 1.2], own: true, row: `${size}, to 10,000 rows: push CPU / push / pull of 100 / digest / first page` });
  }
  if (!server.digest) return;
  const steps = await backup(server);
  note(`${size}: backup`, 's', steps.seconds);
  const stalls = { goal: ['≤', 5], own: true, row: `${size}: stall while a backup / a purge runs, p99` };
  note(`${size}: stall while a backup runs, p99`, 'ms', steps.p99, stalls);
  note(`${size}: stall while a backup runs, most`, 'ms', steps.most);
  const purged = await purge(server, count);
  note(`${size}: purge`, 's', purged.seconds, { before: ['≤', 0.5], row: `${size}: purge, time / CPU` });
  note(`${size}: purge, CPU of the server`, 's', purged.cpu, { before: ['≤', 0.5], row: `${size}: purge, time / CPU` });
  note(`${size}: stall while it is purged, p99`, 'ms', purged.p99, stalls);
  note(`${size}: stall while it is purged, most`, 'ms', purged.most);
}
