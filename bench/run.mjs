// syncapp against the strongest peer that a registry installs, in turn, in one run. bench/README.md explains.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { endBackends } from './lib/backends.mjs';
import { Bed, ENGINE_WORKS } from './lib/engines.mjs';
import { FRESH } from './lib/fresh.mjs';
import { curveTable, Figures, percentile, summary, table } from './lib/report.mjs';
import { ADAPTERS, pythonOf, Server, withStock } from './lib/servers.mjs';
import { WORKS, warmUp } from './lib/works.mjs';

const HERE = import.meta.dirname;
const { values: options } = parseArgs({ options: {
  app: { type: 'string', default: process.env.SYNCAPP ?? path.resolve(HERE, '..') }, quick: { type: 'boolean', default: false },
  reps: { type: 'string' }, seconds: { type: 'string' }, only: { type: 'string', default: '.' }, tenants: { type: 'string' }, large: { type: 'string' },
  against: { type: 'string' }, stock: { type: 'string' }, engine: { type: 'string' }, data: { type: 'string', default: path.join(HERE, 'data') }, python: { type: 'string' },
  'server-core': { type: 'string', default: '0' }, 'client-core': { type: 'string', default: '1' },
} });
if (options.python) process.env.BENCH_PYTHON = path.resolve(options.python);
const app = path.resolve(options.app);
const against = options.against && path.resolve(options.against);
if (against) ADAPTERS.peer = () => ({ ...ADAPTERS.syncapp(against), name: 'peer' }); // Another version in the peer's place.
if (options.stock) ADAPTERS.peer = () => withStock(against ?? app, options.stock); // Parts of libraries in the place of ours.
if (options.engine && options.engine !== 'postgres') throw new Error('--engine takes postgres: the same server on files stands beside it');
const other = options.engine ? 'SQLite' : options.stock ? 'stock' : against ? 'before' : 'peer';
const reps = Number(options.reps ?? (options.quick ? 2 : 5));
const seconds = Number(options.seconds ?? (options.quick ? 0.3 : 2));
const only = new RegExp(options.only);
const data = path.resolve(options.data, String(process.pid));
const core = options['server-core'];
const figures = new Figures(other);
const curves = []; const load = []; const failed = []; const took = {};
const about = {
  quick: options.quick, seconds, curves, largeRows: Number(options.large ?? (options.quick ? 20_000 : 1_000_000)),
  counts: (options.tenants ?? (options.quick ? '2000' : '20000')).split(',').map(Number),
};

// What nobody awaits yet when it fails is told by whoever awaits it later, and ends that work, not the run.
process.on('unhandledRejection', (error) => process.stderr.write(`${error.message}\n`));
process.on('exit', () => { Server.killAll(); endBackends(); fs.rmSync(data, { recursive: true, force: true }); });
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

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

/** CPU seconds that this process, what it started and has ended, and the servers that run have used. */
function usedHere() {
  const stat = fs.readFileSync('/proc/self/stat', 'latin1');
  const [user, system, usersOfChildren, systemsOfChildren] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(11, 15).map(Number);
  return (user + system + usersOfChildren + systemsOfChildren) / 100 + Server.cpuOfAll();
}

function facts() {
  const tell = (command, ...args) => { try { return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim(); } catch { return 'a copy'; } };
  const commitOf = (checkout) => tell('git', '-C', checkout, 'describe', '--always', '--dirty');
  const python = pythonOf(app);
  const [device, type] = tell('df', '--output=source,fstype', data).split('\n').at(-1).trim().split(/\s+/);
  return {
    date: new Date().toISOString(), command: `node bench/run.mjs ${process.argv.slice(2).join(' ')}`, repetitions: reps, seconds,
    machine: `${os.cpus()[0].model}, ${os.cpus().length} cores, ${Math.round(os.totalmem() / 2 ** 30)} GiB, Linux ${os.release()}`,
    disk: `${type} on ${device}`, cores: `server ${core}, client ${options['client-core']}`,
    ...(against ? { before: `${against} (${commitOf(against)})` } : {}), ...(options.stock ? { stock: options.stock } : {}),
    syncapp: `${app} (${commitOf(app)}), ${tell(python, '--version')}, SQLite ${tell(python, '-c', 'import apsw; print(apsw.sqlite_lib_version())')}`,
    peer: `Node ${process.version}, ${Object.entries(JSON.parse(fs.readFileSync(path.join(HERE, 'peer/package.json'))).dependencies).map(([name, version]) => `${name} ${version}`).join(', ')}`,
  };
}

const NOISY = new Set(['push', 'soon']); // A quick run has time for a second look at these.
const OWN_GOALS = new Set(['overload', 'large']); // Goals that compare syncapp with itself: a quick run has no time for the peer's.
const isQuickWithoutPeer = (name) => options.quick && other === 'peer' && OWN_GOALS.has(name);
const noteFor = (server) => (figure, unit, value, more) => figures.add(figure, unit, server, value, more);

/** Say that a work is done, and note how long it took, with the starts of its servers. */
function done(rep, name, began) {
  took[name] = (took[name] ?? 0) + (performance.now() - began) / 1000;
  process.stderr.write(`${rep + 1}/${reps} ${name} ${Math.round(performance.now() / 1000)} s\n`);
}

