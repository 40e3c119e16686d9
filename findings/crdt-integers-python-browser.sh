#!/usr/bin/env bash
# An integer above 2^53 that Python puts into a shared document: the browser reads a rounded number, or a number or a BigInt as it falls.
#
# Loro has integers of 64 bits in both, and its JavaScript build gives them as numbers: a serial number or a nanosecond time is
# silently another one there. pycrdt and Yjs share a format that has doubles and BigInt: which of the two an integer of Python becomes
# depends on whether a double holds it exactly, so that two IDs of one kind are a `number` and a `bigint` in JavaScript, where
# they can't be added and JSON takes only one. The largest 64-bit integer is rounded on the way, also from Python to Python: the
# two replicas then differ. As text both keep it.
# Seen on 2026-11-30 with loro 1.17.1, loro-crdt 1.17.1, pycrdt 0.14.13, yjs 13.6.33, Node 20.20.2, Python 3.11. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check loro==1.17.1 pycrdt==0.14.13
npm init -y >/dev/null
npm install --silent --no-audit --no-fund loro-crdt@1.17.1 yjs@13.6.33
cat >write.py <<'PY'
from pathlib import Path
import loro, pycrdt

INTEGERS = {"small": 2**40, "serial": 8991001200003204510, "rowid": 2**60, "largest": 2**63 - 1}

document = loro.LoroDoc()
for name, value in INTEGERS.items():
    document.get_map("device").insert(name, value)
document.commit()
Path("loro.bin").write_bytes(document.export(loro.ExportMode.Snapshot()))
print("loro, as written:", all(document.get_deep_value()["device"][name] == value for name, value in INTEGERS.items()))

first, second = pycrdt.Doc(), pycrdt.Doc()
written = first.get("device", type=pycrdt.Map)
for name, value in INTEGERS.items():
    written[name] = value
Path("yjs.bin").write_bytes(first.get_update())
second.apply_update(first.get_update())
read = second.get("device", type=pycrdt.Map)
for name in INTEGERS:
    differs = "" if read[name] == written[name] else ", which differs"
    print(f"pycrdt, {name}: {written[name]!r}, at another replica {read[name]!r}{differs}")
PY
cat >read.mjs <<'JS'
import { readFileSync } from "node:fs";
import { LoroDoc } from "loro-crdt";
import * as Y from "yjs";

const NAMES = ["small", "serial", "rowid", "largest"];
const exactly = (value) => `${typeof value} ${BigInt(value)}`;
const loro = new LoroDoc();
loro.import(readFileSync("loro.bin"));
const yjs = new Y.Doc();
Y.applyUpdate(yjs, readFileSync("yjs.bin"));
for (const name of NAMES) console.log(`${name}: loro-crdt ${exactly(loro.getMap("device").get(name))}, yjs ${exactly(yjs.getMap("device").get(name))}`);
JS
{ venv/bin/python write.py; node read.mjs; } | tee seen.txt
diff seen.txt - <<'SEEN'
loro, as written: True
pycrdt, small: 1099511627776.0, at another replica 1099511627776.0
pycrdt, serial: 8991001200003204510, at another replica 8991001200003204510
pycrdt, rowid: 1152921504606846976, at another replica 1.152921504606847e+18
pycrdt, largest: 9223372036854775807, at another replica 9.223372036854776e+18, which differs
small: loro-crdt number 1099511627776, yjs number 1099511627776
serial: loro-crdt number 8991001200003204096, yjs bigint 8991001200003204510
rowid: loro-crdt number 1152921504606846976, yjs number 1152921504606846976
largest: loro-crdt number 9223372036854775808, yjs number 9223372036854775808
SEEN
