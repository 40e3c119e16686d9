#!/usr/bin/env bash
# TanStack DB's newest core and its newest React binding, installed side by side, do not know each other's collections.
#
# @tanstack/react-db 0.5.11 depends on exactly @tanstack/db 0.15.1, while 0.15.2 is the newest: an app that installs both by
# name gets two copies. A collection of the one is refused by the live queries of the other ("not a Collection", since it
# compares classes). The binding exports the core whole: a collection made by it works.
# Seen on 2026-11-28, Node 20.20.2. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @tanstack/db@0.15.2 @tanstack/react-db@0.5.11 react@19.3.1
cat >query.mjs <<'JS'
import { createCollection, localOnlyCollectionOptions } from "@tanstack/db";
import { createCollection as createByBinding, createLiveQueryCollection } from "@tanstack/react-db";

for (const [name, create] of Object.entries({ core: createCollection, binding: createByBinding })) {
  const notes = create(localOnlyCollectionOptions({ getKey: (note) => note.id, initialData: [{ id: "n1" }] }));
  try {
    const live = createLiveQueryCollection((query) => query.from({ notes }));
    await live.preload();
    console.log(`${name}: ${live.size} row`);
  } catch (error) {
    console.log(`${name}: ${error.message.slice(0, 61)}`);
  }
}
JS
node query.mjs | tee said.txt
diff said.txt - <<'EXPECTED'
core: Invalid source for live query: The value provided for alias "
binding: 1 row
EXPECTED
