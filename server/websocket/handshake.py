"""Handshakes and requests to Socket.IO: checked before the library, whose own refusals become errors of this API.

Knows: the paths of Socket.IO, how its library answers. Must not know: who listens, events, tenants.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import parse_qs

from protocol.errors import MethodNotAllowed, OriginNotAllowed, Problem, ValidationError
from server.http.exchange import is_allowed_origin, refuse, request_id_of
from server.http.upgrade import UPGRADE
from server.websocket.polling import Polling

Wsgi = Callable[..., Iterable[bytes]]
log = logging.getLogger("syncapp.socket")

_TRANSPORTS, _POLLING = ("polling", "websocket"), ("GET", "POST")


class SocketIOMiddleware:
    """Answers what the Socket.IO library refuses with errors of this API, and logs its exceptions in one line.

    A WebSocket is refused before the handshake is answered: after it, a client would see a connection that opens and
    closes at once, which socket.io-client reports as a time-out 20 s later.
    """

    def __init__(
        self, library: Wsgi, other: Wsgi, engine: Any, origins: Collection[str], make_room: Callable[[], None]
    ) -> None:
        """``library`` serves the paths of Socket.IO by ``engine``, ``other`` all others, past its middleware.

        ``make_room`` returns when there is room for one more socket; it raises Busy if there will be none soon.
        """
        self._library, self._other, self._engine, self._polling = library, other, engine, Polling(engine)
        self._origins, self._make_room = origins, make_room
        self._refused: Counter[str] = Counter()
        """By code, the refusals that were not logged yet."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/socket.io/"):
            return self._other(environ, start_response)
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        try:
            self._check(environ, query)
            return self._serve(environ, query, _with_request_id(start_response, request_id_of(environ)))
        except Problem as problem:
            self._refused[problem.code] += 1
            is_cross_origin = isinstance(problem, OriginNotAllowed)
            return refuse(start_response, problem, environ, None if is_cross_origin else environ.get("HTTP_ORIGIN"))

    def log_refused(self) -> None:
        """Log how many were refused since the last call: a line each would cost more than the refusal."""
        for code, count in self._refused.items():
            log.info("%d sockets were refused", count, extra={"code": code})
        self._refused.clear()

    def _serve(
        self, environ: dict[str, Any], query: dict[str, str], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if query["transport"] == "polling":
            if "sid" in query and environ["REQUEST_METHOD"] in _POLLING:
                return self._polling(environ, query, start_response)
        elif UPGRADE in environ:
            self._check_session(query)
            environ[UPGRADE]()
            return self._call_library(environ, lambda *_: []) or []
        return self._serve_request(environ, start_response)

    def _check(self, environ: dict[str, Any], query: dict[str, str]) -> None:
        if not is_allowed_origin(environ.get("HTTP_ORIGIN"), environ, self._origins):
            raise OriginNotAllowed
        if query.get("EIO") != "4" or query.get("transport") not in _TRANSPORTS:
            raise ValidationError("Socket.IO needs EIO=4 and a transport, polling or websocket, in each address.")
        if "sid" not in query:
            self._make_room()

    def _check_session(self, query: dict[str, str]) -> None:
        """Refuse a WebSocket for a session that does not exist or has one already; the library does so too late."""
        if "sid" not in query:
            return
        socket = self._engine.sockets.get(query["sid"])
        if socket is None or socket.closed or not socket.connected or socket.upgrading or socket.upgraded:
            raise ValidationError(
                "Socket.IO refused this: the session is unknown, has ended, or has a WebSocket already."
            )

    def _serve_request(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a request that is no upgrade. Raises: MethodNotAllowed, ValidationError."""
        refused: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            """Begin the library's answer, unless it is a refusal, which is ours to write."""
            if status[0] == "4":
                return refused.append(status)
            return start_response(status, headers, *more)

        parts = self._call_library(environ, start)
        if parts is not None and not refused:
            return parts
        if refused and refused[0][:3] == "405":
            raise MethodNotAllowed
        raise ValidationError(f"Socket.IO refused this: {_text_of(parts)}." if parts else None)

    def _call_library(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        try:
            return self._library(environ, start_response)
        except Exception as error:
            log.warning("a connection was closed", extra={"reason": type(error).__name__})
            return None


def _text_of(parts: Iterable[bytes]) -> str:
    """Return the library's answer, a sentence in JSON or plain text."""
    return b"".join(parts).decode("utf-8", "replace").strip().strip('".')


def _with_request_id(start_response: Callable[..., Any], request_id: str) -> Callable[..., Any]:
    """Add the request ID to the response."""
    return lambda status, headers, *more: start_response(status, [*headers, ("X-Request-ID", request_id)], *more)
