"""Connections below HTTP: how many there may be, and how long a client may make the server wait.

Knows: gevent's handler of a connection, when a client is too slow, whom to end to make room. Must not know: what requests
do. Both ways to serve use this handler: our own server and gunicorn's worker. A WebSocket is left alone; it has pings.
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
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

import gevent
from gevent.pywsgi import WSGIHandler
from gevent.ssl import SSLSocket
from geventwebsocket.handler import WebSocketHandler

from errors import AddressTooLong, Busy, HeadTooLarge, Problem, RequestTimeout, ValidationError, as_body
from heads import Head
from settings import Settings
from turns import breathe_at_times
from wire import encode

log = logging.getLogger("syncapp.connections")

_SWEEP_SECONDS = 1.0
_LEAST_BYTES_PER_SECOND = 1_024
_HEAD_BYTES = 65_536
_BUFFER_BYTES = 1_024  # Most heads fit; each idle connection keeps it, and a body is read past it.
_AT_ONCE_SECONDS = 0.00005
_READ_SECONDS = 0.005
_DESCRIPTORS_A_TENANT = 5
_DESCRIPTORS_BESIDE = 300
_MOST_KNOCKING = 100
_KNOCKS, _KNOCK_SECONDS = 10, 0.05
_FEWEST = 10
_TOGETHER_BYTES = 65_536
_NEVER = math.inf
_SAID_CHARACTERS = 200
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
    ``open`` once it is a WebSocket. It begins as ``new``."""

    def __init__(self, network: Any, parts: dict[str, _Part]) -> None:
        self._network, self._parts = network, parts
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
            self._patience += count / _LEAST_BYTES_PER_SECOND
            self._patience = min(self._patience, self._parts["body"].patience_seconds)
        return count

    def _receive(self, buffer: Any) -> tuple[int, float]:
        began = time.monotonic()
        self.until, self._is_reading = began + self._patience, True
        try:
            count: int = self._network.recv_into(buffer)
            waited = time.monotonic() - began
            if waited < _AT_ONCE_SECONDS:
                breathe_at_times(_READ_SECONDS)  # Who sends without a break would keep all others from being heard.
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
        is_between = self._part in ("new", "idle", "rest")
        return (is_between or (self._is_reading and self._part != "open")) and not self.is_ended

    def end(self) -> None:
        """End it from another greenlet; whoever waits for it goes on at once."""
        self.is_ended = True
        with contextlib.suppress(OSError):
            if self._is_sending:  # Nobody will read what is queued.
                self._network.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._network.shutdown(socket.SHUT_RDWR if self._is_sending else socket.SHUT_RD)

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
            "rest": _Part(settings.stall_seconds, settings.max_body_bytes),
            "open": _Part(_NEVER),
        }
        self._open: OrderedDict[Stream, None] = OrderedDict()
        self._ending = self._knocking = 0

    def install(self) -> None:
        """Watch the connections of whoever serves this process with ``Handler``."""
        Handler.connections = self
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
        if len(self._open) - self._ending < self._most:
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

    def requested(self, stream: Stream) -> None:
        """Note that a request begins."""
        self._open.move_to_end(stream)

    def leave(self, stream: Stream) -> None:
        """Forget a connection that is closed."""
        del self._open[stream]
        self._ending -= stream.is_ended

    def _end(self, stream: Stream) -> None:
        self._ending += not stream.is_ended
        stream.end()

    def _watch(self) -> None:
        while True:
            gevent.sleep(_SWEEP_SECONDS)
            try:
                self._end_late(time.monotonic())
            except Exception:
                log.exception("looking after connections failed")

    def _end_late(self, now: float) -> None:
        late = [stream for stream in self._open if stream.until < now]
        for stream in late:
            stream.until = _NEVER
            self._end(stream)
        if late:
            log.info("%d connections were idle or slow for too long and were ended", len(late))


_REFUSED: dict[str, type[Problem]] = {"400": ValidationError, "414": AddressTooLong}
"""What pywsgi itself refuses, by its status."""


