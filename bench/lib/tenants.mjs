// Many tenants: made through the server, opened in turn, and cloned on the disk of one that is stopped. All from outside, so
// that any version of a server can be measured.
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { Connection } from './http.mjs';
import { percentile } from './report.mjs';
import { newRow } from './rows.mjs';
import { checked } from './writes.mjs';

export const Database = createRequire(path.resolve(import.meta.dirname, '../peer/server.cjs'))('better-sqlite3');

/** Work for each of some things, `width` at a time; gives what each gave, in order. */
export async function each(things, work, width = 8) {
  const results = []; let next = 0;
  const worker = async () => { while (next < things.length) { const i = next++; results[i] = await work(things[i], i); } };
  await Promise.all(Array.from({ length: width }, worker));
  return results;
}

export const makeTenants = (server, count) => each(Array.from({ length: count }), () => server.tenant());

/** Push one new row to each tenant in turn; gives ms of CPU a push, and its time. */
export async function inTurn(server, tokens) {
  const connection = new Connection(server.port);
  const times = []; const used = server.cpu();
  for (const token of tokens) {
    const bytes = server.pushOf(token, server.one(newRow()));
    const began = performance.now();
    await checked(connection.send(bytes));
    times.push(performance.now() - began);
  }
  const cpu = ((server.cpu() - used) * 1000) / tokens.length;
  connection.close();
  return { cpu, p50: percentile(times, 50), p99: percentile(times, 99) };
}

/** KiB and descriptors of each open tenant, of those that a push opens after the first 20 have warmed the server up. */
export async function openCost(server, tokens) {
  const [first, others] = [tokens.slice(0, 20), tokens.slice(20)];
  await inTurn(server, [...first, ...first]);
  const before = { kib: server.rssKib(), descriptors: server.descriptors() };
  await inTurn(server, others);
  return { kib: (server.rssKib() - before.kib) / others.length, descriptors: (server.descriptors() - before.descriptors) / others.length };
}

/** KiB that the files of each tenant take. */
export function diskKib(folder) {
  const files = filesOf(folder);
  const names = fs.readdirSync(files).filter((name) => name.startsWith('tenant_'));
  const blocks = names.reduce((sum, name) => sum + fs.statSync(path.join(files, name)).blocks, 0);
  return blocks / 2 / names.filter((name) => name.endsWith('.db')).length;
}

const filesOf = (folder) => (fs.existsSync(path.join(folder, 'tenants')) ? path.join(folder, 'tenants') : folder);

/** Clone a tenant of a stopped server until it has `count`: a row of `customers` in main.db and a file, for both servers. */
export function cloneTenants(folder, count) {
  const db = new Database(path.join(folder, 'main.db'));
  const there = db.prepare('SELECT count(*) FROM customers').pluck().get();
  const model = db.prepare('SELECT * FROM customers LIMIT 1').get();
  const names = Object.keys(model);
  const add = db.prepare(`INSERT INTO customers (${names.map((name) => `"${name}"`)}) VALUES (${names.map((name) => `@${name}`)})`);
  const fileOf = (id) => path.join(filesOf(folder), `tenant_${id.replaceAll('-', '')}.db`);
  const bytes = fs.readFileSync(fileOf(model.id));
  db.transaction(() => {
    for (let i = there; i < count; i++) {
      const id = model.id.includes('-') ? randomUUID() : randomUUID().replaceAll('-', '');
      add.run({ ...model, id, email: `clone-${i}@example.com` });
      fs.writeFileSync(fileOf(id), bytes, { mode: 0o600 });
    }
  })();
  db.close();
}
