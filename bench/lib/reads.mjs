// Work that reads: everything, in pages or in one answer, and the few changes after a cursor.
import { gunzipSync } from 'node:zlib';
import { Connection } from './http.mjs';
import { percentile } from './report.mjs';
import { newRow } from './rows.mjs';

const GZIP = 0x1f; // JSON does not begin with it.
const MARK = '"Unique_id":"';
const tailOf = (body) => body.latin1Slice(Math.max(0, body.length - 300)); // The cursor is behind the rows.

export function countRows(bodies) {
  let count = 0;
  for (const body of bodies) for (let at = body.indexOf(MARK); at >= 0; at = body.indexOf(MARK, at + MARK.length)) count += 1;
  return count;
}

export async function seed(server, token, count) {
  const connection = new Connection(server.port);
  for (let left = count; left > 0; left -= 1000) {
    const rows = Array.from({ length: Math.min(1000, left) }, () => newRow());
    const { status, body } = await connection.send(server.pushOf(token, server.many(rows)));
    if (status !== 200) throw new Error(`${status} ${body.toString().slice(0, 300)}`);
  }
  connection.close();
}

async function answered(server, connection, token, body, encoding) {
  const answer = await connection.send(server.pullOf(token, body, encoding));
  if (answer.status !== 200) throw new Error(`${answer.status} ${answer.body.toString().slice(0, 300)}`);
  return answer;
}

/** Pull everything by pages. Rows are counted when the clock has stopped; with `encoding` gzip the client unpacks meanwhile. */
export async function full(server, token, expected, limit, encoding) {
  const connection = new Connection(server.port);
  const before = server.rssKib();
  const bodies = [];
  let cursor = null; let firstByte = 0; let size = 0;
  const began = performance.now(); const used = server.cpu();
  for (;;) {
    const answer = await answered(server, connection, token, limit ? server.page(cursor, limit) : server.everything, encoding);
    firstByte ||= answer.firstByte - began;
    size += answer.body.length;
    const body = answer.body[0] === GZIP ? gunzipSync(answer.body) : answer.body;
    bodies.push(body);
    const tail = tailOf(body);
    if (!/"hasMore":true/.test(tail)) break;
    cursor = server.cursorOf(tail);
  }
  const seconds = (performance.now() - began) / 1000;
  const cpu = server.cpu() - used;
  const rss = (server.rssKib() - before) / 1024;
  connection.close();
  const count = countRows(bodies);
  if (count !== expected) throw new Error(`${server.name}: ${count} rows instead of ${expected}`);
  return { rate: count / seconds, cpu: (cpu / count) * 1e5, firstByte, rss, bytes: size / count };
}

/** Where the tenant stands: the cursor of a push's answer. */
export async function cursorNow(server, token) {
  const connection = new Connection(server.port);
  const { body } = await connection.send(server.pushOf(token, server.one(newRow())));
  connection.close();
  return server.cursorOf(body.toString('latin1').slice(-600));
}

/** 100 changes after a cursor, asked for again and again. */
export async function recent(server, token, times) {
  const cursor = await cursorNow(server, token);
  await seed(server, token, 100);
  const connection = new Connection(server.port);
  const took = [];
  const used = server.cpu();
  for (let i = 0; i < times; i++) {
    const began = performance.now();
    const { body } = await answered(server, connection, token, server.page(cursor, 1000));
    took.push(performance.now() - began);
    if (i === 0 && countRows([body]) !== 100) throw new Error(`${server.name}: ${countRows([body])} changes instead of 100`);
  }
  const cpu = ((server.cpu() - used) * 1000) / times;
  connection.close();
  return { cpu, p50: percentile(took, 50), p99: percentile(took, 99) };
}
