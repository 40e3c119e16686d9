#!/usr/bin/env bash
# PouchDB's views give negative keys back as other numbers: -1.1 as -1.0999999999999996, a birthday of 1930 with a part of a microsecond.
#
# A view keeps its keys as texts that sort like the numbers. For that the leading digits of a negative number are taken from 10, and
# when the key is read they are taken from 10 again, without rounding. Rows are in the right order, and a query for the key that was
# emitted finds its row. But the `key` in the answer is not what `emit` got: who looks a row up by it, compares it, or makes a date
# of it has another number, and a group has it as its name. Hit are one in five amounts in cents and one in three days before 1970 in
# milliseconds. Positive keys come back as they were.
# Seen on 2026-11-30 with pouchdb-core, pouchdb-mapreduce and pouchdb-adapter-memory 9.0.0, Node 20.20.2. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund pouchdb-core@9.0.0 pouchdb-mapreduce@9.0.0 pouchdb-adapter-memory@9.0.0
cat >view.mjs <<'JS'
import PouchDB from "pouchdb-core";
import memory from "pouchdb-adapter-memory";
import mapreduce from "pouchdb-mapreduce";

PouchDB.plugin(memory).plugin(mapreduce);
const view = (doc, emit) => emit(doc.number, doc.number);

async function stored(name, numbers) {
  const db = new PouchDB(name, { adapter: "memory" });
  await db.bulkDocs(numbers.map((number, at) => ({ _id: `n${at}`, number })));
  const { rows } = await db.query(view);
  const changed = rows.filter(({ key, value }) => key !== value).length;
  const isInOrder = rows.every(({ value }, at) => at === 0 || rows[at - 1].value <= value);
  console.log(`${name}: ${changed} of ${rows.length} keys changed, ${isInOrder ? "in order" : "not in order"}`);
  return db;
}

const cents = Array.from({ length: 999 }, (_, at) => (at + 1) / 100);
const debts = await stored("debts", cents.map((amount) => -amount));
await stored("amounts", cents);
await stored("birthdays", Array.from({ length: 480 }, (_, month) => Date.UTC(1930, month, 1)));
const { rows } = await debts.query(view, { key: -1.1 });
console.log("asked for -1.1:", rows.map(({ key, value }) => `the row of ${value}, key ${key}`).join());
JS
node view.mjs | tee seen.txt
diff seen.txt - <<'SEEN'
debts: 197 of 999 keys changed, in order
amounts: 0 of 999 keys changed, in order
birthdays: 154 of 480 keys changed, in order
asked for -1.1: the row of -1.1, key -1.0999999999999996
SEEN
