"""HTTP long-polling: the packets of a session that is open, in one request each way at a time.

Knows: Engine.IO's sessions, their queues, how packets are put together in a body. Must not know: Socket.IO, how a session
begins, who is at its other end. The library takes sixteen packets of a body, drops them all if there are more, and answers
that all is well; here a request takes as many as its bytes are allowed, and says so if one was not taken.
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
        self._under_way: set[tuple[str, str]] = set()
        """By session and method, what is being answered."""

    def __call__(
        self, environ: dict[str, Any], query: dict[str, str], start_response: Callable[..., Any]
    ) -> list[bytes]:
        """Serve a GET or a POST of a session.

        Raises: ValidationError, PayloadTooLarge: the session has ended.
        """
        key = query["sid"], environ["REQUEST_METHOD"]
        socket = self._session(key[0])
        if key in self._under_way:
            self._end(socket)
            raise ValidationError("A session has one request for each direction at a time. This one has ended.")
        self._under_way.add(key)
        try:
            said = self._waited_for(socket, query) if key[1] == "GET" else self._taken(socket, environ)
        except BaseException as error:
            self._end(socket)
            if isinstance(error, (EngineIOError, OSError)):  # It was closed meanwhile, or left amid its body.
                raise ValidationError("The session has ended.") from None
            raise
        finally:
            self._under_way.discard(key)
        headers = _HEADERS + self._engine._cors_headers(environ)
        if len(said) >= _COMPRESSED_BYTES and parse_accept_header(environ.get("HTTP_ACCEPT_ENCODING"), Accept)["gzip"]:
            said, headers = gzip.compress(said, _GZIP_LEVEL), [*headers, ("Content-Encoding", "gzip")]
        start_response("200 OK", headers)
        return [said]

    def _session(self, sid: str) -> Any:
        """Find a session that polls, and whose client has answered its pings."""
        socket = self._engine.sockets.get(sid)
        if socket and socket.closed:
            del self._engine.sockets[sid]
        elif socket and socket.connected and not socket.upgraded and socket.check_ping_timeout():
            return socket
        raise ValidationError("The session is unknown, has ended, or has a WebSocket. Begin a new one.")

    def _end(self, socket: Any) -> None:
        """End a session without a word of Engine.IO's, as its client does when a request fails."""
        socket.close(wait=False, abort=True)
        self._engine.sockets.pop(socket.sid, None)

    def _waited_for(self, socket: Any, query: dict[str, str]) -> bytes:
        """Wait for packets; a session that ends or upgrades meanwhile has none."""
        packets = [] if socket.upgrading else socket.poll()
        script = int(query["j"]) if query.get("j", "").isdecimal() else None  # For pages of old, as JSONP.
        said: bytes = self._engine._ok(packets or [Packet(NOOP)], jsonp_index=script)["response"]
        return said

    def _taken(self, socket: Any, environ: dict[str, Any]) -> bytes:
        """Take the packets of a body one by one, and say that all were."""
        for text in _texts(self._body(environ)):
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
        most = self._engine.max_http_buffer_size
        body: bytes = environ["wsgi.input"].read(most + 1)
        if len(body) > most:
            raise PayloadTooLarge(f"The packets of one request have at most {most:,} bytes. The session has ended.")
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise ValidationError("The packets are not UTF-8. The session has ended.") from None
        return parse_qs(text).get("d", [""])[0] if text.startswith("d=") else text


def _texts(body: str) -> Iterator[str]:
    """Give the packets of a body, one after the other, since there may be hundreds of thousands."""
    start = 0
    while (end := body.find(_SEPARATOR, start)) >= 0:
        yield body[start:end]
        start = end + 1
    yield body[start:]
