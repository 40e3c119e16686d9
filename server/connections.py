"""Connections below HTTP: their maximum number, and time-outs for slow clients.

Knows: when a client is too slow, which connection to end to make room. Must not know: HTTP (``handler``), what requests do.
An open WebSocket has no time-out here; it has pings.
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

from protocol.errors import HeadTooLarge, RequestTimeout
from server.scheduler import yield_if_due
from settings import Settings

log = logging.getLogger("syncapp.connections")

_SWEEP_SECONDS = 1.0
LEAST_BYTES_PER_SECOND = 1_024
_HEAD_BYTES = 65_536
_IMMEDIATE_SECONDS = 0.00005
_CLOSING_SECONDS = 5.0
_DRAINED_BYTES = 33_554_432
_REJECT_SECONDS = 1.0
_READ_SECONDS = 0.005
_DESCRIPTORS_A_TENANT = 5
_DESCRIPTORS_BESIDE = 300
_MOST_WAITING = 100
_ROOM_TRIES, _ROOM_TRY_SECONDS = 10, 0.05
_LEAST_CONNECTIONS = 10
_NEVER = math.inf
_RESET = struct.pack("ii", 1, 0)


def fitted_to_open_files(settings: Settings) -> Settings:
    """Lower the limits to the open files of this process, and so that one tenant can't take every connection."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 0 if settings.database_url else settings.open_tenants * _DESCRIPTORS_A_TENANT
    room = limit - files - _DESCRIPTORS_BESIDE
    most = max(_LEAST_CONNECTIONS, min(settings.max_connections, room))
    if most < settings.max_connections:
        log.warning("%d open files leave room for %d connections. Raise ulimit -n for more.", limit, most)
    return dataclasses.replace(
        settings,
        max_connections=most,
        max_stranger_sockets=min(settings.max_stranger_sockets, most // 4),
        max_tenant_sockets=min(settings.max_tenant_sockets, most // 2),
        max_tenant_requests=min(settings.max_tenant_requests, most // 4),
        max_tenant_waiting=min(settings.max_tenant_waiting, most // 4),
    )


class _Phase(NamedTuple):
    """A phase of a connection: how long its bytes may be waited for in all, and how many there may be."""

    timeout_seconds: float
    most_bytes: float = _NEVER


class Stream(io.RawIOBase):
    """The bytes received on one connection, with time-outs by phase.

    Phases: ``new``, ``idle`` between requests, ``head``, ``body``, the ``rest`` that is read and discarded, ``open`` for a
    WebSocket, ``closing`` when that is closed.
    """

    def __init__(self, sock: Any, phases: dict[str, _Phase]) -> None:
        self._sock, self._phases = sock, phases
        self.deadline = _NEVER
        """When the current wait times out, on the monotonic clock."""
        self._is_reading = self._is_sending = self._is_at_end = False
        self.is_ended = False
        """Ended from another greenlet: it timed out, or made room."""
        self.begin("new")

    def begin(self, phase: str) -> None:
        """Begin a phase."""
        self._phase = phase
        self._left_seconds, self._left_bytes = self._phases[phase]

    def close_soon(self) -> None:
        """Start the time-out for the client of a WebSocket to read the rest and close too; only the first call does.

        Source: RFC 6455 section 7.1.1.
        """
        if self._phase != "closing":
            self.begin("closing")
            self.deadline = time.monotonic() + self._left_seconds

    def detach(self) -> None:
        """Read no more: the idle reader does."""
        self._is_at_end = True

    def readable(self) -> bool:
        """Tell that this can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes until the time-out.

        Raises: RequestTimeout, HeadTooLarge, once, where there is a request to answer; otherwise it is at its end.
        """
        if self._is_at_end:
            return 0
        count, waited = self._receive(buffer)
        if count and self._phase in ("new", "idle"):
            self.begin("head")
        else:
            self._left_seconds -= waited
        self._left_bytes -= count
        if self.is_ended or self._left_bytes < 0:
            self._is_at_end = True
            if self._phase in ("head", "body"):
                raise RequestTimeout if self.is_ended else HeadTooLarge
            return 0
        if self._phase == "body":  # Received bytes extend the time-out, up to the initial one.
            self._left_seconds += count / LEAST_BYTES_PER_SECOND
            self._left_seconds = min(self._left_seconds, self._phases["body"].timeout_seconds)
        return count

    def _receive(self, buffer: Any) -> tuple[int, float]:
        began = time.monotonic()
        self.deadline, self._is_reading = began + self._left_seconds, True
        try:
            count: int = self._sock.recv_into(buffer)
            waited = time.monotonic() - began
            if waited < _IMMEDIATE_SECONDS:
                yield_if_due(_READ_SECONDS)  # A client that sends without pause must not block the event loop.
            return count, waited
        except OSError:
            if not self.is_ended:
                raise
            return 0, 0.0  # gevent raises in greenlets that wait on a socket when it is shut down.
        finally:
            self.deadline, self._is_reading = _NEVER, False

    @property
    def is_waited_for(self) -> bool:
        """Tell whether the server waits for this client, so that the connection may be ended to make room."""
        is_between = self._phase in ("new", "idle", "rest", "closing")
        return (is_between or (self._is_reading and self._phase != "open")) and not self.is_ended

    def end(self) -> None:
        """End it from another greenlet; a greenlet that waits for it continues at once."""
        self.is_ended = True
        is_unread = self._is_sending or self._phase == "closing"
        with contextlib.suppress(OSError):
            if is_unread:  # Queued bytes will never be read.
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._sock.shutdown(socket.SHUT_RDWR if is_unread else socket.SHUT_RD)

    @contextlib.contextmanager
    def sending(self, seconds: float) -> Iterator[None]:
        """Send to the client, with a time-out.

        Raises: BrokenPipeError if it was ended meanwhile; pywsgi ignores that silently.
        """
        self.deadline, self._is_sending = time.monotonic() + seconds, True
        try:
            yield
        except OSError as error:
            if not self.is_ended:
                raise
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from error
        finally:
            self.deadline, self._is_sending = _NEVER, False


class Connections:
    """All connections of this server, ordered by when their latest request began."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_connections
        self.stall_seconds = settings.stall_seconds
        self._phases = {
            "new": _Phase(settings.head_seconds),
            "idle": _Phase(settings.keep_alive_seconds),
            "head": _Phase(settings.head_seconds, _HEAD_BYTES),
            "body": _Phase(settings.stall_seconds),
            "rest": _Phase(settings.stall_seconds, max(_DRAINED_BYTES, 2 * settings.max_body_bytes)),
            "open": _Phase(_NEVER),
            "closing": _Phase(_CLOSING_SECONDS),
        }
        self._open: OrderedDict[Stream, None] = OrderedDict()
        self._ending: set[Stream] = set()
        """Ended to make room, and not closed yet."""
        self._waiting = self._rejecting = self._rejected = 0
        self.is_stopping = False
        """Once the server stops, each response is the last of its connection."""

    def watch(self) -> None:
        """Start the sweep that ends late connections."""
        gevent.spawn(self._watch)

    def stream(self, sock: Any) -> Stream:
        """Make the stream of a new connection."""
        return Stream(sock, self._phases)

    def admit(self, stream: Stream) -> bool:
        """Admit a connection, if need be by ending an idle or slow one; tell whether there was room."""
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
        """Wait briefly: in a burst of requests, some are answered in a moment."""
        if self._waiting >= _MOST_WAITING:
            return False
        self._waiting += 1
        try:
            for _ in range(_ROOM_TRIES):
                gevent.sleep(_ROOM_TRY_SECONDS)
                if self._has_room():
                    return True
            return False
        finally:
            self._waiting -= 1

    @contextlib.contextmanager
    def rejecting(self) -> Iterator[None]:
        """Limit how long a rejection may take to send, and how many are sent at a time."""
        seconds = _REJECT_SECONDS if self._rejecting < _MOST_WAITING else 0.0
        self._rejected += 1
        self._rejecting += 1
        try:
            with gevent.Timeout(seconds, False):
                yield
        finally:
            self._rejecting -= 1

    def request_begins(self, stream: Stream) -> None:
        """Move a connection to the end of the order."""
        self._open.move_to_end(stream)

    def remove(self, stream: Stream) -> None:
        """Remove a closed connection."""
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
                log.exception("the sweep of connections failed")

    def _end_late(self, now: float) -> None:
        if self._rejected:  # One log line each would cost more than the rejection.
            log.warning("%d connections were rejected, since there was no room for them", self._rejected)
            self._rejected = 0
        late = [stream for stream in self._open if stream.deadline < now]
        for stream in late:
            stream.deadline = _NEVER
            self._end(stream)
        if late:
            log.info("%d connections timed out, idle or slow, and were closed", len(late))
