#!/usr/bin/env bash
# WatermelonDB in the browser joins records to the wrong parents if their IDs are digits; on a phone it does not.
#
# In the browser its store is LokiJS, whose indices compare texts as numbers where they look like numbers: "7" and "007" are one,
# "1e3" and "1000", and two serial numbers of 17 or more digits that are the same as a double. For equality Loki looks at what
# it found once more, for `$in` it does not: `Q.on` and `Q.oneOf` on an indexed column, which a foreign key should be, also give
# what belongs to others. `Q.sortBy` and `Q.gt` on a text go by number there (reported as WatermelonDB issue 1668 and LokiJS issue
# 909), by characters in SQLite. So one app with one set of rows shows different rows on two devices.
# Seen on 2026-11-30 with @nozbe/watermelondb 0.28.0, lokijs 1.5.12, better-sqlite3 12.11.1, Node 20.20.2. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @nozbe/watermelondb@0.28.0 lokijs@1.5.12 better-sqlite3@12.11.1
cat >calls.cjs <<'JS'
const { appSchema, Database, Model, Q, tableSchema } = require("@nozbe/watermelondb");
const Loki = require("@nozbe/watermelondb/adapters/lokijs").default;
const SQLite = require("@nozbe/watermelondb/adapters/sqlite").default;
require("@nozbe/watermelondb/utils/common/logger").default.silence();

const schema = appSchema({
  version: 1,
  tables: [
    tableSchema({ name: "cards", columns: [{ name: "owner", type: "string" }] }),
    tableSchema({ name: "calls", columns: [{ name: "card_id", type: "string", isIndexed: true }, { name: "note", type: "string" }] }),
  ],
});
class Card extends Model {
  static table = "cards";
  static associations = { calls: { type: "has_many", foreignKey: "card_id" } };
}
class Call extends Model {
  static table = "calls";
  static associations = { cards: { type: "belongs_to", key: "card_id" } };
}
const CARDS = { "89910012003204510017": "Asha", "89910012003204510025": "Ravi", "7": "Tea", "007": "Bond" };

async function show(name, adapter) {
  const database = new Database({ adapter, modelClasses: [Card, Call] });
  await database.write(async () => {
    for (const [id, owner] of Object.entries(CARDS)) {
      await database.get("cards").create((card) => Object.assign(card._raw, { id, owner }));
      await database.get("calls").create((call) => Object.assign(call._raw, { card_id: id, note: `of ${owner}` }));
    }
  });
  const notes = async (...query) => (await database.get("calls").query(...query).fetch()).map(({ _raw }) => _raw.note).sort().join(", ");
  console.log(`${name}, calls of Asha's card: ${await notes(Q.on("cards", "owner", "Asha"))}`);
  console.log(`${name}, calls of card 7, by equality: ${await notes(Q.where("card_id", "7"))}; as one of a list: ${await notes(Q.where("card_id", Q.oneOf(["7"])))}`);
}

(async () => {
  await show("LokiJS", new Loki({ schema, useWebWorker: false, useIncrementalIndexedDB: true, extraLokiOptions: { autosave: false } }));
  await show("SQLite", new SQLite({ schema, dbName: ":memory:" }));
  process.exit();
})();
JS
node calls.cjs | tee seen.txt
diff seen.txt - <<'SEEN'
LokiJS, calls of Asha's card: of Asha, of Ravi
LokiJS, calls of card 7, by equality: of Tea; as one of a list: of Bond, of Tea
SQLite, calls of Asha's card: of Asha
SQLite, calls of card 7, by equality: of Tea; as one of a list: of Tea
SEEN
