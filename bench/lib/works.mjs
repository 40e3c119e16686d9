// The works that are done in turn, again and again, on servers that run all the time: name, and what it does to one server in
// one repetition. `note(figure, unit, value, {goal, own, before, row})` takes what was measured (Figures in report.mjs).
import { fanOut, soon } from './live.mjs';
import { full, recent, seed } from './reads.mjs';
import { percentile } from './report.mjs';
import { FOREIGN, KINDS } from './rows.mjs';
import { heldUp } from './stalls.mjs';
import { batches, events, singles } from './writes.mjs';

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

async function push(server, note, { seconds }) {
  for (const kind of KINDS) {
    for (const [count, goal] of [[1, 1.3], [16, 2.3], [64, 2.6]]) {
      const { rate, cpu, p50, p99 } = await singles(server, await tokenFor(server, `push${kind.name}`), count, seconds, { kind });
      const name = `push of one row${kind.name}, ${count} connections`;
      note(name, 'per s', rate, { goal: ['≥', goal], row: `push of one row${kind.name}, 1 / 16 / 64 connections` });
      note(`${name}, p50`, 'ms', p50);
      note(`${name}, p99`, 'ms', p99, { goal: ['≤', 1], row: `push of one row${kind.name}, p99, 1 / 16 / 64 connections` });
      note(`${name}, CPU of the server`, 'ms a row', cpu);
    }
  }
}

async function event(server, note, { seconds }) {
  for (const count of [1, 16, 64]) {
    const alone = await singles(server, await tokenFor(server, 'event alone'), count, seconds);
    const { rate, cpu, p50, p99 } = await events(server, await tokenFor(server, 'event'), count, seconds);
    note(`push as an event, ${count} sockets that all hear it`, 'per s', rate);
    note(`push as an event, ${count} sockets, p50`, 'ms', p50);
    note(`push as an event, ${count} sockets, p99`, 'ms', p99);
    note(`push as an event, ${count} sockets, CPU of the server`, 'ms a row', cpu);
    note(`push as an event, ${count} sockets, to its own over HTTP that nobody hears`, 'times', rate / alone.rate,
      { goal: ['≥', 1.2], own: true, row: 'push as an event, to its own over HTTP that nobody hears, 1 / 16 / 64 sockets' });
    const heard = await singles(server, await tokenFor(server, 'event'), count, seconds, { listeners: count });
    note(`push over HTTP, ${count} connections, ${count} sockets hear it`, 'per s', heard.rate);
  }
}

async function batch(server, note, { seconds }) {
  for (const kind of KINDS) {
    for (const [size, goals] of [[100, [1, 0.7]], [1000, [0.9, 0.7]]]) {
      for (const isUpdate of [false, true]) {
        const { rate, cpu, p99 } = await batches(server, await tokenFor(server, `batch${kind.name} ${isUpdate}`), size, seconds, isUpdate, kind);
        const what = `${isUpdate ? 'changed' : 'new'} rows${kind.name}`; const name = `batches of ${size} ${what}, 4 connections`;
        note(name, 'rows/s', rate, { goal: ['≥', goals[Number(isUpdate)]], row: `batches of ${what}, 100 / 1,000 a push` });
        note(`${name}, p99`, 'ms', p99);
        note(`${name}, CPU of the server`, 'µs a row', cpu * 1000);
      }
    }
  }
}

