"""What the Socket.IO library refuses by itself, said in our shape; and its stumbles, in one line of the log.

Knows: the addresses of Socket.IO, how its library answers. Must not know: who listens, events, tenants.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import parse_qs

from protocol.errors import Busy, MethodNotAllowed, OriginNotAllowed, Problem, ValidationError
from server.http.exchange import is_allowed_origin, refuse, request_id_of
from server.http.upgrade import UPGRADE
from server.websocket.polling import Polling

Wsgi = Callable[..., Iterable[bytes]]
log = logging.getLogger("syncapp.socket")

_TRANSPORTS, _POLLING = ("polling", "websocket"), ("GET", "POST")


class Contained:
    """Says what the Socket.IO library refuses in our shape, and ends a connection on which it stumbles with one line.

    A WebSocket is refused before the handshake is answered: after it, a client would see a connection that opens and
    ends at once, and socket.io-client calls that a time-out 20 s later.
    """

    def __init__(
        self, library: Wsgi, beside: Wsgi, engine: Any, origins: Collection[str], is_full: Callable[[], bool]
    ) -> None:
        """``library`` serves the addresses of Socket.IO by ``engine``, ``beside`` all others, past its middleware."""
        self._library, self._beside, self._engine, self._polling = library, beside, engine, Polling(engine)
        self._origins, self._is_full = origins, is_full

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/socket.io/"):
            return self._beside(environ, start_response)
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        try:
            self._check(environ, query)
            return self._served(environ, query, _named(start_response, request_id_of(environ)))
        except Problem as problem:
            log.info("a socket was refused", extra={"code": problem.code})
            is_foreign = isinstance(problem, OriginNotAllowed)
            return refuse(start_response, problem, environ, None if is_foreign else environ.get("HTTP_ORIGIN"))

    def _served(
        self, environ: dict[str, Any], query: dict[str, str], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if query["transport"] == "polling":
            if "sid" in query and environ["REQUEST_METHOD"] in _POLLING:
                return self._polling(environ, query, start_response)
        elif UPGRADE in environ:
            self._check_session(query)
            environ[UPGRADE]()
            return self._attempt(environ, lambda *_: []) or []
        return self._answered(environ, start_response)

    def _check(self, environ: dict[str, Any], query: dict[str, str]) -> None:
        if not is_allowed_origin(environ.get("HTTP_ORIGIN"), environ, self._origins):
            raise OriginNotAllowed
        if query.get("EIO") != "4" or query.get("transport") not in _TRANSPORTS:
            raise ValidationError("Socket.IO needs EIO=4 and a transport, polling or websocket, in each address.")
        if "sid" not in query and self._is_full():
            raise Busy("Too many sockets are connecting. Try again soon.")

    def _check_session(self, query: dict[str, str]) -> None:
        """Refuse a WebSocket for a session that is not there or has one already, which the library does too late."""
        if "sid" not in query:
            return
        socket = self._engine.sockets.get(query["sid"])
        if socket is None or socket.closed or not socket.connected or socket.upgrading or socket.upgraded:
            raise ValidationError(
                "Socket.IO refused this: the session is unknown, has ended, or has a WebSocket already."
            )

    def _answered(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a request that stays one. Raises: MethodNotAllowed, ValidationError."""
        refused: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            if status[0] == "4":
                return refused.append(status)
            return start_response(status, headers, *more)

        parts = self._attempt(environ, start)
        if parts is not None and not refused:
            return parts
        if refused and refused[0][:3] == "405":
            raise MethodNotAllowed
        raise ValidationError(f"Socket.IO refused this: {_said(parts)}." if parts else None)

    def _attempt(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        try:
            return self._library(environ, start_response)
        except Exception as error:
            log.warning("a connection was ended", extra={"reason": type(error).__name__})
            return None


def _said(parts: Iterable[bytes]) -> str:
    """Read what the library answered, a sentence as JSON or as plain text."""
    return b"".join(parts).decode("utf-8", "replace").strip().strip('".')


def _named(start_response: Callable[..., Any], request_id: str) -> Callable[..., Any]:
    """Have an answer bear the request's name."""
    return lambda status, headers, *more: start_response(status, [*headers, ("X-Request-ID", request_id)], *more)
