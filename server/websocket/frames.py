"""WebSocket frames, parsed and built: size limits are checked before memory is spent, and masking is fast.

gevent-websocket reads a frame of any announced length and unmasks it byte by byte in Python: one frame of 64 MiB from
anybody stops the server for 19 seconds (ARCHITECTURE.md, trap 5). This replaces that part of it, and nothing else.
Knows: RFC 6455 framing. Must not know: Socket.IO.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import struct
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.lock import Semaphore
from gevent.ssl import SSLSocket
from geventwebsocket import handler
from geventwebsocket.exceptions import ProtocolError, WebSocketError
from geventwebsocket.websocket import Header, WebSocket

log = logging.getLogger("syncapp.socket")

_SEND_SECONDS = 20.0
_CONTROL_BYTES = 125
_NORMAL, _TOO_BIG = 1000, 1009
_CONTROL = 0x08
_CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
"""The valid codes of a close frame. Source: RFC 6455 sections 7.4.1 and 7.4.2, and IANA's registry of them."""

_OPCODES = {0x0, 0x1, 0x2, 0x8, 0x9, 0xA}

_Utf8 = codecs.getincrementaldecoder("utf-8")


class _NoApplication:
    """Stands for the application of the library's own server, which is not used."""

    @staticmethod
    def on_close(*_: object) -> None:
        """Do nothing."""


