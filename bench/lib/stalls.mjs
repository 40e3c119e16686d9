// How long a server holds newcomers up while it has work to do.
import { execFileSync, spawn } from 'node:child_process';
import path from 'node:path';
import { percentile, sleep } from './report.mjs';

const HERE = path.resolve(import.meta.dirname, '..');

/** Round trips of the pinger while `work` runs, or from the moment on that it gives, less the usual one while nothing runs. */
export async function heldUp(server, work) {
  const real = [['chrt', ['-f', '1']], ['env', []]].find(([command, rest]) => { try { execFileSync(command, [...rest, 'true']); return true; } catch { return false; } });
  const child = spawn(real[0], [...real[1], process.execPath, path.join(HERE, 'stall.mjs'), String(server.port)], { stdio: ['pipe', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (part) => { text += part; });
  const closed = new Promise((resolve) => child.once('close', resolve));
  await sleep(500);
  const began = performance.timeOrigin + performance.now();
  const from = (await work())?.from ?? began;
  const ended = performance.timeOrigin + performance.now();
  child.stdin.end();
  await closed;
  const trips = JSON.parse(text);
  const idle = percentile(trips.filter(([at]) => at < began && at > began - 300).map(([, ms]) => ms), 50);
  return trips.filter(([at, ms]) => at + ms > from && at < ended).map(([, ms]) => Math.max(0, ms - idle));
}
