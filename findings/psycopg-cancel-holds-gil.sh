#!/usr/bin/env bash
# psycopg's `Connection.cancel()` stops all threads of the process until the server has closed the cancel request.
#
# The C build keeps Python's GIL during libpq's PQcancel, which connects, sends, and waits. A worker thread is no way out: while
# the server hangs or the network is gone, the event loop in the main thread stands too. `PGcancelConn.blocking()`, the new
# call of libpq 17, keeps it as well. `Connection.cancel_safe()`, which goes in steps by `start` and `poll`, does not.
# The peer here is no PostgreSQL, only the start of its protocol, and waits a second before it closes a cancel request; the
# main thread meanwhile counts ticks of 10 ms. Seen were 1 tick for the first three ways, and 99 for the last.
# Seen on 2026-11-29 with psycopg[binary] 3.3.9, which brings libpq 18.6, Python 3.11. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check psycopg==3.3.9 psycopg-binary==3.3.9

cat >server.py <<'PY'
import socketserver, struct, time

CANCEL_REQUEST = 80877102


def message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


AUTHENTICATION_OK, KEY_DATA, READY = message(b"R", bytes(4)), message(b"K", bytes(8)), message(b"Z", b"I")
ENCODING = message(b"S", b"client_encoding\0UTF8\0")


class Peer(socketserver.StreamRequestHandler):
    def handle(self):
        (length,) = struct.unpack("!i", self.rfile.read(4))
        (code,) = struct.unpack_from("!i", self.rfile.read(length - 4))
        if code == CANCEL_REQUEST:
            time.sleep(1)
        else:
            self.wfile.write(AUTHENTICATION_OK + ENCODING + KEY_DATA + READY)
            self.rfile.read()


server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Peer)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
PY
cat >client.py <<'PY'
import sys, threading, time
import psycopg

connection = psycopg.connect(f"host=127.0.0.1 port={sys.argv[1]} user=u dbname=d sslmode=disable gssencmode=disable")
ways = {
    "Connection.cancel": connection.cancel,
    "PGcancel.cancel": connection.pgconn.get_cancel().cancel,
    "PGcancelConn.blocking": connection.pgconn.cancel_conn().blocking,
    "Connection.cancel_safe": connection.cancel_safe,
}
for name, cancel in ways.items():
    worker, ticks, began = threading.Thread(target=cancel), 0, time.monotonic()
    worker.start()
    while worker.is_alive():
        time.sleep(0.01)
        ticks += 1
    waited = "a second" if 0.9 < time.monotonic() - began < 2 else "another time"
    counted = "at most 3" if ticks <= 3 else "over 50" if ticks > 50 else "some"
    print(f"{name}: {waited}, {counted} ticks", flush=True)
PY
venv/bin/python server.py >port.txt &
until [ -s port.txt ]; do sleep 0.1; done
venv/bin/python client.py "$(cat port.txt)" | tee seen.txt
diff seen.txt - <<'EXPECTED'
Connection.cancel: a second, at most 3 ticks
PGcancel.cancel: a second, at most 3 ticks
PGcancelConn.blocking: a second, at most 3 ticks
Connection.cancel_safe: a second, over 50 ticks
EXPECTED
