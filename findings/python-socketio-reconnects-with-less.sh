#!/usr/bin/env bash
# python-socketio's client reconnects with less than it connected with: without its cookie, and with one second of patience.
#
# `connect(headers={"Cookie": …})`: when the transport becomes a WebSocket, python-engineio takes the cookie out of the very dict
# that python-socketio keeps for reconnections, so that only the first connection has it. A proxy that chooses the server by it,
# or a login that is in it, is lost with the first break of the network.
# `connect(wait_timeout=5)`: a reconnection waits as long as the default says, one second. Where the server's answer to a
# connection takes longer, for a slow line or a check of the token, every attempt is given up, and the client, which was
# connected once, tries in vain for as long as it runs. The JavaScript client comes back with its cookie, and waits.
# Seen on 2026-11-30 with python-socketio 5.18.1, python-engineio 4.15.1, aiohttp 3.14.5, socket.io 4.8.4, Node 20.20.2,
# Python 3.11. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  python-socketio==5.18.1 python-engineio==4.15.1 requests==2.34.2 websocket-client==1.9.2 aiohttp==3.14.5
npm init -y >/dev/null
npm install --silent --no-audit --no-fund socket.io@4.8.4 socket.io-client@4.8.4

cat >server.mjs <<'JS'
// Answers each connection after a while, and cuts the first WebSocket of every client as a broken network does.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http);
const connections = {};
io.use((socket, next) => setTimeout(next, Number(process.argv[2])));
io.on("connection", (socket) => {
  const name = socket.handshake.auth.name;
  connections[name] = (connections[name] ?? 0) + 1;
  console.log(`${name}, connection ${connections[name]}: ${socket.handshake.headers.cookie ?? "no cookie"}`);
  const cut = () => (socket.conn.transport.name === "websocket" ? socket.conn.transport.socket.terminate() : setTimeout(cut, 50));
  if (connections[name] === 1) setTimeout(cut, 300);
});
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
JS
cat >client.py <<'PY'
import sys, time
import socketio

client = socketio.Client(reconnection_delay=0.2, reconnection_delay_max=0.5)
client.connect(sys.argv[1], headers={"Cookie": "server=west"}, auth={"name": "python"}, wait_timeout=5)
time.sleep(10)
PY
cat >client_asyncio.py <<'PY'
import asyncio, sys
import socketio


async def main():
    client = socketio.AsyncClient(reconnection_delay=0.2, reconnection_delay_max=0.5)
    await client.connect(sys.argv[1], headers={"Cookie": "server=west"}, auth={"name": "asyncio"}, wait_timeout=5)
    await asyncio.sleep(10)


asyncio.run(main())
PY
cat >client.mjs <<'JS'
import { io } from "socket.io-client";

io(process.argv[2], { auth: { name: "javascript" }, extraHeaders: { Cookie: "server=west" }, reconnectionDelay: 200, timeout: 5000 });
setTimeout(() => process.exit(), 10_000);
JS
for milliseconds in 0 1500; do
  node server.mjs "$milliseconds" >server.txt &
  server=$!
  until [ -s server.txt ]; do sleep 0.1; done
  url="http://127.0.0.1:$(head -1 server.txt)"
  clients=()
  for run in "venv/bin/python client.py" "venv/bin/python client_asyncio.py" "node client.mjs"; do
    timeout -s KILL 14 $run "$url" >/dev/null 2>&1 &
    clients+=($!)
  done
  sleep 12
  kill -9 "${clients[@]}" "$server" 2>/dev/null || true
  wait 2>/dev/null || true
  echo "a server that takes $milliseconds ms:"
  tail -n +2 server.txt | sort
  rm server.txt
done | tee seen.txt
diff seen.txt - <<'SEEN'
a server that takes 0 ms:
asyncio, connection 1: server=west
asyncio, connection 2: no cookie
javascript, connection 1: server=west
javascript, connection 2: server=west
python, connection 1: server=west
python, connection 2: no cookie
a server that takes 1500 ms:
asyncio, connection 1: server=west
javascript, connection 1: server=west
javascript, connection 2: server=west
python, connection 1: server=west
SEEN
