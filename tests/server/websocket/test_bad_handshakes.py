"""Frames, handshakes and origins against the protocol: refused or closed at once, and nobody else is harmed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
import websocket

from tests.conftest import Server, Tenant
from tests.raw_sockets import FRAME_BYTES, POLLING, address, frame, is_answered, is_closed, raw_socket
from tests.refusals import nothing_changes, peak_kilobytes, shaped

# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joined", [True, False], ids=["authenticated", "unauthenticated"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(b'42["ping"]', is_masked=False), id="unmasked"),
        pytest.param(frame(b"", length=FRAME_BYTES + 1), id="just over the limit announced"),
        pytest.param(frame(b"", length=2**31), id="2 GiB announced"),
        pytest.param(frame(b"", length=2**63 - 1), id="8 EiB announced"),
        pytest.param(frame(b"", length=2**64 - 1), id="negative length announced"),
        pytest.param(frame(b"", first=0x01) + frame(b"x" * 1000, first=0x00) * 1100, id="many small fragments"),
        pytest.param(frame(b"x", first=0x01) * 2, id="message inside a message"),
        pytest.param(frame(b"x", first=0x80), id="continues nothing"),
        pytest.param(frame(b"x" * 126, first=0x89), id="long ping"),
        pytest.param(frame(b"x", first=0x09), id="ping in pieces"),
        pytest.param(frame(b"x", first=0x83), id="reserved opcode"),
        pytest.param(frame(b"x", first=0xC1), id="reserved bit"),
        pytest.param(frame(b"\xff\xfe"), id="no UTF-8"),
        pytest.param(frame(b"\x00", first=0x88), id="close with one byte"),
        pytest.param(frame(b"\x00\x01", first=0x88), id="close with a bad code"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
    ],
)
def test_frame_against_the_protocol_is_closed_at_once(
    victim: Tenant, all_well: None, data: bytes, joined: bool
) -> None:
    memory = peak_kilobytes(victim.server)
    with raw_socket(victim, joined=joined) as connection:
        with contextlib.suppress(OSError):
            connection.sock.sendall(data)
        assert is_closed(connection)
    assert peak_kilobytes(victim.server) - memory < 20_000


def test_others_are_answered_while_many_announce_what_never_comes(victim: Tenant, all_well: None) -> None:
    with contextlib.ExitStack() as stack:
        for length in [FRAME_BYTES, 2**40] * 10:
            connection = stack.enter_context(raw_socket(victim, joined=False))
            connection.sock.sendall(frame(b"x", length=length))
        for _ in range(5):
            began = time.monotonic()
            assert victim.server.call("GET", "/health").status_code == 200
            assert victim.device().push({"changes": {}})["success"]
            assert time.monotonic() - began < 20  # Those that announced are ended later, for they answer no ping.


def test_half_a_handshake_harms_nobody(victim: Tenant, all_well: None) -> None:
    connection: Any = websocket.create_connection(address(victim.server), timeout=60)
    connection.sock.sendall(frame(b"x" * 100)[:50])
    connection.sock.close()


# --- transports and origins ------------------------------------------------------------------------------------------


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def handshake(server: Server, headers: dict[str, str], transport: str = "websocket", query: str = "EIO=4") -> Any:
    """Ask for a WebSocket, and give the answer to that as a client sees it that fails."""
    url = f"{server.url}/socket.io/?{query}&transport={transport}"
    return requests.get(url, headers=headers, timeout=60)


@pytest.mark.parametrize(
    ("change", "query"),
    [
        ({}, "EIO=3"),
        ({}, "EIO=4&sid=nope"),
        ({}, "sid="),
        ({"Sec-WebSocket-Version": "12"}, "EIO=4"),
        ({"Sec-WebSocket-Version": None}, "EIO=4"),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, "EIO=4"),
        ({"Sec-WebSocket-Key": "not base64 at all!!!!!!"}, "EIO=4"),
        ({"Sec-WebSocket-Key": None}, "EIO=4"),
        ({"Connection": "keep-alive"}, "EIO=4"),
        ({"Upgrade": "h2c"}, "EIO=4"),
    ],
)
def test_websocket_is_refused_before_it_is_one(
    victim: Tenant, all_well: None, change: dict[str, Any], query: str
) -> None:
    """Before, the handshake was answered by 101, and socket.io-client waited for 20 s to say "timeout"."""
    headers = {name: value for name, value in (HANDSHAKE | change).items() if value is not None}
    answer = handshake(victim.server, headers, query=query)
    assert answer.status_code == 400
    assert shaped(answer.json())["code"] == "validation_error"


def test_websocket_at_an_unknown_address_is_404(victim: Tenant, all_well: None) -> None:
    for path in ("/socket.io", "/socket/", "/nope"):
        answer = requests.get(f"{victim.server.url}{path}?EIO=4&transport=websocket", headers=HANDSHAKE, timeout=60)
        assert answer.status_code == 404 and shaped(answer.json())["code"] == "not_found"


def test_refusal_can_be_read_by_pages_that_may_call(victim: Tenant, all_well: None) -> None:
    """Fault, before: a browser said that CORS forbade it, and not that the session is over."""
    origin = "http://localhost:5173"
    url = f"{victim.server.url}/socket.io/?{POLLING}&sid=over"
    answer = requests.get(url, headers={"Origin": origin}, timeout=60)
    assert answer.status_code == 400 and answer.headers["Access-Control-Allow-Origin"] == origin


def test_session_that_has_a_websocket_gets_no_second_one(victim: Tenant, all_well: None) -> None:
    connection = websocket.create_connection(address(victim.server), timeout=60)
    sid = json.loads(connection.recv()[1:])["sid"]
    answer = handshake(victim.server, HANDSHAKE, query=f"EIO=4&sid={sid}")
    assert answer.status_code == 400
    connection.send("40")
    assert str(connection.recv()).startswith("40{")
    connection.close()


def test_event_with_binary_is_refused_and_the_socket_goes_on(victim: Tenant, all_well: None) -> None:
    with raw_socket(victim) as connection:
        connection.send('452-17["sync_push",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
        connection.send_binary(b"one")
        connection.send_binary(b"two")
        assert "no binary" in connection.recv()
        assert is_answered(connection)
        connection.send_binary(b"one that nothing announced")
        assert not is_answered(connection, 0.2)


def polling_session(server: Server) -> str:
    answer = requests.get(f"{server.url}/socket.io/?{POLLING}", timeout=60)
    return str(json.loads(answer.text[1:])["sid"])


@pytest.mark.parametrize(
    "query",
    [
        "",
        "transport=polling",
        "EIO=3&transport=polling",
        "EIO=x&transport=polling",
        "EIO=4&transport=bogus",
        "EIO=4&transport=websocket",
        f"{POLLING}&sid=nope",
        f"{POLLING}&sid=../../etc/passwd",
        f"{POLLING}&sid=%00",
        f"{POLLING}&sid={'x' * 5000}",
        "EIO=4&transport=websocket&sid=nope",
        f"{POLLING}&j=<script>",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_handshake_that_is_none_is_400(victim: Tenant, all_well: None, method: str, query: str) -> None:
    answer = requests.request(method, f"{victim.server.url}/socket.io/?{query}", data=b"40", timeout=60)
    assert answer.status_code == 400
    assert "Traceback" not in answer.text and "<script>" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_method_that_polling_does_not_know_is_405(victim: Tenant, all_well: None, method: str) -> None:
    assert requests.request(method, f"{victim.server.url}/socket.io/?{POLLING}", timeout=60).status_code == 405


@pytest.mark.parametrize(
    "data", [b"", b"x", b"4", b"42{", b"bAAAA", b"b!!!", b"\xff\xff", b"40{bad", b"\x1e" * 100, b"4\x1e" * 5000]
)
def test_malformed_polling_body_harms_nobody(victim: Tenant, all_well: None, data: bytes) -> None:
    url = f"{victim.server.url}/socket.io/?{POLLING}&sid={polling_session(victim.server)}"
    with nothing_changes(victim):
        assert requests.post(url, data=data, timeout=60).status_code in (200, 400)


@pytest.mark.slow
def test_polling_body_over_the_limit_is_refused_at_once(start_server: Callable[..., Server]) -> None:
    server = start_server()
    url = f"{server.url}/socket.io/?{POLLING}&sid={polling_session(server)}"
    assert requests.post(url, data=b"x" * (FRAME_BYTES + 1), timeout=60).status_code in (400, 413)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "x"])
@pytest.mark.parametrize("headers", [{}, HANDSHAKE], ids=["polling", "websocket"])
def test_page_of_a_foreign_origin_gets_no_connection(
    victim: Tenant, all_well: None, origin: str, headers: dict[str, str]
) -> None:
    answer = handshake(victim.server, {**headers, "Origin": origin}, "websocket" if headers else "polling")
    assert answer.status_code == 403 and shaped(answer.json())["code"] == "origin_not_allowed"
    assert "Access-Control-Allow-Origin" not in answer.headers
