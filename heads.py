"""The head of a request: strict, and read without the machinery for e-mail that the standard library takes for it.

Knows: RFC 9112. Must not know: what headers mean, but for those that say where the request ends, and if it is the last.
``ordinary`` reads a whole head like most at once. Of others pywsgi asks for what is here as it does of ``http.client``'s
messages, which take a malformed line for the end of the head, and three times as long.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

_LINE_BYTES = 65_536
_MOST_LINES = 100
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\0\r\n]*)\r?\n")
_LENGTH = re.compile(r"[0-9]{1,100}", re.ASCII)
_ENDS = (b"\r\n", b"\n")
_FIRST = re.compile(rb"([A-Z]+) ([!-~]+) HTTP/1\.1\r\n")
_FRAMING = {"content-length", "transfer-encoding", "host"}
"""Headers of which there may be but one, since two could mean two requests to two readers."""

_SELDOM = {"expect", "transfer-encoding", "upgrade"}
"""Headers with which a request is served in another way."""

_OWN_KEYS = {"content-length": "CONTENT_LENGTH", "content-type": "CONTENT_TYPE"}


@lru_cache(maxsize=512)
def _names_of(header: bytes) -> tuple[str, str]:
    """Give a header's name in lower case, and its key in a WSGI environ: none if it has one of its own there, or an
    underscore, since such a name could pass for another (as nginx drops them too)."""
    name = header.decode("latin-1").lower()
    is_hidden = "_" in name or name in ("content-type", "content-length")
    return name, "" if is_hidden else "HTTP_" + name.upper().replace("-", "_")


_Line = tuple[str, str, str]
_KEPT_BYTES = 1_024


def _parse(line: bytes) -> _Line | None:
    """Give a line's name, its key in a WSGI environ and its value; None if it is no header."""
    match = _LINE.fullmatch(line)
    return match and (*_names_of(match[1]), match[2].decode("latin-1").strip(" \t"))


_parse_again = lru_cache(maxsize=1_024)(_parse)
"""The same, with what many requests say: who asks, of whom, in which form. Their texts are then in memory once."""


class Ordinary(NamedTuple):
    """The head of a request like most: its first line, what of it a WSGI environ holds, how long its body is, None if it
    has none, and whether the client wants it to be the last."""

    line: str
    environ: dict[str, str]
    length: int | None
    is_last: bool


@lru_cache(maxsize=256)
def _first_line(line: bytes) -> dict[str, str] | None:
    """Give what a WSGI environ holds of a request's first line; None if it is not like most."""
    match = _FIRST.fullmatch(line)
    if match is None or match[1] == b"HEAD":
        return None
    path, _, query = match[2].decode().partition("?")
    asked = {"SCRIPT_NAME": "", "PATH_INFO": unquote(path, "latin-1"), "QUERY_STRING": query}
    return {"REQUEST_METHOD": match[1].decode(), **asked, "SERVER_PROTOCOL": "HTTP/1.1"}


@lru_cache(maxsize=1_024)
def ordinary(head: bytes) -> Ordinary | None:
    """Read a whole head as pywsgi and ``Head`` would; None if it says anything that is not for everyday, or is none.

    Source: RFC 9112 sections 3 and 6; PEP 3333, "environ Variables".
    """
    first, *lines, _ = head.splitlines(keepends=True)
    begun = _first_line(first)
    if begun is None or len(lines) > _MOST_LINES:
        return None
    environ = dict(begun)
    for line in lines:
        parsed = _parse_again(line)
        if parsed is None or parsed[0] in _SELDOM:
            return None
        name, key, value = parsed
        key = key or _OWN_KEYS.get(name, "")
        if key in environ:
            return None
        if key:
            environ[key] = value
    length = environ.get("CONTENT_LENGTH")
    if length is not None and not _LENGTH.fullmatch(length):
        return None
    is_last = environ.get("HTTP_CONNECTION", "").lower() == "close"
    return Ordinary(first.decode().rstrip(), environ, None if length is None else int(length), is_last)


class Head:
    """The headers of one request. ``status`` says what is wrong with them, and then the request is refused with 400.

    Source: RFC 9112 sections 2.2, 3.2, 5.1, 5.2 and 6.
    """

    def __init__(self, file: Any, _: int = 0) -> None:
        self.status = ""
        self._lines = 0
        self._values: dict[str, str] = {}
        self.environ: list[tuple[str, str]] = []
        """The headers as a WSGI environ has them. Source: PEP 3333, "environ Variables"."""
        while not self.status:
            line: bytes = file.readline(_LINE_BYTES + 1)
            if line in _ENDS:
                break
            self._take(line)
        coding, length = self._values.get("transfer-encoding"), self._values.get("content-length")
        if coding is not None and (coding.lower() != "chunked" or length is not None):
            self.status = "an unknown transfer coding, or a length beside it"
        if length is not None and not _LENGTH.fullmatch(length):
            self.status = "a malformed Content-Length"

    def _take(self, line: bytes) -> None:
        parsed = _parse_again(line) if len(line) <= _KEPT_BYTES else _parse(line)
        if parsed is None:
            self.status = "a malformed line"
        elif self._lines == _MOST_LINES:
            self.status = "too many lines"
        else:
            self._lines += 1
            name, key, value = parsed
            if name in _FRAMING and name in self._values:
                self.status = f"{name} twice"
            self._values.setdefault(name, value)
            if key:
                self.environ.append((key, value))

    def get(self, name: str, default: str | None = None) -> str | None:
        """Give the first header of a name."""
        return self._values.get(name.lower(), default)

    getheader = get

    @property
    def typeheader(self) -> str | None:
        """Give the Content-Type."""
        return self._values.get("content-type")

    def __delitem__(self, name: str) -> None:
        del self._values[name.lower()]
