// The works of `--engine postgres`: the same server on PostgreSQL and on files in turn, and what only PostgreSQL has.
// `note` takes a figure of syncapp on PostgreSQL, `beside` the same figure of the other.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Postgres, redisUrl } from './backends.mjs';
import { Connection } from './http.mjs';
import { kintoBatches, kintoPull, kintoSingles, startKinto } from './kinto.mjs';
import { full, seed } from './reads.mjs';
import { percentile, sleep } from './report.mjs';
import { newRow } from './rows.mjs';
import { ADAPTERS, pythonOf, Server } from './servers.mjs';
import { makeTenants } from './tenants.mjs';
import { batches, checked, openAll, singles, spread } from './writes.mjs';

const ROWS = 10_000;
const ONE_WAY_SECONDS = 0.00055; // And what the relay takes itself: about 1.3 ms there and back.
const TENANTS = 64;

/** What the works run on: a PostgreSQL of the run's own, and servers that are started when a work asks for them first. */
export class Bed {
  #servers = new Map(); #tokens = new Map();

  constructor(app, data, cores) { Object.assign(this, { app, data, cores, python: pythonOf(app) }); }

  async start() {
    this.postgres = await new Postgres().start(path.join(this.data, 'postgres'));
    this.database = this.postgres.database();
    this.redis = await redisUrl();
    return this;
  }

  /** A server by name; several of one database are several processes of one installation. */
  async server(name, { core = this.cores[0], env = {}, command, database = this.database, folder } = {}) {
    if (!this.#servers.has(name)) {
      const extra = name === 'sqlite' ? env : { DATABASE_URL: this.postgres.url(database, folder), PROCESS_NAME: name.replace(/\W/g, ''), ...env };
      const server = new Server({ ...ADAPTERS.syncapp(this.app), name, ...(command ? { command } : {}) }, path.join(this.data, name));
      this.#servers.set(name, await server.start(core, extra));
    }
    return this.#servers.get(name);
  }

