"""Open sockets that no greenlet waits for: one of a pool serves them while there is something to read.

A greenlet that waits costs a socket 25 KiB: CPython 3.11 gives each a piece of stack for its frames, greenlet keeps what
it had on that of C, and its frames hold much that is of no more use. Knows: greenlets, the event loop, when a socket has
something to read. Must not know: frames, Socket.IO, HTTP.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any

import gevent
from greenlet import GreenletExit, getcurrent, greenlet

from server.scheduler import yield_if_due

log = logging.getLogger("syncapp.connections")

KEY = "syncapp.inlet"
"""Where the environ of a WebSocket has its inlet, None if there can be none."""

_LEAST_BYTES, _MOST_BYTES = 2_048, 65_536
_READ_SECONDS = 0.005
_MOST_FREE = 8
_free: list[greenlet] = []
"""Greenlets that have nothing to do, the one that was busy last at the end."""


class Inlet:
    """What comes in on one open socket, with no time by which it must come."""

    __slots__ = ("_came", "_keeper", "ends", "socket", "take")

    def __init__(self, network: Any) -> None:
        self.socket = network
        self.take: Callable[[], bool] | None = None
        """Takes one message of what comes, and tells whether others may follow. Who sets it wants it to be called."""
        self.ends: list[Callable[[], None]] = []
        """Called one after the other when it is over."""
        self._came = bytearray()

    def begin(self, came: bytes) -> None:
        """Go on without the greenlet that served the socket, after what that has read already.

        It may close the socket: that stays open until the inlet is over.
        """
        self._keeper = self.socket.makefile("rb", buffering=0)
        self._came += came
        if came:
            gevent.get_hub().loop.run_callback(_lend, self)
        else:
            self.socket._read_event.start(_lend, self)

    def read(self, count: int) -> bytes:
        """Wait for so many bytes; fewer are the last."""
        while (lacking := count - len(self._came)) > 0:
            more = self.socket.recv(min(max(lacking, _LEAST_BYTES), _MOST_BYTES))
            if not more:
                break
            self._came += more
            yield_if_due(_READ_SECONDS)  # Who sends without a break would keep all others from being heard.
        taken = bytes(self._came[:count])
        del self._came[:count]
        return taken

    def serve(self) -> None:
        """Take what has come, and wait for more without a greenlet; at its end, end it."""
        try:
            while self.take and self.take():
                if not self._came:
                    self.socket._read_event.start(_lend, self)
                    return
        except (GreenletExit, KeyboardInterrupt, SystemExit):  # The process ends.
            raise
        except BaseException:  # gevent's Timeout is one. The greenlet serves others next.
            log.exception("reading failed")
        self._end()

    def _end(self) -> None:
        for end in self.ends:
            try:
                end()
            except Exception:  # The others must be called all the same.
                log.exception("the end of a connection failed")
        self.take, self.ends = None, []
        with contextlib.suppress(OSError):
            self.socket._sock.recv(_MOST_BYTES)  # What nobody has read would make the end a reset.
        self.socket.close()
        self._keeper.close()


def _lend(inlet: Inlet) -> None:
    """Run in the event loop when there is something to read."""
    inlet.socket._read_event.stop()
    lent = _free.pop() if _free else greenlet(_work, gevent.get_hub())
    lent.switch(inlet)


def _work(inlet: Inlet | None) -> None:
    while inlet:
        Context().run(inlet.serve)
        inlet = None  # It may be over, and is not kept from going.
        if len(_free) < _MOST_FREE:
            _free.append(getcurrent())
            inlet = gevent.get_hub().switch()
