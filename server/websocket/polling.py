"""HTTP long-polling: the packets of an open Engine.IO session, with one request in each direction at a time.

Knows: Engine.IO's sessions, their queues, how packets are joined in a body. Must not know: Socket.IO, how a session begins,
who its client is. The library takes sixteen packets of a body, drops all of them if there are more, and answers 200; here a
request may carry as many as fit its size limit, and one that is not processed is answered with an error.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

from engineio.exceptions import EngineIOError
from engineio.packet import CLOSE, NOOP, Packet
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from protocol.errors import PayloadTooLarge, ValidationError
from server.scheduler import yield_if_due

_SEPARATOR = "\x1e"
_COMPRESSED_BYTES = 1_024
_GZIP_LEVEL = 6
_READ_SECONDS = 0.005
_HEADERS = [("Content-Type", "text/plain; charset=UTF-8"), ("Cache-Control", "no-store")]


class Polling:
    """The polling of all sessions of an Engine.IO server."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._in_flight: set[tuple[str, str]] = set()
        """Session and method of each request in flight."""

    def __call__(
        self, environ: dict[str, Any], query: dict[str, str], start_response: Callable[..., Any]
    ) -> list[bytes]:
        """Serve a GET or a POST of a session.

        Raises: ValidationError, PayloadTooLarge: the session has ended.
        """
        key = query["sid"], environ["REQUEST_METHOD"]
        socket = self._session(key[0])
        if key in self._in_flight:
            self._end(socket)
            raise ValidationError("A session has one request for each direction at a time. This one has ended.")
        self._in_flight.add(key)
        try:
            body = self._poll(socket, query) if key[1] == "GET" else self._post(socket, environ)
        except BaseException as error:
            self._end(socket)
            if isinstance(
                error, (EngineIOError, OSError)
            ):  # It was closed meanwhile, or its client left within the body.
                raise ValidationError("The session has ended.") from None
            raise
        finally:
            self._in_flight.discard(key)
        headers = _HEADERS + self._engine._cors_headers(environ)
        if len(body) >= _COMPRESSED_BYTES and parse_accept_header(environ.get("HTTP_ACCEPT_ENCODING"), Accept)["gzip"]:
            body, headers = gzip.compress(body, _GZIP_LEVEL), [*headers, ("Content-Encoding", "gzip")]
        start_response("200 OK", headers)
        return [body]

    def _session(self, sid: str) -> Any:
        """Find a session that polls, and whose client has answered its pings."""
        socket = self._engine.sockets.get(sid)
        if socket and socket.closed:
            del self._engine.sockets[sid]
        elif socket and socket.connected and not socket.upgraded and socket.check_ping_timeout():
            return socket
        raise ValidationError("The session is unknown, has ended, or has a WebSocket. Begin a new one.")

    def _end(self, socket: Any) -> None:
        """Close a session without a close packet, as its client does when a request fails."""
        socket.close(wait=False, abort=True)
        self._engine.sockets.pop(socket.sid, None)

    def _poll(self, socket: Any, query: dict[str, str]) -> bytes:
        """Wait for packets; a session that closes or upgrades meanwhile has none."""
        packets = [] if socket.upgrading else socket.poll()
        script = int(query["j"]) if query.get("j", "").isdecimal() else None  # JSONP, for old browsers.
        body: bytes = self._engine._ok(packets or [Packet(NOOP)], jsonp_index=script)["response"]
        return body

    def _post(self, socket: Any, environ: dict[str, Any]) -> bytes:
        """Process the packets of a body one by one, and return the answer that all were."""
        for text in _packets(self._body(environ)):
            try:
                packet = Packet(encoded_packet=text)
            except ValueError:
                raise ValidationError("A packet is malformed. The session has ended.") from None
            socket.receive(packet)
            if packet.packet_type == CLOSE:
                break
            if socket.closed:
                raise ValidationError("The session has ended; what came after was not taken.")
            yield_if_due(_READ_SECONDS)
        return b"ok"

    def _body(self, environ: dict[str, Any]) -> str:
        most_bytes = self._engine.max_http_buffer_size
        body: bytes = environ["wsgi.input"].read(most_bytes + 1)
        if len(body) > most_bytes:
            raise PayloadTooLarge(
                f"The packets of one request have at most {most_bytes:,} bytes. The session has ended."
            )
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise ValidationError("The packets are not UTF-8. The session has ended.") from None
        return parse_qs(text).get("d", [""])[0] if text.startswith("d=") else text


def _packets(body: str) -> Iterator[str]:
    """Iterate over the packets of a body, since there may be hundreds of thousands."""
    start = 0
    while (end := body.find(_SEPARATOR, start)) >= 0:
        yield body[start:end]
        start = end + 1
    yield body[start:]
