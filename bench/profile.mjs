// Where does syncapp's time go? Puts one load after the other on a server of its own and records it with py-spy, which
// is not among our requirements: `python3 -m venv /tmp/spy && /tmp/spy/bin/pip install py-spy`, then
// `node bench/profile.mjs --spy /tmp/spy/bin/py-spy [--app FOLDER] [--only REGEX] [--seconds 5]`.
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { fanOut, soon } from './lib/live.mjs';
import { full, recent, seed } from './lib/reads.mjs';
import { sleep } from './lib/report.mjs';
import { ADAPTERS, Server } from './lib/servers.mjs';
import { batches, events, singles } from './lib/writes.mjs';

const { values: options } = parseArgs({ options: {
  app: { type: 'string', default: path.resolve(import.meta.dirname, '..') }, spy: { type: 'string', default: 'py-spy' },
  only: { type: 'string', default: '.' }, seconds: { type: 'string', default: '5' }, top: { type: 'string', default: '30' },
} });
const seconds = Number(options.seconds);
const data = path.join(import.meta.dirname, 'data', `profile-${process.pid}`);
const results = path.join(import.meta.dirname, 'results');

async function forAWhile(work) { for (const began = performance.now(); performance.now() - began < seconds * 1000;) await work(); }

const LOADS = {
  'push-1': (server, token) => singles(server, token, 1, seconds),
  'push-16': (server, token) => singles(server, token, 16, seconds),
  'push-64': (server, token) => singles(server, token, 64, seconds),
  'event-1': (server, token) => events(server, token, 1, seconds),
  'event-16': (server, token) => events(server, token, 16, seconds),
  'batch-1000-new': (server, token) => batches(server, token, 1000, seconds),
  'batch-1000-changed': (server, token) => batches(server, token, 1000, seconds, true),
  'pull-pages': async (server, token) => { await seed(server, token, 10_000); return () => forAWhile(() => full(server, token, 10_000, 1000)); },
  'pull-at-once': async (server, token) => { await seed(server, token, 10_000); return () => forAWhile(() => full(server, token, 10_000, 0)); },
  'changes-after-cursor': async (server, token) => { await seed(server, token, 10_000); return () => forAWhile(() => recent(server, token, 500)); },
  'fan-out-100': (server, token) => fanOut(server, token, 100, seconds),
  'fan-out-1000': (server, token) => fanOut(server, token, 1000, seconds),
  'write-to-notification': (server, token) => soon(server, token, seconds),
};

/** Add up stacks such as `a (x.py:1);b (y.py:2) 7`: by the last line of each, its file, and once by every function in it. */
function summary(raw) {
  const own = new Map(); const all = new Map(); const files = new Map(); let total = 0;
  const add = (map, key, count) => map.set(key, (map.get(key) ?? 0) + count);
  for (const line of raw.split('\n').filter((stack) => stack && !/acquire_with_timeout [^;]*$/.test(stack))) { // Threads without work.
    const at = line.lastIndexOf(' ');
    const count = Number(line.slice(at + 1));
    const frames = line.slice(0, at).split(';').map((frame) => frame.replace(/[^ (]*\/(site-packages|python3\.\d+)\//, ''));
    total += count;
    add(own, frames.at(-1), count);
    add(files, /\((.*):\d+\)$/.exec(frames.at(-1))?.[1] ?? '?', count);
    for (const name of new Set(frames.map((frame) => frame.replace(/:\d+\)$/, ')')))) add(all, name, count);
  }
  const top = (map) => [...map].sort((a, b) => b[1] - a[1]).slice(0, Number(options.top)).map(([name, count]) => `  ${((count / total) * 100).toFixed(1).padStart(5)} %  ${name}`).join('\n');
  return `${total} samples\n self, by line:\n${top(own)}\n self, by file:\n${top(files)}\n with all it calls, by function:\n${top(all)}\n`;
}

process.on('exit', Server.killAll);
execFileSync('taskset', ['-a', '-c', '-p', '1', String(process.pid)]);
fs.mkdirSync(results, { recursive: true });
for (const [name, load] of Object.entries(LOADS)) {
  if (!new RegExp(options.only).test(name)) continue;
  const server = await new Server(ADAPTERS.syncapp(path.resolve(options.app)), path.join(data, name)).start(0);
  const token = await server.tenant();
  const prepared = /pull|cursor/.test(name) ? await load(server, token) : () => load(server, token);
  const used = server.cpu(); const began = performance.now();
  const run = prepared();
  await sleep(/1000$/.test(name) && name.startsWith('fan') ? 3000 : 300); // Not the connecting of listeners.
  const file = path.join(results, `profile-${name}.txt`);
  const spy = spawn(options.spy, ['record', '-p', String(server.child.pid), '-f', 'raw', '-o', file, '-r', '400', '-d', String(Math.max(1, seconds - 1))], { stdio: 'ignore' });
  const spied = new Promise((resolve) => spy.once('exit', resolve));
  const result = await run;
  await spied;
  console.log(`\n=== ${name}: ${JSON.stringify(result ?? {})} CPU ${((server.cpu() - used) / (performance.now() - began) * 1e5).toFixed(0)} %\n${summary(fs.readFileSync(file, 'utf8'))}`);
  await server.stop();
}
fs.rmSync(data, { recursive: true, force: true });
process.exit(0);
