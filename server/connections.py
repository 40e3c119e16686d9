"""Connections below HTTP: how many there may be, and how long a client may make the server wait.

Knows: when a client is too slow, whom to end to make room. Must not know: HTTP (``handler``), what requests do. A WebSocket
is left alone until it is closed; it has pings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import logging
import math
import resource
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import gevent
from gevent.ssl import SSLSocket

from protocol.errors import HeadTooLarge, RequestTimeout
from server.scheduler import yield_if_due
from settings import Settings

log = logging.getLogger("syncapp.connections")

_SWEEP_SECONDS = 1.0
LEAST_BYTES_PER_SECOND = 1_024
_HEAD_BYTES = 65_536
_AT_ONCE_SECONDS = 0.00005
_CLOSING_SECONDS = 5.0
_DRAINED_BYTES = 33_554_432
_AWAY_SECONDS = 1.0
_READ_SECONDS = 0.005
_DESCRIPTORS_A_TENANT = 5
_DESCRIPTORS_BESIDE = 300
_MOST_KNOCKING = 100
_KNOCKS, _KNOCK_SECONDS = 10, 0.05
_FEWEST = 10
_NEVER = math.inf
_RESET = struct.pack("ii", 1, 0)


def fitted(settings: Settings) -> Settings:
    """Lower what this process has not the open files for, and what would let one tenant take every connection."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = limit - settings.open_tenants * _DESCRIPTORS_A_TENANT - _DESCRIPTORS_BESIDE
    most = max(_FEWEST, min(settings.max_connections, room))
    if most < settings.max_connections:
        log.warning("%d open files leave room for %d connections. Raise ulimit -n for more.", limit, most)
    return dataclasses.replace(
        settings,
        max_connections=most,
        max_stranger_sockets=min(settings.max_stranger_sockets, most // 4),
        max_tenant_sockets=min(settings.max_tenant_sockets, most // 2),
        max_tenant_requests=min(settings.max_tenant_requests, most // 4),
    )


class _Part(NamedTuple):
    """A part of what a client sends: how long it may be waited for in all, and how much it may be."""

    patience_seconds: float
    most_bytes: float = _NEVER


class Stream(io.RawIOBase):
    """What comes in on one connection, part by part: ``idle``, ``head``, ``body``, the ``rest`` that nobody reads, and
    ``open`` once it is a WebSocket, and ``closing`` when that is closed. It begins as ``new``."""

    def __init__(self, network: Any, parts: dict[str, _Part]) -> None:
        self._network, self._parts = network, parts
        self._is_plain = not isinstance(network, SSLSocket)  # TLS may have read what the network has no more.
        self.until = _NEVER
        """When the wait that is going on will have been too long, on the monotonic clock."""
        self._is_reading = self._is_sending = self._is_over = False
        self.is_ended = False
        """Ended from another greenlet: it was too slow, or made room."""
        self.begin("new")

    def begin(self, part: str) -> None:
        """Begin a part."""
        self._part = part
        self._patience, self._left_bytes = self._parts[part]

    def close_soon(self) -> None:
        """Give the client of a WebSocket that ends a moment to take the rest and to close too, counted from the first call.

        Source: RFC 6455 section 7.1.1.
        """
        if self._part != "closing":
            self.begin("closing")
            self.until = time.monotonic() + self._patience

    def stop(self) -> None:
        """Read no more: others do."""
        self._is_over = True

    def readable(self) -> bool:
        """Tell that this can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes, but not for too long.

        Raises: RequestTimeout, HeadTooLarge, once, where there is a request to answer; else it is at its end.
        """
        if self._is_over:
            return 0
        count, waited = self._receive(buffer)
        if count and self._part in ("new", "idle"):
            self.begin("head")
        else:
            self._patience -= waited
        self._left_bytes -= count
        if self.is_ended or self._left_bytes < 0:
            self._is_over = True
            if self._part in ("head", "body"):
                raise RequestTimeout if self.is_ended else HeadTooLarge
            return 0
        if self._part == "body":  # What comes gives more time, but never more than there was at first.
            self._patience += count / LEAST_BYTES_PER_SECOND
            self._patience = min(self._patience, self._parts["body"].patience_seconds)
        return count

    def _receive(self, buffer: Any) -> tuple[int, float]:
        began = time.monotonic()
        self.until, self._is_reading = began + self._patience, True
        try:
            if self._part == "idle" and self._is_plain:  # Hardly ever is anything there; asking in vain costs.
                self._network._wait(self._network._read_event)
            count: int = self._network.recv_into(buffer)
            waited = time.monotonic() - began
            if waited < _AT_ONCE_SECONDS:
                yield_if_due(_READ_SECONDS)  # Who sends without a break would keep all others from being heard.
            return count, waited
        except OSError:
            if not self.is_ended:
                raise
            return 0, 0.0  # gevent wakes who waits on a socket that is shut down with an error.
        finally:
            self.until, self._is_reading = _NEVER, False

    @property
    def is_waited_for(self) -> bool:
        """Tell whether the server waits for a request that it could do without."""
        is_between = self._part in ("new", "idle", "rest", "closing")
        return (is_between or (self._is_reading and self._part != "open")) and not self.is_ended

    def end(self) -> None:
        """End it from another greenlet; whoever waits for it goes on at once."""
        self.is_ended = True
        is_unread = self._is_sending or self._part == "closing"
        with contextlib.suppress(OSError):
            if is_unread:  # Nobody will read what is queued.
                self._network.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._network.shutdown(socket.SHUT_RDWR if is_unread else socket.SHUT_RD)

    @contextlib.contextmanager
    def sending(self, seconds: float) -> Iterator[None]:
        """Send to the client, but not for longer than ``seconds``.

        Raises: BrokenPipeError if it was ended meanwhile; pywsgi takes that silently.
        """
        self.until, self._is_sending = time.monotonic() + seconds, True
        try:
            yield
        except OSError as error:
            if not self.is_ended:
                raise
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from error
        finally:
            self.until, self._is_sending = _NEVER, False


class Connections:
    """All connections of this server, those whose request began longest ago first."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_connections
        self.stall_seconds = settings.stall_seconds
        self._parts = {
            "new": _Part(settings.head_seconds),
            "idle": _Part(settings.keep_alive_seconds),
            "head": _Part(settings.head_seconds, _HEAD_BYTES),
            "body": _Part(settings.stall_seconds),
            "rest": _Part(settings.stall_seconds, max(_DRAINED_BYTES, 2 * settings.max_body_bytes)),
            "open": _Part(_NEVER),
            "closing": _Part(_CLOSING_SECONDS),
        }
        self._open: OrderedDict[Stream, None] = OrderedDict()
        self._ending: set[Stream] = set()
        """Those that made room for others, and are not closed yet."""
        self._knocking = self._away = self._turned_away = 0
        self.is_over = False
        """From when the server stops, each answer is the last of its connection."""

    def watch(self) -> None:
        """Begin to look after them."""
        gevent.spawn(self._watch)

    def stream(self, network: Any) -> Stream:
        """Give what comes in on a new connection."""
        return Stream(network, self._parts)

    def admit(self, stream: Stream) -> bool:
        """Let a connection in, if need be in the place of one that makes the server wait; tell whether there was room."""
        if not (self._has_room() or self._wait_for_room()):
            return False
        self._open[stream] = None
        return True

    def _has_room(self) -> bool:
        if len(self._open) - len(self._ending) < self._most:
            return True
        slowest = next((stream for stream in self._open if stream.is_waited_for), None)
        if slowest is not None:
            self._end(slowest)
        return slowest is not None

    def _wait_for_room(self) -> bool:
        """Wait a little: of many requests that came at once, some are answered in a moment."""
        if self._knocking >= _MOST_KNOCKING:
            return False
        self._knocking += 1
        try:
            for _ in range(_KNOCKS):
                gevent.sleep(_KNOCK_SECONDS)
                if self._has_room():
                    return True
            return False
        finally:
            self._knocking -= 1

    @contextlib.contextmanager
    def turning_away(self) -> Iterator[None]:
        """Bound how long somebody for whom there is no room is told so, and how many are at a time."""
        seconds = _AWAY_SECONDS if self._away < _MOST_KNOCKING else 0.0
        self._turned_away += 1
        self._away += 1
        try:
            with gevent.Timeout(seconds, False):
                yield
        finally:
            self._away -= 1

    def requested(self, stream: Stream) -> None:
        """Note that a request begins."""
        self._open.move_to_end(stream)

    def leave(self, stream: Stream) -> None:
        """Forget a connection that is closed."""
        del self._open[stream]
        self._ending.discard(stream)

    def _end(self, stream: Stream) -> None:
        self._ending.add(stream)
        stream.end()

    def _watch(self) -> None:
        while True:
            gevent.sleep(_SWEEP_SECONDS)
            try:
                self._end_late(time.monotonic())
            except Exception:
                log.exception("looking after connections failed")

    def _end_late(self, now: float) -> None:
        if self._turned_away:  # A line for each would cost more than all the rest of it.
            log.warning("%d connections found no room and were turned away", self._turned_away)
            self._turned_away = 0
        late = [stream for stream in self._open if stream.until < now]
        for stream in late:
            stream.until = _NEVER
            self._end(stream)
        if late:
            log.info("%d connections were idle or slow for too long and were ended", len(late))
