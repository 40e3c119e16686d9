"""WSGI middleware around the application: every request and every response pass it.

Knows: origins, headers, compression, the log line of a request, how an exception becomes a response. It calls the views of
hot paths itself, which the blueprints hold too, since routing through Flask costs more than they do. Must not know: what
any endpoint does.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from flask import Flask, request
from isal import isal_zlib
from werkzeug.datastructures import Accept
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_accept_header

from protocol import errors
from server import log_format
from server.disk_space import NO_ROOM, room
from server.http.exchange import (
    Exchange,
    Header,
    Reply,
    View,
    client_address,
    current_exchange,
    failure,
    is_allowed_origin,
    request_id_of,
    set_current,
    status_line,
)
from server.http.response_head import SECURITY_HEADERS
from server.metrics import REQUEST_SECONDS, REQUESTS
from server.quotas import Quotas
from settings import Settings

log = logging.getLogger("syncapp.request")

_COMPRESSED_FROM_BYTES = 1024
_COMPRESSION_LEVEL = 2  # Of ISA-L: as small as zlib's 4 to within a few percent, at a seventh of the time or less.
_MEANT = {
    kind.code for kind in (errors.StorageFull, errors.QuotaExceeded, errors.UnderMaintenance, errors.TenantReadOnly)
}
"""Refusals that are no failure of the server: that it makes them is logged once, if at all."""

_READABLE_HEADERS = "X-Request-ID, Retry-After, Idempotent-Replayed, RateLimit, RateLimit-Policy"
_SECURITY = [(name.lower(), (name, value)) for name, value in SECURITY_HEADERS.items()]
_ALL_SECURITY = [header for _, header in _SECURITY]
_JSON_ALONE = ["content-type"]
_VARY: list[Header] = [("Vary", "Origin"), ("Vary", "Accept-Encoding")]
_PREFLIGHT: list[Header] = [
    ("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Content-Encoding, X-Request-ID, X-Device-Id, X-Tenant-Id, Idempotency-Key",
    ),
    ("Access-Control-Max-Age", "600"),
]

Wsgi = Callable[..., Iterable[bytes]]


class Middleware:
    """Wraps the WSGI application. ``views`` are those that it calls itself for a POST, by path."""

    def __init__(self, app: Flask, settings: Settings, quotas: Quotas) -> None:
        self.views: dict[str, View] = {}
        self._origins, self._most_bytes, self._quotas = settings.cors_origins, settings.max_body_bytes, quotas
        self._wrapped: Wsgi = app.wsgi_app
        app.wsgi_app = self  # type: ignore[method-assign]
        app.extensions["middleware"] = self
        app.before_request(_note_endpoint)
        app.register_error_handler(Exception, lambda error: error if _is_no_failure(error) else _reply_to(error))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        exchange = Exchange(environ, self._quotas, self._most_bytes, request_id_of(environ))
        end = set_current(exchange)
        try:
            reply = self._reply(environ)
            parts, headers = _compressed(environ, reply, self._headers(exchange, reply.headers))
            start_response(status_line(reply.status), headers)
        except BaseException:  # No body was returned whose ``close`` would do this.
            exchange.release()
            end()
            raise
        return ResponseBody(parts, reply, exchange, end)

    def _reply(self, environ: dict[str, Any]) -> Reply:
        method = environ["REQUEST_METHOD"]
        view = self.views.get(environ["PATH_INFO"]) if method == "POST" else None
        try:
            if view:
                current_exchange().endpoint = environ["PATH_INFO"]
                return view()
            if method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
                return self._preflight(environ)
            if method == "OPTIONS" and environ["PATH_INFO"] == "*":  # RFC 9110 section 9.3.7: about the whole server.
                return Reply(iter(()), 204, [])
        except Exception as error:
            return _reply_to(error)
        return self._through_flask(environ)

    def _preflight(self, environ: dict[str, Any]) -> Reply:
        """Answer a CORS preflight, the same for every path. Source: Fetch standard, CORS protocol."""
        if not is_allowed_origin(environ.get("HTTP_ORIGIN"), environ, self._origins):
            raise errors.OriginNotAllowed
        return Reply(iter(()), 204, [])

    def _through_flask(self, environ: dict[str, Any]) -> Reply:
        response: list[tuple[str, list[Header]]] = []
        parts: Any = self._wrapped(environ, lambda status, headers, _=None: response.append((status, headers)))
        status, headers = response[0]
        return Reply(parts, int(status[:3]), headers)

    def _headers(self, exchange: Exchange, headers: list[Header]) -> list[Header]:
        """Add the headers of every response."""
        names = [name.lower() for name, _ in headers]
        more = _ALL_SECURITY if names == _JSON_ALONE else [header for name, header in _SECURITY if name not in names]
        quota_headers = exchange.quota_headers().items() if exchange.quota_headers else ()
        origin = self._cors(exchange.environ) if "HTTP_ORIGIN" in exchange.environ else ()
        return [*headers, *more, ("X-Request-ID", exchange.request_id), *_VARY, *quota_headers, *origin]

    def _cors(self, environ: dict[str, Any]) -> list[Header]:
        """Return the CORS headers for an allowed origin. Source: Fetch standard, CORS protocol."""
        origin = environ["HTTP_ORIGIN"]
        if not is_allowed_origin(origin, environ, self._origins):
            return []
        headers = [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", _READABLE_HEADERS)]
        return headers + (_PREFLIGHT if environ["REQUEST_METHOD"] == "OPTIONS" else [])


def _note_endpoint() -> None:
    if request.url_rule:
        current_exchange().endpoint = request.url_rule.rule


class ResponseBody:
    """The body of a response; once it is sent, its request ends."""

    __slots__ = ("_end", "_exchange", "_parts", "_reply")

    def __init__(self, parts: Iterable[bytes], reply: Reply, exchange: Exchange, end: Callable[[], None]) -> None:
        self._parts, self._reply, self._exchange, self._end = parts, reply, exchange, end

    def __iter__(self) -> Iterator[bytes]:
        if isinstance(self._parts, tuple):
            self._exchange.sent_bytes = sum(map(len, self._parts))
            return iter(self._parts)
        return self._counted()

    def _counted(self) -> Iterator[bytes]:
        for part in self._parts:
            self._exchange.sent_bytes += len(part)
            yield part

    def close(self) -> None:
        """Close the reply's iterator, log the request and release its quotas."""
        try:
            close = getattr(self._reply.body, "close", None)
            if close:
                close()
        finally:
            _note_end(self._exchange, self._reply.status)
            self._exchange.release()
            self._end()


