"""WebSocket frames: unmasked as RFC 6455 says, and bounded by their header."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from geventwebsocket.exceptions import WebSocketError
from hypothesis import given
from hypothesis import strategies as st

from server.websocket import frames
from server.websocket.frames import BoundedWebSocket, unmask


def frame(
    payload: bytes, opcode: int = 1, fin: bool = True, length: int | None = None, mask: bytes | None = None
) -> bytes:
    size = len(payload) if length is None else length
    key = os.urandom(4) if mask is None else mask
    first = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        return first + bytes([0x80 | size]) + key + unmask(payload, key)
    long = (
        bytes([0x80 | 126]) + struct.pack("!H", size)
        if size < 65_536
        else bytes([0x80 | 127]) + struct.pack("!Q", size)
    )
    return first + long + key + unmask(payload, key)


class Wire:
    """A stream that gives what a client sent and counts what is read."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._from, self.sent = io.BytesIO(b"".join(parts)), bytearray()
        self.asked = 0

    def read(self, count: int) -> bytes:
        self.asked += count
        return self._from.read(count)

    def write(self, data: bytes) -> None:
        self.sent += data


def websocket(monkeypatch: pytest.MonkeyPatch, *parts: bytes, most: int = 1000) -> tuple[BoundedWebSocket, Wire]:
    monkeypatch.setattr(BoundedWebSocket, "most_bytes", most)
    wire = Wire(parts)
    owner: Any = SimpleNamespace(
        logger=SimpleNamespace(debug=lambda *_: None),
        server=SimpleNamespace(application=None),
        stream=SimpleNamespace(close_soon=lambda: None),
    )
    return BoundedWebSocket({}, wire, owner), wire


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_unmask_is_the_exclusive_or_of_rfc_6455(payload: bytes, mask: bytes) -> None:
    assert unmask(payload, mask) == bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 1000])
def test_message_within_the_bound_is_read(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    socket, _ = websocket(monkeypatch, frame(b"x" * size))
    assert socket.receive() == "x" * size


def test_fragments_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (frame("ä".encode()[:1], fin=False), frame(b"", opcode=9), frame("ä".encode()[1:], opcode=0))
    assert websocket(monkeypatch, *parts)[0].receive() == "ä"


@pytest.mark.parametrize("length", [1001, 65_536, 2**40])
def test_frame_over_the_bound_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    socket, wire = websocket(monkeypatch, frame(b"", length=length))
    assert socket.receive() is None and socket.closed
    assert wire.asked < 20
    assert bytes(wire.sent)[2:4] == struct.pack("!H", 1009)


def test_fragments_over_the_bound_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [frame(b"x" * 400, fin=False), *[frame(b"x" * 400, opcode=0, fin=False)] * 5]
    socket, wire = websocket(monkeypatch, *parts)
    assert socket.receive() is None and socket.closed
    assert wire.asked < 1200


@pytest.mark.parametrize(
    "hostile",
    [
        frame(b"x" * 126, opcode=9),
        frame(b"x", opcode=9, fin=False),
        b"\x81\x01x",
        bytes([0xF1]) + frame(b"x")[1:],
        frame(b"\xff\xfe"),
        frame(b"x", opcode=3),
        frame(b"x", opcode=0),
    ],
    ids=[
        "long control",
        "control in pieces",
        "unmasked",
        "extension bits",
        "no UTF-8",
        "reserved opcode",
        "continues nothing",
    ],
)
def test_frame_against_the_protocol_ends_the_connection(monkeypatch: pytest.MonkeyPatch, hostile: bytes) -> None:
    socket, _ = websocket(monkeypatch, hostile)
    assert socket.receive() is None and socket.closed


@pytest.mark.parametrize(
    "header",
    [
        bytes([0xC1]) + frame(b"", length=500)[1:],
        frame(b"", opcode=3, length=500),
        frame(b"", opcode=9, length=500),
        frame(b"", opcode=9, fin=False, length=5),
        b"\x81\x7e\x01\xf4",
    ],
    ids=["extension bits", "reserved opcode", "long control", "control in pieces", "unmasked"],
)
def test_invalid_frame_is_refused_before_its_payload_is_read(monkeypatch: pytest.MonkeyPatch, header: bytes) -> None:
    socket, wire = websocket(monkeypatch, header)
    assert socket.receive() is None and wire.asked < 20
    assert bytes(wire.sent) == b"\x88\x02" + struct.pack("!H", 1002)


def test_ping_within_a_message_does_not_count_towards_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (frame(b"x" * 950, fin=False), frame(b"y" * 100, opcode=9), frame(b"x" * 50, opcode=0))
    socket, wire = websocket(monkeypatch, *parts, most=1000)
    assert socket.receive() == "x" * 1000
    assert bytes(wire.sent) == b"\x8a\x64" + b"y" * 100


def test_connection_that_ends_inside_a_frame_is_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert websocket(monkeypatch, frame(b"x" * 100)[:50])[0].receive() is None


def test_listener_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: it was closed by a frame, amid the one that it had read a part of, and given time to answer."""
    socket, _ = websocket(monkeypatch)
    ended: list[bool] = []
    monkeypatch.setattr(socket._connection, "end", lambda: ended.append(True), raising=False)
    monkeypatch.setattr(frames, "_SEND_SECONDS", 0.05)
    monkeypatch.setattr(socket, "_write_to_socket", lambda _: gevent.sleep(5))
    with pytest.raises(WebSocketError):
        socket.send("x")
    assert ended == [True] and socket.closed


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (b"", struct.pack("!H", 1000)),
        (struct.pack("!H", 1000), struct.pack("!H", 1000)),
        (struct.pack("!H", 1001) + b"tab closed", struct.pack("!H", 1001) + b"tab closed"),
        (
            struct.pack("!H", 4321) + "schlafen gegängen".encode(),
            struct.pack("!H", 4321) + "schlafen gegängen".encode(),
        ),
        (struct.pack("!H", 3000) + b"x" * 123, struct.pack("!H", 3000) + b"x" * 123),
        (b"\x03", struct.pack("!H", 1002)),
        (struct.pack("!H", 1005), struct.pack("!H", 1002)),
        (struct.pack("!H", 1000) + b"\xff", struct.pack("!H", 1007)),
    ],
)
def test_close_is_answered_by_a_code_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, said: bytes, answered: bytes
) -> None:
    """Fault, the library's: the reason without a code, whose first two bytes a client reads as one."""
    socket, wire = websocket(monkeypatch, frame(said, opcode=8))
    assert socket.receive() is None and socket.closed
    assert bytes(wire.sent) == b"\x88%c%b" % (len(answered), answered)


def test_message_too_big_is_told_by_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    socket, wire = websocket(monkeypatch, frame(b"x" * 1001), most=1000)
    assert socket.receive() is None
    assert bytes(wire.sent) == b"\x88\x02" + struct.pack("!H", 1009)
