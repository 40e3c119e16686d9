// Prints the tables of runs that were saved in bench/results/ again, as Markdown: node bench/tables.mjs FILE.json…
// [--only REGEX]. Of a figure that several files have, the last one's is taken.
import fs from 'node:fs';
import { parseArgs } from 'node:util';
import { curveTable, summary, table } from './lib/report.mjs';

const { values: { only }, positionals: files } = parseArgs({ allowPositionals: true, options: { only: { type: 'string', default: '.' } } });
if (!files.length) throw new Error('usage: node bench/tables.mjs FILE.json… [--only REGEX]');
const runs = files.map((file) => JSON.parse(fs.readFileSync(file, 'utf8')));
const all = new Map(runs.flatMap(({ figures }) => figures.map((line) => [line.figure, line])));
const lines = [...all.values()].filter(({ figure }) => new RegExp(only).test(figure));
const { other } = runs.at(-1);
console.log(`${summary(lines, other)}\n\n${table(lines, other)}`);
const curves = runs.flatMap((run) => run.curves);
if (curves.length) console.log(`\n${curveTable(curves)}`);
