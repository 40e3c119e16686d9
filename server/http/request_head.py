"""The head of a request: its request line and headers, parsed strictly into entries of a WSGI environ.

Knows: RFC 9112, and those parts of RFC 9110 that say where a request ends, whether others follow and ``Expect``. Must not
know: what other headers mean, connections. Clients repeat their heads, so ``parse_cached`` caches whole ones.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

from protocol.errors import (
    AddressTooLong,
    ExpectationFailed,
    HeadTooLarge,
    Problem,
    Unimplemented,
    UnknownVersion,
    ValidationError,
)

_LINE_BYTES = 65_536
_REQUEST_LINE_BYTES = 8_192
_MOST_LINES = 100
_CACHED_BYTES = 1_024
_UNIQUE = b"Sec-WebSocket-Key:"
"""A header that no two requests share, as nearly all clients write it: what has it would only displace what comes again."""


_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE = re.compile(rb"(" + _TOKEN + rb"):([^\0\r\n]*)\r?\n")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])\r?\n")
_ABSOLUTE = re.compile(r"https?://([^/?]*)([^?]*)(?:\?(.*))?", re.IGNORECASE)
_HOST = re.compile(r"(?:[\w.~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+(?:%[\w.~%-]+)?\])(?::[0-9]*)?", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,100}", re.ASCII)
_CODING = re.compile(_TOKEN.decode())

_SINGLE = {"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_HOST"}
"""Headers that may occur once only: two parsers could see two different requests otherwise (request smuggling)."""

_OWN_KEYS = {"CONTENT-LENGTH": "CONTENT_LENGTH", "CONTENT-TYPE": "CONTENT_TYPE"}
EMPTY_LINES = (b"\r\n", b"\n")


class Request(NamedTuple):
    """A parsed request head: the request line, its part of the WSGI environ, the length of the body, whether the body is
    chunked, whether the connection ends after it, and whether the client expects a 100 (Continue)."""

    line: str
    environ: dict[str, str]
    length: int
    is_chunked: bool
    is_last: bool
    expects_continue: bool


def read(file: Any) -> Request | None:
    """Read a request head line by line; None at the end of the connection.

    Raises: ValidationError, AddressTooLong, HeadTooLarge, ExpectationFailed, Unimplemented, UnknownVersion.
    """
    line: bytes = file.readline(_REQUEST_LINE_BYTES)
    if not line:
        return None
    if not line.endswith(b"\n") and len(line) == _REQUEST_LINE_BYTES:
        raise AddressTooLong
    lines: list[bytes] = []
    while line not in EMPTY_LINES:
        lines.append(line)
        line = file.readline(_LINE_BYTES)
        if not line:
            raise ValidationError("The request ends within its headers.")
        if len(lines) > _MOST_LINES + 1:
            break  # Refused below.
    return parse(lines)


def parse_cached(head: bytes) -> Request | None:
    """Parse a whole request head; None if it is malformed, or does not end where it seems to."""
    return _parse_whole(head) if _UNIQUE in head else _parse_whole_cached(head)


def _parse_whole(head: bytes) -> Request | None:
    *lines, _ = head.splitlines(keepends=True)
    try:
        return parse(lines)
    except Problem:
        return None


_parse_whole_cached = lru_cache(maxsize=1_024)(_parse_whole)


def parse(lines: list[bytes]) -> Request:
    """Parse a request head from its lines, without the empty one that ends it.

    Raises: as ``read``.
    Source: RFC 9112 sections 2 to 6 and 9.3; RFC 9110 section 10.1.1; PEP 3333, "environ Variables".
    """
    first, *rest = lines or [b""]
    first_line, authority = _request_line(first)
    environ = dict(first_line)
    if len(rest) > _MOST_LINES:
        raise HeadTooLarge(f"A request may have at most {_MOST_LINES} header lines.")
    for line in rest:
        is_cached = len(line) <= _CACHED_BYTES and not line.startswith(_UNIQUE)
        parsed = _parse_line_cached(line) if is_cached else _parse_line(line)
        if parsed is None:
            raise ValidationError("A header line is malformed.")
        key, value = parsed
        if key in environ:
            value = _joined(key, environ[key], value)
        if key:
            environ[key] = value
    is_http_1_1 = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    _check_host(environ.get("HTTP_HOST"), is_http_1_1)
    if authority is not None:  # RFC 9112 section 3.2.2: it is what counts.
        environ["HTTP_HOST"] = authority
    length, is_chunked = _framing(environ, is_http_1_1)
    expects_continue = "HTTP_EXPECT" in environ and is_http_1_1 and _expects_continue(environ["HTTP_EXPECT"])
    is_last = _is_last(environ.get("HTTP_CONNECTION"), is_http_1_1)
    return Request(_as_text(first), environ, length, is_chunked, is_last, expects_continue)


@lru_cache(maxsize=512)
def _key_of(name: bytes) -> str:
    """Return a header's key in a WSGI environ; empty for a name with an underscore, which could pass for another header
    (nginx drops them too)."""
    upper = name.decode("latin-1").upper()
    return "" if "_" in upper else _OWN_KEYS.get(upper) or "HTTP_" + upper.replace("-", "_")


def _parse_line(line: bytes) -> tuple[str, str] | None:
    """Return a header line's key in a WSGI environ and its value; None if it is malformed."""
    match = _LINE.fullmatch(line)
    return match and (_key_of(match[1]), match[2].decode("latin-1").strip(" \t"))


