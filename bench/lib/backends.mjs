// What servers keep their data in and tell each other by: a PostgreSQL and a Redis of this run's own, and a network that takes time.
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { freePort } from './servers.mjs';

const HERE = path.resolve(import.meta.dirname, '..');
const running = new Set();
const folders = new Set();

/** For the end of a run, however it ends. */
export function endBackends() {
  for (const child of running) child.kill('SIGKILL');
  for (const folder of folders) fs.rmSync(folder, { recursive: true, force: true });
}

function started(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'], ...options });
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
}

const firstLine = (child) => new Promise((resolve, reject) => { child.stdout.once('data', resolve); child.once('exit', () => reject(new Error(`${child.spawnfile} did not start`))); });

/** Find a program of PostgreSQL's, the newest where Debian keeps one folder a version. */
function programOf(name) {
  const root = '/usr/lib/postgresql';
  const kept = fs.existsSync(root) ? fs.readdirSync(root).sort((a, b) => a - b).map((version) => path.join(root, version, 'bin', name)).filter((file) => fs.existsSync(file)) : [];
  return kept.at(-1) ?? name;
}

/** PostgreSQL with its defaults, on the disk of the run. As root it runs under the user that Debian's package makes. */
export class Postgres {
  static #made = 0;

  async start(data) {
    this.data = data;
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'bench-')); // A socket's path is short.
    folders.add(this.folder);
    fs.mkdirSync(data, { recursive: true });
    this.as = {};
    if (process.getuid() === 0) {
      const [uid, gid] = ['-u', '-g'].map((what) => Number(execFileSync('id', [what, 'postgres'], { encoding: 'utf8' })));
      this.as = { uid, gid };
      for (const folder of [data, this.folder]) fs.chownSync(folder, uid, gid);
    }
    const about = { ...this.as, cwd: data, stdio: ['ignore', 'ignore', 'pipe'] };
    execFileSync(programOf('initdb'), ['-D', path.join(data, 'cluster'), '-U', 'postgres', '-A', 'trust', '-E', 'UTF8'], about);
    this.child = started(programOf('postgres'), ['-D', path.join(data, 'cluster'), '-k', this.folder, '-c', 'listen_addresses='], { ...this.as, cwd: data, stdio: 'ignore' });
    for (let i = 0; ; i++) {
      try { this.ask('CREATE ROLE bench LOGIN'); break; } catch (error) { if (i > 100) throw error; await new Promise((resolve) => setTimeout(resolve, 100)); }
    }
    return this;
  }

  /** Run a statement as the superuser, and give what it prints. */
  ask(sql, database = 'postgres') {
    return execFileSync(programOf('psql'), ['-XAtq', '-v', 'ON_ERROR_STOP=1', '-h', this.folder, '-U', 'postgres', '-d', database, '-c', sql], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1e9 }).trim();
  }

  /** Make an empty database, and give its name. */
  database() {
    const name = `b${Postgres.#made++}`;
    this.ask(`CREATE DATABASE ${name} OWNER bench`);
    return name;
  }

  url(database, folder = this.folder) { return `postgresql://bench@/${database}?host=${folder}`; }

  /** Have another folder's socket lead here, `seconds` later each way; gives that folder. */
  async far(python, seconds) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'bench-'));
    folders.add(folder);
    await firstLine(started(python, [path.join(HERE, 'delay.py'), path.join(this.folder, '.s.PGSQL.5432'), folder, String(seconds)]));
    return folder;
  }

  /** Milliseconds of a round trip: the median of some. */
  roundTrip(python, folder = this.folder) {
    const script = `import psycopg, statistics, sys, time
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    took = []
    for _ in range(100):
        began = time.perf_counter(); connection.execute("SELECT 1"); took.append(time.perf_counter() - began)
print(statistics.median(took) * 1000)`;
    return Number(execFileSync(python, ['-c', script, this.url('postgres', folder)], { encoding: 'utf8' }));
  }

  /** Copy the rows of an empty tenant until there are `count`: bytes of each that was copied, tables and indexes together. */
  cloneTenants(database, count) {
    const bytes = () => Number(this.ask("SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, 'syncapp'::regnamespace)", database));
    const [model, there] = ['SELECT id FROM syncapp.tenants LIMIT 1', 'SELECT count(*) FROM syncapp.tenants'].map((sql) => this.ask(sql, database));
    const tables = this.ask("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace", database).split('\n');
    const copy = (table, key, more = '') => `INSERT INTO ${table} SELECT (jsonb_populate_record(m, to_jsonb(m) || jsonb_build_object('${key}', new.id)${more})).* FROM ${table} AS m, made AS new WHERE m."${key}"::text = '${model}'`;
    const before = bytes();
    this.ask(['CREATE TEMPORARY TABLE made AS SELECT gen_random_uuid()::text AS id FROM generate_series(1, ' + (count - Number(there)) + ')',
      copy('syncapp.customers', 'id', " || jsonb_build_object('email', new.id || '@example.com')"), copy('syncapp.tenants', 'id'),
      ...tables.filter((name) => this.ask(`SELECT 1 FROM pg_attribute WHERE attrelid = 'public."${name}"'::regclass AND attname = '_tenant_id'`, database)).map((name) => copy(`public."${name}"`, '_tenant_id')),
      'ANALYZE'].join('; '), database);
    return (bytes() - before) / (count - Number(there));
  }

  /** Private memory of each backend that serves a database, in KiB. */
  backendsKib(database) {
    return this.ask(`SELECT pid FROM pg_stat_activity WHERE datname = '${database}' AND pid <> pg_backend_pid()`).split('\n').filter(Boolean)
      .map((pid) => [...fs.readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8').matchAll(/Private_\w+:\s*(\d+)/g)].reduce((sum, found) => sum + Number(found[1]), 0));
  }
}

/** A Redis that keeps nothing; null if none is installed. */
export async function redisUrl() {
  const port = await freePort();
  try { await firstLine(started('redis-server', ['--save', '', '--port', String(port)])); } catch { return null; }
  return `redis://127.0.0.1:${port}`;
}
