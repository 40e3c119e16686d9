"""Stands between the server and PostgreSQL, and holds or cuts connections when it is told to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

_COMMITTED = b"COMMIT\0"
"""What the server says of a COMMIT that is done. Source: postgresql.org/docs, "CommandComplete"."""


class Relay:
    """Passes bytes on, both ways, over Unix sockets."""

    def __init__(self, upstream: Path, folder: Path) -> None:
        self.folder, self._upstream = folder, str(upstream / ".s.PGSQL.5432")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(folder / ".s.PGSQL.5432"))
        listener.listen()
        self._server = StreamServer(listener, self._serve)
        self._server.start()
        self._open: set[socket.socket] = set()
        self._goes_on = Event()
        self._goes_on.set()
        self.cuts_at_commit = self.is_closed = False
        self.cuts = 0
        self.on_cut: Callable[[], None] = lambda: None

    def _serve(self, client: socket.socket, _: object) -> None:
        if self.is_closed:
            client.close()
            return
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(self._upstream)
        self._open |= {client, server}
        gevent.joinall([gevent.spawn(self._pass, client, server), gevent.spawn(self._pass, server, client, True)])
        self._open -= {client, server}
        server.close()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._goes_on.wait()
                if is_answer and self.cuts_at_commit and _COMMITTED in data:
                    self.cuts_at_commit = False
                    self.cuts += 1
                    self.on_cut()
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Pass nothing on meanwhile, with all connections open; they go on afterwards."""
        self._goes_on.clear()
        try:
            yield
        finally:
            self._goes_on.set()

    def cut(self) -> None:
        """Cut every connection."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End."""
        self._server.stop()
        self.cut()
