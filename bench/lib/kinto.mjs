// Kinto on PostgreSQL: the peer of syncapp on that engine. It is installed from PyPI into a virtual environment of its own.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Connection, request } from './http.mjs';
import { newRow } from './rows.mjs';
import { Server } from './servers.mjs';
import { closedLoop } from './writes.mjs';

const FOLDER = path.resolve(import.meta.dirname, '../kinto');
const USER = 'bench:bench';
const ROWS = '/buckets/bench/collections/rows/records';
const MOST_IN_A_BATCH = 25; // Kinto's default.

function installed(python) {
  const own = path.join(FOLDER, '.venv');
  if (!fs.existsSync(path.join(own, 'installed'))) {
    const quiet = { stdio: ['ignore', 'ignore', 'pipe'] };
    execFileSync(python, ['-m', 'venv', '--clear', own], quiet);
    execFileSync(path.join(own, 'bin/pip'), ['install', '-q', '-r', path.join(FOLDER, 'requirements.txt')], quiet);
    fs.writeFileSync(path.join(own, 'installed'), '');
  }
  return path.join(own, 'bin/kinto');
}

const settings = (url) => `[app:main]
use = egg:kinto
kinto.userid_hmac_secret = only for the benchmark
kinto.storage_backend = kinto.core.storage.postgresql
kinto.storage_url = ${url}
kinto.permission_backend = kinto.core.permission.postgresql
kinto.permission_url = ${url}
kinto.cache_backend = kinto.core.cache.memory
kinto.bucket_create_principals = system.Authenticated
kinto.storage_max_fetch_size = 10001
kinto.paginate_by = 10000
multiauth.policies = basicauth
[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = %(http_port)s
threads = 16
[loggers]
keys = root
[handlers]
keys =
[formatters]
keys =
[logger_root]
level = ERROR
handlers =
`;

/** A running Kinto with an empty collection; fails with pip's words if it can't be installed. */
export async function startKinto(python, url, data, core) {
  const program = installed(python);
  fs.mkdirSync(data, { recursive: true });
  const ini = path.join(data, 'kinto.ini');
  fs.writeFileSync(ini, settings(url));
  execFileSync(program, ['migrate', '--ini', ini], { stdio: ['ignore', 'ignore', 'pipe'] });
  const server = new Server({ name: 'kinto', folder: data, health: '/v1/__lbheartbeat__', command: ['sh', '-c', `exec '${program}' start --ini '${ini}' --port $PORT`] }, path.join(data, 'data'));
  await server.start(core);
  const connection = new Connection(server.port);
  for (const where of ['/buckets/bench', '/buckets/bench/collections/rows']) await ok(connection, request('PUT', `/v1${where}`, { basic: USER, body: {} }));
  connection.close();
  return server;
}

/** Ask until it is done: of writes that come at once to a collection Kinto refuses some, "please retry". */
async function ok(connection, bytes) {
  let answer;
  do answer = await connection.send(bytes); while (answer.status === 409 || answer.status === 503);
  if (answer.status >= 300) throw new Error(`${answer.status} ${answer.body.toString().slice(0, 300)}`);
  return answer.body;
}

const put = (row) => ({ path: `${ROWS}/${row.id}`, body: { data: row } });

async function loop(server, count, seconds, perAnswer, bytes) {
  const connections = Array.from({ length: count }, () => new Connection(server.port));
  const result = await closedLoop(server, connections.map((one) => () => ok(one, bytes())), seconds, perAnswer);
  connections.forEach((one) => one.close());
  return result;
}

/** Rows of one request each over `count` connections. */
export const kintoSingles = (server, count, seconds) => loop(server, count, seconds, 1, () => {
  const { path: where, body } = put(newRow());
  return request('PUT', `/v1${where}`, { basic: USER, body });
});

const batch = () => request('POST', '/v1/batch', { basic: USER, body: { defaults: { method: 'PUT' }, requests: Array.from({ length: MOST_IN_A_BATCH }, () => put(newRow())) } });

/** Rows in the largest batches that it takes, over 4 connections. */
export const kintoBatches = (server, seconds) => loop(server, 4, seconds, MOST_IN_A_BATCH, batch);

/** Rows a second of a first pull, in the largest pages that it gives, of `count` rows that are made if they are not there. */
export async function kintoPull(server, postgres, database, count) {
  const connection = new Connection(server.port);
  await ok(connection, batch());
  const clone = `INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
    SELECT 'clone-' || n, parent_id, resource_name, last_modified + n * interval '1 ms', data, deleted FROM (SELECT * FROM objects WHERE resource_name = 'record' LIMIT 1) AS one, generate_series(1, ${count}) AS n
    ON CONFLICT DO NOTHING`;
  postgres.ask(clone, database);
  const began = performance.now();
  const answer = await ok(connection, request('GET', `/v1${ROWS}?_limit=10000`, { basic: USER }));
  const seconds = (performance.now() - began) / 1000;
  const rows = JSON.parse(answer).data.length;
  connection.close();
  if (rows < Math.min(count, 10000)) throw new Error(`Kinto gave ${rows} rows`);
  return rows / seconds;
}
