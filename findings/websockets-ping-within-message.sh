#!/usr/bin/env bash
# A ping between two fragments of a message counts towards the limit of that message, and the connection is closed by 1009.
#
# `max_size` of websockets is the maximum size of incoming messages. A control frame belongs to no message and may come between
# fragments (RFC 6455 section 5.4). But while a fragmented message is being read, the limit of every frame is what is left of
# `max_size`: a message within its limit fails if a ping, which has at most 125 bytes, is longer than its rest. The same
# ping before or after the message is answered.
# Seen on 2026-11-29 with websockets 17.4, Python 3.11. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check websockets==17.4

cat >limit.py <<'PY'
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side

MAX_SIZE = 1000


def frame(opcode, size, fin=True):
    """A client's frame; its mask is zero, which leaves the payload as it is."""
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([0x80 * fin | opcode]) + length + bytes(4) + b"x" * size


def answers(*frames):
    server = Protocol(Side.SERVER, max_size=MAX_SIZE)
    for data in frames:
        server.receive_data(data)
    sent = [data for data in server.data_to_send() if data]
    return [Opcode(data[0] & 15).name + (f" {int.from_bytes(data[2:4], 'big')}" if data[0] == 0x88 else "") for data in sent]


first, last, ping = frame(Opcode.TEXT, 950, fin=False), frame(Opcode.CONT, 50), frame(Opcode.PING, 100)
print("a message of 1000 bytes in two fragments:", answers(first, last))
print("a ping of 100 bytes before it:", answers(ping, first, last))
print("between them:", answers(first, ping, last))
PY
venv/bin/python limit.py | tee seen.txt
diff seen.txt - <<'TXT'
a message of 1000 bytes in two fragments: []
a ping of 100 bytes before it: ['PONG']
between them: ['CLOSE 1009']
TXT
