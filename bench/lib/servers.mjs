// The two servers: how each is started as its users start it, and how the same work is said to each.
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { Connection, request } from './http.mjs';

const HERE = path.resolve(import.meta.dirname, '..');
const SECRET = 'a key for the benchmark only, at least 32 bytes';
const TABLE = 'end_user';
const TYPE_AT = '42["sync_notification",{"type":"'.length;

export const ADAPTERS = {
  syncapp: (app) => ({
    name: 'syncapp',
    command: [pythonOf(app), 'syncapp.py'], folder: app, env: { LOG_FORMAT: 'json', ...wideRates(app) }, cheapHashes: { BCRYPT_ROUNDS: '8' },
    register: (name) => request('POST', '/api/customers/register', { body: {
      firstName: 'Bench', lastName: name, email: `${name}@example.com`, password: `password-${name}` } }),
    tokenOf: (answer) => answer.data.token,
    one: (row) => `{"table":"${TABLE}","operation":"create","data":${JSON.stringify(row)}}`,
    many: (rows) => `{"changes":{"${TABLE}":${JSON.stringify(rows)}}}`,
    push: '/api/client/sync/push', pull: '/api/client/sync/pull',
    page: (cursor, limit) => JSON.stringify({ cursor, limit, entityTypes: [TABLE] }),
    digest: (cursor) => JSON.stringify({ cursor, entityTypes: [TABLE], digest: true }),
    everything: JSON.stringify({ lastSyncTimestamp: '1970-01-01T00:00:00Z', entityTypes: [TABLE] }),
    cursorOf: (text) => /"cursor":"([^"]+)"/.exec(text)[1],
    isReady: (text) => text.startsWith('42["authenticated"'),
    isRow: (event) => event[TYPE_AT] === 0x64, // The d of data_available; a sync_complete follows it.
    sequenceOf: (note) => Number(note.cursor.split('-')[1]), rowOf: (note) => note.data,
  }),
  peer: () => ({
    name: 'peer',
    command: [process.execPath, 'server.cjs'], folder: path.join(HERE, 'peer'), env: { NODE_ENV: 'production' }, cheapHashes: { SCRYPT_COST: '2' },
    register: (name) => request('POST', '/register', { body: { email: `${name}@example.com`, password: `password-${name}` } }),
    tokenOf: (answer) => answer.token,
    one: (row) => `{"table":"${TABLE}","rows":[${JSON.stringify(row)}]}`,
    many: (rows) => `{"table":"${TABLE}","rows":${JSON.stringify(rows)}}`,
    push: '/push', pull: '/pull',
    page: (cursor, limit) => JSON.stringify({ cursor: cursor ?? 0, limit }),
    cursorOf: (text) => Number(/"cursor":(\d+)/.exec(text)[1]),
    isReady: (text) => text.startsWith('40'),
    isRow: () => true,
    sequenceOf: (note) => note.cursor, rowOf: (note) => note.row,
  }),
};

/** This server with parts of libraries in the place of its own: bench/stock.py has their names. */
export function withStock(app, parts) {
  const own = ADAPTERS.syncapp(app);
  return { ...own, name: 'peer', command: [own.command[0], 'bench/stock.py', parts] };
}

/** A checkout that has no virtual environment of its own, such as a worktree of an old commit, runs in ours; BENCH_PYTHON is for all. */
export function pythonOf(app) {
  if (process.env.BENCH_PYTHON) return process.env.BENCH_PYTHON;
  const own = path.join(app, '.venv/bin/python');
  return fs.existsSync(own) ? own : path.resolve(HERE, '../.venv/bin/python');
}

/** The settings of a checkout that say how much a time somebody may do, so wide that they refuse nothing. */
function wideRates(app) {
  const ask = 'import dataclasses, settings; print(*(f.name.upper() for f in dataclasses.fields(settings.Settings) if " per " in str(f.default)))';
  const names = execFileSync(pythonOf(app), ['-c', ask], { cwd: app, encoding: 'utf8' }).trim().split(' ');
  return Object.fromEntries(names.map((name) => [name, '1000000000 per minute']));
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const freePort = () => new Promise((resolve) => {
  const server = net.createServer().listen(0, '127.0.0.1', () => { const { port } = server.address(); server.close(() => resolve(port)); });
});

function cpuOf(pid) {
  const tasks = `/proc/${pid}/task`;
  const of = (task) => { try { return Number(fs.readFileSync(`${tasks}/${task}/schedstat`, 'latin1').split(' ')[0]); } catch { return 0; } };
  return fs.readdirSync(tasks).reduce((sum, task) => sum + of(task), 0) / 1e9;
}

export class Server {
  static #tenants = 0;
  static #running = new Set();

  /** For the end of a run that went wrong; those that were stopped are gone already. */
  static killAll() { for (const child of Server.#running) child.kill('SIGKILL'); }

  /** CPU seconds of all servers that run. */
  static cpuOfAll() { return [...Server.#running].reduce((sum, child) => sum + cpuOf(child.pid), 0); }

  constructor(adapter, data) { Object.assign(this, adapter); this.data = data; }

  /** Start on a core; returns when the first good answer came, and notes how long that took. */
  async start(core, extra = {}, prefix = []) {
    fs.mkdirSync(this.data, { recursive: true });
    this.core = core;
    this.port = await freePort();
    const log = fs.openSync(`${this.data}.log`, 'a');
    const began = performance.now();
    const { PYTHONDONTWRITEBYTECODE: _, ...environ } = process.env; // Users' servers are compiled once, not at each start.
    const env = { ...environ, ...this.env, PORT: String(this.port), HOST: '127.0.0.1', DATA_DIR: this.data, JWT_SECRET_KEY: SECRET, ...extra };
    Object.assign(this, { extra, environment: env });
    this.child = spawn('taskset', ['-c', String(core), ...prefix, ...this.command], { cwd: this.folder, env, stdio: ['ignore', log, log] });
    fs.closeSync(log);
    Server.#running.add(this.child);
    this.child.once('exit', () => Server.#running.delete(this.child));
    const health = request('GET', this.health ?? '/health');
    for (;;) {
      const connection = new Connection(this.port);
      try { if ((await connection.send(health)).status === 200) { connection.close(); break; } } catch { /* not yet */ }
      connection.close();
      if (this.child.exitCode !== null || performance.now() - began > 120_000) throw new Error(`${this.name} did not start: ${this.data}.log`);
      await sleep(10);
    }
    this.startMs = performance.now() - began;
    return this;
  }

  /** Stop, and start again on the same data. */
  async restart(extra = this.extra) {
    await this.stop();
    return this.start(this.core, extra);
  }

  async stop() {
    const gone = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 8000);
    await gone;
    clearTimeout(timer);
  }

  /** Make a tenant, and give its token. */
  async tenant() {
    const connection = new Connection(this.port);
    const answer = await connection.json(this.register(`t${process.pid}x${Server.#tenants++}`));
    connection.close();
    return this.tokenOf(answer);
  }

  pushOf(token, body) { return request('POST', this.push, { token, body }); }
  pullOf(token, body, encoding) { return request('POST', this.pull, { token, body, encoding }); }
  rssKib() { return Number(/VmRSS:\s*(\d+)/.exec(fs.readFileSync(`/proc/${this.child.pid}/status`, 'utf8'))[1]); }
  descriptors() { return fs.readdirSync(`/proc/${this.child.pid}/fd`).length; }

  /** CPU seconds that this server has used in all its threads, to the nanosecond (proc(5), schedstat). */
  cpu() { return cpuOf(this.child.pid); }
}
