// What the benchmark makes of samples: ratios within a repetition, goals, lines that share a row.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { curveTable, Figures, summary, table } from '../../bench/lib/report.mjs';

const BENCH = path.resolve(import.meta.dirname, '../../bench');
const cells = (markdown) => markdown.split('\n').slice(2).map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim()));

/** Figures of which both servers have samples, [syncapp, peer] in each repetition. */
function figuresOf(other, ...all) {
  const figures = new Figures(other);
  for (const [name, unit, pairs, more] of all) {
    for (const [own, theirs] of pairs) { figures.add(name, unit, 'syncapp', own, more); figures.add(name, unit, 'peer', theirs, more); }
  }
  return figures.lines();
}

test('a ratio is made within a repetition, not of two medians', () => {
  const [line] = figuresOf('peer', ['push', 'per s', [[100, 10], [20, 20], [60, 30]], {}]);
  assert.deepEqual(line.ratio, { median: 2, least: 1, most: 10 });
  assert.equal(line.syncapp.median / line.peer.median, 3);
});

test('a goal of its own is held against the figure, any other against the ratio', () => {
  const lines = figuresOf('peer', ['a', 'ms', [[4, 1]], { goal: ['≤', 5], own: true }], ['b', 'ms', [[4, 1]], { goal: ['≤', 5] }],
    ['c', 'ms', [[6, 1]], { goal: ['≤', 5], own: true }], ['d', 'ms', [[6, 1]], { goal: ['≥', 5] }], ['e', 'ms', [[NaN, 1]], { goal: ['≥', 5] }]);
  assert.deepEqual(lines.map(({ met }) => met), [true, true, false, true, null]);
});

test('goals beside the peer say nothing about another version, and those beside an older version nothing about the peer', () => {
  const figures = [['a', 'ms', [[1, 1]], { goal: ['≤', 0.6], before: ['≤', 0.5] }], ['b', 'ms', [[1, 1]], { goal: ['≤', 0.6] }], ['c', 'ms', [[1, 1]], { goal: ['≤', 2], own: true }]];
  const bounds = (other) => figuresOf(other, ...figures).map(({ bound }) => bound?.[1]);
  assert.deepEqual(bounds('peer'), [0.6, 0.6, 2]);
  assert.deepEqual(bounds('before'), [0.5, undefined, 2]);
  assert.deepEqual(bounds('stock'), [undefined, undefined, 2]);
  assert.deepEqual(cells(summary(figuresOf('stock', ...figures), 'stock')), [['a', '1.00 × stock', '', ''], ['b', '1.00 × stock', '', ''], ['c', '1.00 ms', '≤ 2 ms', '✓']]);
});

test('the summary has one line a row, with signs and units once where they are the same', () => {
  const lines = figuresOf('peer',
    ['push 1', 'per s', [[10, 10]], { goal: ['≥', 1.3], row: 'push, 1 / 16' }], ['push 1, p50', 'ms', [[1, 1]], {}],
    ['push 16', 'per s', [[30, 10]], { goal: ['≥', 2.3], row: 'push, 1 / 16' }],
    ['memory', 'KiB', [[130, 1]], { goal: ['≤', 120], own: true, row: 'open' }], ['descriptors', '', [[3, 1]], { goal: ['≤', 3], own: true, row: 'open' }],
    ['closed', 'times', [[1.4, 2]], { goal: ['≤', 1.5], own: true }], ['purge', 's', [[1, NaN]], { before: ['≤', 0.5] }]);
  assert.deepEqual(cells(summary(lines, 'peer')), [
    ['push, 1 / 16', '1.00 / 3.00 × peer', '≥ 1.3 / 2.3 × peer', '✗ ✓'],
    ['open', '130 KiB / 3.00', '≤ 120 KiB / 3', '✗ ✓'],
    ['closed', '1.40 ×', '≤ 1.5 ×', '✓'],
  ]);
});

test('the table has every figure, and a dash where a server was not measured', () => {
  const figures = new Figures();
  figures.add('backup', 's', 'syncapp', 3.14159);
  figures.add('push', 'per s', 'syncapp', 1500, { goal: ['≥', 1.3] });
  figures.add('push', 'per s', 'peer', 1000);
  assert.deepEqual(cells(table(figures.lines(), 'peer')), [['backup', 's', '3.14', '–', '–', ''], ['push', 'per s', '1,500', '1,000', '1.50', '≥ 1.3 × ✓']]);
});

test('saved runs give the same tables again, the last file that has a figure', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'bench-'));
  const save = (name, figures) => { const file = path.join(folder, name); fs.writeFileSync(file, JSON.stringify({ other: 'peer', curves: [curve], figures })); return file; };
  const curve = { server: 'syncapp', times: 2, rate: 4000, admitted: 1900, refused: 0.5, lost: 0, p50: 3, p99: 9 };
  const [old, late] = [2, 4].map((own) => figuresOf('peer', ['push', 'per s', [[own, 2]], { goal: ['≥', 1.3] }], [`only in ${own}`, 'ms', [[1, 1]], {}]));
  const printed = execFileSync(process.execPath, [path.join(BENCH, 'tables.mjs'), save('a.json', old), save('b.json', late)], { encoding: 'utf8' });
  const all = [late[0], old[1], late[1]];
  assert.equal(printed, `${summary(all, 'peer')}\n\n${table(all, 'peer')}\n\n${curveTable([curve, curve])}\n`);
  fs.rmSync(folder, { recursive: true });
});
