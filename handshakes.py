"""What the Socket.IO library refuses by itself, said in our shape; and its stumbles, in one line of the log.

Knows: the addresses of Socket.IO, how its library answers. Must not know: who listens, events, tenants.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from errors import Busy, MethodNotAllowed, OriginNotAllowed, ValidationError
from web import is_allowed_origin, refuse

Wsgi = Callable[..., Iterable[bytes]]
log = logging.getLogger("syncapp.socket")


class Contained:
    """Says what the Socket.IO library refuses in our shape, and ends a connection on which it stumbles with one line."""

    def __init__(self, library: Wsgi, beside: Wsgi, origins: Iterable[str], is_full: Callable[[], bool]) -> None:
        """``library`` serves the addresses of Socket.IO, ``beside`` all others, past its middleware."""
        self._library, self._beside, self._origins, self._is_full = library, beside, origins, is_full

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/socket.io/"):
            return self._beside(environ, start_response)
        is_refused = "sid" not in parse_qs(environ["QUERY_STRING"]) and self._is_full()
        if "wsgi.websocket" in environ:  # It speaks frames by now, no answer can follow.
            return [] if is_refused else self._attempt(environ, start_response) or []
        if is_refused:
            return refuse(start_response, Busy("Too many sockets are connecting. Try again soon."), environ)
        if not is_allowed_origin(environ.get("HTTP_ORIGIN"), environ, self._origins):
            return refuse(start_response, OriginNotAllowed(), environ)
        refused: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            if status[0] == "4":
                return refused.append(status)
            return start_response(status, headers, *more)

        parts = self._attempt(environ, start)
        if parts is not None and not refused:
            return parts
        sentence = f"Socket.IO refused this: {_said(parts)}." if parts else None
        problem = MethodNotAllowed() if refused and refused[0][:3] == "405" else ValidationError(sentence)
        return refuse(start_response, problem, environ)

    def _attempt(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        try:
            return self._library(environ, start_response)
        except Exception as error:
            log.warning("a connection was ended", extra={"reason": type(error).__name__})
            return None


def _said(parts: Iterable[bytes]) -> str:
    """Read what the library answered, a sentence as JSON or as plain text."""
    return b"".join(parts).decode("utf-8", "replace").strip().strip('".')
