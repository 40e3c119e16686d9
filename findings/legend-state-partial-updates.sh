#!/usr/bin/env bash
# Legend-State's `updatePartial` sends every array of a row with each edit of another field, and so takes back what others did to it.
#
# `updatePartial: true` has `update` called with the fields that changed. What changed is told by comparing the row with a copy of it
# made through JSON; objects are compared by what is in them, arrays by identity, so that an array is always a change. One device
# adds a phone number while another renames the person: the second one's update carries its older list of numbers, and a server
# that stores the fields it is sent loses the new one. With a plain object in that field both edits stay.
# Seen on 2026-11-30 with @legendapp/state 3.0.0-beta.48, Node 20.20.2. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @legendapp/state@3.0.0-beta.48
cat >edit.mjs <<'JS'
import { observable, when } from "@legendapp/state";
import { syncedCrud } from "@legendapp/state/sync-plugins/crud";

const server = { id: "a", name: "Asha", phones: ["1"], home: { city: "Kochi" } };

async function device() {
  const sent = [];
  const people$ = observable(syncedCrud({
    list: async () => [structuredClone(server)],
    update: async (fields) => void sent.push(structuredClone(fields)) ?? Object.assign(server, structuredClone(fields)),
    updatePartial: true,
  }));
  await when(() => people$.a.name.get());
  return { person$: people$.a, sent };
}
const sending = () => new Promise((resume) => setTimeout(resume, 200));

const [first, second] = [await device(), await device()];
first.person$.phones.push("2");
first.person$.home.city.set("Pune");
await sending();
console.log("on the server:", JSON.stringify(server));
second.person$.name.set("Asha K.");
await sending();
console.log("the other device changed the name and sent:", Object.keys(second.sent[0]).sort().join(", "));
console.log("on the server:", JSON.stringify(server));
process.exit();
JS
node edit.mjs | tee seen.txt
diff seen.txt - <<'SEEN'
on the server: {"id":"a","name":"Asha","phones":["1","2"],"home":{"city":"Pune"}}
the other device changed the name and sent: id, name, phones
on the server: {"id":"a","name":"Asha K.","phones":["1"],"home":{"city":"Pune"}}
SEEN
