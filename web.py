"""How HTTP requests come in and answers go out, the same for every endpoint.

Knows: bodies, headers, compression, origins, request IDs, the log line of a request, how an exception becomes an answer.
Must not know: what any endpoint does.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

import errors
from budgets import Budgets
from settings import Settings
from wire import decode, encode

log = logging.getLogger("syncapp.request")

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_COMPRESSED_FROM_BYTES = 1024
_PIECE_BYTES = 65_536
_COMPRESSION_LEVEL = 4  # Above it, time grows faster than the answer shrinks.
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_READABLE_HEADERS = "X-Request-ID, Retry-After, Idempotent-Replayed, RateLimit, RateLimit-Policy"


# --- in --------------------------------------------------------------------------------------------------------------


def read_json() -> Any:
    """Read the request's body as JSON.

    Raises: UnsupportedMediaType, PayloadTooLarge, RateLimited, InvalidJson.
    """
    return decode(read_body())


def read_body() -> bytes:
    """Read the request's body, inflated and within the limit.

    Raises: UnsupportedMediaType, PayloadTooLarge, RateLimited, InvalidJson if it is no gzip though it says so.
    """
    if not request.is_json:
        raise errors.UnsupportedMediaType
    body = _inflated(request.get_data(cache=False))
    if "visit" in g:
        g.visit.settle(len(body))
    return body


def _inflated(body: bytes) -> bytes:
    if len(body) == request.max_content_length and request.environ["wsgi.input"].read(1):
        raise errors.PayloadTooLarge  # At the limit, Werkzeug stops reading a chunked body without a word.
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise errors.UnsupportedMediaType("The body's Content-Encoding must be gzip, or none.")
    return _inflate(body, request.max_content_length or 0)


def _inflate(body: bytes, most_bytes: int) -> bytes:
    """Inflate gzip, but never more than the limit, so that a small bomb does not fill the memory."""
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
    """Give the caller's address; behind trusted proxies the one they report."""
    return request.remote_addr or "unknown"


# --- out -------------------------------------------------------------------------------------------------------------


