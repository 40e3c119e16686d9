"""A server with nothing in it: the system calls of a durable push, of telling listeners and of a herd, and no more.

What it reaches is what this machine, its disk and the client of ``bench/`` allow to a Python process that parses nothing,
checks nothing and keeps no table: a floor to hold figures against. It speaks as much of HTTP, WebSocket and Socket.IO as
that client does. Run it with ``node bench/bare.mjs``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import select
import socket
import struct
from pathlib import Path

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
LENGTH = re.compile(rb"content-length: *(\d+)", re.I)
KEY = re.compile(rb"sec-websocket-key: *(\S+)", re.I)
MISSED = b'{"rows":[%b]}' % b",".join([b'{"Unique_id":"%b"}' % (b"x" * 500)] * 10)
"""What each device of a herd missed."""


def answer(body: bytes) -> bytes:
    """Write an answer of HTTP."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def frame(payload: bytes) -> bytes:
    """Write a text frame. Source: RFC 6455 section 5.2."""
    if len(payload) < 126:
        return struct.pack("!BB", 0x81, len(payload)) + payload
    return struct.pack("!BBH", 0x81, 126, len(payload)) + payload


class Bare:
    """All connections, and the file that pushes are kept in."""

    def __init__(self, port: int, folder: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.kept = os.open(folder / "kept", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.epoll = select.epoll()
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)
        self.open: dict[int, socket.socket] = {}
        self.rest: dict[int, bytes] = {}
        self.listeners: dict[int, socket.socket] = {}
        self.pushes = 0

    def serve(self) -> None:
        """Serve until killed."""
        while True:
            for number, _ in self.epoll.poll():
                if number == self.listener.fileno():
                    self.accept()
                else:
                    self.take(number, self.open[number])

    def accept(self) -> None:
        one, _ = self.listener.accept()
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open[one.fileno()] = one
        self.epoll.register(one.fileno(), select.EPOLLIN)

    def take(self, number: int, one: socket.socket) -> None:
        """Take what came: a frame if it is a listener's, else a request that may not be whole yet."""
        try:
            data = one.recv(65_536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.epoll.unregister(number)
            self.listeners.pop(number, None)
            self.rest.pop(number, None)
            self.open.pop(number).close()
        elif number in self.listeners:
            if data[6:8] == b"40":  # Its mask is zero (lib/sio.mjs). All else is pongs.
                one.send(frame(b'40{"sid":"a"}'))
        else:
            self.request(number, one, self.rest.pop(number, b"") + data)

    def request(self, number: int, one: socket.socket, data: bytes) -> None:
        """Answer a request: a handshake, a push, or anything else."""
        head, found, body = data.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not found or (length and len(body) < int(length[1])):
            self.rest[number] = data
        elif key := KEY.search(head):
            accept = base64.b64encode(hashlib.sha1(key[1] + GUID, usedforsecurity=False).digest())
            one.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
            opened = {"sid": "a", "upgrades": [], "pingInterval": 25_000, "pingTimeout": 20_000}
            one.send(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + frame(b"0" + json.dumps(opened).encode()))
            self.listeners[number] = one
        elif head.startswith(b"POST /push"):
            self.keep(one, body)
            self.tell(body)
        elif head.startswith(b"POST /keep"):
            self.keep(one, body)
        elif head.startswith(b"POST /pull"):
            one.send(answer(MISSED))
        else:
            one.send(answer(b'{"token":"x"}'))

    def keep(self, one: socket.socket, body: bytes) -> None:
        """Keep a row on the disk, and answer."""
        os.write(self.kept, body)
        os.fdatasync(self.kept)
        one.send(answer(b'{"success":true}'))

    def tell(self, body: bytes) -> None:
        """Tell all listeners of a row."""
        self.pushes += 1
        said = frame(b'42["sync_notification",{"cursor":%d,"row":%b}]' % (self.pushes, body))
        for listener in self.listeners.values():
            listener.send(said)


if __name__ == "__main__":
    Bare(int(os.environ["PORT"]), Path(os.environ["DATA_DIR"])).serve()
