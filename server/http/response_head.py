"""Responses as bytes: status line and headers, and whole responses that no application makes.

Knows: how they are written. Must not know: connections, what is answered.
"""

from __future__ import annotations

import time
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from gevent.pywsgi import format_date_time

from protocol.codec import encode
from protocol.errors import Problem, as_body

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_ANY_ID = "the-id"


def head_bytes(lines: list[str]) -> bytes:
    """Write a status line and headers.

    Raises: ValueError for a line break within one (header injection), or a character beyond Latin-1.
    """
    text = "\r\n".join([*lines, ""])
    if text.count("\r") != len(lines) or text.count("\n") != len(lines):
        raise ValueError("a line break in a status or a header")
    return text.encode("latin-1")


@lru_cache(maxsize=64)
def parts_of(status: str) -> tuple[bytes, int]:
    """Return a status as bytes, and its code."""
    return status.encode("latin-1"), int(status.split(" ", 1)[0])


@lru_cache(maxsize=2)
def date_line(since_1970: int) -> str:
    """Return the ``Date`` header. Source: RFC 9110 section 6.6.1."""
    moment: bytes = format_date_time(since_1970)
    return "Date: " + moment.decode()


def refusal(problem: Problem, request_id: str, is_last: bool = True) -> bytes:
    """Write the response to a request that does not reach the application; ``is_last``: the connection ends with it."""
    return _written(_parts_of_refusal(problem, is_last), request_id)


def repeated_refusal(problem: Problem, request_id: str, is_last: bool) -> bytes:
    """Write the same for an error that is given again and again: what does not change is written once."""
    return _written(_kept_parts(problem, is_last), request_id)


class _Refusal(NamedTuple):
    """A response but for the ID of its request, its date and its length."""

    head: str
    body_before: str
    body_after: str
    fixed_bytes: int


def _written(parts: _Refusal, request_id: str) -> bytes:
    """Put in what differs. A request's ID is ASCII and has nothing that JSON would escape."""
    size = parts.fixed_bytes + len(request_id)
    about = f"Content-Length: {size}\r\nX-Request-ID: {request_id}\r\n{date_line(int(time.time()))}\r\n\r\n"
    return f"{parts.head}{about}{parts.body_before}{request_id}{parts.body_after}".encode()


def _parts_of_refusal(problem: Problem, is_last: bool) -> _Refusal:
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
    lines += ["Connection: close"] if is_last else []
    lines += ["Content-Type: application/json", *(f"{name}: {value}" for name, value in SECURITY_HEADERS.items())]
    if problem.retry_after_seconds is not None:
        lines.append(f"Retry-After: {problem.retry_after_seconds}")
    body = encode(as_body(problem, _ANY_ID))
    before, _, after = body.decode().rpartition(_ANY_ID)
    return _Refusal("\r\n".join([*lines, ""]), before, after, len(body) - len(_ANY_ID))


_kept_parts = lru_cache(maxsize=64)(_parts_of_refusal)