  /** Tokens of tenants of a server, made once for a work. */
  async tokens(server, work, count = 1) {
    const key = `${server.name} ${work}`;
    if (!this.#tokens.has(key)) this.#tokens.set(key, await makeTenants(server, count));
    return this.#tokens.get(key);
  }

  async end(...names) {
    await Promise.all(names.map((name) => this.#servers.get(name)?.stop()));
    names.forEach((name) => this.#servers.delete(name));
  }

  endAll() { return this.end(...this.#servers.keys()); }
}

/** Do the same on both, and who is first changes with every repetition. */
async function inTurn(bed, { note, beside, rep }, work) {
  const both = [[await bed.server('postgres'), note], [await bed.server('sqlite'), beside]];
  for (const [server, take] of rep % 2 ? both.toReversed() : both) await work(server, take);
}

async function push(bed, run) {
  const goals = [[1, 0.6], [16, 0.7], [64, 0.7]];
  await inTurn(bed, run, async (server, take) => {
    for (const [count, goal] of goals) {
      const { rate, cpu, p50 } = await singles(server, (await bed.tokens(server, 'push'))[0], count, run.seconds);
      const name = `push of one row, 1 tenant, ${count} connections`;
      take(name, 'per s', rate, { goal: ['≥', goal], row: 'push of one row, 1 tenant, 1 / 16 / 64 connections' });
      take(`${name}, p50`, 'ms', p50);
      take(`${name}, CPU of the server`, 'ms a row', cpu);
    }
    const { rate, cpu } = await spread([server], await bed.tokens(server, 'sixteen', 16), 16, run.seconds);
    take('push of one row, 16 tenants, 16 connections', 'per s', rate, { goal: ['≥', 1.5], row: 'push of one row, 16 tenants, 16 connections' });
    take('push of one row, 16 tenants, CPU of the server', 'ms a row', cpu);
  });
}

async function far(bed, { note, seconds }) {
  bed.away ??= await bed.postgres.far(bed.python, ONE_WAY_SECONDS);
  note('a round trip to PostgreSQL near by', 'ms', bed.postgres.roundTrip(bed.python));
  note('a round trip to PostgreSQL far away', 'ms', bed.postgres.roundTrip(bed.python, bed.away));
  const server = await bed.server('far', { folder: bed.away });
  const [token] = await bed.tokens(server, 'far');
  for (const count of [1, 16]) {
    const { rate, cpu } = await singles(server, token, count, seconds);
    note(`push of one row, PostgreSQL far away, ${count} connections`, 'per s', rate, count === 16 ? { goal: ['≥', 2000], own: true } : {});
    note(`push of one row, PostgreSQL far away, ${count} connections, CPU of the server`, 'ms a row', cpu);
  }
  await bed.end('far');
}

async function batch(bed, run) {
  await inTurn(bed, run, async (server, take) => {
    const { rate, cpu } = await batches(server, (await bed.tokens(server, 'batch'))[0], 1000, Math.max(1, run.seconds), false);
    take('pushes of 1,000 new rows, CPU of the server', 'µs a row', cpu * 1000, { goal: ['≤', 1.2], row: 'pushes of 1,000 new rows, CPU of the server' });
    take('pushes of 1,000 new rows, 4 connections', 'rows/s', rate);
  });
}

async function pull(bed, run) {
  await inTurn(bed, run, async (server, take) => {
    const [token] = await bed.tokens(server, 'pull');
    if (!server.isSeeded) await seed(server, token, ROWS);
    server.isSeeded = true;
    for (const [way, limit] of [['at once', 0], ['by 1,000', 1000]]) {
      const { rate, cpu } = await full(server, token, ROWS, limit);
      take(`pull of 10,000 rows ${way}, CPU of the server`, 's/100,000', cpu, { goal: ['≤', 1], row: 'pull of 10,000 rows, CPU of the server, at once / by 1,000' });
      take(`pull of 10,000 rows ${way}`, 'rows/s', rate);
    }
  });
}

/** Two processes of one installation: the first on the server's core, the second on the other, which the client is on, too. */
async function pair(bed, how) {
  const env = how === 'Redis' ? { REDIS_URL: bed.redis } : {};
  const commits = path.join(bed.data, `commits-${how}`);
  const command = [bed.python, path.join(import.meta.dirname, '../commits.py'), commits];
  const one = await bed.server(`one-${how}`, { env, command });
  return { one, two: await bed.server(`two-${how}`, { env, core: bed.cores[1] }), commits };
}

async function processes(bed, { note, seconds }) {
  const { one, two } = await pair(bed, bed.redis ? 'Redis' : 'NOTIFY');
  const tokens = await bed.tokens(one, 'processes', TENANTS);
  const alone = await spread([one], tokens, TENANTS, seconds);
  const together = await spread([one, two], tokens, TENANTS, seconds);
  note(`push of one row, ${TENANTS} tenants, one process`, 'per s', alone.rate);
  note(`push of one row, ${TENANTS} tenants, two processes`, 'per s', together.rate);
  note(`push of one row, ${TENANTS} tenants, one process, CPU of it`, 'ms a row', alone.cpu);
  note(`push of one row, ${TENANTS} tenants, two processes, CPU of both`, 'ms a row', together.cpu);
  note('two processes to one', 'times', together.rate / alone.rate, { goal: ['≥', 1.7], own: true });
}

async function heard(bed, { note, seconds }) {
  for (const how of bed.redis ? ['Redis', 'NOTIFY'] : ['NOTIFY']) {
    const { one, two, commits } = await pair(bed, how);
    const [token] = await bed.tokens(one, 'heard');
    const { here, there } = await latencies(one, two, token, commits, Math.max(1, seconds * 2));
    note(`commit to a listener of the same process (${how})`, 'ms', percentile(here, 50));
    note(`commit to a listener of another process (${how})`, 'ms', percentile(there, 50));
    note(`commit to a listener of another process by ${how}, to one of the same`, 'times', percentile(there, 50) / percentile(here, 50), { goal: ['≤', 2], own: true, row: 'commit to a listener of another process, to one of the same, by Redis / NOTIFY' });
    await bed.end(one.name, two.name);
  }
}

/** Milliseconds from each commit until a listener of each process has it. */
async function latencies(one, two, token, commits, seconds) {
  const at = [[], []];
  const sockets = await Promise.all([one, two].map(async (server, i) => (await openAll(server, token, 1, (_, event) => { if (server.isRow(event)) at[i].push(process.hrtime.bigint()); }))[0]));
  const connection = new Connection(one.port); const made = [];
  await sleep(300);
  for (const until = performance.now() + seconds * 1000; performance.now() < until; await sleep(20)) {
    const sent = process.hrtime.bigint();
    await checked(connection.send(one.pushOf(token, one.one(newRow()))));
    made.push({ sent, answered: process.hrtime.bigint() });
  }
  await sleep(500);
  [connection, ...sockets].forEach((each) => each.close());
  const times = fs.readFileSync(commits, 'utf8').trim().split('\n').map(BigInt);
  const committed = made.map(({ sent, answered }) => times.findLast((time) => time > sent && time < answered));
  if (at.some((all) => all.length !== made.length)) throw new Error(`${at.map((all) => all.length)} of ${made.length} pushes were heard`);
  const [here, there] = at.map((all) => all.map((time, i) => Number(time - committed[i]) / 1e6));
  return { here, there };
}

async function tenants(bed, { note, counts, rep }) {
  if (rep > 0) return;
  const database = bed.postgres.database(); const url = bed.postgres.url(database);
  const create = () => percentile(execFileSync('taskset', ['-c', bed.cores[0], bed.python, path.join(import.meta.dirname, '../new_tenants.py'), url, '200'], { encoding: 'utf8' }).trim().split(' ').map(Number), 50);
  note('an empty tenant, besides hashing', 'ms', create(), { goal: ['≤', 1], own: true, row: `an empty tenant, besides hashing, at 200 / ${counts.map((count) => count.toLocaleString('en')).join(' / ')} tenants` });
  for (const count of counts) {
    note(`an empty tenant, at ${count.toLocaleString('en')}`, 'B', bed.postgres.cloneTenants(database, count));
    note(`an empty tenant, besides hashing, at ${count.toLocaleString('en')}`, 'ms', create(), { goal: ['≤', 1], own: true, row: `an empty tenant, besides hashing, at 200 / ${counts.map((one) => one.toLocaleString('en')).join(' / ')} tenants` });
  }
}

async function kinto(bed, { note, seconds, rep }) {
  if (rep > 0) return;
  const database = bed.postgres.database();
  const peer = await startKinto(bed.python, bed.postgres.url(database), path.join(bed.data, 'kinto'), bed.cores[0]);
  const server = await bed.server('postgres'); const [token] = await bed.tokens(server, 'kinto');
  const add = (figure, unit, own, its, goal) => { note(figure, unit, own); note(`${figure}: Kinto`, unit, its); note(`${figure}, to Kinto`, 'times', own / its, { goal: ['≥', goal], own: true, row: 'to Kinto: pushes / rows in batches / pull' }); };
  add('push of one row, 16 connections', 'per s', (await singles(server, token, 16, seconds)).rate, (await kintoSingles(peer, 16, seconds)).rate, 20);
  add('rows in batches, 4 connections', 'rows/s', (await batches(server, token, 1000, Math.max(1, seconds))).rate, (await kintoBatches(peer, Math.max(1, seconds))).rate, 100);
  const [pulled] = await bed.tokens(server, 'pull');
  if (!server.isSeeded) await seed(server, pulled, ROWS);
  server.isSeeded = true;
  add('pull of 10,000 rows at once', 'rows/s', (await full(server, pulled, ROWS, 0)).rate, await kintoPull(peer, bed.postgres, database, ROWS), 5);
  await peer.stop();
}

export const ENGINE_WORKS = { push, far, batch, pull, processes, heard, tenants, kinto };