class BoundedWebSocket(WebSocket):  # type: ignore[misc]
    """A WebSocket that refuses a message over ``most_bytes`` by its frame headers, whether it is fragmented or not."""

    most_bytes = 1_048_576
    stream: Any
    raw_read: Any
    raw_write: Any
    closed: Any

    def __init__(self, environ: dict[str, Any], stream: Any, http_handler: Any) -> None:
        super().__init__(environ, stream, http_handler)
        self._message_bytes = 0
        self._write_to_socket: Callable[[bytes], None] = stream.write
        self._write_lock = Semaphore(1)
        """Held while a greenlet writes: another, with a pong or a close frame, must not write within its frame."""
        self._unsent = b""
        self.raw_write = self._write
        self._connection: Any = http_handler.stream

    def _write(self, data: bytes) -> None:
        """Write after the unsent rest of earlier frames, with a time-out for a client that does not read."""
        try:
            with gevent.Timeout(_SEND_SECONDS), self._write_lock:
                unsent, self._unsent = self._unsent, b""
                self._write_to_socket(unsent + data)
        except gevent.Timeout:
            self.abort()  # Nothing can follow a partial frame.
            raise OSError("the listener does not read") from None

    def send_nowait(self, frames: bytes) -> bool:
        """Send whole frames without waiting, if nothing has to be sent before them.

        What the kernel does not take is sent before whatever is written next: ``has_unsent`` tells.
        """
        if self.closed or self._unsent or self._write_lock.locked():
            return False
        sock = self.stream.handler.socket
        if isinstance(sock, SSLSocket):  # The inner socket would send in clear.
            return False
        try:
            sent = os.write(sock.fileno(), frames)  # gevent's send would wait.
        except OSError:  # It would block, or the connection is gone: the library finds out which.
            return False
        if sent < len(frames):
            self._unsent = frames[sent:]
        return True

    def close(self, code: int = _NORMAL, reason: bytes | None = None) -> None:
        """Send a close frame, with the code that the library leaves out; the connection ends soon, answered or not.

        Source: RFC 6455 sections 5.5.1 and 7.1.1.
        """
        if self.closed:
            return
        self._connection.close_soon()
        with contextlib.suppress(WebSocketError, OSError):  # The client is gone already, or does not read.
            self.send_frame(struct.pack("!H", code) + bytes(reason or b"")[: _CONTROL_BYTES - 2], self.OPCODE_CLOSE)
        self.closed, self.environ = True, None
        self.stream = self.raw_write = self.raw_read = None

    def close_soon(self) -> None:
        """Limit how long sending the rest and the close after it may take."""
        self._connection.close_soon()

    def abort(self) -> None:
        """Close the connection at once; what is unsent is dropped."""
        self._unsent, self.closed = b"", True
        self._connection.close_soon()
        self._connection.end()

    @property
    def has_unsent(self) -> bool:
        """Tell whether the rest of a frame is still to be written."""
        return bool(self._unsent)

    def read_from(self, reader: Any) -> None:
        """Read from an idle reader from now on, and release the HTTP handler and its environ."""
        self.environ, self.handler, self.stream.handler = None, reader, reader
        self.raw_read = self.stream.read = reader.read

    def read_message(self) -> str | bytes | None:
        """Read one message, and answer the control frames between its fragments; None after a close frame.

        Source: RFC 6455 sections 5.4 and 8.1: text is refused with the first fragment that can't be UTF-8.
        """
        fragments: list[Any] = []
        opcode, decode = 0, None
        while True:
            header, payload = self.read_frame()
            if header.opcode >= _CONTROL:
                if self._is_closed_by(header.opcode, payload):
                    return None
                continue
            if (header.opcode == self.OPCODE_CONTINUATION) != bool(opcode):
                raise ProtocolError("a message begins within another, or a continuation without one")
            if not opcode:
                opcode = header.opcode
                decode = _Utf8().decode if opcode == self.OPCODE_TEXT else None
            fragments.append(decode(payload, header.fin) if decode else payload)
            if header.fin:
                return ("" if decode else b"").join(fragments)

    def _is_closed_by(self, opcode: int, payload: bytes) -> bool:
        """Answer a control frame, and tell whether it was a close frame. Source: RFC 6455 sections 5.5.1 to 5.5.3."""
        if opcode == self.OPCODE_PING:
            self.send_frame(payload, self.OPCODE_PONG)
        elif opcode == self.OPCODE_CLOSE:
            self._answer_close(payload)
        return bool(opcode == self.OPCODE_CLOSE)

    def _answer_close(self, payload: bytes) -> None:
        """Close with the client's code and reason. Source: RFC 6455 sections 5.5.1 and 7.1.5."""
        if not payload:
            return self.close(_NORMAL)
        code, reason = int.from_bytes(payload[:2]), payload[2:]
        if len(payload) < 2 or code not in _CODES:
            raise ProtocolError("a close frame without a valid code")
        reason.decode()
        return self.close(code, reason)

    def read_frame(self) -> tuple[Header, bytes]:
        """Read one frame; an invalid one is refused by its header."""
        header = Header.decode_header(self.stream)
        self._check(header)
        payload = self._read(header.length)
        if header.opcode < _CONTROL:
            self._message_bytes = 0 if header.fin else self._message_bytes + header.length
        return header, unmask(payload, header.mask)

    def _check(self, header: Header) -> None:
        """Refuse an invalid frame by its header. Source: RFC 6455 sections 5.1, 5.2, 5.5 and 7.4.1."""
        if header.flags or not header.mask or header.opcode not in _OPCODES:
            raise ProtocolError("a client's frame must be masked, of a known opcode, and without extensions")
        if header.opcode >= _CONTROL:
            if header.length > _CONTROL_BYTES or not header.fin:
                raise ProtocolError("a control frame has at most 125 bytes, and is not fragmented")
        elif self._message_bytes + header.length > self.most_bytes:
            self.close(_TOO_BIG)
            raise WebSocketError("message too big")

    def _read(self, length: int) -> bytes:
        payload: bytes = self.raw_read(length) if length else b""
        if len(payload) != length:
            raise WebSocketError("the connection ended inside a frame")
        return payload

    @property
    def current_app(self) -> type[_NoApplication]:
        """Return what the library notifies that a WebSocket is closed."""
        return _NoApplication

    @property
    def logger(self) -> logging.Logger:
        """Return the library's logger."""
        return log


def text_frames(texts: Iterable[bytes]) -> bytes:
    """Build one unmasked frame for each text. Source: RFC 6455 section 5.2."""
    return b"".join(map(_text_frame, texts))


def _text_frame(text: bytes) -> bytes:
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size <= 0xFFFF:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), text)


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Unmask a payload by one operation on big integers."""
    length = len(payload)
    if not length:
        return b""
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")


def _no_log(_: object) -> None:
    return None


def install(most_bytes: int) -> None:
    """Have gevent-websocket use this class, for our own server and for gunicorn's worker."""
    BoundedWebSocket.most_bytes = most_bytes
    handler.WebSocket = BoundedWebSocket
    handler.WebSocketHandler.log_request = _no_log  # The middleware logs requests.
