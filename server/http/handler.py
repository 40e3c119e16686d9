"""HTTP on one connection: requests from its bytes to the application, and answers back.

Knows: gevent's handler of a connection, how a head is written, when the connection ends. Must not know: what requests
do, how they are framed (``request_head``, ``request_body``), when a client is too slow (``connections``). Both ways to
serve use this handler: our own server and gunicorn's worker.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import time
import uuid
from functools import partial
from typing import Any

import gevent
from gevent.pywsgi import WSGIHandler
from gevent.ssl import SSLSocket
from geventwebsocket.handler import WebSocketHandler

from protocol.errors import Busy, Problem, ValidationError
from server.connections import LEAST_BYTES_PER_SECOND, Connections
from server.http import request_head
from server.http.request_body import Body, ChunkedBody
from server.http.response_head import date_line, head_bytes, parts_of, refusal
from server.http.upgrade import UPGRADE, check_handshake, is_handshake
from server.idle_reader import KEY, Inlet

log = logging.getLogger("syncapp.connections")

_BUFFER_BYTES = 1_024  # Most heads fit; each idle connection keeps it, and a body is read past it.
_TOGETHER_BYTES = 65_536
_MOST_EMPTY_LINES = 8
_REST_BYTES, _REST_SECONDS = 65_536, 1.0
"""How much of a body that nobody read is read before the answer, so that the connection can go on after it."""


_END_OF_HEAD = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_UNFRAMED = {101, 204, 304}
_WASTE = bytearray(65_536)
"""Where all connections read to what nobody wants."""


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Serves one connection, and does not wait for its client for ever."""

    connections: Connections
    socket: Any
    websocket: Any = None
    _head: bytes = b""
    """The head of an answer so far."""
    _says_connection = _is_head = _is_websocket = _is_handed_over = False

    def __init__(self, network: Any, address: Any, server: Any, rfile: Any = None) -> None:
        self.stream = self.connections.stream(network)
        super().__init__(network, address, server, rfile or io.BufferedReader(self.stream, _BUFFER_BYTES))

    def handle(self) -> None:
        """Serve requests until the connection ends; without room for it, say so."""
        if not self.connections.admit(self.stream):
            self._turn_away()
            return
        try:
            super().handle()
        except OSError:  # The client left before it could be told.
            log.debug("a client left")
        finally:
            if not self._is_handed_over:
                self.connections.leave(self.stream)

    def _turn_away(self) -> None:
        with contextlib.suppress(OSError), self.connections.turning_away():
            problem = Busy("The server has too many connections just now. Try again soon.")
            self._say_last(refusal(problem, str(uuid.uuid4())))

    # --- in ----------------------------------------------------------------------------------------------------------

    def handle_one_request(self) -> bool | None:
        """Serve one request, and tell pywsgi whether others may follow; what is none is refused in the one shape."""
        if self.requestline is not None:
            self.stream.begin("idle")
        self.connections.requested(self.stream)
        try:
            request = self._whole() or self._by_lines()
        except Problem as problem:
            self._refuse(problem)
            return None
        return self._serve(request) if request else None

    def _whole(self) -> request_head.Request | None:
        """Wait for a request, and take its head if that came whole; else it is still to be read."""
        came: bytes = self.rfile.peek()
        size = came.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        request = request_head.ordinary(came[:size]) if size >= len(_END_OF_HEAD) else None
        if request:
            self.rfile.read(size)
        return request

    def _by_lines(self) -> request_head.Request | None:
        """Read a head by its lines; a few empty ones before it are skipped. Source: RFC 9112 section 2.2."""
        for _ in range(_MOST_EMPTY_LINES):
            if self.rfile.peek()[:1] not in (b"\r", b"\n"):
                break
            if self.rfile.readline(2) not in request_head.EMPTY_LINES:
                raise ValidationError("The first line of the request is malformed.")
            self.stream.begin("new" if self.requestline is None else "idle")
        return request_head.read(self.rfile)

    def _serve(self, request: request_head.Request) -> bool | None:
        """Serve a request whose head is known, and tell whether others may follow, as pywsgi does."""
        self.requestline, self.request_version = request.line, request.environ["SERVER_PROTOCOL"]
        self.close_connection = request.is_last
        body = ChunkedBody(self.rfile) if request.is_chunked else Body(self.rfile, request.length)
        if request.is_waiting and body.left:
            body.invite = self._invite
        self.wsgi_input = body
        self.environ = environ = self.server.get_environ()
        environ.update(request.environ)
        self._is_head = environ["REQUEST_METHOD"] == "HEAD"
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.client_address[0], str(self.client_address[1])
        environ["wsgi.input"], environ["wsgi.input_terminated"] = body, True
        self.application = self.server.application
        self.handle_one_response()
        if not self.close_connection:
            return True
        body.invite = None
        if body.left:
            self._linger("rest")
        elif self._is_websocket and not self._is_handed_over:
            self._linger("closing")
        return None

    def _invite(self) -> None:
        """Let a client that waits send its body. Source: RFC 9110 section 10.1.1."""
        with self.stream.sending(self.connections.stall_seconds):
            self.socket.sendall(_CONTINUE)

    # --- the end of a connection -------------------------------------------------------------------------------------

    def _refuse(self, problem: Problem) -> None:
        """Answer a request that the application never sees; the connection ends with it."""
        request_id = str(uuid.uuid4())
        about = {"status": problem.status, "code": problem.code, "request_id": request_id}
        address = self.client_address[0] if isinstance(self.client_address, tuple) else "unknown"
        log.info("refused: %s", problem, extra={**about, "address": address})
        self._say_last(refusal(problem, request_id))

    def _say_last(self, answer: bytes) -> None:
        with self.stream.sending(self.connections.stall_seconds):
            self.socket.sendall(answer)
        self._linger("rest")

    def _settle(self) -> None:
        """Before an answer to a request whose body nobody read: read it, if it is small and here; else say that the
        connection ends, for where the next request would begin is not known. Source: RFC 9112 sections 6.3 and 9.3.
        """
        body = self.wsgi_input
        if not self.close_connection and body.invite is None and body.left <= _REST_BYTES:
            self.stream.begin("rest")
            with gevent.Timeout(_REST_SECONDS, False), contextlib.suppress(OSError, Problem):
                body.skip(_REST_BYTES)
            self.stream.begin("body")
        if body.left:
            self.close_connection = True

    def _linger(self, part: str) -> None:
        """Say that no more comes, and read on for a while: to close with bytes unread would reset the connection, and
        its client might never see the answer. Source: RFC 9112 section 9.6.
        """
        self.stream.begin(part)
        with contextlib.suppress(OSError):
            if not isinstance(self.socket, SSLSocket):  # With TLS that would end the reading too.
                self.socket.shutdown(socket.SHUT_WR)
            while self.stream.readinto(_WASTE):
                pass

    # --- within ------------------------------------------------------------------------------------------------------

    def run_application(self) -> None:
        """Serve a request whose head is known; the application begins a WebSocket, if that is asked for, or refuses to."""
        self.stream.begin("body")
        if "HTTP_UPGRADE" in self.environ:
            if is_handshake(self.environ):
                self.environ["HTTP_UPGRADE"] = "websocket"  # The libraries know no list, and no capitals.
                self.environ[UPGRADE] = self._begin_websocket
            else:  # RFC 9110 section 7.8: an upgrade that is not understood is ignored.
                del self.environ["HTTP_UPGRADE"]
        try:
            WSGIHandler.run_application(self)
        finally:
            if self.websocket:
                self._leave_websocket()

    def _begin_websocket(self) -> None:
        """Answer the handshake: from here on the connection speaks frames.

        Its client may be silent, for Socket.IO's pings find out who is gone. Who serves it may leave the waiting for more
        to its inlet; not with TLS, which may have read what the network has no more.
        Raises: ValidationError if the handshake is malformed; the request is answered as any other then.
        """
        check_handshake(self.environ)
        if self.wsgi_input.left:
            raise ValidationError("A WebSocket's handshake has no body.")
        self._is_websocket = self.close_connection = True
        self.upgrade_websocket()
        self.write(b"")
        self.stream.begin("open")
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
        """Note the head of an answer, checked and written as one text. Source: PEP 3333."""
        if exc_info and self.headers_sent:
            raise exc_info[1]
        named = {name.lower(): value for name, value in headers}
        connection = named.get("connection")
        self._says_connection = connection is not None
        if connection and "close" in request_head.tokens(connection):
            self.close_connection = True
        self.provided_content_length = named.get("content-length")
        said = [name + ": " + value for name, value in headers]
        if "date" not in named:
            said.append(date_line(int(time.time())))
        self._head = head_bytes(["HTTP/1.1 " + status, *said])
        self.status, self.code = parts_of(status)
        return self.write

    def _write_with_headers(self, data: bytes) -> None:
        """Send the head and what comes first of the body, together unless that is large."""
        self.headers_sent = True
        if self.wsgi_input.left:
            self._settle()
        if self.connections.is_over:
            self.close_connection = True
        head = b"".join((self._head, self._framing(), self._end(), b"\r\n"))
        if self.response_use_chunked or len(data) > _TOGETHER_BYTES:
            self._sendall(head)
            self._write(data)
        else:
            self._sendall(head + data if data and not self._is_head else head)

    def _framing(self) -> bytes:
        """Say where the body of an answer ends: by its length, by chunks, or by the connection's end.

        Source: RFC 9112 section 6.3.
        """
        if self.provided_content_length is not None or self.code in _UNFRAMED or self._is_head:
            return b""
        if hasattr(self.result, "__len__"):
            return b"Content-Length: %d\r\n" % sum(map(len, self.result))
        if self.request_version == "HTTP/1.1":
            self.response_use_chunked = True
            return b"Transfer-Encoding: chunked\r\n"
        self.close_connection = True
        return b""

    def _end(self) -> bytes:
        """Say whether the connection ends. Source: RFC 9112 sections 9.3 and 9.6."""
        if self._says_connection:
            return b""
        if self.close_connection:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if self.request_version == "HTTP/1.0" else b""

    def _write(self, data: bytes) -> None:
        if not self._is_head:
            super()._write(data)

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
