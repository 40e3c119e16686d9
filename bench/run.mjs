// syncapp against the strongest peer that a registry installs, in turn, in one run. bench/README.md explains.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { fanOut, idleSockets, soon } from './lib/live.mjs';
import { full, recent, seed } from './lib/reads.mjs';
import { Figures, percentile } from './lib/report.mjs';
import { ADAPTERS, Server, withStock } from './lib/servers.mjs';
import { heldUp } from './lib/stalls.mjs';
import { batches, events, offered, singles } from './lib/writes.mjs';

const HERE = import.meta.dirname;
const { values: options } = parseArgs({ options: {
  app: { type: 'string', default: process.env.SYNCAPP ?? path.resolve(HERE, '..') }, quick: { type: 'boolean', default: false },
  reps: { type: 'string' }, seconds: { type: 'string' }, only: { type: 'string', default: '.' }, tenants: { type: 'string' },
  against: { type: 'string' }, stock: { type: 'string' }, 'server-core': { type: 'string', default: '0' }, 'client-core': { type: 'string', default: '1' },
} });
const app = path.resolve(options.app);
const against = options.against && path.resolve(options.against);
if (against) ADAPTERS.peer = () => ({ ...ADAPTERS.syncapp(against), name: 'peer' }); // Another version in the peer's place.
if (options.stock) ADAPTERS.peer = () => withStock(app, options.stock); // Parts of libraries in the place of ours.
const reps = Number(options.reps ?? (options.quick ? 2 : 5));
const seconds = Number(options.seconds ?? (options.quick ? 0.4 : 2));
const only = new RegExp(options.only);
const data = path.join(HERE, 'data', String(process.pid));
const core = options['server-core'];
const figures = new Figures();
const curves = []; const extras = []; const load = [];

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => { Server.killAll(); process.exit(1); });

// --- the works: name, and what it does to one server in one repetition ---------------------------------------------

const tokens = new Map();
/** The tenant of a work on a server, made once and used in all repetitions. */
async function tokenFor(server, work) {
  const key = `${server.name} ${work}`;
  if (!tokens.has(key)) tokens.set(key, await server.tenant());
  return tokens.get(key);
}
/** The same, with `count` rows in it. */
async function seeded(server, count) {
  const isNew = !tokens.has(`${server.name} rows ${count}`);
  const token = await tokenFor(server, `rows ${count}`);
  if (isNew) { server.rows = { ...server.rows, [count]: count }; await seed(server, token, count); }
  return token;
}

