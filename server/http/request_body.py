"""The body of a request, as a WSGI application reads it: to its end and not beyond.

Knows: RFC 9112 sections 6 and 7. Must not know: what a body holds, how large one may be, time-outs. A malformed or
truncated body never reaches its end, so that the connection is closed: the begin of the next request is unknown.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from protocol.errors import HeadTooLarge, ValidationError

_STEP_BYTES = 16_384
_SIZE_LINE_BYTES = 4_096
_EXTENSION_BYTES = 16_384
_TRAILER_BYTES = 8_192
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t -~\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*\r\n")


class Body:
    """A body with a Content-Length."""

    __slots__ = ("_file", "left", "send_continue")

    def __init__(self, file: Any, length: int) -> None:
        self._file, self.left = file, length
        """How many bytes are still to come; 0 at the end."""
        self.send_continue: Callable[[], None] | None = None
        """Sends 100 (Continue), if the client waits for it before it sends the body."""

    def read(self, size: int | None = -1) -> bytes:
        """Read up to ``size`` bytes, or all. Raises: OSError if the client left before it had sent them."""
        wanted = self.left if size is None or size < 0 else min(size, self.left)
        if not wanted:
            return b""
        if self.send_continue:
            self._send_continue()
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
        """Read to the end and discard, if that is at most ``most_bytes``. Raises: as ``read``."""
        while self.left and self._known_bytes() <= most_bytes and most_bytes > 0:
            most_bytes -= len(self.read(min(_STEP_BYTES, most_bytes)))

    def _known_bytes(self) -> int:
        """Return how many bytes are known to come."""
        return self.left

    def _send_continue(self) -> None:
        send_continue, self.send_continue = self.send_continue, None
        if send_continue:
            send_continue()

    def _discard(self) -> None:
        """Do nothing: pywsgi wants the rest read after the response, and ``Handler`` has done so before it."""


class ChunkedBody(Body):
    """A body in chunked transfer coding; ``left`` is 1 until the last chunk. Source: RFC 9112 section 7.1."""

    __slots__ = ("_chunk", "_extension_bytes")

    def __init__(self, file: Any) -> None:
        super().__init__(file, 1)
        self._chunk = self._extension_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read up to ``size`` bytes, or all.

        Raises: OSError as ``Body.read``; ValidationError, HeadTooLarge if it is malformed.
        """
        if self.send_continue:
            self._send_continue()
        parts, wanted = [], -1 if size is None else size
        while wanted and self._has_chunk():
            part = self._read_data(self._chunk if wanted < 0 else min(wanted, self._chunk))
            parts.append(part)
            wanted -= len(part) if wanted > 0 else 0
        return b"".join(parts)

    def _known_bytes(self) -> int:
        return self._chunk

    def _has_chunk(self) -> bool:
        """Tell whether data follows; reads the chunk's size line if need be."""
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

    def _read_data(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        self._chunk -= len(data)
        if len(data) < size:
            raise self._truncated()
        if not self._chunk and (end := self._file.read(2)) != b"\r\n":
            raise self._malformed("a chunk is longer than its size") if len(end) == 2 else self._truncated()
        return data

    def _read_trailers(self) -> None:
        """Read and discard the trailer section. Source: RFC 9112 section 7.1.2."""
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
            raise self._truncated()
        return line

    def _malformed(self, what: str) -> ValidationError:
        self._file = io.BytesIO()  # Further bytes belong to no request.
        return ValidationError(f"The body's chunks are malformed: {what}.")

    def _truncated(self) -> OSError:
        self._file = io.BytesIO()
        return OSError("the body ended before its last chunk")
