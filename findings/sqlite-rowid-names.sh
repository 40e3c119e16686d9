#!/usr/bin/env bash
# A column called oid or rowid: SQLite 3.54 makes it with its table, and then will neither add nor drop one.
#
# `CREATE TABLE t(k INTEGER PRIMARY KEY, oid TEXT)` is fine in all versions, and the column is an ordinary one. Up to 3.53.4
# `ALTER TABLE` could drop it again, or add it later. Since 3.54.0 both fail ("cannot drop rowid alias: oid"), so that a
# migration which ran for years stops, also for a table that has its column already.
# Seen on 2026-11-28 with apsw 3.53.4.0 and 3.54.1.0, which bring SQLite 3.53.4 and 3.54.1, Python 3.11. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >try.py <<'PY'
import apsw

def said(*statements):
    memory = apsw.Connection(":memory:")
    try:
        for statement in statements:
            memory.execute(statement)
        return "done"
    except apsw.SQLError as error:
        return str(error)

has, lacks = "CREATE TABLE t(k INTEGER PRIMARY KEY, oid TEXT)", "CREATE TABLE t(k INTEGER PRIMARY KEY)"
print(apsw.sqlite_lib_version())
print("drop:", said(has, "ALTER TABLE t DROP COLUMN oid"))
print("add:", said(lacks, "ALTER TABLE t ADD COLUMN oid TEXT"))
PY
for version in 3.53.4.0 3.54.1.0; do
  python3 -m venv "$version"
  "$version/bin/pip" install --quiet --disable-pip-version-check "apsw==$version"
  "$version/bin/python" try.py
done 2>/dev/null | tee said.txt
diff said.txt - <<'EXPECTED'
3.53.4
drop: done
add: done
3.54.1
drop: cannot drop rowid alias: oid
add: cannot add rowid alias: oid
EXPECTED