_NO_HEAD = Head(io.BytesIO())


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Serves one connection, and does not wait for its client for ever."""

    connections: Connections
    MessageClass = Head

    def __init__(self, network: Any, address: Any, server: Any, rfile: Any = None) -> None:
        self.stream = self.connections.stream(network)
        super().__init__(network, address, server, rfile or io.BufferedReader(self.stream, _BUFFER_BYTES))

    def handle(self) -> None:
        """Serve requests until the connection ends; without room for it, say so."""
        if not self.connections.admit(self.stream):
            with contextlib.suppress(OSError):
                self.socket.sendall(_refusal(Busy("The server has too many connections just now. Try again soon.")))
            return
        try:
            super().handle()
        except OSError:  # The client left before it could be told.
            log.debug("a client left")
        finally:
            self.connections.leave(self.stream)

    def _connection_upgrade_requested(self) -> bool:
        """Say no, so that every body ends where its head says; a WebSocket reads its network past ``wsgi.input``."""
        return False

    def read_request(self, raw: str) -> bool:
        """Read a head; a connection of HTTP/1.0 ends after a chunked body (RFC 9112 section 6.1)."""
        is_good = bool(super().read_request(raw))
        if self.request_version != "HTTP/1.1" and self.headers.get("transfer-encoding"):
            self.close_connection = True
        return is_good

    def upgrade_websocket(self) -> Any:
        """Begin a WebSocket, or refuse to, for which the library gives texts where WSGI wants bytes."""
        refused = super().upgrade_websocket()
        return refused and [part.encode() if isinstance(part, str) else part for part in refused]

    def read_requestline(self) -> str:
        """Wait for a request, which begins with this line."""
        if self.requestline is not None:
            self.stream.begin("idle")
        self.connections.requested(self.stream)
        line: str = super().read_requestline()
        return line

    def handle_one_request(self) -> Any:
        """Serve one request; what is refused before the application sees it is said in the one shape too."""
        try:
            result = super().handle_one_request()
        except Problem as problem:
            result = self._handle_client_error(problem)
        if not isinstance(result, tuple):
            return result
        status, said = result
        return status, _refusal(said if isinstance(said, Problem) else _REFUSED[status]())

    def _handle_client_error(self, error: Exception) -> tuple[str, Any]:
        if isinstance(error, Problem):
            return str(error.status), error
        if isinstance(error, OSError):  # It left within its head; pywsgi would print a traceback.
            return "400", b""
        refused: tuple[str, Any] = super()._handle_client_error(error)
        return refused

    def log_error(self, message: str, *values: Any) -> None:
        """Say why a request was refused, in one line of our log under either server."""
        log.info("refused: %s", (message % values if values else message)[:_SAID_CHARACTERS])

    def _headers(self) -> list[tuple[str, str]]:
        """Give the headers for the environ, which the head has ready."""
        found: list[tuple[str, str]] = self.headers.environ
        return found

    def run_application(self) -> None:
        """Serve a request whose head is known."""
        self.stream.begin("body")
        try:
            if "HTTP_UPGRADE" in self.environ:
                super().run_application()
            else:
                WSGIHandler.run_application(self)
        finally:
            self.stream.begin("rest")

    def run_websocket(self) -> None:
        """Serve a WebSocket, whose client may be silent: Socket.IO's pings find out who is gone."""
        self.stream.begin("open")
        self.headers = _NO_HEAD  # It is in the environ too, and would stay as long as the socket does.
        super().run_websocket()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Note the head of an answer as pywsgi does, with what is the same in many heads checked and encoded once."""
        if exc_info or self.request_version != "HTTP/1.1" or status[:3] in _WITHOUT_BODY:
            return super().start_response(status, headers, exc_info)
        said = [_checked_header(*header) for header in headers]
        named = {name: value for name, _, value in said if name in _MEANT_FOR_SERVER}
        if named.get("connection") == "close":
            self.close_connection = True
        self.provided_date, self.provided_content_length = named.get("date"), named.get("content-length")
        self.status, self.code = _checked_status(status)
        self._orig_status = status
        self.response_headers = [line for _, line, _ in said]
        return self.write

    def _write_with_headers(self, data: bytes) -> None:
        """Send the head and what comes first of the body, together unless that is large."""
        self.headers_sent = True
        self.finalize_headers()
        lines = [b"HTTP/1.1 " + self.status, *[name + b": " + value for name, value in self.response_headers], b"", b""]
        head = b"\r\n".join(lines)
        if self.response_use_chunked or len(data) > _TOGETHER_BYTES:
            self._sendall(head)
            self._write(data)
        else:
            self._sendall(head + (data or b""))  # gevent-websocket writes an empty text.

    def _sendall(self, data: Any) -> None:
        """Send, but do not wait forever for a client that does not read."""
        sent = self._send_at_once(data)
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:])
        self.response_length += sent

    def _send_at_once(self, data: Any) -> int:
        """Send what the network takes without a wait, and tell how much that was."""
        if isinstance(self.socket, SSLSocket):  # Below it the bytes would go in clear.
            return 0
        try:
            return int(self.socket._sock.send(data))  # gevent's own would wait.
        except OSError:  # It would block, or it is gone: sending the rest finds out which.
            return 0

    def _send_rest(self, data: memoryview) -> None:
        seconds = self.connections.stall_seconds
        step = seconds * _LEAST_BYTES_PER_SECOND
        for start in range(0, len(data), step):
            with self.stream.sending(seconds):
                super()._sendall(data[start : start + step])


_WITHOUT_BODY = {"101", "204", "304"}
_MEANT_FOR_SERVER = {"connection", "date", "content-length"}


@lru_cache(maxsize=512)
def _checked_header(name: str, value: str) -> tuple[str, tuple[bytes, bytes], str]:
    """Give a header's name in small letters, its name and value as bytes, and its value.

    Raises: ValueError for a line break, which would begin another header, or a character beyond Latin-1.
    """
    if any(sign in text for text in (name, value) for sign in "\r\n"):
        raise ValueError("a line break in a header")
    return name.lower(), (name.encode("latin-1"), value.encode("latin-1")), value


@lru_cache(maxsize=64)
def _checked_status(status: str) -> tuple[bytes, int]:
    """Give a status line as bytes, and its number."""
    if "\r" in status or "\n" in status:
        raise ValueError("a line break in a status")
    return status.encode("latin-1"), int(status.split(" ", 1)[0])


def _refusal(problem: Problem) -> bytes:
    """Write the answer to a request that the application never sees."""
    request_id = str(uuid.uuid4())
    body = encode(as_body(problem, request_id))
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", f"X-Request-ID: {request_id}"]
    if problem.retry_after_seconds is not None:
        lines.append(f"Retry-After: {problem.retry_after_seconds}")
    return "\r\n".join([*lines, "", ""]).encode() + body
