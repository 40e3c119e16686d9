// Samples to figures, figures to a table.
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Wait until something is so. */
export async function until(isSo, seconds) {
  for (const began = performance.now(); !isSo(); await sleep(10)) if (performance.now() - began > seconds * 1000) throw new Error(`it took more than ${seconds} s`);
}

/** The p-th percentile of numbers in any order. */
export function percentile(values, p) {
  if (!values.length) return NaN;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor((p / 100) * sorted.length))];
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const spread = (values) => ({ median: median(values), least: Math.min(...values), most: Math.max(...values) });

const short = (value) => (Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en') : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2));
const withSpread = ({ median: middle, least, most }) => (least === most ? short(middle) : `${short(middle)} (${short(least)}–${short(most)})`);

/** Figures of all repetitions, in the order in which they were taken. */
export class Figures {
  samples = new Map();

  add(figure, unit, server, value, { goal, own } = {}) {
    const found = this.samples.get(figure) ?? { unit, goal, own, syncapp: [], peer: [] };
    this.samples.set(figure, found);
    if (Number.isFinite(value)) found[server].push(value);
  }

  /** Median and spread of both servers, and of the ratio within each repetition. */
  lines() {
    return [...this.samples].map(([figure, { unit, goal, own, syncapp, peer }]) => {
      const pairs = syncapp.slice(0, peer.length).map((value, i) => value / peer[i]).filter(Number.isFinite);
      const measured = own ? syncapp.length && spread(syncapp) : pairs.length && spread(pairs);
      const met = goal && measured ? (goal[0] === '≥' ? measured.median >= goal[1] : measured.median <= goal[1]) : undefined;
      return {
        figure, unit, syncapp: syncapp.length ? spread(syncapp) : null, peer: peer.length ? spread(peer) : null,
        ratio: pairs.length ? spread(pairs) : null, goal: goal ? `${goal[0]} ${goal[1]}${own ? ` ${unit}` : '×'}` : null, met, samples: { syncapp, peer },
      };
    });
  }

  /** `other`: what the peer is called. */
  table(other = 'peer') {
    const rows = this.lines().map((line) => [
      line.figure, line.unit, ...[line.syncapp, line.peer, line.ratio].map((one) => (one ? withSpread(one) : '–')),
      line.goal ? `${line.goal} ${line.met === undefined ? '' : line.met ? '✓' : '✗'}` : '',
    ]);
    const head = ['work', 'unit', 'syncapp', other, `syncapp ÷ ${other}`, 'goal'];
    const widths = head.map((title, i) => Math.max(title.length, ...rows.map((cells) => cells[i].length)));
    const write = (cells) => `| ${cells.map((cell, i) => (i < 2 || i === 5 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(' | ')} |`;
    const rule = `|${widths.map((width, i) => '-'.repeat(width + 1) + (i < 2 || i === 5 ? '-' : ':')).join('|')}|`;
    return [write(head), rule, ...rows.map(write)].join('\n');
  }
}