const WORKS = {
  push: async (server, note) => {
    for (const [count, goal] of [[1, 1], [16, 2], [64, 2.5]]) {
      const { rate, cpu, p50, p99 } = await singles(server, await tokenFor(server, 'push'), count, seconds);
      note(`push of one row, ${count} connections`, 'per s', rate, { goal: ['≥', goal] });
      note(`push of one row, ${count} connections, p50`, 'ms', p50);
      note(`push of one row, ${count} connections, p99`, 'ms', p99, { goal: ['≤', 1] });
      note(`push of one row, ${count} connections, CPU of the server`, 'ms a row', cpu);
    }
  },
  event: async (server, note) => {
    for (const count of [1, 16, 64]) {
      const { rate, cpu, p50, p99 } = await events(server, await tokenFor(server, 'event'), count, seconds);
      note(`push as an event, ${count} sockets that all hear it`, 'per s', rate);
      note(`push as an event, ${count} sockets, p50`, 'ms', p50);
      note(`push as an event, ${count} sockets, p99`, 'ms', p99);
      note(`push as an event, ${count} sockets, CPU of the server`, 'ms a row', cpu);
      const heard = await singles(server, await tokenFor(server, 'event'), count, seconds, count);
      note(`push over HTTP, ${count} connections, ${count} sockets hear it`, 'per s', heard.rate);
    }
  },
  batch: async (server, note) => {
    for (const size of [100, 1000]) {
      for (const isUpdate of [false, true]) {
        const { rate, cpu, p99 } = await batches(server, await tokenFor(server, 'batch'), size, seconds, isUpdate);
        const name = `batches of ${size} ${isUpdate ? 'changed' : 'new'} rows, 4 connections`;
        note(name, 'rows/s', rate, { goal: ['≥', 1] });
        note(`${name}, p99`, 'ms', p99);
        note(`${name}, CPU of the server`, 'ms a row', cpu);
      }
    }
  },
  pull: async (server, note) => {
    for (const count of options.quick ? [10_000] : [10_000, 100_000]) {
      const token = await seeded(server, count);
      const size = count.toLocaleString('en');
      const pages = await full(server, token, server.rows[count], 1000);
      note(`pull of ${size} rows by 1,000`, 'rows/s', pages.rate, { goal: ['≥', 5] });
      note(`pull of ${size} rows by 1,000, CPU of the server`, 's/100,000', pages.cpu);
      note(`pull of ${size} rows by 1,000, first byte`, 'ms', pages.firstByte);
      const large = await full(server, token, server.rows[count], server.everything ? 0 : 10_000);
      note(`pull of ${size} rows at once (peer: by 10,000)`, 'rows/s', large.rate, { goal: ['≥', 5] });
      note(`pull of ${size} rows at once, CPU of the server`, 's/100,000', large.cpu);
      note(`pull of ${size} rows at once, first byte`, 'ms', large.firstByte);
      note(`pull of ${size} rows at once, RSS grows by`, 'MiB', large.rss);
      note(`pull of ${size} rows, bytes a row`, 'B', pages.bytes);
    }
  },
  recent: async (server, note) => {
    for (const count of options.quick ? [1000, 10_000] : [1000, 100_000]) {
      const token = await seeded(server, count);
      const { cpu, p50, p99 } = await recent(server, token, options.quick ? 40 : 100);
      server.rows[count] += 101;
      note(`100 changes among ${count.toLocaleString('en')} rows, p50`, 'ms', p50, { goal: ['≤', 0.6] });
      note(`100 changes among ${count.toLocaleString('en')} rows, p99`, 'ms', p99);
      note(`100 changes among ${count.toLocaleString('en')} rows, CPU of the server`, 'ms', cpu);
    }
  },
  fanout: async (server, note) => {
    for (const count of options.quick ? [100, 1000] : [100, 500, 1000]) {
      const { rate, cpu, client } = await fanOut(server, await tokenFor(server, 'fanout'), count, seconds);
      note(`fan-out to ${count} sockets`, 'deliveries/s', rate, { goal: ['≥', 2] });
      note(`fan-out to ${count} sockets, CPU of the server`, 's/100,000', cpu);
      note(`fan-out to ${count} sockets, CPU of the client`, '%', client);
    }
  },
  soon: async (server, note) => {
    const { p50, p99 } = await soon(server, await tokenFor(server, 'soon'), seconds * 2);
    note('write to notification, 100 listeners, p50', 'ms', p50, { goal: ['≤', 0.6] });
    note('write to notification, 100 listeners, p99', 'ms', p99, { goal: ['≤', 0.6] });
  },
  stall: async (server, note) => {
    const token = await tokenFor(server, 'stall'); const long = Math.max(0.8, seconds); // At least 160 newcomers.
    const rows = await seeded(server, 10_000);
    const works = {
      '16 connections push': () => singles(server, token, 16, long),
      '4 connections push 1,000 rows each': () => batches(server, token, 1000, long),
      '10,000 rows are pulled at once': async () => {
        for (const began = performance.now(); performance.now() - began < long * 1000;) await full(server, rows, server.rows[10_000], server.everything ? 0 : 10_000);
      },
      '500 sockets hear all': () => fanOut(server, token, 500, long),
    };
    for (const [name, work] of Object.entries(works)) {
      const held = await heldUp(server, work);
      note(`stall while ${name}, p99`, 'ms', percentile(held, 99), { goal: ['≤', 5], own: true });
      note(`stall while ${name}, most`, 'ms', Math.max(...held));
    }
  },
};

/** Let compilers and caches do what they do once; else the first repetition of short works would measure that. */
async function warmUp(server) {
  const token = await tokenFor(server, 'warm up');
  await singles(server, token, 16, 1.5);
  await events(server, token, 16, 0.5);
  for (const isUpdate of [false, true]) await batches(server, token, 100, 0.5, isUpdate);
}

// --- once a run -----------------------------------------------------------------------------------------------------

async function fresh(name, use, extra = {}, prefix = [], folder = `${data}/${name}-fresh-${Math.random()}`) {
  const server = await new Server(ADAPTERS[name](app), folder).start(core, extra, prefix);
  try { return await use(server); } finally { await server.stop(); }
}

async function idle() {
  for (const name of ['syncapp', 'peer']) {
    await fresh(name, async (server) => {
      figures.add('start with an empty folder', 'ms', name, server.startMs);
      figures.add('memory of the server at rest', 'MiB', name, server.rssKib() / 1024);
      figures.add('memory of an idle socket', 'KiB', name, await idleSockets(server, await server.tenant()), { goal: ['≤', 1] });
    });
  }
}

