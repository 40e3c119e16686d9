#!/usr/bin/env bash
# A Node server that turns on Socket.IO's connection state recovery is no longer heard by clients in Python.
#
# With `connectionStateRecovery` the server appends a position to the arguments of each event that may have to be sent again: all
# but those that ask for an acknowledgement or are volatile. A JavaScript handler does not see an argument that it does not name.
# python-socketio calls `def changed(row)` with two arguments, whether the client can recover or not: a TypeError in a thread of the
# library, and the event is lost, each time. `SimpleClient.receive` gives a longer list. Only an acknowledged event still arrives.
# A handler `def changed(row, *_)` takes both.
# Seen on 2026-11-30 with socket.io 4.8.4, socket.io-client 4.8.4, python-socketio 5.18.1, Node 20.20.2, Python 3.11.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  python-socketio==5.18.1 python-engineio==4.15.1 requests==2.34.2 websocket-client==1.9.2
npm init -y >/dev/null
npm install --silent --no-audit --no-fund socket.io@4.8.4 socket.io-client@4.8.4

cat >server.mjs <<'JS'
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, process.argv[2] === "with" ? { connectionStateRecovery: {} } : {});
let connected = 0;
io.on("connection", () => {
  connected += 1;
  if (connected < 2) return;
  setTimeout(() => {
    io.emit("changed", { id: "u1" });
    io.timeout(1000).emit("asked", { id: "u1" }, () => {});
  }, 500);
});
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
JS
cat >client.mjs <<'JS'
import { io } from "socket.io-client";

const socket = io(process.argv[2]);
for (const event of ["changed", "asked"]) {
  socket.on(event, (row, ...more) => console.log(`javascript, ${event}: ${row.id}, ${more.filter((one) => typeof one === "string").length} more`));
}
setTimeout(() => process.exit(), 3000);
JS
cat >client.py <<'PY'
import sys, threading, time
import socketio

threading.excepthook = lambda failed: print(f"python: {failed.exc_type.__name__}, {failed.exc_value}", flush=True)
client = socketio.Client()


@client.event
def changed(row):
    print(f"python, changed: {row['id']}", flush=True)


@client.event
def asked(row):
    print(f"python, asked: {row['id']}", flush=True)


client.connect(sys.argv[1])
time.sleep(3)
client.disconnect()
PY
for recovery in without with; do
  node server.mjs "$recovery" >port.txt &
  server=$!
  until [ -s port.txt ]; do sleep 0.1; done
  url="http://127.0.0.1:$(cat port.txt)"
  echo "$recovery recovery:"
  { venv/bin/python client.py "$url" 2>/dev/null & node client.mjs "$url"; wait $!; } >heard.txt
  sort heard.txt
  kill "$server"
  rm port.txt
done | tee seen.txt
diff seen.txt - <<'SEEN'
without recovery:
javascript, asked: u1, 0 more
javascript, changed: u1, 0 more
python, asked: u1
python, changed: u1
with recovery:
javascript, asked: u1, 0 more
javascript, changed: u1, 1 more
python, asked: u1
python: TypeError, changed() takes 1 positional argument but 2 were given
SEEN
