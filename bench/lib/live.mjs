// Work of real time: how many deliveries a second, how soon one comes, what an idle socket costs.
import { Connection } from './http.mjs';
import { percentile, sleep } from './report.mjs';
import { KNOWN, newRow } from './rows.mjs';
import { openAll } from './writes.mjs';

const HEAD = '42["sync_notification",'.length;

/**
 * Listeners that check all they hear: the first delivery of a change is parsed and held against the row that was pushed,
 * and every other socket must get the same bytes, in the same order, with nothing left out.
 */
class Audience {
  notes = []; delivered = 0; onAll = null; onOne = null;

  constructor(server, kind) { Object.assign(this, { server, kind }); }

  async open(token, count) {
    this.heardBy = new Uint32Array(count);
    this.count = count;
    this.sockets = await openAll(this.server, token, count, (i, event) => this.#hear(i, event));
  }

  #hear(i, event) {
    if (!this.server.isRow(event)) return;
    const index = this.heardBy[i]++;
    const known = this.notes[index];
    if (!known) this.notes.push(this.#note(event));
    else if (!known.bytes.equals(event)) throw new Error(`socket ${i} heard something else as its delivery ${index}`);
    this.delivered += 1;
    const note = this.notes[index];
    note.heard += 1;
    this.onOne?.(note);
    if (note.heard === this.count) { note.bytes = null; this.onAll?.(); }
  }

  #note(event) {
    const said = JSON.parse(event.subarray(HEAD, event.length - 1));
    const sequence = this.server.sequenceOf(said);
    const row = this.server.rowOf(said);
    this.sequence ??= sequence - 1;
    if (sequence !== this.sequence + 1 || !this.kind.isWhole(row)) throw new Error(`a change is missing or broken: ${event}`);
    this.sequence = sequence;
    return { bytes: Buffer.from(event), heard: 0, id: row.Unique_id };
  }

  close() { this.sockets.forEach((socket) => socket.close()); }

  /** Wait until every listener has heard `pushes`, at most 10 s. */
  async complete(pushes) {
    for (let i = 0; i < 1000 && this.delivered < pushes * this.count; i++) await sleep(10);
    if (this.delivered !== pushes * this.count) throw new Error(`${this.server.name}: ${this.delivered} deliveries instead of ${pushes * this.count}`);
  }
}

/** Pushes over 4 connections, of which at most 4 are not yet with every listener. */
export async function fanOut(server, token, listeners, seconds, kind = KNOWN) {
  const audience = new Audience(server, kind);
  await audience.open(token, listeners);
  const idle = Array.from({ length: 4 }, () => new Connection(server.port));
  let pushes = 0; let free = 4; let ended = false;
  const go = () => {
    while (!ended && free > 0 && idle.length) {
      const connection = idle.pop();
      free -= 1;
      pushes += 1;
      connection.send(server.pushOf(token, server.one(newRow(kind)))).then(() => { idle.push(connection); go(); });
    }
  };
  audience.onAll = () => { free += 1; go(); };
  go();
  await sleep(Math.min(500, seconds * 300));
  const before = audience.delivered; const used = server.cpu();
  const mine = process.cpuUsage(); const began = performance.now();
  await sleep(seconds * 1000);
  const elapsed = performance.now() - began; const count = audience.delivered - before;
  const { user, system } = process.cpuUsage(mine);
  const cpu = server.cpu() - used;
  ended = true;
  await audience.complete(pushes);
  audience.close();
  idle.forEach((one) => one.close());
  return { rate: (count * 1000) / elapsed, cpu: (cpu / count) * 1e5, client: (user + system) / elapsed / 10 };
}

/** From sending a push to each of 100 listeners having it, at 20 pushes a second. */
export async function soon(server, token, seconds, kind = KNOWN, listeners = 100) {
  const audience = new Audience(server, kind);
  await audience.open(token, listeners);
  const connection = new Connection(server.port);
  const sent = new Map(); const times = [];
  audience.onOne = (note) => times.push(performance.now() - sent.get(note.id));
  let pushes = 0;
  for (const began = performance.now(); performance.now() - began < seconds * 1000; pushes++) {
    await sleep(began + pushes * 50 - performance.now());
    const row = newRow(kind);
    const bytes = server.pushOf(token, server.one(row));
    sent.set(row.Unique_id, performance.now());
    await connection.send(bytes);
  }
  await audience.complete(pushes);
  audience.close();
  connection.close();
  return { p50: percentile(times, 50), p99: percentile(times, 99) };
}

/** KiB of the server's resident memory for each idle socket, beyond the first 50, which warm it up. */
export async function idleSockets(server, token, count = 1000) {
  const first = await openAll(server, token, 50);
  await sleep(500);
  const before = server.rssKib();
  const sockets = await openAll(server, token, count);
  await sleep(1000);
  const kib = (server.rssKib() - before) / count;
  [...first, ...sockets].forEach((socket) => socket.close());
  await sleep(500);
  return kib;
}
