// What one small machine holds: syncapp alone under the limits of one, 512 MiB and a core, by cgroups (v1, as root). Prints the table
// of docs/performance.md.
// node bench/capacity.mjs [--app FOLDER] [--python PYTHON] [--memory MIB] [--cores SHARE] [--tenants 250] [--sockets 5000] [--rate 50]
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Connection } from './lib/http.mjs';
import { full, seed } from './lib/reads.mjs';
import { percentile, sleep } from './lib/report.mjs';
import { ADAPTERS, Server } from './lib/servers.mjs';
import { newRow } from './lib/rows.mjs';
import { batches, openAll, singles } from './lib/writes.mjs';

const { values: options } = parseArgs({ options: {
  app: { type: 'string', default: path.resolve(import.meta.dirname, '..') }, memory: { type: 'string', default: '512' },
  cores: { type: 'string', default: '1' }, tenants: { type: 'string', default: '250' }, sockets: { type: 'string', default: '5000' }, python: { type: 'string' },
  rate: { type: 'string', default: '50' }, seconds: { type: 'string', default: '10' },
} });
const [memory, cores, tenants, sockets, rate, seconds] = ['memory', 'cores', 'tenants', 'sockets', 'rate', 'seconds'].map((name) => Number(options[name]));
if (options.python) process.env.BENCH_PYTHON = path.resolve(options.python);
const data = path.join(import.meta.dirname, 'data', `capacity-${process.pid}`);
const groups = ['memory', 'cpu'].map((kind) => `/sys/fs/cgroup/${kind}/syncapp-bench-${process.pid}`);
const set = (group, name, value) => fs.writeFileSync(path.join(group, name), String(value));
const tell = (what, value) => console.log(`| ${what} | ${value} |`);

/** Make groups with the limits; whoever is put into them stays below. */
function limit() {
  groups.forEach((group) => fs.mkdirSync(group));
  set(groups[0], 'memory.limit_in_bytes', memory * 1048576);
  set(groups[1], 'cpu.cfs_period_us', 100_000);
  set(groups[1], 'cpu.cfs_quota_us', 100_000 * cores);
}

const memoryOf = (server) => `${(server.rssKib() / 1024).toFixed(0)} MiB`;
const whole = (value) => Math.round(value).toLocaleString('en');
const spread = (times) => `${percentile(times, 50).toFixed(1)} / ${percentile(times, 99).toFixed(1)} ms`;
const failures = () => Number(fs.readFileSync(path.join(groups[0], 'memory.failcnt'), 'latin1'));

/** Pushes at a rate, each of another tenant in turn, from when each was due to its answer and to all its listeners. */
async function mixed(server, tokens) {
  const each = Math.floor(sockets / tokens.length);
  const heard = new Map(); const answered = []; const told = []; const statuses = new Map();
  const hear = (event) => {
    if (!server.isRow(event)) return;
    const { id } = JSON.parse(event.subarray('42["sync_notification",'.length, event.length - 1)).data;
    const push = heard.get(id);
    if (push && ++push.count === each) { told.push(performance.now() - push.due); heard.delete(id); }
  };
  const all = [];
  for (const token of tokens) all.push(...await openAll(server, token, each, (_, event) => hear(event)));
  tell(`${tokens.length} tenants and ${whole(all.length)} connected devices, memory in all`, memoryOf(server));
  const connections = tokens.map(() => new Connection(server.port));
  const began = performance.now();
  for (let sent = 0; sent < rate * seconds; sent++) {
    const due = began + (sent * 1000) / rate;
    await sleep(due - performance.now());
    const row = newRow(); const index = sent % tokens.length;
    heard.set(row.id, { due, count: 0 });
    connections[index].send(server.pushOf(tokens[index], server.one(row))).then(({ status }) => {
      answered.push(performance.now() - due);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    });
  }
  await sleep(3000);
  tell(`then ${rate} pushes a second, each heard by ${each} devices: answered after, p50 / p99`, spread(answered));
  tell(`the same, heard by all ${each} after, p50 / p99`, spread(told));
  tell('the same, not answered with 200 / not heard by all', `${rate * seconds - (statuses.get(200) ?? 0)} / ${heard.size}`);
  [...all, ...connections].forEach((one) => one.close());
}

process.on('exit', () => { Server.killAll(); fs.rmSync(data, { recursive: true, force: true }); });
limit();
const inside = ['sh', '-c', `${groups.map((group) => `echo $$ > ${group}/tasks`).join(' && ')} && exec "$@"`, 'sh'];
const server = await new Server(ADAPTERS.syncapp(path.resolve(options.app)), data).start(0, {}, inside);
console.log(`| ${memory} MiB and ${cores} of a core | |\n|---|--:|`);
tell('start to the first good answer', `${(server.startMs / 1000).toFixed(1)} s`);
tell('memory at rest', memoryOf(server));
const token = await server.tenant();
const rates = [];
for (const count of [1, 16, 64]) rates.push((await singles(server, token, count, seconds / 2)).rate);
tell('pushes of one row on 1 / 16 / 64 connections', `${rates.map(whole).join(' / ')} a second`);
tell('new rows in pushes of 1,000', `${whole((await batches(server, token, 1000, seconds / 2)).rate)} a second`);
const large = await server.tenant();
await seed(server, large, 100_000);
const began = performance.now();
await full(server, large, 100_000, 1000);
tell('a first pull of 100,000 rows by pages of 1,000', `${((performance.now() - began) / 1000).toFixed(1)} s`);
tell('memory after all that', memoryOf(server));
const tokens = [];
for (let i = 0; i < tenants; i++) tokens.push(await server.tenant());
await mixed(server, tokens);
tell('memory in the end', memoryOf(server));
tell('times that the limit of memory was met', failures());
await server.stop();
groups.forEach((group) => fs.rmdirSync(group));
process.exit(0);
