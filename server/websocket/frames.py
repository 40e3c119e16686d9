"""WebSocket frames as the server reads and writes them: bounded before memory is spent, and fast.

gevent-websocket reads a frame of any announced length and unmasks it byte by byte in Python: one frame of 64 MiB from
anybody stops the server for 19 seconds (ARCHITECTURE.md, trap 5). This replaces that part of it, and nothing else.
Knows: RFC 6455 framing. Must not know: Socket.IO, who is at the other end.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
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
"""The codes that a close frame may have. Source: RFC 6455 sections 7.4.1 and 7.4.2, and IANA's registry of them."""

_OPCODES = {0x0, 0x1, 0x2, 0x8, 0x9, 0xA}

_Utf8 = codecs.getincrementaldecoder("utf-8")


class _Application:
    """Stands for the application of the library's own server, whom it tells of what is closed."""

    @staticmethod
    def on_close(*_: object) -> None:
        """Do nothing."""


class BoundedWebSocket(WebSocket):  # type: ignore[misc]
    """A WebSocket that refuses a message over ``most_bytes`` by its header, be it one frame or many."""

    most_bytes = 1_048_576
    stream: Any
    raw_read: Any
    raw_write: Any
    closed: Any

    def __init__(self, environ: dict[str, Any], stream: Any, owner: Any) -> None:
        super().__init__(environ, stream, owner)
        self._message_bytes = 0
        self._write_to_network: Callable[[bytes], None] = stream.write
        self._is_free = Semaphore(1)
        """Taken while a greenlet writes: another, with a pong or a goodbye, must not come amid its frame."""
        self._rest = b""
        self.raw_write = self._write
        self._ends: Any = owner.stream

    def _write(self, data: bytes) -> None:
        """Write after what is left of frames before, but do not wait forever for a listener that reads nothing."""
        try:
            with gevent.Timeout(_SEND_SECONDS), self._is_free:
                rest, self._rest = self._rest, b""
                self._write_to_network(rest + data)
        except gevent.Timeout:
            self.abort()  # Nothing can follow a part of a frame.
            raise OSError("the listener does not read") from None

    def takes(self, frames: bytes) -> bool:
        """Send whole frames without a wait, if nothing has to go before them.

        What the kernel leaves of them goes before whatever is written next: ``has_rest`` tells.
        """
        if self.closed or self._rest or self._is_free.locked():
            return False
        network = self.stream.handler.socket
        if isinstance(network, SSLSocket):  # Below it the bytes would go in clear.
            return False
        try:
            sent = network._sock.send(frames)  # gevent's own would wait.
        except OSError:  # It would block, or it is gone: the library finds out which.
            return False
        if sent < len(frames):
            self._rest = frames[sent:]
        return True

    def close(self, code: int = _NORMAL, reason: bytes | None = None) -> None:
        """Say goodbye, with the code that the library leaves out; the connection ends soon, whatever its client does.

        Source: RFC 6455 sections 5.5.1 and 7.1.1.
        """
        if self.closed:
            return
        self._ends.close_soon()
        with contextlib.suppress(WebSocketError, OSError):  # It is gone already, or does not read.
            self.send_frame(struct.pack("!H", code) + bytes(reason or b"")[: _CONTROL_BYTES - 2], self.OPCODE_CLOSE)
        self.closed, self.environ = True, None
        self.stream = self.raw_write = self.raw_read = None

    def close_soon(self) -> None:
        """Bound how long the rest may take, and the close after it."""
        self._ends.close_soon()

    def abort(self) -> None:
        """End the connection at once, with all that is still to be sent."""
        self._rest, self.closed = b"", True
        self._ends.close_soon()
        self._ends.end()

    @property
    def has_rest(self) -> bool:
        """Tell whether a part of a frame is still to be written."""
        return bool(self._rest)

    def read_on(self, owner: Any) -> None:
        """Go on with another owner of the network, who reads it from now on."""
        self.environ, self.handler, self.stream.handler = None, owner, owner
        self.raw_read = self.stream.read = owner.read

    def read_message(self) -> str | bytes | None:
        """Read one message, and answer the control frames that come between its pieces; None if it is the close.

        Source: RFC 6455 sections 5.4 and 8.1: text is refused with the first piece that can't be UTF-8.
        """
        pieces: list[Any] = []
        opcode, decode = 0, None
        while True:
            header, payload = self.read_frame()
            if header.opcode >= _CONTROL:
                if self._is_closed_by(header.opcode, payload):
                    return None
                continue
            if (header.opcode == self.OPCODE_CONTINUATION) != bool(opcode):
                raise ProtocolError("a message begins within another, or what continues none")
            if not opcode:
                opcode = header.opcode
                decode = _Utf8().decode if opcode == self.OPCODE_TEXT else None
            pieces.append(decode(payload, header.fin) if decode else payload)
            if header.fin:
                return ("" if decode else b"").join(pieces)

    def _is_closed_by(self, opcode: int, payload: bytes) -> bool:
        """Answer a control frame, and tell whether it was the close. Source: RFC 6455 sections 5.5.1 to 5.5.3."""
        if opcode == self.OPCODE_PING:
            self.send_frame(payload, self.OPCODE_PONG)
        elif opcode == self.OPCODE_CLOSE:
            self._answer_close(payload)
        return bool(opcode == self.OPCODE_CLOSE)

    def _answer_close(self, payload: bytes) -> None:
        """Close with the code and the reason of the client. Source: RFC 6455 sections 5.5.1 and 7.1.5."""
        if not payload:
            return self.close(_NORMAL)
        code, reason = int.from_bytes(payload[:2]), payload[2:]
        if len(payload) < 2 or code not in _CODES:
            raise ProtocolError("a close frame without a code that it may have")
        reason.decode()
        return self.close(code, reason)

    def read_frame(self) -> tuple[Header, bytes]:
        """Read one frame, refused by its header if it must not be read."""
        header = Header.decode_header(self.stream)
        self._check(header)
        payload = self._read(header.length)
        if header.opcode < _CONTROL:
            self._message_bytes = 0 if header.fin else self._message_bytes + header.length
        return header, unmask(payload, header.mask)

    def _check(self, header: Header) -> None:
        """Refuse by its header what must not be read. Source: RFC 6455 sections 5.1, 5.2, 5.5 and 7.4.1."""
        if header.flags or not header.mask or header.opcode not in _OPCODES:
            raise ProtocolError("a client's frame must be masked, of a kind that there is, and without extensions")
        if header.opcode >= _CONTROL:
            if header.length > _CONTROL_BYTES or not header.fin:
                raise ProtocolError("a control frame has at most 125 bytes, in one piece")
        elif self._message_bytes + header.length > self.most_bytes:
            self.close(_TOO_BIG)
            raise WebSocketError("message too big")

    def _read(self, length: int) -> bytes:
        payload: bytes = self.raw_read(length) if length else b""
        if len(payload) != length:
            raise WebSocketError("the connection ended inside a frame")
        return payload

    @property
    def current_app(self) -> type[_Application]:
        """Give what the library tells that a WebSocket is closed."""
        return _Application

    @property
    def logger(self) -> logging.Logger:
        """Give where the library says that it closes."""
        return log


def text_frames(texts: Iterable[bytes]) -> bytes:
    """Write texts as a server's frames, each in one. Source: RFC 6455 section 5.2."""
    return b"".join(map(_text_frame, texts))


def _text_frame(text: bytes) -> bytes:
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size <= 0xFFFF:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), text)


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Apply a frame's mask as one operation on big integers."""
    length = len(payload)
    if not length:
        return b""
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")


def _no_log(_: object) -> None:
    return None


def install(most_bytes: int) -> None:
    """Make gevent-websocket use this class, whoever starts the server: us or gunicorn's worker."""
    BoundedWebSocket.most_bytes = most_bytes
    handler.WebSocket = BoundedWebSocket
    handler.WebSocketHandler.log_request = _no_log  # Requests have a log line of ours.
