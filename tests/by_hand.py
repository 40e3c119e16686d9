"""Engine.IO and WebSocket spoken by hand, to say what no client library would, and to see what it would hide."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import requests

from server.websocket.frames import unmask
from tests.conftest import JSON, Server, Tenant

SEPARATOR = "\x1e"
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

_Test = TypeVar("_Test", bound=Callable[..., None])


class Suite(set[str]):
    """The cases of a protocol's official suite, each noted by a test that is it."""

    def case(self, name: str) -> Callable[[_Test], _Test]:
        """Note that a test is the case of this name."""
        self.add(name)
        return lambda test: test


def address(server: Server, **query: Any) -> str:
    said = "&".join(f"{name}={value}" for name, value in {"EIO": 4, **query}.items() if value is not None)
    return f"{server.url}/socket.io/?{said}"


def get(server: Server, headers: dict[str, str] | None = None, **query: Any) -> requests.Response:
    return requests.get(address(server, **query), headers=headers, timeout=20)


class Poller:
    """A session that polls."""

    def __init__(self, server: Server) -> None:
        self.server, self.http = server, requests.Session()
        self.opened: JSON = json.loads(self.http.get(address(server, transport="polling"), timeout=20).text[1:])
        self.sid = self.opened["sid"]
        self.address = address(server, transport="polling", sid=self.sid)

    def post(self, *packets: str | bytes, **more: Any) -> requests.Response:
        body = b"\x1e".join(packet if isinstance(packet, bytes) else packet.encode() for packet in packets)
        return requests.post(self.address, data=more.pop("data", body), timeout=20, **more)

    def get(self) -> requests.Response:
        return self.http.get(self.address, timeout=20)

    def packets(self) -> list[str]:
        """Poll once; what the session's pings are is left out."""
        answer = self.get()
        assert answer.status_code == 200, answer.text
        return [packet for packet in answer.content.decode().split(SEPARATOR) if packet != "2"]

    def until(self, start: str) -> str:
        """Poll until a packet begins so, and give it."""
        while True:
            for packet in self.packets():
                if packet.startswith(start):
                    return packet

    def join(self, tenant: Tenant) -> Poller:
        assert self.post(hello(tenant)).text == "ok"
        self.until('42["authenticated"')
        return self

    def is_over(self) -> bool:
        return self.get().status_code == 400


def hello(tenant: Tenant) -> str:
    return "40" + json.dumps({"token": tenant.token})


class Frame(NamedTuple):
    """A frame as it came."""

    opcode: int
    payload: bytes
    is_final: bool = True

    @property
    def code(self) -> int:
        """The code of a close frame."""
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2])


def frame(payload: bytes | str, opcode: int = TEXT, *, fin: bool = True, first: int | None = None) -> bytes:
    """Write a client's frame; ``first`` is its first byte, if that is to be another."""
    data = payload.encode() if isinstance(payload, str) else payload
    mask, size = os.urandom(4), len(data)
    head = bytes([((0x80 if fin else 0) | opcode) if first is None else first])
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        length = bytes([0x80 | 127]) + struct.pack("!Q", size)
    return head + length + mask + unmask(data, mask)


class Raw:
    """A WebSocket below any library."""

    def __init__(self, server: Server, sid: str | None = None, **headers: str) -> None:
        self.network = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self._came = b""
        path = address(server, transport="websocket", sid=sid).removeprefix(server.url)
        lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{n}: {v}" for n, v in (UPGRADE | headers).items()), "", ""]
        self.send("\r\n".join(lines).encode())
        self.answer = self._until(b"\r\n\r\n").decode()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.network.close()

    def send(self, *data: bytes) -> None:
        self.network.sendall(b"".join(data))

    def say(self, *packets: str) -> None:
        self.send(*map(frame, packets))

    def _more(self) -> bool:
        try:
            more = self.network.recv(65_536)
        except ConnectionResetError:
            more = b""
        self._came += more
        return bool(more)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._came:
            assert self._more(), self._came
        found, _, self._came = self._came.partition(mark)
        return found

    def _read(self, count: int) -> bytes:
        while len(self._came) < count:
            assert self._more(), "the connection ended"
        found, self._came = self._came[:count], self._came[count:]
        return found

    def frame(self) -> Frame:
        """Read the next frame."""
        first, second = self._read(2)
        assert second < 0x80, "a server's frame is not masked"
        size = int.from_bytes(self._read({126: 2, 127: 8}[second])) if second > 125 else second
        return Frame(first & 0x0F, self._read(size), first >= 0x80)

    def packet(self) -> str:
        """Read the next packet that is no ping of Engine.IO's."""
        while True:
            found = self.frame()
            assert found.opcode == TEXT, found
            if found.payload != b"2":
                return found.payload.decode()

    def until(self, start: str) -> str:
        """Read until a packet begins so, and give it."""
        while not (found := self.packet()).startswith(start):
            pass
        return found

    def closed(self) -> Frame:
        """Read to the close frame."""
        while (found := self.frame()).opcode != CLOSE:
            pass
        return found

    def is_over(self) -> bool:
        """Read to the end of the connection, whatever comes before; a close is answered, and nothing else."""
        while len(self._came) >= 2 or self._more():
            if self._came[0] == 0x80 | CLOSE:
                self.send(frame(b"", CLOSE))
                while self._more():
                    pass
                return True
            self.frame()
        return True

    def join(self, tenant: Tenant) -> Raw:
        self.say(hello(tenant))
        self.until('42["authenticated"')
        return self
