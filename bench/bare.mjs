// What work costs when a server does nothing but the system calls (bare.py), or is pywsgi with nothing behind it
// (bare_wsgi.py: single pushes only), beside the two servers.
// node bench/bare.mjs [--reps 3] [--seconds 1] [--only REGEX] [--app FOLDER] [--python PYTHON]
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { herd } from './lib/herd.mjs';
import { fanOut, soon } from './lib/live.mjs';
import { request } from './lib/http.mjs';
import { percentile } from './lib/report.mjs';
import { ADAPTERS, pythonOf, Server } from './lib/servers.mjs';
import { heldUp } from './lib/stalls.mjs';
import { singles } from './lib/writes.mjs';

const HERE = import.meta.dirname;
const { values: options } = parseArgs({ options: {
  reps: { type: 'string', default: '3' }, seconds: { type: 'string', default: '1' }, only: { type: 'string', default: '.' },
  app: { type: 'string', default: path.resolve(HERE, '..') }, python: { type: 'string' },
} });
if (options.python) process.env.BENCH_PYTHON = path.resolve(options.python);
const seconds = Number(options.seconds);
const app = path.resolve(options.app);
const data = path.join(HERE, 'data', `bare-${process.pid}`);

const bare = {
  name: 'bare', command: [pythonOf(app), path.join(HERE, 'bare.py')], folder: app, env: {},
  register: () => request('POST', '/register', { body: {} }), tokenOf: (answer) => answer.token,
  one: (row) => JSON.stringify(row), many: (rows) => JSON.stringify(rows), push: '/push', pull: '/pull', page: () => '{}', cursorOf: () => 0, isReady: (text) => text.startsWith('40'), isRow: () => true,
  sequenceOf: (note) => note.cursor, rowOf: (note) => note.row,
};

const pywsgi = { ...bare, name: 'pywsgi alone', command: [pythonOf(app), path.join(HERE, 'bare_wsgi.py')] };

/** Each work, and the names of what it gives. */
const WORKS = [
  ...[1, 16, 64].map((count) => [[`push of one row, ${count} connections, per s`, `push of one row, ${count} connections, µs of CPU`], async (server, token) => {
    const { rate, cpu } = await singles(server, token, count, seconds);
    return [rate, cpu * 1000];
  }]),
  [['write to notification, 100 listeners, p50, ms', 'write to notification, 100 listeners, p99, ms'], async (server, token) => {
    const { p50, p99 } = await soon(server, token, seconds * 2);
    return [p50, p99];
  }],
  ...[100, 500, 1000].map((count) => [[`fan-out to ${count} sockets, deliveries/s`, `fan-out to ${count} sockets, µs of CPU a delivery`], async (server, token) => {
    const { rate, cpu } = await fanOut(server, token, count, seconds);
    return [rate, cpu * 10];
  }]),
  [['stall while 16 connections push, p99, ms'], async (server, token) => [percentile(await heldUp(server, () => singles(server, token, 16, Math.max(1, seconds))), 99)]],
  [['stall while 500 sockets hear all, p99, ms'], async (server, token) => [percentile(await heldUp(server, () => fanOut(server, token, 500, Math.max(1, seconds))), 99)]],
  [['herd: 5,000 devices of 250 tenants within 1 s, s', 'herd: CPU of the server, s'], async (server) => {
    if (server.command === bare.command) server.push = '/keep'; // It has no tenants: all would hear the bystander.
    const { seconds: all, cpu } = await herd(server, 250, 5000, 1);
    return [all, cpu];
  }],
];

const say = (value) => (value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3));
const cell = (values) => (values.length === 0 ? '–' : `${say(percentile(values, 50))} (${say(Math.min(...values))}–${say(Math.max(...values))})`);

try {
  execFileSync('taskset', ['-a', '-c', '-p', '1', String(process.pid)]);
  fs.mkdirSync(data, { recursive: true });
  const servers = [];
  for (const adapter of [bare, pywsgi, ADAPTERS.syncapp(app), ADAPTERS.peer()]) servers.push(await new Server(adapter, path.join(data, adapter.name)).start('0', adapter.cheapHashes));
  for (const server of servers) await singles(server, await server.tenant(), 16, 1.5); // Compilers and caches.
  console.log(`| work, median of ${options.reps} (least–most) | ${servers.map(({ name }) => name).join(' | ')} |\n|---|${'--:|'.repeat(servers.length)}`);
  for (const [names, work] of WORKS.filter(([[name]]) => new RegExp(options.only).test(name))) {
    const found = servers.map(() => []);
    for (let rep = 0; rep < Number(options.reps); rep++) {
      for (const [i, server] of servers.entries()) if (server.command !== pywsgi.command || names[0].startsWith('push')) found[i].push(await work(server, await server.tenant()));
    }
    names.forEach((name, at) => console.log(`| ${name} | ${found.map((some) => cell(some.map((values) => values[at]))).join(' | ')} |`));
  }
} finally {
  Server.killAll();
  fs.rmSync(data, { recursive: true, force: true });
}
process.exit(0);
