"""The body of a request, as a WSGI application reads it: to its end and not beyond, or not at all.

Knows: RFC 9112 sections 6 and 7. Must not know: what a body holds, how large one may be, when its client is too slow. What
is malformed, or cut short, is never over: so the connection, on which nobody knows where the next request begins, ends.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from protocol.errors import HeadTooLarge, ValidationError

_PIECE_BYTES = 16_384
_SIZE_LINE_BYTES = 4_096
_EXTENSION_BYTES = 16_384
_TRAILER_BYTES = 8_192
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t -~\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*\r\n")


class Body:
    """A body whose length is known."""

    __slots__ = ("_file", "invite", "left")

    def __init__(self, file: Any, length: int) -> None:
        self._file, self.left = file, length
        """How many bytes are still to come; 0 once it is over."""
        self.invite: Callable[[], None] | None = None
        """What asks the client to send it, if that waits for it."""

    def read(self, size: int | None = -1) -> bytes:
        """Read so many bytes, or all. Raises: OSError if the client left before it had sent them."""
        wanted = self.left if size is None or size < 0 else min(size, self.left)
        if not wanted:
            return b""
        if self.invite:
            self._invite()
        data: bytes = self._file.read(wanted)
        self.left -= len(data)
        if len(data) < wanted:
            raise OSError("the body ended before its length")
        return data

    def readline(self, size: int | None = -1) -> bytes:
        """Read to the end of a line."""
        line = bytearray()
        while len(line) != size and not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)

    def readlines(self, _: int = -1) -> list[bytes]:
        """Read all lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def skip(self, most_bytes: int) -> None:
        """Read to the end, if that is no further than so many bytes. Raises: as ``read``."""
        while self.left and self._announced() <= most_bytes and most_bytes > 0:
            most_bytes -= len(self.read(min(_PIECE_BYTES, most_bytes)))

    def _announced(self) -> int:
        """Tell how much is known to come."""
        return self.left

    def _invite(self) -> None:
        invite, self.invite = self.invite, None
        if invite:
            invite()

    def _discard(self) -> None:
        """Do nothing: pywsgi asks for the rest to be read after the answer, which settles that before."""


class ChunkedBody(Body):
    """A body that comes in chunks; ``left`` is 1 until the last of them. Source: RFC 9112 section 7.1."""

    __slots__ = ("_chunk", "_extension_bytes")

    def __init__(self, file: Any) -> None:
        super().__init__(file, 1)
        self._chunk = self._extension_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read so many bytes, or all. Raises: OSError as for any body; ValidationError, HeadTooLarge if it is malformed."""
        if self.invite:
            self._invite()
        parts, wanted = [], -1 if size is None else size
        while wanted and self._has_chunk():
            part = self._take(self._chunk if wanted < 0 else min(wanted, self._chunk))
            parts.append(part)
            wanted -= len(part) if wanted > 0 else 0
        return b"".join(parts)

    def _announced(self) -> int:
        return self._chunk

    def _has_chunk(self) -> bool:
        """Tell whether data comes next; before it, read the size of its chunk."""
        if not self._chunk and self.left:
            self._chunk = self._size()
            if not self._chunk:
                self._read_trailers()
                self.left = 0
        return bool(self._chunk)

    def _size(self) -> int:
        match = _SIZE.fullmatch(self._line(_SIZE_LINE_BYTES))
        if match is None:
            raise self._malformed("a chunk's size")
        self._extension_bytes += len(match[2] or b"")
        if self._extension_bytes > _EXTENSION_BYTES:
            raise self._malformed("its extensions are too long")
        return int(match[1], 16)

    def _take(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        self._chunk -= len(data)
        if len(data) < size:
            raise self._cut()
        if not self._chunk and (end := self._file.read(2)) != b"\r\n":
            raise self._malformed("a chunk is longer than its size") if len(end) == 2 else self._cut()
        return data

    def _read_trailers(self) -> None:
        """Read what may follow the last chunk, and forget it. Source: RFC 9112 section 7.1.2."""
        left_bytes = _TRAILER_BYTES
        while (line := self._line(left_bytes)) != b"\r\n":
            left_bytes -= len(line)
            if left_bytes <= 0:
                self._file = io.BytesIO()
                raise HeadTooLarge("The trailers behind the body are too large.")
            if not _TRAILER.fullmatch(line):
                raise self._malformed("a trailer")

    def _line(self, most_bytes: int) -> bytes:
        line: bytes = self._file.readline(most_bytes)
        if not line.endswith(b"\n") and len(line) < most_bytes:
            raise self._cut()
        return line

    def _malformed(self, what: str) -> ValidationError:
        self._file = io.BytesIO()  # Whatever else is there belongs to nothing.
        return ValidationError(f"The body's chunks are malformed: {what}.")

    def _cut(self) -> OSError:
        self._file = io.BytesIO()
        return OSError("the body ended before its last chunk")
