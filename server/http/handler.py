"""HTTP on one connection: from received bytes to the WSGI application, and the response back.

Knows: gevent's handler of a connection, status lines and headers, when the connection ends. Must not know: what requests
do, how they are framed (``request_head``, ``request_body``), time-outs (``connections``). Our own server and gunicorn's
worker both use this handler.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
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
from server.http.exchange import request_id_of
from server.http.load_shedding import LoadShedding
from server.http.request_body import Body, ChunkedBody
from server.http.response_head import date_line, head_bytes, parts_of, refusal, repeated_refusal
from server.http.upgrade import UPGRADE, check_handshake, is_handshake
from server.idle_reader import KEY, IdleReader

log = logging.getLogger("syncapp.connections")

_BUFFER_BYTES = 2_048  # Most heads fit, with a small body; each idle connection keeps it, and large bodies bypass it.
_SENT_WITH_HEAD_BYTES = 65_536
_MOST_EMPTY_LINES = 8
_REST_BYTES, _REST_SECONDS = 65_536, 1.0
"""How much of an unread body is read before the response, so that the connection can be kept alive."""

_HEAD_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WITHOUT_BODY = {101, 204, 304}
_DISCARDED = bytearray(65_536)
"""The buffer into which all connections read what they discard."""


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Serves one connection, with time-outs."""

    connections: Connections
    load_shedding: LoadShedding
    socket: Any
    websocket: Any = None
    _head: bytes = b""
    """Status line and headers of the response so far."""
    _read_bytes = 0
    """Bytes behind the head that were read with it."""
    _has_connection_header = _is_head_request = _is_websocket = _is_handed_over = False

    def __init__(self, sock: Any, address: Any, server: Any, rfile: Any = None) -> None:
        self.stream = self.connections.stream(sock)
        super().__init__(sock, address, server, rfile or io.BufferedReader(self.stream, _BUFFER_BYTES))

    def handle(self) -> None:
        """Serve requests until the connection ends; without room for it, answer 503."""
        if not self.connections.admit(self.stream):
            self._reject()
            return
        try:
            super().handle()
        except OSError:  # The client left before the answer was sent.
            log.debug("a client left")
        finally:
            if not self._is_handed_over:
                self.connections.remove(self.stream)

    def _reject(self) -> None:
        with contextlib.suppress(OSError), self.connections.rejecting():
            problem = Busy("The server has too many connections just now. Try again soon.")
            self._send_last(refusal(problem, str(uuid.uuid4())))

    # --- in ----------------------------------------------------------------------------------------------------------

    def handle_one_request(self) -> bool | None:
        """Serve one request, and tell pywsgi whether others may follow; a malformed one gets an error answer."""
        if self.requestline is not None:
            self.stream.begin("idle")
        self.connections.request_begins(self.stream)
        try:
            request = self._read_whole_head() or self._read_head_by_lines()
        except Problem as problem:
            self._refuse(problem)
            return None
        return self._serve(request) if request else None

    def _read_whole_head(self) -> request_head.Request | None:
        """Wait for a request, and read its head if all of it was received; otherwise leave it unread."""
        received: bytes = self.rfile.peek()
        size = received.find(_HEAD_END) + len(_HEAD_END)
        request = request_head.parse_cached(received[:size]) if size >= len(_HEAD_END) else None
        self._read_bytes = len(received) - size if request else 0
        if request:
            self.rfile.read(size)
        return request

    def _read_head_by_lines(self) -> request_head.Request | None:
        """Read a request head line by line; a few empty lines before it are skipped. Source: RFC 9112 section 2.2."""
        for _ in range(_MOST_EMPTY_LINES):
            if self.rfile.peek()[:1] not in (b"\r", b"\n"):
                break
            if self.rfile.readline(2) not in request_head.EMPTY_LINES:
                raise ValidationError("The first line of the request is malformed.")
            self.stream.begin("new" if self.requestline is None else "idle")
        return request_head.read(self.rfile)

    def _serve(self, request: request_head.Request) -> bool | None:
        """Serve a request, and tell whether others may follow, as pywsgi does."""
        self.requestline, self.request_version = request.line, request.environ["SERVER_PROTOCOL"]
        self.close_connection = request.is_last
        body = ChunkedBody(self.rfile) if request.is_chunked else Body(self.rfile, request.length)
        if request.expects_continue and body.left:
            body.send_continue = self._send_continue
        self.wsgi_input = body
        problem = self.load_shedding.refusal(request.environ)
        if problem:
            self._shed(request, problem)
        else:
            self._call_application(request)
        if not self.close_connection:
            return True
        body.send_continue = None
        if body.left:
            self._linger("rest")
        elif self._is_websocket and not self._is_handed_over:
            self._linger("closing")
        return None

    def _call_application(self, request: request_head.Request) -> None:
        self.environ = environ = self.server.get_environ()
        environ.update(request.environ)
        self._is_head_request = environ["REQUEST_METHOD"] == "HEAD"
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.client_address[0], str(self.client_address[1])
        environ["wsgi.input"], environ["wsgi.input_terminated"] = self.wsgi_input, True
        self.application = self.server.application
        self.handle_one_response()

    def _shed(self, request: request_head.Request, problem: Problem) -> None:
        """Refuse a request before anything is made of it; the connection stays, unless its body is large or late."""
        if request.length <= self._read_bytes and not (request.is_chunked or request.expects_continue):
            self.wsgi_input.read()
        else:
            self._skip_small_body()
        if self.connections.is_stopping or self.request_version == "HTTP/1.0":
            self.close_connection = True
        self._sendall(repeated_refusal(problem, request_id_of(request.environ), self.close_connection))

    def _send_continue(self) -> None:
        """Send 100 (Continue) to a client that waits for it before it sends the body. Source: RFC 9110 section 10.1.1."""
        with self.stream.sending(self.connections.stall_seconds):
            self.socket.sendall(_CONTINUE)

    # --- the end of a connection -------------------------------------------------------------------------------------

    def _refuse(self, problem: Problem) -> None:
        """Answer a request that does not reach the application, and end the connection."""
        request_id = str(uuid.uuid4())
        extra = {"status": problem.status, "code": problem.code, "request_id": request_id}
        address = self.client_address[0] if isinstance(self.client_address, tuple) else "unknown"
        log.info("refused: %s", problem, extra={**extra, "address": address})
        self._send_last(refusal(problem, request_id))

    def _send_last(self, answer: bytes) -> None:
        with self.stream.sending(self.connections.stall_seconds):
            self.socket.sendall(answer)
        self._linger("rest")

    def _skip_small_body(self) -> None:
        """Read the unread body of a request before its response, if it is small and arrives; otherwise end the connection,
        since the begin of the next request is unknown. Source: RFC 9112 sections 6.3 and 9.3.
        """
        body = self.wsgi_input
        if not self.close_connection and body.send_continue is None and body.left <= _REST_BYTES:
            self.stream.begin("rest")
            with gevent.Timeout(_REST_SECONDS, False), contextlib.suppress(OSError, Problem):
                body.skip(_REST_BYTES)
            self.stream.begin("body")
        if body.left:
            self.close_connection = True

    def _linger(self, phase: str) -> None:
        """Close in stages: shut down the sending side and read on for a while. Closing with unread bytes would reset the
        connection, and the client might never see the response. Source: RFC 9112 section 9.6.
        """
        self.stream.begin(phase)
        with contextlib.suppress(OSError):
            if not isinstance(self.socket, SSLSocket):  # With TLS this would end reading too.
                self.socket.shutdown(socket.SHUT_WR)
            while self.stream.readinto(_DISCARDED):
                pass

    # --- within ------------------------------------------------------------------------------------------------------

    def run_application(self) -> None:
        """Run the application; it accepts or refuses a WebSocket handshake, if the request is one."""
        self.stream.begin("body")
        if "HTTP_UPGRADE" in self.environ:
            if is_handshake(self.environ):
                self.environ["HTTP_UPGRADE"] = "websocket"  # The libraries compare it as is.
                self.environ[UPGRADE] = self._begin_websocket
            else:  # RFC 9110 section 7.8: an unknown upgrade is ignored.
                del self.environ["HTTP_UPGRADE"]
        try:
            WSGIHandler.run_application(self)
        finally:
            self.environ.pop(
                UPGRADE, None
            )  # It holds this handler, which holds the environ (ARCHITECTURE.md, trap 28).
            if self.websocket:
                self._leave_websocket()

    def _begin_websocket(self) -> None:
        """Answer the handshake: from here on the connection carries WebSocket frames.

        It has no idle time-out, since Socket.IO's pings find dead clients. An idle reader may wait for its frames, but not
        with TLS, which may have decrypted bytes that the socket no longer has.
        Raises: ValidationError if the handshake is malformed; it is answered as any other request then.
        """
        check_handshake(self.environ)
        if self.wsgi_input.left:
            raise ValidationError("A WebSocket's handshake has no body.")
        self._is_websocket = self.close_connection = True
        self.upgrade_websocket()
        self.write(b"")
        self.stream.begin("open")
        self.environ[KEY] = None if isinstance(self.socket, SSLSocket) else IdleReader(self.socket)

    def _leave_websocket(self) -> None:
        reader, websocket, self.websocket = self.environ[KEY], self.websocket, None
        if reader and reader.receive_one:
            self._hand_over(reader)
        elif not websocket.closed:
            websocket.close()

    def _hand_over(self, reader: IdleReader) -> None:
        self._is_handed_over = True
        reader.on_end.append(partial(self.connections.remove, self.stream))
        self.stream.detach()
        reader.begin(self.rfile.peek())
        self.socket = None  # So that pywsgi does not close it.

    # --- out ---------------------------------------------------------------------------------------------------------

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Check and keep status line and headers, written as one text. Source: PEP 3333."""
        if exc_info and self.headers_sent:
            raise exc_info[1]
        by_name = {name.lower(): value for name, value in headers}
        connection = by_name.get("connection")
        self._has_connection_header = connection is not None
        if connection and "close" in request_head.tokens(connection):
            self.close_connection = True
        self.provided_content_length = by_name.get("content-length")
        lines = [name + ": " + value for name, value in headers]
        if "date" not in by_name:
            lines.append(date_line(int(time.time())))
        self._head = head_bytes(["HTTP/1.1 " + status, *lines])
        self.status, self.code = parts_of(status)
        return self.write

    def _write_with_headers(self, data: bytes) -> None:
        """Send status line and headers with the first part of the body, together unless that is large."""
        self.headers_sent = True
        if self.wsgi_input.left:
            self._skip_small_body()
        if self.connections.is_stopping:
            self.close_connection = True
        head = b"".join((self._head, self._framing_header(), self._connection_header(), b"\r\n"))
        if self.response_use_chunked or len(data) > _SENT_WITH_HEAD_BYTES:
            self._sendall(head)
            self._write(data)
        else:
            self._sendall(head + data if data and not self._is_head_request else head)

    def _framing_header(self) -> bytes:
        """Return the header that frames the body: its length, or chunks; without either the connection's end does.

        Source: RFC 9112 section 6.3.
        """
        if self.provided_content_length is not None or self.code in _WITHOUT_BODY or self._is_head_request:
            return b""
        if hasattr(self.result, "__len__"):
            return b"Content-Length: %d\r\n" % sum(map(len, self.result))
        if self.request_version == "HTTP/1.1":
            self.response_use_chunked = True
            return b"Transfer-Encoding: chunked\r\n"
        self.close_connection = True
        return b""

    def _connection_header(self) -> bytes:
        """Return the header that says whether the connection ends. Source: RFC 9112 sections 9.3 and 9.6."""
        if self._has_connection_header:
            return b""
        if self.close_connection:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if self.request_version == "HTTP/1.0" else b""

    def _write(self, data: bytes) -> None:
        if not self._is_head_request:
            super()._write(data)

    def _sendall(self, data: Any) -> None:
        """Send, with a time-out for a client that does not read."""
        sent = self._send_nowait(data)
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:])
        self.response_length += sent

    def _send_nowait(self, data: Any) -> int:
        """Send what the kernel takes without waiting, and return how much that was."""
        if isinstance(self.socket, SSLSocket):  # The inner socket would send in clear.
            return 0
        try:
            return os.write(self.socket.fileno(), data)  # gevent's send would wait.
        except OSError:  # It would block, or the connection is gone: sending the rest finds out which.
            return 0

    def _send_rest(self, data: memoryview) -> None:
        seconds = self.connections.stall_seconds
        step = seconds * LEAST_BYTES_PER_SECOND
        for start in range(0, len(data), step):
            with self.stream.sending(seconds):
                super()._sendall(data[start : start + step])


def install(connections: Connections, load_shedding: LoadShedding) -> None:
    """Have ``Handler`` serve these connections, and start their sweep; for our own server and gunicorn's worker."""
    Handler.connections, Handler.load_shedding = connections, load_shedding
    connections.watch()