def answer(data: object, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(encode(data), status, mimetype="application/json")


def refuse(start_response: Callable[..., Any], problem: errors.Problem, environ: Mapping[str, Any]) -> list[bytes]:
    """Answer with a failure ahead of Flask, in the one shape."""
    request_id = _request_id(environ.get("HTTP_X_REQUEST_ID", ""))
    body = encode(errors.as_body(problem, request_id))
    headers = _SECURITY_HEADERS | {"Content-Type": "application/json", "X-Request-ID": request_id}
    headers["Content-Length"] = str(len(body))
    if problem.retry_after_seconds is not None:
        headers["Retry-After"] = str(problem.retry_after_seconds)
    start_response(f"{problem.status} {HTTPStatus(problem.status).phrase}", list(headers.items()))
    return [body]


def success(data: object, status: int = 200) -> Response:
    """Answer with the envelope of success."""
    return answer({"success": True, "data": data}, status)


def stream(parts: Iterable[bytes]) -> Response:
    """Answer with JSON that is made while it is sent; a short one goes out whole, with its length."""
    pieces = _coalesced(parts)
    first, second = next(pieces, b""), next(pieces, None)
    if second is None:
        return Response(first, mimetype="application/json")
    return Response(itertools.chain((first, second), pieces), mimetype="application/json")


def _coalesced(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join parts to pieces of at least ``_PIECE_BYTES``, so that small ones do not travel alone."""
    waiting, size = [], 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _problem_answer(problem: errors.Problem) -> Response:
    g.code = problem.code
    response = answer(errors.as_body(problem, g.get("request_id")), problem.status)
    if problem.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(problem.retry_after_seconds)
    if problem.status == 408:
        response.headers["Connection"] = "close"  # RFC 9110 section 15.5.9.
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 6750 section 3.
    return response


_HTTP_PROBLEMS: dict[int, type[errors.Problem]] = {
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
}


def _http_answer(error: HTTPException) -> Response | HTTPException:
    """Say what Flask itself refuses in our shape."""
    if error.code is None or error.code < 400:
        return error
    response = _problem_answer(_HTTP_PROBLEMS.get(error.code, errors.ValidationError)())
    allow = dict(error.get_headers()).get("Allow")
    if allow:
        response.headers["Allow"] = allow
    return response


def _bug_answer(_: Exception) -> Response:
    """Answer a bug without a word about it; the log has the rest."""
    log.exception("unforeseen error", extra={"request_id": g.get("request_id"), "path": request.path})
    return _problem_answer(errors.Problem())


# --- every request ---------------------------------------------------------------------------------------------------


def enter(tenant_id: str) -> None:
    """Let the running request in as its tenant's, when it is its turn and within what the tenant may use.

    Raises: Busy, RateLimited.
    """
    budgets: Budgets = g.budgets
    most_bytes, announced_bytes = request.max_content_length or 0, request.content_length or 0
    is_open_ended = "HTTP_TRANSFER_ENCODING" in request.environ
    size_bytes = announced_bytes if announced_bytes <= most_bytes else 0  # More than that is refused, not read.
    g.standing = lambda: budgets.headers(tenant_id)
    g.visit = budgets.enter(tenant_id, size_bytes, most_bytes if is_open_ended else size_bytes)


def install(app: Flask, settings: Settings, budgets: Budgets) -> None:
    """Make an app take and answer every request in this way."""
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.before_request(lambda: _begin(settings.cors_origins, budgets))
    app.after_request(lambda response: _finish(response, settings.cors_origins))
    app.register_error_handler(errors.Problem, _problem_answer)
    app.register_error_handler(HTTPException, _http_answer)
    app.register_error_handler(Exception, _bug_answer)


def _begin(origins: Iterable[str], budgets: Budgets) -> Response | None:
    """Name the request; answer a preflight for every address alike."""
    g.began, g.budgets = time.perf_counter(), budgets
    g.request_id = _request_id(request.headers.get("X-Request-ID", ""))
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        if not is_allowed_origin(request.headers.get("Origin"), request.environ, origins):
            raise errors.OriginNotAllowed
        return Response(status=204)
    return None


def _request_id(stated: str) -> str:
    """Name a request as its client does, if that is sane."""
    return stated if _SANE_REQUEST_ID.fullmatch(stated) else str(uuid.uuid4())


def _finish(response: Response, origins: Iterable[str]) -> Response:
    more = {name: value for name, value in _SECURITY_HEADERS.items() if name not in response.headers}
    standing = g.standing() if "standing" in g else {}
    response.headers.extend({**more, "X-Request-ID": g.request_id, "Vary": ["Origin", "Accept-Encoding"], **standing})
    _allow_origin(response, origins)
    response.direct_passthrough = False  # As files have it: then nobody closes them, and no line of the log is written.
    _compress(response)
    about = _log_fields(response)
    response.call_on_close(lambda: _log(about))
    if "visit" in g:
        response.call_on_close(g.visit.leave)
    return response


def _allow_origin(response: Response, origins: Iterable[str]) -> None:
    """Let pages of allowed origins read the answer. Source: Fetch standard, CORS protocol."""
    origin = request.headers.get("Origin")
    if origin is None or not is_allowed_origin(origin, request.environ, origins):
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = _READABLE_HEADERS
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, PATCH, DELETE"
        response.headers["Access-Control-Allow-Headers"] = (
            "Authorization, Content-Type, Content-Encoding, X-Request-ID, X-Device-Id, X-Tenant-Id, Idempotency-Key"
        )
        response.headers["Access-Control-Max-Age"] = "600"


def _compress(response: Response) -> None:
    """Compress an answer if the client asks for it and it is worth it."""
    small = not response.is_streamed and (response.content_length or 0) < _COMPRESSED_FROM_BYTES
    if small or not request.accept_encodings["gzip"] or "Content-Encoding" in response.headers:
        return
    if response.status_code != 200 or not re.match(r"application/json|text/", response.mimetype or ""):
        return
    parts: Any = response.response
    if hasattr(parts, "close"):
        response.call_on_close(parts.close)
    response.response = _deflated(parts)
    response.headers["Content-Encoding"] = "gzip"
    response.headers.pop("Content-Length", None)
    response.headers.pop("ETag", None)


def _deflated(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Compress parts while they are sent."""
    deflate = zlib.compressobj(_COMPRESSION_LEVEL, wbits=31)
    for part in parts:
        small = deflate.compress(part)
        if small:
            yield small
    yield deflate.flush()


def _log_fields(response: Response) -> dict[str, Any]:
    """Name what the log line of this request says: never a body, a header or a query, where secrets may be."""
    return {
        "request_id": g.request_id,
        "method": request.method,
        "path": request.path[:200],
        "status": response.status_code,
        "code": g.get("code"),
        "tenant": g.get("tenant_id"),
        "address": client_address(),
        "began": g.began,
    }


def _log(about: dict[str, Any]) -> None:
    began = about.pop("began")
    about["duration_ms"] = round((time.perf_counter() - began) * 1000, 2)
    level = logging.ERROR if about["status"] >= 500 else logging.INFO
    log.log(level, "%s %s %s", about["method"], about["path"], about["status"], extra=about)