async function pull(server, note, { quick }) {
  for (const count of quick ? [20_000] : [10_000, 100_000]) {
    const token = await seeded(server, count);
    const name = `pull of ${count.toLocaleString('en')} rows`;
    const most = server.everything ? 0 : 10_000;
    for (const [way, limit, encoding] of [['by 1,000', 1000], ['at once (peer: by 10,000)', most], ['by 1,000 with gzip', 1000, 'gzip'], ['at once with gzip', most, 'gzip']]) {
      const { rate, cpu, firstByte, rss, bytes } = await full(server, token, server.rows[count], limit, encoding);
      note(`${name} ${way}`, 'rows/s', rate, encoding ? {} : { goal: ['≥', 5], row: `${name}, by 1,000 / at once` });
      note(`${name} ${way}, CPU of the server`, 's/100,000', cpu, encoding
        ? { before: ['≤', 0.5], row: `${name} with gzip, CPU of the server, by 1,000 / at once` }
        : { goal: ['≤', 0.15], row: `${name}, CPU of the server, by 1,000 / at once` });
      note(`${name} ${way}, first byte`, 'ms', firstByte);
      if (!limit || limit > 1000) note(`${name} ${way}, RSS grows by`, 'MiB', rss);
      note(`${name} ${way}, bytes a row`, 'B', bytes);
    }
  }
}

async function changes(server, note, { quick }) {
  for (const count of quick ? [1000, 20_000] : [1000, 100_000]) {
    const token = await seeded(server, count);
    const { cpu, p50, p99 } = await recent(server, token, quick ? 40 : 100);
    server.rows[count] += 101;
    note(`100 changes among ${count.toLocaleString('en')} rows, p50`, 'ms', p50, { goal: ['≤', 0.6], row: '100 changes after a cursor, p50, among few / many rows' });
    note(`100 changes among ${count.toLocaleString('en')} rows, p99`, 'ms', p99);
    note(`100 changes among ${count.toLocaleString('en')} rows, CPU of the server`, 'ms', cpu);
  }
}

async function fanout(server, note, { seconds }) {
  for (const kind of KINDS) {
    for (const count of kind === FOREIGN ? [100, 1000] : [100, 500, 1000]) {
      const { rate, cpu, client } = await fanOut(server, await tokenFor(server, `fanout${kind.name}`), count, seconds, kind);
      note(`fan-out${kind.name} to ${count} sockets`, 'deliveries/s', rate, { goal: ['≥', 2.5], row: `fan-out${kind.name} to ${kind === FOREIGN ? '100 / 1,000' : '100 / 500 / 1,000'} sockets` });
      note(`fan-out${kind.name} to ${count} sockets, CPU of the server`, 's/100,000', cpu);
      note(`fan-out${kind.name} to ${count} sockets, CPU of the client`, '%', client);
    }
  }
}

async function notification(server, note, { seconds }) {
  for (const kind of KINDS) {
    const { p50, p99 } = await soon(server, await tokenFor(server, `soon${kind.name}`), seconds * 2, kind);
    note(`write to notification${kind.name}, 100 listeners, p50`, 'ms', p50, { goal: ['≤', 0.6], row: `write to notification${kind.name}, 100 listeners, p50 / p99` });
    note(`write to notification${kind.name}, 100 listeners, p99`, 'ms', p99, { goal: ['≤', 0.6], row: `write to notification${kind.name}, 100 listeners, p50 / p99` });
  }
}

async function stall(server, note, { quick, seconds }) {
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
    if (quick && !/^(16|500) /.test(name)) continue;
    const held = await heldUp(server, work);
    note(`stall while ${name}, p99`, 'ms', percentile(held, 99), { goal: ['≤', 5], own: true });
    note(`stall while ${name}, most`, 'ms', Math.max(...held));
  }
}

export const WORKS = { push, event, batch, pull, recent: changes, fanout, soon: notification, stall };

/** Let compilers and caches do what they do once; else the first repetition of short works would measure that. */
export async function warmUp(server, { quick }) {
  const token = await tokenFor(server, 'warm up'); const seconds = quick ? 0.3 : 0.5;
  await singles(server, token, 16, seconds * 3);
  await events(server, token, 16, seconds);
  for (const isUpdate of [false, true]) await batches(server, token, 100, seconds, isUpdate);
  for (const kind of KINDS) await batches(server, token, 100, 0.3, false, kind);
}
