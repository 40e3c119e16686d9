"""A WebSocket below Socket.IO, to send what no client library would."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from typing import Any

import websocket

from tests.conftest import WAIT_SECONDS, Server, Tenant

POLLING = "EIO=4&transport=polling"
FRAME_BYTES = 1_048_576


@contextlib.contextmanager
def raw_socket(tenant: Tenant, *, joined: bool = True) -> Iterator[Any]:
    """Open a WebSocket below Socket.IO; ``joined`` ones are authenticated, others only connected."""
    connection: Any = websocket.create_connection(address(tenant.server), timeout=60)
    network: Any = connection.sock
    try:
        assert connection.recv().startswith("0{")
        connection.send("40" + (json.dumps({"token": tenant.token}) if joined else ""))
        while not connection.recv().startswith('42["authenticated"' if joined else "40"):
            pass
        yield connection
    finally:
        network.close()  # And not the connection, which forgets to once it has failed.


def address(server: Server, query: str = "EIO=4&transport=websocket") -> str:
    return f"ws://127.0.0.1:{server.port}/socket.io/?{query}"


def is_answered(connection: Any, seconds: float = WAIT_SECONDS) -> bool:
    """Tell whether the connection is still served, rather than closed or waiting for more of a packet."""
    connection.settimeout(seconds)
    try:
        connection.send('4277["ping"]')
        while True:
            said = connection.recv()
            if said in ("", b""):
                return False
            if said.startswith("4377["):
                return True
    except (websocket.WebSocketException, OSError):
        return False


def frame(payload: bytes, first: int = 0x81, length: int | None = None, is_masked: bool = True) -> bytes:
    """Write a frame with a mask of zeros, or a length that lies."""
    size = len(payload) if length is None else length
    mask_bit, mask = (0x80, bytes(4)) if is_masked else (0, b"")
    if size < 126:
        return bytes([first, mask_bit | size]) + mask + payload
    if size < 65_536:
        return bytes([first, mask_bit | 126]) + struct.pack("!H", size) + mask + payload
    return bytes([first, mask_bit | 127]) + struct.pack("!Q", size) + mask + payload


def is_closed(connection: Any) -> bool:
    """Tell whether the server closes, and not only because its pings are not answered."""
    connection.settimeout(20)
    try:
        while connection.recv():
            pass
    except websocket.WebSocketTimeoutException:
        return False
    except (websocket.WebSocketException, OSError):
        return True
    return True
