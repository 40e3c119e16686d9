// The works that need a server of their own: what it takes at rest, and what many tenants, herds, floods and large tenants do to
// it. Each is given `start(extra)`, which starts such a server with these settings, and ends it when the work is done.
import { sleep } from './report.mjs';
import { herd as comeBack } from './herd.mjs';
import { large as largeTenant } from './large.mjs';
import { idleSockets } from './live.mjs';
import { cloneTenants, diskKib, inTurn, makeTenants, openCost } from './tenants.mjs';
import { offered, singles } from './writes.mjs';

const YEAR_SECONDS = 31_536_000;

async function idle(start, note) {
  const server = await start({});
  note('start with an empty folder', 'ms', server.startMs);
  await sleep(1000);
  note('memory of the server at rest', 'MiB', server.rssKib() / 1024, { goal: ['≤', 45], own: true });
  note('memory of an idle socket', 'KiB', await idleSockets(server, await server.tenant()), { goal: ['≤', 1] });
}

/** Tenants in turn, more of them than may be open, beside few that stay open. */
async function tenants(start, note, { quick }) {
  const [count, most] = quick ? [90, 40] : [600, 256];
  const server = await start((adapter) => ({ ...adapter.cheapHashes, OPEN_TENANTS: String(most) }));
  const tokens = await makeTenants(server, count);
  note(`disk of each of ${count} new tenants`, 'KiB', diskKib(server.data));
  await server.restart();
  const { kib, descriptors } = await openCost(server, tokens.slice(0, Math.min(most, 220)));
  const row = 'an open tenant: memory / descriptors';
  note('memory of each open tenant', 'KiB', kib, { goal: ['≤', 120], own: true, row });
  note('descriptors of each open tenant', '', descriptors, { goal: ['≤', 3], own: true, row });
  const few = tokens.slice(0, most >> 1);
  await inTurn(server, tokens); // Each file has its rows and its WAL once.
  for (let round = 0; round < (quick ? 2 : 3); round++) {
    const closed = await inTurn(server, tokens);
    await inTurn(server, few);
    const open = await inTurn(server, [...few, ...few]);
    const name = `push to one of ${count} tenants in turn, ${most} open`;
    const [byPeer, byOpen] = [`${name}: time / CPU`, `${name}, to one that is open: time / CPU`];
    note(name, 'ms', closed.p50, { goal: ['≤', 1], row: byPeer });
    note(`${name}, p99`, 'ms', closed.p99);
    note(`${name}, CPU of the server`, 'ms', closed.cpu, { goal: ['≤', 1], row: byPeer });
    note(`${name}: to one that is open`, 'times', closed.p50 / open.p50, { goal: ['≤', 1.5], own: true, row: byOpen });
    note(`${name}: CPU, to one that is open`, 'times', closed.cpu / open.cpu, { goal: ['≤', 1.5], own: true, row: byOpen });
  }
}

async function many(start, note, { quick, counts }) {
  const server = await start((adapter) => adapter.cheapHashes);
  await server.tenant();
  for (const count of counts) {
    await server.stop();
    cloneTenants(server.data, count);
    await server.start(server.core, server.extra); // Its cache of files is cold the first time.
    for (let i = 0; i < (quick ? 1 : 3); i++) {
      await server.restart();
      const size = count.toLocaleString('en');
      const row = `${size} tenants: start / memory after it`;
      note(`start with ${size} tenants`, 'ms', server.startMs, { goal: ['≤', 450], own: true, row });
      await sleep(1000);
      note(`memory after the start with ${size} tenants`, 'MiB', server.rssKib() / 1024, { goal: ['≤', 45], own: true, row });
      note(`descriptors after the start with ${size} tenants`, '', server.descriptors());
    }
  }
}

async function herd(start, note, { quick }) {
  const [devices, count, seconds] = quick ? [2000, 100, 0.4] : [5000, 250, 1];
  const server = await start((adapter) => adapter.cheapHashes);
  const leftSeconds = quick ? (server.name === 'syncapp' ? 15 : 0) : 75; // A goal of its own, and much waiting.
  const found = await comeBack(server, count, devices, seconds, leftSeconds);
  const name = `${devices.toLocaleString('en')} devices of ${count} tenants come back`;
  const own = { own: true, row: `${name}: attempts cut or refused / pushes of another tenant, p99 / memory kept` };
  note(name, 's', found.seconds, { goal: ['≤', 0.6], before: ['≤', 0.35] });
  note(`${name}: attempts cut or refused`, '', found.refused, { ...own, goal: ['≤', 0] });
  note(`${name}: one of them, p50`, 'ms', found.p50);
  note(`${name}: one of them, p99`, 'ms', found.p99);
  note(`${name}: CPU of the server`, 's', found.cpu);
  note(`${name}: pushes of another tenant meanwhile, p99`, 'ms', found.others, { ...own, goal: ['≤', 250] });
  note(`${name}: memory when all are there`, 'MiB more', found.grown);
  if (leftSeconds) note(`${name}: memory when all have left`, 'MiB more', found.kept, { ...own, goal: ['≤', 20] });
}

async function overload(start, note, { quick, curves }) {
  const server = await start({});
  const token = await server.tenant();
  await singles(server, token, 64, quick ? 1 : 2); // A cold server would be asked too little.
  for (const times of quick ? [2, 3] : [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3]) {
    const { rate: capacity } = await singles(server, token, 64, quick ? 0.7 : 2); // Just before: others' load changes it.
    const found = await offered(server, token, capacity * times, quick ? 2 : 4);
    curves.push({ server: server.name, times, ...found });
    if (times < 2) continue;
    const row = `pushes at ${times} times of capacity: admitted, of capacity / their p99`;
    note(`pushes at ${times} times of capacity: admitted, of capacity`, '%', (found.admitted / capacity) * 100, { goal: ['≥', times > 2 ? 80 : 90], own: true, row });
    note(`pushes at ${times} times of capacity: p99 of the admitted`, 'ms', found.p99, { goal: ['≤', 500], own: true, row });
  }
}

async function large(start, note, { seconds, largeRows }) {
  await largeTenant(await start({ ACCESS_TOKEN_SECONDS: String(YEAR_SECONDS) }), note, largeRows, seconds);
}

export const FRESH = { idle, tenants, many, herd, overload, large };
