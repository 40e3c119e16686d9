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

/** Does a value meet a goal such as ['≥', 1.3]? */
const meets = (value, [sign, bound]) => (sign === '≥' ? value >= bound : value <= bound);

/** Figures of all repetitions, in the order in which they were taken. */
export class Figures {
  samples = new Map();

  /** `other`: what stands in the peer's place; goals that are ratios to the peer say nothing about another. */
  constructor(other = 'peer') { this.other = other; }

  /**
   * `goal` is a bound of the ratio to the peer, or with `own` of syncapp's own figure; `before` one of the ratio to another
   * version. Figures with a goal are in the summary; those with the same `row` share a line of it.
   */
  add(figure, unit, server, value, { goal, own = false, before, row } = {}) {
    const bound = own || ['peer', 'SQLite'].includes(this.other) ? goal : this.other === 'before' ? before : undefined;
    const found = this.samples.get(figure) ?? { unit, own: own && Boolean(goal), row: row ?? (goal || before ? figure : undefined), bound, syncapp: [], peer: [] };
    this.samples.set(figure, found);
    if (Number.isFinite(value)) found[server].push(value);
  }

  /** Median and spread of both servers, and of the ratio within each repetition. */
  lines() {
    return [...this.samples].map(([figure, { unit, own, bound, row, syncapp, peer }]) => {
      const pairs = syncapp.slice(0, peer.length).map((value, i) => value / peer[i]).filter(Number.isFinite);
      const line = { figure, unit, row, own, bound, syncapp: syncapp.length ? spread(syncapp) : null, peer: peer.length ? spread(peer) : null, ratio: pairs.length ? spread(pairs) : null };
      const measured = own ? line.syncapp : line.ratio;
      return { ...line, met: bound && measured ? meets(measured.median, bound) : null, samples: { syncapp, peer } };
    });
  }
}

const mark = (met) => (met === null ? '' : met ? '✓' : '✗');
const unitOf = ({ own, unit }, other) => (own ? unit.replace(/^times$/, '×') : `× ${other}`);

/** Markdown of all that was measured. */
export function table(lines, other) {
  return markdown(['work', 'unit', 'syncapp', other, `syncapp ÷ ${other}`, 'goal'], 'llrrrl', lines.map((line) => [
    line.figure, line.unit, ...[line.syncapp, line.peer, line.ratio].map((one) => (one ? withSpread(one) : '–')),
    line.bound ? `${line.bound.join(' ')} ${unitOf(line, '').trim()} ${mark(line.met)}`.trim() : '',
  ]));
}

/** Join [sign, value, unit], with signs and units once if they are the same. */
function together(parts) {
  const [signs, units] = [0, 2].map((at) => (new Set(parts.map((part) => part[at])).size === 1 ? parts[0][at] : null));
  const each = parts.map(([sign, value, unit]) => `${signs === null ? `${sign} ` : ''}${value}${units === null ? ` ${unit}`.trimEnd() : ''}`);
  return `${signs ?? ''} ${each.join(' / ')} ${units ?? ''}`.trim();
}

/** Markdown of the rows that have a goal beside the peer: the medians, what they should be, and whether they are. */
export function summary(lines, other) {
  const rows = new Map();
  for (const line of lines.filter(({ row, bound, ratio }) => row && (bound || ratio))) rows.set(line.row, [...rows.get(line.row) ?? [], line]);
  return markdown(['work', 'measured', 'goal', ''], 'lrll', [...rows].map(([row, some]) => {
    const measured = some.map((line) => { const one = line.own ? line.syncapp : line.ratio; return ['', one ? short(one.median) : '–', unitOf(line, other)]; });
    const goals = some.filter(({ bound }) => bound).map((line) => [line.bound[0], String(line.bound[1]), unitOf(line, other)]);
    return [row, together(measured), goals.length ? together(goals) : '', some.map(({ met }) => mark(met)).join(' ').trim()];
  }));
}

/** Markdown of what came through when more was offered than a server can take. */
export const curveTable = (curves) => markdown(['server', 'offered /s', 'of capacity', 'admitted /s', '429 or 503', 'no connection', 'p50 ms', 'p99 ms'], 'lrrrrrrr', curves.map((one) => [
  one.server, String(Math.round(one.rate)), `${one.times}×`, String(Math.round(one.admitted)),
  `${(one.refused * 100).toFixed(1)} %`, `${(one.lost * 100).toFixed(1)} %`, one.p50.toFixed(1), one.p99.toFixed(1),
]));

function markdown(head, sides, rows) {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((cells) => cells[i].length)));
  const write = (cells) => `| ${cells.map((cell, i) => (sides[i] === 'l' ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(' | ')} |`;
  const rule = `|${widths.map((width, i) => '-'.repeat(width + 1) + (sides[i] === 'l' ? '-' : ':')).join('|')}|`;
  return [write(head), rule, ...rows.map(write)].join('\n');
}
