"""The context of one HTTP request, and its response, whether Flask routes it or the middleware serves it itself.

Knows: bodies, headers, origins, request IDs, the WSGI environ. Must not know: what any endpoint does, how a response is
sent (``middleware``).
"""

from __future__ import annotations

import itertools
import re
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from http import HTTPStatus
from typing import Any, NamedTuple

from werkzeug.exceptions import ClientDisconnected
from werkzeug.http import parse_options_header

from protocol import errors
from protocol.codec import decode, encode
from server.http.response_head import SECURITY_HEADERS
from server.metrics import REFUSALS
from server.quotas import Quotas, Reservation

_THIS_PROCESS = str(uuid.uuid4())[:23]
_requests = itertools.count()
"""A UUID of the process and a counter are as unique as a UUID for each request, and cost no randomness."""

_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_CHUNK_BYTES = 65_536

Header = tuple[str, str]
_JSON: Header = ("Content-Type", "application/json")


@dataclass(slots=True)
class Exchange:
    """One request, and what becomes known of it. ``quota_headers`` writes the headers on remaining quotas."""

    environ: dict[str, Any]
    quotas: Quotas
    most_bytes: int
    request_id: str
    began: float = field(default_factory=time.perf_counter)
    tenant_id: str | None = None
    code: str | None = None
    endpoint: str = "unknown"
    """The pattern of the path, for metrics: a few values, whatever clients ask for."""
    received_bytes: int = 0
    """Of the body, as it was sent; ``sent_bytes`` those of the answer's."""
    sent_bytes: int = 0
    reservation: Reservation | None = None
    quota_headers: Callable[[], Mapping[str, str]] | None = None

    @property
    def path(self) -> str:
        """Return the path of the request."""
        path: str = self.environ["PATH_INFO"]
        return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")

    def header(self, name: str) -> str | None:
        """Return a header's value, None if the client did not send it."""
        return self.environ.get(_key_of(name))

    def reserve(self, tenant_id: str) -> None:
        """Admit the request for a tenant, once it is scheduled and within the tenant's quotas.

        Raises: Busy, RateLimited.
        """
        self.tenant_id = tenant_id
        announced_bytes = int(self.environ.get("CONTENT_LENGTH") or 0)
        is_read = announced_bytes <= self.most_bytes  # A larger body is refused unread.
        size_bytes = announced_bytes if is_read else 0
        held_bytes = self.most_bytes if "HTTP_TRANSFER_ENCODING" in self.environ else size_bytes
        self.quota_headers = partial(self.quotas.headers, tenant_id)  # A closure would hold the exchange that holds it.
        self.reservation = self.quotas.reserve(tenant_id, size_bytes, held_bytes)
        self.quotas.usage.of(tenant_id).requests += 1

    def exclusive(self) -> AbstractContextManager[None]:
        """Wait until no other large request of the tenant is processed, if this one is large."""
        return self.reservation.exclusive() if self.reservation else nullcontext()

    def release(self) -> None:
        """Give back what the request holds of its tenant's quotas."""
        if self.reservation:
            self.reservation.release()


class Reply(NamedTuple):
    """The response of an endpoint; Flask takes it as it is."""

    body: bytes | Iterator[bytes]
    status: int = 200
    headers: list[Header] = [_JSON]


View = Callable[[], Reply]

_current: ContextVar[Exchange] = ContextVar("exchange")


def current_exchange() -> Exchange:
    """Return the exchange that is being served."""
    return _current.get()


def set_current(exchange: Exchange) -> Callable[[], None]:
    """Make an exchange the current one, and return the function that undoes it."""
    token = _current.set(exchange)
    return lambda: _current.reset(token)


@cache
def _key_of(header: str) -> str:
    """Return a header's key in a WSGI environ. Source: PEP 3333, "environ Variables"."""
    return "HTTP_" + header.upper().replace("-", "_")


# --- the request -----------------------------------------------------------------------------------------------------


def read_json() -> Any:
    """Read the request's body as JSON.

    Raises: UnsupportedMediaType, PayloadTooLarge, RateLimited, InvalidJson.
    """
    return decode(read_body())


def read_object() -> dict[str, Any]:
    """Read the request's body, which must be an object.

    Raises: ValidationError, and what ``read_json`` raises.
    """
    body = read_json()
    if not isinstance(body, dict):
        raise errors.invalid("$", "must be an object")
    return body


def read_body() -> bytes:
    """Read the request's body, decompressed and within the limit.

    Raises: UnsupportedMediaType, PayloadTooLarge, RateLimited, InvalidJson if it is announced as gzip and is not.
    """
    exchange = current_exchange()
    if not _is_json(exchange.environ.get("CONTENT_TYPE", "")):
        raise errors.UnsupportedMediaType
    raw = _read(exchange)
    exchange.received_bytes = len(raw)
    body = _inflated(raw, exchange)
    if exchange.reservation:
        exchange.reservation.adjust(len(body))
    return body