/** Do a work, and note how much of a core others took meanwhile; what goes wrong in it costs the other works nothing. */
async function attempt(name, server, work) {
  const before = { busy: busySeconds(), own: usedHere(), at: performance.now() };
  try { await work(); } catch (error) { failed.push(`${name} on ${server}: ${error.message}`); process.stderr.write(`${failed.at(-1)}\n`); }
  const foreign = busySeconds() - before.busy - (usedHere() - before.own);
  load.push({ name, foreign: (foreign / ((performance.now() - before.at) / 1000)) * 100 });
}

/** The works that are done in turn on servers that run all the time. */
async function repeat(floors) {
  const servers = await Promise.all(Object.entries(ADAPTERS).map(([name, adapter]) => new Server(adapter(app), path.join(data, name)).start(core)));
  for (const server of servers) await warmUp(server, about);
  done(0, 'warm-up', 0);
  for (let rep = 0; rep < reps; rep++) {
    floors.push(...fsyncFloor());
    for (const [name, work] of Object.entries(WORKS)) {
      if (!only.test(name) || (options.quick && rep > 0 && !NOISY.has(name))) continue;
      const began = performance.now();
      for (const server of rep % 2 ? servers.toReversed() : servers) {
        await attempt(name, server.name, () => work(server, noteFor(server.name), about));
      }
      done(rep, name, began);
    }
  }
  await Promise.all(servers.map((server) => server.stop()));
}

/** A work on a server of its own, each time a new one. */
async function once(work, name) {
  const server = new Server(ADAPTERS[name](app), path.join(data, `${name}-${work.name}-${Math.random()}`));
  const start = (extra) => server.start(core, typeof extra === 'function' ? extra(server) : extra);
  try { await work(start, noteFor(name), about); } finally {
    await server.stop();
    for (const folder of [server.data, `${server.data}-backups`]) fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** The works of an engine, each with syncapp on it, and where that is compared, on files. */
async function compareEngines(floors) {
  const bed = await new Bed(app, data, [core, options['client-core']]).start();
  console.log(`PostgreSQL: ${bed.postgres.ask('SHOW server_version')}, with its defaults${bed.redis ? '' : '; no redis-server is installed here'}`);
  for (let rep = 0; rep < reps; rep++) {
    floors.push(...fsyncFloor());
    for (const [name, work] of Object.entries(ENGINE_WORKS).filter(([name]) => only.test(name))) {
      const began = performance.now();
      await attempt(name, 'PostgreSQL', () => work(bed, { ...about, note: noteFor('syncapp'), beside: noteFor('peer'), rep }));
      done(rep, name, began);
    }
  }
  await bed.endAll();
}

async function main() {
  execFileSync('taskset', ['-a', '-c', '-p', options['client-core'], String(process.pid)]);
  fs.mkdirSync(data, { recursive: true });
  const floors = fsyncFloor(); const them = facts();
  if (options.engine) await compareEngines(floors);
  else if (Object.keys(WORKS).some((name) => only.test(name))) await repeat(floors);
  for (const [name, work] of Object.entries(options.engine ? {} : FRESH).filter(([name]) => only.test(name))) {
    const times = ['herd', 'idle', 'overload'].includes(name) ? Math.min(reps, 3) : 1;
    for (let rep = 0; rep < (options.quick ? 1 : times); rep++) {
      const began = performance.now();
      const both = rep % 2 ? ['peer', 'syncapp'] : ['syncapp', 'peer'];
      for (const server of isQuickWithoutPeer(name) ? ['syncapp'] : both) await attempt(name, server, () => once(work, server));
      done(rep, name, began);
    }
  }
  const floor = { p50: percentile(floors, 50), p99: percentile(floors, 99) };
  const [most] = load.toSorted((a, b) => b.foreign - a.foreign);
  const lines = figures.lines();
  print(lines, { ...them, 'fsync floor': `p50 ${floor.p50.toFixed(3)} ms, p99 ${floor.p99.toFixed(3)} ms, ${Math.round(1000 / floor.p50)} a second`,
    'load of others': `${percentile(load.map(({ foreign }) => foreign), 50).toFixed(0)} % of a core in the median work, ${most.foreign.toFixed(0)} % at most, in ${most.name}`,
    'seconds of each work': Object.entries(took).map(([name, seconds]) => `${name} ${seconds.toFixed(0)}`).join(', ') });
  save({ about: them, other, floor, load, took, figures: lines, curves, failed });
}

function print(lines, about) {
  for (const [name, value] of Object.entries(about)) console.log(`${name}: ${value}`);
  console.log(`\nMedian of ${reps} repetitions, least and most in brackets; a ratio is that within a repetition.\n\n${table(lines, other)}\n`);
  failed.forEach((line) => console.log(`Failed: ${line}`));
  if (curves.length) console.log(`\nMore than it can take, single pushes into one tenant:\n\n${curveTable(curves)}`);
  console.log(`\nHow it stands (medians; a ratio is to ${other}, what has none is syncapp's own):\n\n${summary(lines, other)}`);
}

function save(result) {
  const file = path.join(HERE, 'results', `${result.about.date.replaceAll(/[:.]/g, '-')}.json`);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, JSON.stringify(result, null, 1));
  console.log(`\nSaved as ${path.relative(process.cwd(), file)}`);
}

await main();
process.exit(failed.length ? 1 : 0);
