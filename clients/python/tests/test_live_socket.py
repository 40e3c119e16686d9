"""A live connection that is lost leaves no socket open."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha1
from typing import Any

import pytest
import websocket
from conftest import MakeClient
from tests.kit.proxy import Proxy, read_request
from tests.kit.server import wait_for

from syncclient.live_socket import LiveSocket

CLOSE = b"\x88\x02\x03\xe8"
NO_LINGER = struct.pack("ii", 1, 0)


def losing(how: str, entry: socket.socket, is_over: threading.Event) -> None:
    """Answer a handshake as RFC 6455 says, and then lose the connection."""
    peer, _ = entry.accept()
    with peer:
        head = dict(line.split(b": ", 1) for line in read_request(peer).split(b"\r\n")[1:] if b": " in line)
        accept = b64encode(sha1(head[b"Sec-WebSocket-Key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        peer.sendall(answer + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + (CLOSE if how == "closed" else b""))
        if how == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        else:
            is_over.wait(60)


@pytest.fixture(params=["reset", "closed", "silent"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that loses each connection in one of the ways."""
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as entry:
        thread = threading.Thread(target=losing, args=(request.param, entry, is_over))
        thread.start()
        yield f"ws://127.0.0.1:{entry.getsockname()[1]}"
        is_over.set()
        thread.join()


def test_socket_that_is_lost_is_closed(url: str) -> None:
    connection: Any = websocket.create_connection(url, class_=LiveSocket)
    connection.settimeout(0.2)
    network = connection.sock
    with contextlib.suppress(OSError, websocket.WebSocketException):
        assert connection.recv() == ""
    assert network.fileno() == -1 and not connection.connected


def test_live_connection_is_such_a_socket(
    make_client: MakeClient, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = threading.Event()
    shutdown: Any = LiveSocket.shutdown

    def told(connection: LiveSocket) -> None:
        shutdown(connection)
        lost.set()

    monkeypatch.setattr(LiveSocket, "shutdown", told)
    client = make_client(url=proxy.url)
    client.start(every_seconds=3600)
    wait_for(lambda: any("transport=websocket" in address for address in proxy.requests), "the live connection")
    proxy.close()
    assert lost.wait(60)
