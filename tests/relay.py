"""Stands between the server and PostgreSQL or Redis, and cuts or freezes connections when it is told to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from gevent import socket
from gevent.event import Event
from gevent.pool import Group
from gevent.server import StreamServer

Address = Path | tuple[str, int]
"""The folder of PostgreSQL's Unix socket, or a host and a port."""

_SOCKET = ".s.PGSQL.5432"

_TOLD = re.compile(rb"\*3\r\n\$7\r\nmessage\r\n\$\d+\r\n[^\r]+\r\n\$(\d+)\r\n")
"""How a message of Redis to a subscriber begins, up to its length. Source: redis.io, "RESP protocol description"."""

_COMMITTED = b"COMMIT\0"
"""What the server says of a COMMIT that is done. Source: postgresql.org/docs, "CommandComplete"."""


def _connected(address: Address) -> socket.socket:
    if isinstance(address, tuple):
        return socket.create_connection(address)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.connect(str(address / _SOCKET))
    except OSError:
        found.close()
        raise
    return found


def _listening(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder / _SOCKET))
    listener.listen()
    return listener


class Relay:
    """Passes bytes on, both ways."""

    def __init__(self, upstream: Address, folder: Path | None = None) -> None:
        """``folder``: where its Unix socket is to be; else it listens on ``port`` of this machine."""
        self._upstream, self.folder = upstream, folder or Path()
        self._server = StreamServer(_listening(folder) if folder else ("127.0.0.1", 0), self._serve)
        self._server.start()
        self.port: int = 0 if folder else self._server.server_port
        self._open: set[socket.socket] = set()
        self._flows = Event()
        self._flows.set()
        self.cuts_at_commit = self.is_closed = False
        self.cuts = self.lost = 0
        self.loses_messages = False
        self.on_cut: Callable[[], None] = lambda: None

    def _serve(self, client: socket.socket, _: object) -> None:
        self._flows.wait()
        if self.is_closed:
            client.close()
            return
        try:
            server = _connected(self._upstream)
        except OSError:
            client.close()
            return
        self._open |= {client, server}
        passing = Group()
        passing.spawn(self._pass, client, server)
        passing.spawn(self._pass, server, client, True)
        try:
            passing.join()
        finally:
            passing.kill()
            self._open -= {client, server}
            server.close()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                if is_answer and self.cuts_at_commit and _COMMITTED in data:
                    self.cuts_at_commit = False
                    self.cuts += 1
                    self.on_cut()
                    break
                target.sendall(self._without_some(data) if is_answer and self.loses_messages else data)
        self._flows.wait()  # Neither side hears of the other's end.
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _without_some(self, data: bytes) -> bytes:
        """Leave out every second message of Redis that came as a whole; the connection goes on."""
        left, start = b"", 0
        for number, told in enumerate(_TOLD.finditer(data)):
            end = told.end() + int(told[1]) + 2
            if number % 2 == 0 and told.start() >= start and end <= len(data):
                left += data[start : told.start()]
                start = end
                self.lost += 1
        return left + data[start:]

    @contextlib.contextmanager
    def losing(self) -> Iterator[None]:
        """Lose messages of Redis meanwhile, and say nothing of it: as when it publishes on one of two machines."""
        self.loses_messages = True
        try:
            yield
        finally:
            self.loses_messages = False

    def cut(self) -> None:
        """Cut every connection."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Cut every connection and refuse others meanwhile."""
        self.is_closed = True
        self.cut()
        try:
            yield
        finally:
            self.is_closed = False

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Pass nothing on meanwhile, and say nothing of it, as a network that loses all; it goes on where it was."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def close(self) -> None:
        """End."""
        self._flows.set()
        self._server.stop()
        self.cut()