# --- failures --------------------------------------------------------------------------------------------------------

_HTTP_PROBLEMS: dict[int, type[errors.Problem]] = {
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
}


def _is_no_failure(error: Exception) -> bool:
    """Tell whether Flask raised it to redirect."""
    return isinstance(error, HTTPException) and (error.code is None or error.code < 400)


def _reply_to(error: Exception) -> Reply:
    """Answer an exception: an error of ours, one that Flask raised, or a bug."""
    if isinstance(error, errors.Problem):
        return _failure(error)
    if isinstance(error, HTTPException):
        return _http_reply(error)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        room.note_full()
        return _failure(errors.StorageFull())
    exchange = current_exchange()  # The client is told nothing about a bug; it is logged.
    log.exception("unforeseen error", extra={"request_id": exchange.request_id, "path": exchange.path})
    return _failure(errors.Problem())


def _failure(problem: errors.Problem) -> Reply:
    exchange = current_exchange()
    exchange.code = problem.code
    return failure(problem, exchange.request_id)


def _http_reply(error: HTTPException) -> Reply:
    """Answer what Flask itself refuses."""
    body, status, headers = _failure(_HTTP_PROBLEMS.get(error.code or 400, errors.ValidationError)())
    allow = dict(error.get_headers()).get("Allow")
    return Reply(body, status, [*headers, ("Allow", allow)] if allow else headers)


# --- compression -----------------------------------------------------------------------------------------------------


def _compressed(environ: dict[str, Any], reply: Reply, headers: list[Header]) -> tuple[Iterable[bytes], list[Header]]:
    """Return the body and headers to send: compressed if the client accepts it and it is worth it."""
    body = reply.body
    parts = (body,) if isinstance(body, bytes) else body
    is_wanted = reply.status == 200 and _takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", ""))
    if is_wanted and _is_worth_compressing(environ, body, headers):
        kept = [(name, value) for name, value in headers if name.lower() not in ("content-length", "etag")]
        return _deflated(parts), [*kept, ("Content-Encoding", "gzip")]
    return parts, [*headers, ("Content-Length", str(len(body)))] if isinstance(body, bytes) else headers


def _is_worth_compressing(environ: dict[str, Any], body: bytes | Iterator[bytes], headers: list[Header]) -> bool:
    response = {name.lower(): value for name, value in headers}
    size = len(body) if isinstance(body, bytes) else int(response.get("content-length", _COMPRESSED_FROM_BYTES))
    if size < _COMPRESSED_FROM_BYTES or "content-encoding" in response or environ["REQUEST_METHOD"] == "HEAD":
        return False
    return bool(re.match(r"application/json|text/", response.get("content-type", "")))


@lru_cache(maxsize=64)
def _takes_gzip(accept_encoding: str) -> bool:
    return bool(parse_accept_header(accept_encoding, Accept)["gzip"])


def _deflated(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Compress parts while they are sent."""
    deflate = isal_zlib.compressobj(_COMPRESSION_LEVEL, wbits=31)
    for part in parts:
        small = deflate.compress(part)
        if small:
            yield small
    yield deflate.flush()


# --- the end of a request -------------------------------------------------------------------------------------------


def _note_end(exchange: Exchange, status: int) -> None:
    """Count a request and log it."""
    seconds = time.perf_counter() - exchange.began
    if exchange.reservation and exchange.tenant_id:
        used = exchange.quotas.usage.of(exchange.tenant_id)
        used.bytes_in += exchange.received_bytes
        used.bytes_out += exchange.sent_bytes
    REQUESTS[exchange.endpoint, status] += 1
    REQUEST_SECONDS.observe(seconds, exchange.endpoint)
    _log(exchange, status, seconds)


def _log(exchange: Exchange, status: int, seconds: float) -> None:
    """Log a request: never a body, a header or a query, where secrets may be."""
    method, path = exchange.environ["REQUEST_METHOD"], exchange.path[:200]
    about: dict[str, Any] = {"request_id": exchange.request_id, "method": method, "path": path, "status": status}
    if exchange.code:
        about["code"] = exchange.code
    if exchange.tenant_id:
        about["tenant"] = exchange.tenant_id
    about["address"], about["duration_ms"] = client_address(), round(seconds * 1000, 2)
    is_failure = status >= 500 and exchange.code not in _MEANT
    log_format.write_line(log, logging.ERROR if is_failure else logging.INFO, f"{method} {path} {status}", about)
