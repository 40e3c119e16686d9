// The herd: devices of many tenants that come back at once after the server was started again.
import { Connection } from './http.mjs';
import { countRows, cursorNow, seed } from './reads.mjs';
import { percentile, sleep, until } from './report.mjs';
import { newRow } from './rows.mjs';
import { Socket } from './sio.mjs';
import { each, makeTenants } from './tenants.mjs';
import { checked } from './writes.mjs';

const MISSED = 10;
const SECONDS_AT_MOST = 60;

/** Tenants whose devices have a cursor and then miss 10 rows. */
async function prepare(server, count) {
  const tokens = await makeTenants(server, count);
  return each(tokens, async (token) => {
    const cursor = await cursorNow(server, token);
    await seed(server, token, MISSED);
    return { token, cursor };
  });
}

/** As socket.io-client waits: a second, twice as long each time, 5 s at most, each 50 % more or less. */
const pause = (attempt) => sleep(Math.min(1000 * 2 ** attempt, 5000) * (0.5 + Math.random()));

/** Try until it went well; counts the attempts that the server cut or refused. */
async function persist(tally, attempt) {
  for (let i = 0; ; i++) {
    try { return await attempt(); } catch { tally.refused += 1; }
    if (performance.now() - tally.began > SECONDS_AT_MOST * 1000) throw new Error(`a device was not let in within ${SECONDS_AT_MOST} s`);
    await pause(i);
  }
}

/** Come back as our clients do: a socket with the token, then the greeting, then a pull over HTTP of what was missed. */
async function comeBack(server, { token, cursor }, tally, sockets) {
  sockets.push(await persist(tally, () => Socket.open(server.port, token, server.isReady)));
  const { body } = await persist(tally, async () => {
    const connection = new Connection(server.port);
    const answer = await connection.send(server.pullOf(token, server.page(cursor, 1000))).finally(() => connection.close());
    if (answer.status !== 200) throw new Error(String(answer.status));
    return answer;
  });
  if (countRows([body]) !== MISSED) throw new Error(`${server.name}: ${countRows([body])} rows instead of ${MISSED}`);
}

/** Push 20 times a second to a tenant that is none of theirs; times count from when a push was due. */
async function bystander(server, token, state) {
  const connections = Array.from({ length: 20 }, () => new Connection(server.port));
  await Promise.all(connections.map((one) => checked(one.send(server.pushOf(token, server.one(newRow()))))));
  const times = []; const running = [];
  const push = async (connection, due) => {
    await checked(connection.send(server.pushOf(token, server.one(newRow()))));
    times.push(performance.now() - due);
    connections.push(connection);
  };
  for (let due = performance.now(); !state.isOver; due += 50) {
    await sleep(due - performance.now());
    const connection = connections.pop();
    if (connection) running.push(push(connection, due));
  }
  await Promise.all(running);
  connections.forEach((one) => one.close());
  return times;
}

/** What stays in memory so long after all have left: a file that nobody uses is closed after a minute. */
async function keptKib(server, sockets, devices, leftSeconds) {
  const held = server.descriptors() - 0.95 * devices;
  sockets.forEach((socket) => socket.close());
  await until(() => server.descriptors() <= held, 30);
  await sleep(leftSeconds * 1000);
  return server.rssKib();
}

/** `devices` of `tenants` come back within `seconds` of a start, evenly. */
export async function herd(server, tenants, devices, seconds, leftSeconds) {
  const them = await prepare(server, tenants);
  const other = await server.tenant();
  await server.restart();
  await sleep(1000);
  const state = { isOver: false }; const before = server.rssKib(); const used = server.cpu();
  const pushes = bystander(server, other, state);
  const tally = { refused: 0, began: performance.now() }; const sockets = []; const took = [];
  await Promise.all(Array.from({ length: devices }, async (_, i) => {
    const due = tally.began + (i / devices) * seconds * 1000;
    await sleep(due - performance.now());
    await comeBack(server, them[i % tenants], tally, sockets);
    took.push(performance.now() - due);
  }));
  const all = (performance.now() - tally.began) / 1000; const cpu = server.cpu() - used; const peak = server.rssKib();
  state.isOver = true;
  const meanwhile = await pushes;
  return {
    seconds: all, refused: tally.refused, cpu, p50: percentile(took, 50), p99: percentile(took, 99), others: percentile(meanwhile, 99),
    grown: (peak - before) / 1024, kept: leftSeconds ? (await keptKib(server, sockets, devices, leftSeconds) - before) / 1024 : null,
  };
}