_parse_line_cached = lru_cache(maxsize=1_024)(_parse_line)
"""The same, for header lines that many requests repeat; their texts are then in memory once."""


def _joined(key: str, before: str, value: str) -> str:
    if key in _SINGLE:
        raise ValidationError(f"The header {key.removeprefix('HTTP_').replace('_', '-').title()} stands there twice.")
    if key == "CONTENT_TYPE":
        return before
    return f"{before}; {value}" if key == "HTTP_COOKIE" else f"{before},{value}"


@lru_cache(maxsize=256)
def _as_text(line: bytes) -> str:
    return line.decode("latin-1").rstrip("\r\n")


# --- the request line ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _request_line(line: bytes) -> tuple[dict[str, str], str | None]:
    """Return a request line's part of a WSGI environ, and the host if the request target names one.

    Source: RFC 9112 section 3; RFC 9110 sections 2.5 and 9.1.
    """
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise ValidationError("The first line of the request is malformed.")
    method, target, major, minor = match[1].decode(), match[2].decode("latin-1"), match[3], match[4]
    if major != b"1":
        raise UnknownVersion
    if method != method.upper():  # Werkzeug would change it to capitals.
        raise Unimplemented("This server does not know the method. Methods are case-sensitive: GET, not get.")
    if method == "CONNECT":
        raise Unimplemented("This server is no proxy.")
    path, query, authority = _parts_of(target, method)
    asked = {"SCRIPT_NAME": "", "PATH_INFO": unquote(path, "latin-1"), "QUERY_STRING": query}
    version = "HTTP/1.0" if minor == b"0" else "HTTP/1.1"
    return {"REQUEST_METHOD": method, **asked, "SERVER_PROTOCOL": version}, authority


def _parts_of(target: str, method: str) -> tuple[str, str, str | None]:
    """Return path and query of a request target, and the host in it. Source: RFC 9112 section 3.2."""
    if target.startswith("/") or (target == "*" and method == "OPTIONS"):
        path, _, query = target.partition("?")
        return path, query, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _HOST.fullmatch(absolute[1]):
        raise ValidationError("The address must begin with / or with http:// and a host.")
    return absolute[2] or "/", absolute[3] or "", absolute[1]


@lru_cache(maxsize=256)
def _check_host(host: str | None, is_http_1_1: bool) -> None:
    """Refuse a request without a good ``Host``. Source: RFC 9112 section 3.2; RFC 9110 section 4.2.1."""
    if host is None and is_http_1_1:
        raise ValidationError("A request must have a Host header.")
    if host is not None and not _HOST.fullmatch(host):
        raise ValidationError("The Host header is malformed.")


# --- headers about the connection ------------------------------------------------------------------------------------


def _framing(environ: dict[str, str], is_http_1_1: bool) -> tuple[int, bool]:
    """Tell how long the body is, or that it comes in chunks. Source: RFC 9112 sections 6.1 to 6.3."""
    length, codings = environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
    if length is not None and not _LENGTH.fullmatch(length):
        raise ValidationError("The Content-Length is malformed.")
    if codings is None:
        return int(length or 0), False
    if length is not None or not is_http_1_1:
        raise ValidationError("Transfer-Encoding stands beside Content-Length, or in HTTP/1.0.")
    named = tokens(codings)
    if not all(map(_CODING.fullmatch, named)) or named.count("chunked") > 1 or not named:
        raise ValidationError("The Transfer-Encoding is malformed.")
    if named != ["chunked"]:
        raise Unimplemented("This server knows no Transfer-Encoding but chunked.")
    return 0, True


@lru_cache(maxsize=64)
def _is_last(connection: str | None, is_http_1_1: bool) -> bool:
    """Tell whether the connection ends with this request. Source: RFC 9112 section 9.3."""
    if connection is None:
        return not is_http_1_1
    options = tokens(connection)
    return "close" in options or not (is_http_1_1 or "keep-alive" in options)


def _expects_continue(expect: str) -> bool:
    """Tell whether the client waits for a 100 (Continue) before it sends the body. Raises: ExpectationFailed."""
    expected = tokens(expect)
    if any(one != "100-continue" for one in expected):
        raise ExpectationFailed
    return bool(expected)


def tokens(header: str) -> list[str]:
    """Return the elements of a list header, in lower case. Source: RFC 9110 section 5.6.1."""
    return [token for one in header.lower().split(",") if (token := one.strip(" \t"))]