async function manyTenants(count) {
  const size = count.toLocaleString('en');
  const note = (name, unit, server, value, goal) => figures.add(`${size} tenants: ${name}`, unit, server, value, goal);
  const folder = path.join(data, `tenants-${count}`);
  const run = (command, args, cwd, where) => JSON.parse(execFileSync('taskset', ['-c', core, command, ...args], {
    cwd, env: { ...process.env, DATA_DIR: where, JWT_SECRET_KEY: 'x'.repeat(40) }, maxBuffer: 1e7 }).toString().trim().split('\n').at(-1));
  let open;
  for (const [name, checkout, where] of [['syncapp', app, folder], ...(against ? [['peer', against, `${folder}-against`]] : [])]) {
    fs.mkdirSync(where, { recursive: true });
    const own = run(path.join(checkout, '.venv/bin/python'), [path.join(HERE, 'many_tenants.py'), String(count)], checkout, where);
    open ??= own.open;
    note('making one besides hashing, p50', 'ms', name, own.p50, { goal: ['≤', 10], own: true });
    note('making one besides hashing, p99', 'ms', name, own.p99);
    note('opening one', 'ms', name, own.openMs);
    note(`memory of each open one (syncapp keeps ${open} open)`, 'KiB', name, own.openKib);
    note('descriptors of each open one', '', name, own.openDescriptors);
    note('disk of each', 'KiB', name, own.diskKib);
    await fresh(name, (server) => {
      note('start', 'ms', name, server.startMs);
      note('memory after the start', 'MiB', name, server.rssKib() / 1024);
      note('descriptors after the start', '', name, server.descriptors());
    }, {}, [], where);
  }
  if (against) return;
  const other = path.join(data, `peer-tenants-${count}`);
  fs.mkdirSync(other, { recursive: true });
  const most = Math.min(count, 1000); // It keeps all open; 1,000 tell what one costs.
  const theirs = run(process.execPath, [path.join(HERE, 'peer/server.cjs'), 'tenants', String(most)], HERE, other);
  note('making one besides hashing, p50', 'ms', 'peer', theirs.p50);
  note('making one besides hashing, p99', 'ms', 'peer', theirs.p99);
  note(`memory of each open one (syncapp keeps ${open} open)`, 'KiB', 'peer', theirs.kib);
  note('descriptors of each open one', '', 'peer', theirs.descriptors);
}

async function overload() {
  for (const name of ['syncapp', 'peer']) {
    await fresh(name, async (server) => {
      const token = await server.tenant();
      await singles(server, token, 64, 2); // A cold server would be asked too little.
      const { rate: capacity } = await singles(server, token, 64, 2);
      for (const times of options.quick ? [0.5, 1.5, 3] : [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3]) {
        curves.push({ server: name, times, ...await offered(server, token, capacity * times, options.quick ? 1.5 : 4) });
      }
    });
  }
}

// --- the run --------------------------------------------------------------------------------------------------------

/** Microseconds that the disk takes to keep 600 bytes: the floor of every durable push. */
function fsyncFloor() {
  const file = path.join(data, 'floor');
  const descriptor = fs.openSync(file, 'w');
  const block = Buffer.alloc(600, 'x'); const took = [];
  for (let i = 0; i < 300; i++) {
    const began = performance.now();
    fs.writeSync(descriptor, block);
    fs.fdatasyncSync(descriptor);
    took.push(performance.now() - began);
  }
  fs.closeSync(descriptor);
  return took;
}

const busySeconds = () => fs.readFileSync('/proc/stat', 'latin1').split('\n')[0].trim().split(/ +/).slice(1, 8).reduce((sum, value, i) => sum + (i === 3 || i === 4 ? 0 : Number(value)), 0) / 100;
const usedHere = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1e6; };

function facts() {
  const tell = (command, ...args) => { try { return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim(); } catch { return 'a copy'; } };
  const commitOf = (checkout) => tell('git', '-C', checkout, 'describe', '--always', '--dirty');
  const python = path.join(app, '.venv/bin/python');
  const [device, type] = tell('df', '--output=source,fstype', HERE).split('\n').at(-1).trim().split(/\s+/);
  return {
    date: new Date().toISOString(), command: `node bench/run.mjs ${process.argv.slice(2).join(' ')}`, repetitions: reps, seconds,
    machine: `${os.cpus()[0].model}, ${os.cpus().length} cores, ${Math.round(os.totalmem() / 2 ** 30)} GiB, Linux ${os.release()}`,
    disk: `${type} on ${device}`, cores: `server ${core}, client ${options['client-core']}`,
    ...(against ? { before: `${against} (${commitOf(against)})` } : {}),
    syncapp: `${app} (${commitOf(app)}), ${tell(python, '--version')}, SQLite ${tell(python, '-c', 'import apsw; print(apsw.sqlite_lib_version())')}`,
    peer: `Node ${process.version}, ${Object.entries(JSON.parse(fs.readFileSync(path.join(HERE, 'peer/package.json'))).dependencies).map(([name, version]) => `${name} ${version}`).join(', ')}`,
  };
}

