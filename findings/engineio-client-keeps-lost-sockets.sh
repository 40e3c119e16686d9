#!/usr/bin/env bash
# python-engineio's client gives up a WebSocket whose first packet does not come, and leaves its socket open.
#
# If the server, or a proxy in front of it, resets the connection after the handshake, or sends nothing for
# `request_timeout` seconds, `connect` raises ConnectionError, and nobody closes the WebSocket. Its socket stays open until
# garbage collection; a server that sent nothing keeps its side of the connection as long. If the server ends the connection
# in order, websocket-client closes the socket itself. A class of one's own, given as
# `websocket_extra_options={"class_": …}`, can close it in all cases.
# Seen on 2026-11-30 with python-socketio 5.18.1, python-engineio 4.15.1, websocket-client 1.9.2. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  python-socketio==5.18.1 python-engineio==4.15.1 websocket-client==1.9.2 requests==2.34.2

cat >lose.py <<'PY'
import base64, gc, hashlib, socket, struct, sys, threading, warnings
import socketio

ways = ["ends", "resets", "is silent"]
kept = []


def serve(entry):
    for way in ways:
        peer, _ = entry.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            head += peer.recv(4096)
        key = next(line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        if way == "resets":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if way == "is silent":
            kept.append(peer)
        else:
            peer.close()


entry = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(entry,), daemon=True).start()
warnings.simplefilter("always")
gc.disable()
for way in ways:
    client = socketio.Client(reconnection=False, request_timeout=1)
    try:
        client.connect(f"http://127.0.0.1:{entry.getsockname()[1]}", transports=["websocket"])
    except socketio.exceptions.ConnectionError:
        told = "ConnectionError"
    del client
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        gc.collect()
    left = sum("unclosed <socket" in str(one.message) for one in seen)
    print(f"the server {way}: {told}, sockets left open: {left}")
PY
venv/bin/python lose.py | tee seen
diff seen - <<'SEEN'
the server ends: ConnectionError, sockets left open: 0
the server resets: ConnectionError, sockets left open: 1
the server is silent: ConnectionError, sockets left open: 1
SEEN
