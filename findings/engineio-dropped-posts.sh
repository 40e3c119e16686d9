#!/usr/bin/env bash
# python-engineio answers "200 OK" to POSTs of polling clients of which it took nothing.
#
# A POST with more than 16 packets (`Payload.max_decode_packets`, of which clients are not told) raises ValueError within the
# server, which logs it and answers OK: socket.io-client puts all that was emitted in one turn into one POST, by the
# `maxPayload` of the handshake, and of 40 events 39 are gone (the first leaves in a POST of its own). A POST with `Transfer-Encoding: chunked`, as proxies send it, is read
# by its Content-Length, of which there is none: nothing is read, and the answer is OK.
# Seen on 2026-11-28 with python-socketio 5.18.1, python-engineio 4.15.1, gevent 26.9.0, socket.io-client 4.8.4, Node 20.20.2.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  python-socketio==5.18.1 python-engineio==4.15.1 gevent==26.9.0 gevent-websocket==0.10.1 requests==2.34.2
npm init -y >/dev/null
npm install --silent --no-audit --no-fund socket.io-client@4.8.4

cat >server.py <<'PY'
from gevent import monkey, pywsgi
monkey.patch_all()
import socketio

io = socketio.Server(async_mode="gevent", logger=False, engineio_logger=False)
io.on("hello", lambda sid, number: number)
server = pywsgi.WSGIServer(("127.0.0.1", 0), socketio.WSGIApp(io), log=None, error_log=None)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
PY
venv/bin/python server.py >server.out 2>server.err &
until [ -s server.out ]; do sleep 0.2; done
url="http://127.0.0.1:$(head -1 server.out)"

cat >client.mjs <<'JS'
import { io } from 'socket.io-client';
const [url, count] = [process.argv[2], Number(process.argv[3])];
const socket = io(url, { transports: ['polling'], reconnection: false });
let answered = 0;
socket.on('connect', () => {
  for (let number = 0; number < count; number += 1) socket.emit('hello', number, () => { answered += 1; });
  setTimeout(() => { console.log(`${count} emitted, ${answered} acknowledged, ${socket.connected ? 'connected' : 'gone'}`); process.exit(); }, 4000);
});
JS
cat >chunked.py <<'PY'
import json, sys, requests
at = sys.argv[1] + "/socket.io/?EIO=4&transport=polling"
sid = json.loads(requests.get(at).text[1:])["sid"]
requests.post(f"{at}&sid={sid}", data="40")
requests.get(f"{at}&sid={sid}")
answer = requests.post(f"{at}&sid={sid}", data=iter([b'427["hello",1]']))
try:
    heard = requests.get(f"{at}&sid={sid}", timeout=3).text
except requests.Timeout:
    heard = "nothing"
print(f"a body in chunks: {answer.status_code} {answer.text}, then {heard}")
PY
{
  node client.mjs "$url" 16
  node client.mjs "$url" 40
  venv/bin/python chunked.py "$url"
} | tee seen
diff seen - <<'SEEN'
16 emitted, 16 acknowledged, connected
40 emitted, 1 acknowledged, connected
a body in chunks: 200 OK, then nothing
SEEN
