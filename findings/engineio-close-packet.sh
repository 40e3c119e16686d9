#!/usr/bin/env bash
# One close packet of Engine.IO, two clients of one protocol: the JavaScript client comes back, the Python client never does.
#
# A server that ends a session by an Engine.IO close packet (as python-engineio's own `disconnect` does, at a shutdown for
# example) is seen by socket.io-client as a lost transport, and it connects again. python-socketio takes the packet as a wanted
# end, gives the reason "server disconnect", and stays away for ever although `reconnection` is on.
# Seen on 2026-11-28 with python-socketio 5.18.1, python-engineio 4.15.1, socket.io-client 4.8.4, Node 20.20.2, Python 3.11.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  python-socketio==5.18.1 python-engineio==4.15.1 simple-websocket==1.1.0 werkzeug==3.1.8 requests==2.34.2 websocket-client==1.9.2
npm init -y >/dev/null
npm install --silent --no-audit --no-fund socket.io-client@4.8.4

cat >server.py <<'PY'
import threading, time
import socketio
from werkzeug.serving import make_server

io = socketio.Server(async_mode="threading", logger=False)
seen = {}

@io.event
def connect(sid, environ, auth):
    name = auth["name"]
    seen[name] = seen.get(name, 0) + 1
    if seen[name] == 1:
        engine_id = io.manager.eio_sid_from_sid(sid, "/")
        threading.Timer(1, lambda: io.eio.disconnect(engine_id)).start()

server = make_server("127.0.0.1", 0, socketio.WSGIApp(io), threaded=True)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
time.sleep(9)
for name in sorted(seen):
    print(f"{name}: connected {seen[name]} times" if seen[name] > 1 else f"{name}: connected once", flush=True)
PY
cat >client.py <<'PY'
import sys, time
import socketio

client = socketio.Client(reconnection=True, reconnection_delay=0.2, reconnection_delay_max=0.5)
client.on("disconnect", lambda reason: print("python:", reason, flush=True))
client.connect(sys.argv[1], auth={"name": "python"}, transports=["websocket"])
time.sleep(6)
PY
cat >client.mjs <<'JS'
import { io } from "socket.io-client";

const socket = io(process.argv[2], { auth: { name: "javascript" }, transports: ["websocket"], reconnectionDelay: 200 });
socket.on("disconnect", (reason) => console.log("javascript:", reason));
setTimeout(() => process.exit(), 6000);
JS
venv/bin/python server.py >server.txt 2>/dev/null &
until [ -s server.txt ]; do sleep 0.1; done
url="http://127.0.0.1:$(head -1 server.txt)"
venv/bin/python client.py "$url" >python.txt 2>/dev/null &
python=$!
node client.mjs "$url" | head -1 >javascript.txt
wait "$python" || true
until [ "$(wc -l <server.txt)" -ge 3 ]; do sleep 0.2; done
{ cat javascript.txt python.txt; tail -n +2 server.txt; } | tee said.txt
diff said.txt - <<'EXPECTED'
javascript: transport close
python: server disconnect
javascript: connected 2 times
python: connected once
EXPECTED
