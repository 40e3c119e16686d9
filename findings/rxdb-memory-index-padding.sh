#!/usr/bin/env bash
# RxDB's memory storage finds documents that do not match: by an index, a text with a space at its end and a number that is not there.
#
# The memory storage keeps an index as one text, in which a short value is filled up with spaces and a value that a document does not
# have stands as "" or 0. A query that an index covers is not looked at again: `name: "Asha"` also gives "Asha ", and `due: 0` or
# `due: { $lt: 1 }` also gives documents without `due`, as a replication makes of `null`. Without the index the same query gives
# neither. On Dexie, where apps keep what their tests keep in memory, a text is compared as it is, and an index on a field that
# may be absent is refused (DXE1).
# Seen on 2026-11-30 with rxdb 17.6.0, dexie 4.4.2, fake-indexeddb 6.2.8, Node 20.20.2. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund rxdb@17.6.0 rxjs@7.8.2 fake-indexeddb@6.2.8
cat >find.mjs <<'JS'
import "fake-indexeddb/auto";
import { createRxDatabase } from "rxdb/plugins/core";
import { getRxStorageDexie } from "rxdb/plugins/storage-dexie";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";

const TEXT = { type: "string", maxLength: 20 };
const properties = { id: TEXT, name: TEXT, due: { type: "number", minimum: -1000, maximum: 1000, multipleOf: 0.01 } };
const DOCUMENTS = [{ id: "a", name: "Asha", due: 0 }, { id: "b", name: "Asha ", due: 5 }, { id: "c", name: "Ravi" }];

let databases = 0;

async function found(storage, indexes, required, selector) {
  try {
    const db = await createRxDatabase({ name: `shop${++databases}`, storage, multiInstance: false });
    await db.addCollections({ bills: { schema: { version: 0, primaryKey: "id", type: "object", properties, required, indexes } } });
    await db.bills.bulkInsert(DOCUMENTS);
    return (await db.bills.find({ selector }).exec()).map(({ id }) => id).sort().join(" ");
  } catch (error) {
    return error.code;
  }
}

process.on("unhandledRejection", () => undefined); // What is refused is told once more by a promise of RxDB's own.
const memory = getRxStorageMemory(), dexie = getRxStorageDexie();
const [name, due] = [{ name: "Asha" }, { due: 0 }];
console.log("memory, the name Asha:", await found(memory, ["name"], ["name"], name), "| without an index:", await found(memory, [], [], name));
console.log("memory, a due of 0:", await found(memory, ["due"], [], due), "| without an index:", await found(memory, [], [], due));
console.log("dexie, the name Asha:", await found(dexie, ["name"], ["name"], name), "| without an index:", await found(dexie, [], [], name));
console.log("dexie, a due of 0:", await found(dexie, ["due"], [], due), "| without an index:", await found(dexie, [], [], due));
process.exit();
JS
node find.mjs | grep -E "^(memory|dexie), " | tee seen.txt
diff seen.txt - <<'SEEN'
memory, the name Asha: a b | without an index: a
memory, a due of 0: a c | without an index: a
dexie, the name Asha: a | without an index: a
dexie, a due of 0: DXE1 | without an index: a
SEEN
