// What work costs when a server does nothing but the system calls (bare.py), or is pywsgi with nothing behind it
// (bare_wsgi.py: single pushes only), beside the two servers.
// node bench/bare.mjs [--reps 3] [--seconds 1]
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { fanOut, soon } from './lib/live.mjs';
import { request } from './lib/http.mjs';
import { percentile } from './lib/report.mjs';
import { ADAPTERS, Server } from './lib/servers.mjs';
import { heldUp } from './lib/stalls.mjs';
import { singles } from './lib/writes.mjs';

const HERE = import.meta.dirname;
const { values: options } = parseArgs({ options: { reps: { type: 'string', default: '3' }, seconds: { type: 'string', default: '1' } } });
const seconds = Number(options.seconds);
const app = path.resolve(HERE, '..');
const data = path.join(HERE, 'data', `bare-${process.pid}`);

const bare = {
  name: 'bare', command: [path.join(app, '.venv/bin/python'), path.join(HERE, 'bare.py')], folder: app, env: {},
  register: () => request('POST', '/register', { body: {} }), tokenOf: (answer) => answer.token,
  one: (row) => JSON.stringify(row), push: '/push', isReady: (text) => text.startsWith('40'), isRow: () => true,
  sequenceOf: (note) => note.cursor, rowOf: (note) => note.row,
};

const pywsgi = { ...bare, name: 'pywsgi alone', command: [path.join(app, '.venv/bin/python'), path.join(HERE, 'bare_wsgi.py')] };

const WORKS = {
  'push of one row, 1 connection, per s': async (server, token) => (await singles(server, token, 1, seconds)).rate,
  'push of one row, 16 connections, per s': async (server, token) => (await singles(server, token, 16, seconds)).rate,
  'push of one row, 64 connections, per s': async (server, token) => (await singles(server, token, 64, seconds)).rate,
  'write to notification, 100 listeners, p50, ms': async (server, token) => (await soon(server, token, seconds * 2)).p50,
  'write to notification, 100 listeners, p99, ms': async (server, token) => (await soon(server, token, seconds * 2)).p99,
  'fan-out to 100 sockets, deliveries/s': async (server, token) => (await fanOut(server, token, 100, seconds)).rate,
  'fan-out to 500 sockets, deliveries/s': async (server, token) => (await fanOut(server, token, 500, seconds)).rate,
  'fan-out to 1000 sockets, deliveries/s': async (server, token) => (await fanOut(server, token, 1000, seconds)).rate,
  'stall while 16 connections push, p99, ms': async (server, token) => percentile(await heldUp(server, () => singles(server, token, 16, Math.max(1, seconds))), 99),
  'stall while 500 sockets hear all, p99, ms': async (server, token) => percentile(await heldUp(server, () => fanOut(server, token, 500, Math.max(1, seconds))), 99),
};

try {
  execFileSync('taskset', ['-a', '-c', '-p', '1', String(process.pid)]);
  fs.mkdirSync(data, { recursive: true });
  const servers = [];
  for (const adapter of [bare, pywsgi, ADAPTERS.syncapp(app), ADAPTERS.peer()]) servers.push(await new Server(adapter, path.join(data, adapter.name)).start('0'));
  for (const server of servers) await singles(server, await server.tenant(), 16, 1.5); // Compilers and caches.
  console.log(`| work, median of ${options.reps} (least–most) | ${servers.map(({ name }) => name).join(' | ')} |\n|---|${'--:|'.repeat(servers.length)}`);
  for (const [name, work] of Object.entries(WORKS)) {
    const found = servers.map(() => []);
    for (let rep = 0; rep < Number(options.reps); rep++) {
      for (const [i, server] of servers.entries()) if (server.command !== pywsgi.command || name.startsWith('push')) found[i].push(await work(server, await server.tenant()));
    }
    const say = (value) => (value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3));
    const cells = found.map((values) => values.length === 0 ? '–' : `${say(percentile(values, 50))} (${say(Math.min(...values))}–${say(Math.max(...values))})`);
    console.log(`| ${name} | ${cells.join(' | ')} |`);
  }
} finally {
  Server.killAll();
  fs.rmSync(data, { recursive: true, force: true });
}
process.exit(0);
