"""Idle sockets without a greenlet each: a pooled greenlet serves a socket only while there is something to read.

A waiting greenlet costs 25 KiB per socket: CPython 3.11 allocates each a stack chunk for its frames, greenlet saves its C
stack, and its frames keep objects alive. Knows: greenlets, the event loop, when a socket is readable. Must not know:
frames, Socket.IO, HTTP.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from contextvars import Context
from typing import Any

import gevent
from greenlet import GreenletExit, getcurrent, greenlet

from server.scheduler import yield_if_due

log = logging.getLogger("syncapp.connections")

KEY = "syncapp.idle_reader"
"""The key of a WebSocket's environ that holds its idle reader, None if it can have none."""

_READABLE = 1  # The event READ of libev (ev.h), which gevent's loop takes.
_LEAST_BYTES, _MOST_BYTES = 2_048, 65_536
_READ_SECONDS = 0.005
_POOL_SIZE = 8
_pool: list[greenlet] = []
"""Idle greenlets, the one used last at the end."""


class IdleReader:
    """Reads one open socket, without a time-out, and without a greenlet while there is nothing to read."""

    __slots__ = ("_keeps_open", "_received", "_watcher", "on_end", "receive_one", "socket")

    def __init__(self, sock: Any) -> None:
        self.socket = sock
        self.receive_one: Callable[[], bool] | None = None
        """Receives one message, and returns whether others may follow. It is set by whoever is to be called."""
        self.on_end: list[Callable[[], None]] = []
        """Callbacks, called in order at the end of the connection."""
        self._received = bytearray()

    def begin(self, received: bytes) -> None:
        """Take over the socket from the greenlet that served it, and the bytes that it has read already.

        That greenlet may close the socket: its descriptor stays open until this reader ends.
        """
        self._keeps_open = self.socket.makefile("rb", buffering=0)
        self._received += received
        self._watcher = gevent.get_hub().loop.io(self.socket.fileno(), _READABLE)
        if received:
            gevent.get_hub().loop.run_callback(_on_readable, self)
        else:
            self._wait()

    def _wait(self) -> None:
        self._watcher.start(_on_readable, self)

    def pause(self) -> None:
        """Do not wait while a greenlet reads."""
        self._watcher.stop()

    def read(self, count: int) -> bytes:
        """Wait for ``count`` bytes; fewer mean the end of the connection."""
        while (missing := count - len(self._received)) > 0:
            more = self.socket.recv(min(max(missing, _LEAST_BYTES), _MOST_BYTES))
            if not more:
                break
            self._received += more
            yield_if_due(_READ_SECONDS)  # A client that sends without pause must not block the event loop.
        result = bytes(self._received[:count])
        del self._received[:count]
        return result

    def serve(self) -> None:
        """Receive all messages that are there, then wait for more without a greenlet, or close."""
        try:
            while self.receive_one and self.receive_one():
                if not self._received:
                    self._wait()
                    return
        except (GreenletExit, KeyboardInterrupt, SystemExit):  # The process ends.
            raise
        except BaseException:  # Such as gevent's Timeout. The greenlet goes back to the pool.
            log.exception("reading failed")
        self._close()

    def _close(self) -> None:
        for callback in self.on_end:
            try:
                callback()
            except Exception:  # The other callbacks must run all the same.
                log.exception("the end of a connection failed")
        self.receive_one, self.on_end = None, []
        with contextlib.suppress(OSError):
            os.read(self.socket.fileno(), _MOST_BYTES)  # With unread bytes, closing would reset the connection.
        self._watcher.close()
        self.socket.close()
        self._keeps_open.close()


def _on_readable(reader: IdleReader) -> None:
    """Run in the event loop when a socket is readable."""
    reader.pause()
    pooled = _pool.pop() if _pool else greenlet(_serve_readers, gevent.get_hub())
    pooled.switch(reader)


def _serve_readers(reader: IdleReader | None) -> None:
    while reader:
        Context().run(reader.serve)
        reader = None  # The pool must not keep it alive.
        if len(_pool) < _POOL_SIZE:
            _pool.append(getcurrent())
            reader = gevent.get_hub().switch()
