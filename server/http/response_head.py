"""Responses as bytes: status line and headers, and whole responses that no application makes.

Knows: how they are written. Must not know: connections, what is answered.
"""

from __future__ import annotations

import time
from functools import lru_cache
from http import HTTPStatus

from gevent.pywsgi import format_date_time

from protocol.codec import encode
from protocol.errors import Problem, as_body

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


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


def refusal(problem: Problem, request_id: str) -> bytes:
    """Write the response to a request that does not reach the application."""
    body = encode(as_body(problem, request_id))
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", f"X-Request-ID: {request_id}"]
    lines += [date_line(int(time.time())), *(f"{name}: {value}" for name, value in SECURITY_HEADERS.items())]
    if problem.retry_after_seconds is not None:
        lines.append(f"Retry-After: {problem.retry_after_seconds}")
    return "\r\n".join([*lines, "", ""]).encode() + body