async function main() {
  execFileSync('taskset', ['-a', '-c', '-p', options['client-core'], String(process.pid)]);
  fs.mkdirSync(data, { recursive: true });
  const about = facts();
  const floors = [];
  const servers = await Promise.all(Object.entries(ADAPTERS).map(([name, adapter]) => new Server(adapter(app), path.join(data, name)).start(core)));
  for (const server of servers) await warmUp(server);
  for (let rep = 0; rep < reps; rep++) {
    floors.push(...fsyncFloor());
    for (const [name, work] of Object.entries(WORKS)) {
      if (!only.test(name) || (options.quick && name === 'stall' && rep > 0)) continue;
      for (const server of rep % 2 ? servers.toReversed() : servers) {
        const before = { busy: busySeconds(), own: usedHere() + servers[0].cpu() + servers[1].cpu(), at: performance.now() };
        await work(server, (figure, unit, value, about) => figures.add(figure, unit, server.name, value, about));
        const foreign = busySeconds() - before.busy - (usedHere() + servers[0].cpu() + servers[1].cpu() - before.own);
        load.push((foreign / ((performance.now() - before.at) / 1000)) * 100);
      }
      process.stderr.write(`${rep + 1}/${reps} ${name} ${Math.round(performance.now() / 1000)} s\n`);
    }
    if (only.test('idle') && (rep === 0 || !options.quick)) await idle();
  }
  await Promise.all(servers.map((server) => server.stop()));
  if (only.test('tenants')) for (const count of (options.tenants ?? (options.quick ? '100' : '1000')).split(',')) await manyTenants(Number(count));
  if (only.test('overload')) await overload();
  const floor = { p50: percentile(floors, 50), p99: percentile(floors, 99) };
  figures.lines().forEach(({ figure, syncapp }) => {
    const http = /as an event, (\d+) sockets that/.exec(figure);
    const other = http && figures.lines().find((line) => line.figure === `push of one row, ${http[1]} connections`);
    const heard = http && figures.lines().find((line) => line.figure === `push over HTTP, ${http[1]} connections, ${http[1]} sockets hear it`);
    if (other) extras.push(`push as an event ÷ syncapp's own over HTTP, ${http[1]}: ${(syncapp.median / other.syncapp.median).toFixed(2)}× (goal ≥ 1); with as many sockets that hear it: ${(syncapp.median / heard.syncapp.median).toFixed(2)}×`);
  });
  const foreign = { median: percentile(load, 50), most: Math.max(0, ...load) };
  print({ ...about, 'fsync floor': `p50 ${floor.p50.toFixed(3)} ms, p99 ${floor.p99.toFixed(3)} ms, ${Math.round(1000 / floor.p50)} a second`,
    'load of others': `${foreign.median.toFixed(0)} % of a core in the median work, ${foreign.most.toFixed(0)} % at most` });
  save({ about, floor, foreign, figures: figures.lines(), curves });
}

function print(about) {
  for (const [name, value] of Object.entries(about)) console.log(`${name}: ${value}`);
  console.log(`\nMedian of ${reps} repetitions, least and most in brackets; a ratio is that within a repetition.\n\n${figures.table(options.stock ?? (against ? 'before' : 'peer'))}\n`);
  extras.forEach((line) => console.log(line));
  if (!curves.length) return;
  console.log('\nMore than it can take, single pushes into one tenant:\n\n| server | offered /s | of capacity | admitted /s | 429 or 503 | no connection | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|--:|--:|--:|');
  for (const one of curves) console.log(`| ${one.server} | ${Math.round(one.rate)} | ${one.times}× | ${Math.round(one.admitted)} | ${(one.refused * 100).toFixed(1)} % | ${(one.lost * 100).toFixed(1)} % | ${one.p50.toFixed(1)} | ${one.p99.toFixed(1)} |`);
}

function save(result) {
  const file = path.join(HERE, 'results', `${result.about.date.replaceAll(/[:.]/g, '-')}.json`);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, JSON.stringify(result, null, 1));
  console.log(`\nSaved as ${path.relative(process.cwd(), file)}`);
}

try { await main(); } finally {
  Server.killAll();
  fs.rmSync(data, { recursive: true, force: true });
}
process.exit(0);