def _is_json(content_type: str) -> bool:
    if content_type == "application/json":
        return True
    kind = parse_options_header(content_type)[0].lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _read(exchange: Exchange) -> bytes:
    environ, most_bytes = exchange.environ, exchange.most_bytes
    is_chunked = "HTTP_TRANSFER_ENCODING" in environ
    length = most_bytes + 1 if is_chunked else int(environ.get("CONTENT_LENGTH") or 0)
    if length > most_bytes and not is_chunked:
        raise errors.PayloadTooLarge
    try:
        body: bytes = environ["wsgi.input"].read(length)
    except OSError:
        raise ClientDisconnected from None
    if len(body) > most_bytes:
        raise errors.PayloadTooLarge
    if len(body) < length and not is_chunked:
        raise ClientDisconnected
    return body


def _inflated(body: bytes, exchange: Exchange) -> bytes:
    encoding = (exchange.header("Content-Encoding") or "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise errors.UnsupportedMediaType("The body's Content-Encoding must be gzip, or none.")
    return _inflate(body, exchange.most_bytes)


def _inflate(body: bytes, most_bytes: int) -> bytes:
    """Decompress gzip up to the limit, so that a decompression bomb does not fill the memory."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(body, most_bytes + 1)
    except zlib.error:
        raise errors.InvalidJson("The body is not valid gzip.") from None
    if len(plain) > most_bytes:
        raise errors.PayloadTooLarge
    if not inflate.eof or inflate.unused_data:
        raise errors.InvalidJson("The body is not one complete gzip stream.")
    return plain


def is_allowed_origin(origin: str | None, environ: Mapping[str, Any], allowed: Iterable[str]) -> bool:
    """Tell whether pages of ``origin`` may call: the server's own, configured ones, and localhost while it is there.

    The scheme is left out of the comparison with the own host, since a proxy may end TLS before this server.
    """
    if origin is None:
        return True
    host = environ.get("HTTP_HOST", "")
    own = re.fullmatch(r"https?://(.+)", origin)
    if origin in allowed or (own and own[1].lower() == host.lower()):
        return True
    return bool(_LOCAL_HOST.fullmatch(host) and _LOCAL_ORIGIN.fullmatch(origin))


def client_address() -> str:
    """Return the client's address; behind trusted proxies the one they report."""
    return current_exchange().environ.get("REMOTE_ADDR") or "unknown"


def request_id_of(environ: Mapping[str, Any]) -> str:
    """Return the request ID that the client sent, if it is valid, or a new one."""
    given = environ.get("HTTP_X_REQUEST_ID", "")
    return given if given and _VALID_REQUEST_ID.fullmatch(given) else f"{_THIS_PROCESS}-{next(_requests):012x}"


# --- the response ----------------------------------------------------------------------------------------------------


def answer(data: object, status: int = 200) -> Reply:
    """Answer with JSON."""
    return Reply(encode(data), status)


def success(data: object, status: int = 200) -> Reply:
    """Answer with the envelope of success."""
    return answer({"success": True, "data": data}, status)


def stream(parts: Iterable[bytes]) -> Reply:
    """Stream JSON; a body of a single chunk is sent whole, with its length."""
    chunks = _coalesced(parts)
    first, second = next(chunks, b""), next(chunks, None)
    if second is None:
        return Reply(first)
    return Reply(itertools.chain((first, second), chunks))


def _coalesced(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join parts to chunks of at least ``_CHUNK_BYTES``."""
    waiting, size = [], 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def failure(problem: errors.Problem, request_id: str) -> Reply:
    """Answer with an error."""
    REFUSALS[problem.code,] += 1
    headers = [_JSON]
    if problem.retry_after_seconds is not None:
        headers.append(("Retry-After", str(problem.retry_after_seconds)))
    if problem.status == 408:
        headers.append(("Connection", "close"))  # RFC 9110 section 15.5.9.
    if problem.status == 401:
        headers.append(("WWW-Authenticate", problem.challenge))  # RFC 6750 section 3.
    if isinstance(problem, errors.UnknownWebSocketVersion):
        headers.append(("Sec-WebSocket-Version", problem.spoken))  # RFC 6455 section 4.2.2.
    return Reply(encode(errors.as_body(problem, request_id)), problem.status, headers)


def refuse(
    start_response: Callable[..., Any],
    problem: errors.Problem,
    environ: Mapping[str, Any],
    readable_by: str | None = None,
) -> list[bytes]:
    """Answer with an error outside any exchange; ``readable_by`` is the origin whose pages may read it."""
    request_id = request_id_of(environ)
    body, status, headers = failure(problem, request_id)
    assert isinstance(body, bytes)
    more = [*SECURITY_HEADERS.items(), ("X-Request-ID", request_id), ("Content-Length", str(len(body)))]
    more += [("Vary", "Origin"), ("Access-Control-Allow-Origin", readable_by)] if readable_by else []
    start_response(status_line(status), [*headers, *more])
    return [body]


@cache
def status_line(status: int) -> str:
    """Return code and reason phrase."""
    return f"{status} {HTTPStatus(status).phrase}"
