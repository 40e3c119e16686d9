// Prints the tables of runs that were saved in bench/results/ again, as Markdown: node bench/tables.mjs FILE.json…
// [--only REGEX] [--short]. Of a figure that several files have, the last one's is taken. `--short`: the figures that
// docs/performance.md compares.
import fs from 'node:fs';
import { parseArgs } from 'node:util';
import { curveTable, summary, table } from './lib/report.mjs';

const SHORT = new RegExp(`^(${[
  'push of one row, \\d+ connections', 'push as an event, \\d+ sockets that all hear it', 'batches of \\d+ (new|changed) rows, 4 connections',
  'pull of 100,000 rows (by 1,000|at once \\(peer: by 10,000\\))', '100 changes among 100,000 rows, p50', 'fan-out to \\d+ sockets',
  'write to notification, 100 listeners, p50', 'stall while 16 connections push, p99', 'push to one of 600 tenants in turn, 256 open',
  '5,000 devices of 250 tenants come back', 'start with an empty folder', 'memory of .*',
].join('|')})$`);
const { values: { only, short }, positionals: files } = parseArgs({
  allowPositionals: true, options: { only: { type: 'string', default: '.' }, short: { type: 'boolean', default: false } },
});
if (!files.length) throw new Error('usage: node bench/tables.mjs FILE.json… [--only REGEX] [--short]');
const runs = files.map((file) => JSON.parse(fs.readFileSync(file, 'utf8')));
const all = new Map(runs.flatMap(({ figures }) => figures.map((line) => [line.figure, line])));
const lines = [...all.values()].filter(({ figure }) => new RegExp(only).test(figure));
const shown = short ? lines.filter(({ figure }) => SHORT.test(figure)) : lines;
const { other } = runs.at(-1);
console.log(`${summary(lines, other)}\n\n${table(shown, other)}`);
const curves = runs.flatMap((run) => run.curves);
if (curves.length) console.log(`\n${curveTable(curves)}`);
