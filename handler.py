"""HTTP on one connection: requests from its bytes to the application, and answers back.

Knows: gevent's handler of a connection, how requests are framed, how a head is written. Must not know: what requests do,
when a client is too slow (``connections``). Both ways to serve use this handler: our own server and gunicorn's worker. A
request like most goes a short way; one that says anything out of the ordinary goes pywsgi's, which knows all of HTTP.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
import uuid
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any

from gevent.pywsgi import Input, WSGIHandler, format_date_time
from gevent.ssl import SSLSocket
from geventwebsocket.handler import WebSocketHandler

from connections import LEAST_BYTES_PER_SECOND, Connections
from errors import AddressTooLong, Busy, Problem, ValidationError, as_body
from frames import check_handshake, is_handshake
from heads import Head, Ordinary, ordinary
from inlets import KEY, Inlet
from wire import encode

log = logging.getLogger("syncapp.connections")

_BUFFER_BYTES = 1_024  # Most heads fit; each idle connection keeps it, and a body is read past it.
_TOGETHER_BYTES = 65_536
_SAID_CHARACTERS = 200
_REFUSED: dict[str, type[Problem]] = {"400": ValidationError, "414": AddressTooLong}
"""What pywsgi itself refuses, by its status."""

UPGRADE = "syncapp.upgrade"
"""Where the environ of a request that asks for a WebSocket has what begins one."""

_NO_HEAD = Head(io.BytesIO())
_END_OF_HEAD = b"\r\n\r\n"
_WITHOUT_BODY = {"101", "204", "304"}


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Serves one connection, and does not wait for its client for ever."""

    connections: Connections
    socket: Any
    websocket: Any = None
    MessageClass = Head
    _head: bytes | None = None
    """The head of an answer so far, if it is not pywsgi that writes it."""
    _is_handed_over = False

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
            if not self._is_handed_over:
                self.connections.leave(self.stream)

    # --- in ----------------------------------------------------------------------------------------------------------

    def handle_one_request(self) -> Any:
        """Serve one request; what is refused before the application sees it is said in the one shape too."""
        if self.requestline is not None:
            self.stream.begin("idle")
        self.connections.requested(self.stream)
        try:
            request = self._taken()
            result = self._serve(request) if request else super().handle_one_request()
        except Problem as problem:
            result = self._handle_client_error(problem)
        if not isinstance(result, tuple):
            return result
        status, said = result
        return status, _refusal(said if isinstance(said, Problem) else _REFUSED[status]())

    def _taken(self) -> Ordinary | None:
        """Wait for a request, and take its head if that came whole and is like most; else it is still to be read."""
        came: bytes = self.rfile.peek()
        size = came.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        request = ordinary(came[:size]) if size >= len(_END_OF_HEAD) else None
        if request:
            self.rfile.read(size)
        return request

    def _serve(self, request: Ordinary) -> bool | None:
        """Serve a request whose head is known, and tell whether others may follow, as pywsgi does."""
        self.requestline, self.request_version = request.line, "HTTP/1.1"
        self.close_connection = request.is_last
        self.wsgi_input = Input(self.rfile, request.length)
        self.environ = environ = self.server.get_environ()
        environ.update(request.environ)
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.client_address[0], str(self.client_address[1])
        environ["wsgi.input"], environ["wsgi.input_terminated"] = self.wsgi_input, True
        self.application = self.server.application
        self.handle_one_response()
        return None if self.close_connection else True

    def read_request(self, raw: str) -> bool:
        """Read a head; a connection of HTTP/1.0 ends after a chunked body (RFC 9112 section 6.1)."""
        is_good = bool(super().read_request(raw))
        if self.request_version != "HTTP/1.1" and self.headers.get("transfer-encoding"):
            self.close_connection = True
        return is_good

    def _connection_upgrade_requested(self) -> bool:
        """Say no, so that every body ends where its head says; a WebSocket reads its network past ``wsgi.input``."""
        return False

    def _headers(self) -> list[tuple[str, str]]:
        """Give the headers for the environ, which the head has ready."""
        found: list[tuple[str, str]] = self.headers.environ
        return found

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

    # --- within ------------------------------------------------------------------------------------------------------

    def run_application(self) -> None:
        """Serve a request whose head is known; the application begins a WebSocket, if that is asked for, or refuses to."""
        self.stream.begin("body")
        if "HTTP_UPGRADE" in self.environ:
            if is_handshake(self.environ):
                self.environ[UPGRADE] = self._begin_websocket
            else:  # RFC 9110 section 7.8: an upgrade that is not understood is ignored.
                del self.environ["HTTP_UPGRADE"]
        try:
            WSGIHandler.run_application(self)
        finally:
            if self.websocket:
                self._leave_websocket()
            if not self._is_handed_over:
                self.stream.begin("rest")

    def _begin_websocket(self) -> None:
        """Answer the handshake: from here on the connection speaks frames.

        Its client may be silent, for Socket.IO's pings find out who is gone. Who serves it may leave the waiting for more
        to its inlet; not with TLS, which may have read what the network has no more.
        Raises: ValidationError if the handshake is malformed; the request is answered as any other then.
        """
        check_handshake(self.environ)
        self.upgrade_websocket()
        self.write(b"")
        self.stream.begin("open")
        self.headers = _NO_HEAD  # It is in the environ too, and would stay as long as the socket does.
        self.environ[KEY] = None if isinstance(self.socket, SSLSocket) else Inlet(self.socket)

    def _leave_websocket(self) -> None:
        inlet, websocket, self.websocket = self.environ[KEY], self.websocket, None
        if inlet and inlet.take:
            self._hand_over(inlet)
        elif not websocket.closed:
            websocket.close()

    def _hand_over(self, inlet: Inlet) -> None:
        self._is_handed_over = True
        inlet.ends.append(partial(self.connections.leave, self.stream))
        self.stream.stop()
        inlet.begin(self.rfile.peek())
        self.socket = None  # So that pywsgi does not close it.

    # --- out ---------------------------------------------------------------------------------------------------------

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Note the head of an answer as pywsgi does; most are checked and written as one text."""
        self._head = None
        if exc_info or self.request_version != "HTTP/1.1" or status[:3] in _WITHOUT_BODY:
            return super().start_response(status, headers, exc_info)
        named = {name.lower(): value for name, value in headers}
        if named.get("connection") == "close":
            self.close_connection = True
        date, self.provided_content_length = named.get("date"), named.get("content-length")
        said = [name + ": " + value for name, value in headers]
        if date is None:
            said.append(_date(int(time.time())))
        self._head = _as_bytes(["HTTP/1.1 " + status, *said])
        self.status, self.code = _parts_of(status)
        self._orig_status, self.provided_date = status, date or True  # It is in the head by now.
        self.response_headers: list[tuple[bytes, bytes]] = []
        return self.write

    def finalize_headers(self) -> None:
        """Say that no answer follows on this connection, else a client that keeps it sends its next request into the end.

        Source: RFC 9112 section 9.6.
        """
        super().finalize_headers()
        is_last = self.close_connection and self.request_version == "HTTP/1.1" and self.code != 101
        if is_last and not self._says_connection():
            self.response_headers.append((b"Connection", b"close"))

    def _says_connection(self) -> bool:
        if self._head is not None:
            return b"\r\nconnection:" in self._head.lower()
        return any(name.lower() == b"connection" for name, _ in self.response_headers)

    def _write_with_headers(self, data: bytes) -> None:
        """Send the head and what comes first of the body, together unless that is large."""
        self.headers_sent = True
        self.finalize_headers()
        said = [self._head or b"HTTP/1.1 %b\r\n" % self.status]
        said += [b"%b: %b\r\n" % header for header in self.response_headers]
        said.append(b"\r\n")
        if self.response_use_chunked or len(data) > _TOGETHER_BYTES:
            self._sendall(b"".join(said))
            self._write(data)
        else:
            self._sendall(b"".join([*said, data or b""]))  # gevent-websocket writes an empty text.

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
        step = seconds * LEAST_BYTES_PER_SECOND
        for start in range(0, len(data), step):
            with self.stream.sending(seconds):
                super()._sendall(data[start : start + step])


def install(connections: Connections) -> None:
    """Let ``Handler`` serve among these connections, and look after them, whoever serves this process with it."""
    Handler.connections = connections
    connections.watch()


def _as_bytes(lines: list[str]) -> bytes:
    """Write lines of a head.

    Raises: ValueError for a line break within one, which would begin another, or a character beyond Latin-1.
    """
    text = "\r\n".join([*lines, ""])
    if text.count("\r") != len(lines) or text.count("\n") != len(lines):
        raise ValueError("a line break in a status or a header")
    return text.encode("latin-1")


@lru_cache(maxsize=64)
def _parts_of(status: str) -> tuple[bytes, int]:
    """Give a status as bytes, and its number."""
    return status.encode("latin-1"), int(status.split(" ", 1)[0])


@lru_cache(maxsize=2)
def _date(since_1970: int) -> str:
    moment: bytes = format_date_time(since_1970)
    return "Date: " + moment.decode()


def _refusal(problem: Problem) -> bytes:
    """Write the answer to a request that the application never sees."""
    request_id = str(uuid.uuid4())
    body = encode(as_body(problem, request_id))
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", f"X-Request-ID: {request_id}"]
    if problem.retry_after_seconds is not None:
        lines.append(f"Retry-After: {problem.retry_after_seconds}")
    return "\r\n".join([*lines, "", ""]).encode() + body
