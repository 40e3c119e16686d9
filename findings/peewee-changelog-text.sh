#!/usr/bin/env bash
# peewee's ChangeLog writes down another text than was stored, if the text looks like JSON: "1.10" as 1.1, "true" as True.
#
# The triggers of `playhouse.sqlite_changelog` put every value that `json_valid` takes into the log as JSON, also of a TextField. A
# part number, a version, a price as text or a code in digits comes back from the log as a number, "null" as None, and a change from
# "1.10" to "1.1" is there as one from 1.1 to 1.1. Undoing a change by the log, or replaying it elsewhere, stores something else
# than was there. A text that is no JSON, such as one with leading zeros, is kept.
# Seen on 2026-11-30 with peewee 4.5.3 and the SQLite of Python 3.11. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check peewee==4.5.3
cat >parts.py <<'PY'
from peewee import Model, SqliteDatabase, TextField
from playhouse.sqlite_changelog import ChangeLog

db = SqliteDatabase(":memory:")


class Part(Model):
    number = TextField()

    class Meta:
        database = db


db.create_tables([Part])
log = ChangeLog(db)
log.install(Part)
for number in ["A-7", "007", "1.10", "12e3", "-0", "true", "null"]:
    part = Part.create(number=number)
    entry = log.model.get(log.model.primary_key == part.id)
    print("stored", repr(Part.get_by_id(part.id).number), "logged", repr(entry.changes["number"][1]))
part = Part.get(Part.number == "1.10")
part.number = "1.1"
part.save()
print("from '1.10' to '1.1', logged", log.model.get(log.model.action == "UPDATE").changes["number"])
PY
venv/bin/python parts.py | tee seen.txt
diff seen.txt - <<'SEEN'
stored 'A-7' logged 'A-7'
stored '007' logged '007'
stored '1.10' logged 1.1
stored '12e3' logged 12000.0
stored '-0' logged 0
stored 'true' logged True
stored 'null' logged None
from '1.10' to '1.1', logged [1.1, 1.1]
SEEN
