// Work that writes: single rows over HTTP and as events, batches, and more than the server can take.
import { Connection } from './http.mjs';
import { percentile, sleep } from './report.mjs';
import { KNOWN, newId, newRow } from './rows.mjs';
import { Socket } from './sio.mjs';

/** Each of `askers` asks again as soon as it was answered, for `seconds` after a short warm-up; `cpu` is in ms a row. */
export async function closedLoop(server, askers, seconds, perAnswer = 1) {
  await Promise.all(askers.map((ask) => ask())); // Opens every connection, so that none waits to be let in later.
  const times = [];
  let counts = false; let ended = false;
  const runs = askers.map(async (ask) => {
    while (!ended) {
      const began = performance.now();
      await ask();
      if (counts && !ended) times.push(performance.now() - began);
    }
  });
  await Promise.race([sleep(Math.min(500, seconds * 300)), Promise.all(runs)]);
  counts = true;
  const began = performance.now(); const used = server.cpu();
  await Promise.race([sleep(seconds * 1000), Promise.all(runs)]);
  ended = true;
  const elapsed = (performance.now() - began) / 1000; const cpu = server.cpu() - used; const rows = times.length * perAnswer;
  await Promise.all(runs);
  return { rate: rows / elapsed, cpu: (cpu * 1000) / rows, p50: percentile(times, 50), p99: percentile(times, 99) };
}

export const checked = async (answer) => {
  const { status, body } = await answer;
  if (status !== 200) throw new Error(`${status} ${body.toString().slice(0, 300)}`);
};

/** Durable pushes of one new row each, over `count` keep-alive connections, heard by as many sockets as `listeners` says. */
export async function singles(server, token, count, seconds, { listeners = 0, kind = KNOWN } = {}) {
  const sockets = await openAll(server, token, listeners);
  const connections = Array.from({ length: count }, () => new Connection(server.port));
  const result = await closedLoop(server, connections.map((one) => () => checked(one.send(server.pushOf(token, server.one(newRow(kind)))))), seconds);
  [...connections, ...sockets].forEach((one) => one.close());
  return result;
}

/** The same over `count` connections to several tenants, and to several servers of the same tenants, in turn. */
export async function spread(servers, tokens, count, seconds) {
  const connections = Array.from({ length: count }, (_, i) => ({ server: servers[i % servers.length], token: tokens[i % tokens.length], one: new Connection(servers[i % servers.length].port) }));
  const all = { cpu: () => servers.reduce((sum, server) => sum + server.cpu(), 0) };
  const result = await closedLoop(all, connections.map(({ server, token, one }) => () => checked(one.send(server.pushOf(token, server.one(newRow()))))), seconds);
  connections.forEach(({ one }) => one.close());
  return result;
}

/** The same push as an event, answered by its acknowledgement. All sockets are of one tenant, and so hear of each other. */
export async function events(server, token, count, seconds) {
  const sockets = await openAll(server, token, count);
  const ask = async (socket) => {
    const answer = await socket.ask('sync_push', server.one(newRow()));
    if (answer.latin1Slice(0, 15) !== '{"success":true') throw new Error(answer.toString().slice(0, 300));
  };
  const result = await closedLoop(server, sockets.map((socket) => () => ask(socket)), seconds);
  sockets.forEach((socket) => socket.close());
  return result;
}

export async function openAll(server, token, count, heard) {
  const sockets = [];
  for (let i = 0; i < count; i += 20) {
    const some = Array.from({ length: Math.min(20, count - i) }, (_, k) => Socket.open(server.port, token, server.isReady, heard && ((event) => heard(i + k, event))));
    sockets.push(...await Promise.all(some));
  }
  return sockets;
}

/** Batches over 4 connections: of new rows, or of rows that exist and all change. */
export async function batches(server, token, size, seconds, isUpdate, kind = KNOWN) {
  const some = () => Array.from({ length: size }, newId);
  const workers = Array.from({ length: 4 }, () => ({ connection: new Connection(server.port), ids: some(), round: 0 }));
  const push = ({ connection }, rows) => checked(connection.send(server.pushOf(token, server.many(rows))));
  if (isUpdate) await Promise.all(workers.map((worker) => push(worker, worker.ids.map((id) => kind.make(id)))));
  const next = (worker) => {
    worker.round += 1;
    return isUpdate ? worker.ids.map((id) => kind.make(id, worker.round)) : some().map((id) => kind.make(id));
  };
  const result = await closedLoop(server, workers.map((worker) => () => push(worker, next(worker))), seconds, size);
  workers.forEach(({ connection }) => connection.close());
  return result;
}

/** Pushes come at a rate of their own, answered or not. Times count from when a push was due, `admitted` in the second half. */
export async function offered(server, token, rate, seconds, most = 2000) {
  const idle = []; const all = [];
  const times = []; const statuses = new Map();
  let sent = 0; let waiting = 0; let admitted = 0;
  const began = performance.now();
  const count = (status) => statuses.set(status, (statuses.get(status) ?? 0) + 1);
  const share = (...kinds) => kinds.reduce((sum, kind) => sum + (statuses.get(kind) ?? 0), 0) / sent;
  const push = async (due) => {
    let connection = idle.pop();
    if (!connection && all.length < most) all.push(connection = new Connection(server.port));
    if (!connection) return void count('no connection');
    waiting += 1;
    let status = 'lost';
    try { status = (await connection.send(server.pushOf(token, server.one(newRow())))).status; idle.push(connection); } catch { connection.close(); }
    waiting -= 1;
    count(status);
    if (status !== 200) return;
    times.push(performance.now() - due);
    const at = performance.now() - began;
    if (at > seconds * 500 && at <= seconds * 1000) admitted += 1;
  };
  while (performance.now() - began < seconds * 1000) {
    const due = Math.floor(((performance.now() - began) / 1000) * rate);
    for (; sent < due; sent++) push(began + (sent * 1000) / rate);
    await sleep(1);
  }
  for (let i = 0; i < 100 && waiting; i++) await sleep(100);
  all.forEach((one) => one.close());
  await sleep(300);
  return { rate, admitted: admitted / (seconds / 2), refused: share(503, 429), lost: share('lost', 'no connection'), p50: percentile(times, 50), p99: percentile(times, 99) };
}
