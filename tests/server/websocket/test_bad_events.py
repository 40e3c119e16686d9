"""Whatever comes in over sockets: it is refused or ignored, costs nobody else anything, and is no bug in the log."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import websocket

from tests.conftest import WAIT_SECONDS, Device, Listener, Server, Tenant
from tests.refusals import ANYTHING, complaints, nothing_changes, peak_kilobytes, shaped, wrong

Listen = Callable[..., Listener]

POLLING = "EIO=4&transport=polling"
FRAME_BYTES = 1_048_576


@pytest.fixture(scope="module")
def victim(server: Server, lines_before: int) -> Tenant:
    """A tenant with a row, which hostile events must not harm."""
    tenant = server.register()
    tenant.device().create(id="kept", name="Asha")
    return tenant


@pytest.fixture(scope="module")
def good(victim: Tenant) -> Iterator[Listener]:
    """A listener of the same tenant that does nothing wrong."""
    listener = victim.device().listen()
    yield listener
    listener.close()


@pytest.fixture
def all_well(victim: Tenant, good: Listener) -> Iterator[None]:
    """After the test the server still answers, and a good listener still hears of pushes."""
    yield
    assert victim.server.call("GET", "/health").status_code == 200
    heard = len(good.notes("sync_complete"))
    victim.device().create()
    good.wait_note("sync_complete", heard + 1)
    assert not good.is_gone.is_set()


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


# --- payloads --------------------------------------------------------------------------------------------------------

NO_TENANT: list[Any] = [{"tenantId": 5}, {"tenantId": "x"}, {"tenantId": []}, {"tenantId": "../../etc/passwd"}]


@pytest.mark.parametrize(
    ("event", "payloads"),
    [
        ("sync_push", [*ANYTHING, {"changes": 5}, {"operations": {}}, {"table": "end_user"}, *NO_TENANT]),
        ("sync_push", [{"changes": {"end_user": [{"id": "../x"}]}}, {"changes": {"end_user": [{"x" * 65: 1}]}}]),
        ("sync_push", [{"changes": {"end_user": [{"id": "big", "note": "x" * 70_000}]}}]),
        (
            "sync_pull",
            [*wrong({}, {"x": None}), {"table": "nope"}, {"cursor": "x"}, {"lastSync": 5, "table": "end_user"}],
        ),
        ("sync_pull", [{"cursor": None, "limit": 0}, {"cursor": "0123456789ab-1"}, *NO_TENANT]),
        ("sync_status_update", [*ANYTHING, {"status": []}, {"status": "x" * 101}, {"status": "x", "entityType": 5}]),
        ("sync_status_update", [{"status": ""}, {"status": "x", "entityType": "x" * 65}]),
    ],
)
def test_bad_payload_is_refused_in_the_one_shape(
    victim: Tenant, good: Listener, listen: Listen, all_well: None, event: str, payloads: list[Any]
) -> None:
    listener, heard = listen(victim), len(good.heard)
    with nothing_changes(victim):
        for payload in payloads:
            answer = shaped(listener.call(event, payload))
            assert answer["code"] in ("validation_error", "invalid_tenant_id", "resync_required"), (payload, answer)
    assert len(good.heard) == heard


@pytest.mark.parametrize("event", ["sync_push", "sync_pull", "sync_status_update", "ping"])
@pytest.mark.parametrize("arguments", ["", ",null", ",1,2,3", ",[],{}", ',"x"' * 50])
def test_wrong_number_of_arguments_is_answered(victim: Tenant, all_well: None, event: str, arguments: str) -> None:
    with raw_socket(victim) as connection, nothing_changes(victim):
        connection.send(f'4211["{event}"{arguments}]')
        while not (said := connection.recv()).startswith("4311["):
            pass
        answer = json.loads(said.removeprefix("4311"))[0]
        assert answer == {"success": True} if event == "ping" else shaped(answer)["code"] == "validation_error"


@pytest.mark.parametrize("event", ["connect", "disconnect"])
@pytest.mark.parametrize("arguments", ["", ",{},null", ',1,{"token":"x"}', ',"x",1,2'])
def test_event_named_like_one_of_the_library_changes_nothing(
    start_server: Callable[..., Server], event: str, arguments: str
) -> None:
    """Fault: it was taken for the library's: a socket was counted once for each, until its tenant had no more left."""
    tenant = start_server(MAX_TENANT_SOCKETS="2").register()
    with raw_socket(tenant) as connection:
        for _ in range(3):
            connection.send(f'42["{event}"{arguments}]')
            connection.send('422["ping"]')
            while not (said := connection.recv()).startswith("432"):
                assert said != ""
            assert said == '432[{"success":true}]'
            connection.send(f'42["authenticate",{json.dumps({"token": tenant.token})}]')
            assert is_answered(connection)
        with raw_socket(tenant) as other:
            assert is_answered(other)
    assert not [line for line in tenant.server.log if line["level"] in ("error", "raw")]


@pytest.mark.parametrize("event", ["connect", "disconnect"])
@pytest.mark.parametrize("arguments", ["", ",{}", ',"x",1'])
def test_event_named_like_one_of_the_library_is_acknowledged_as_unknown(
    victim: Tenant, all_well: None, event: str, arguments: str
) -> None:
    """Fault: its acknowledgement was empty, as if it had been done."""
    with raw_socket(victim) as connection:
        connection.send(f'4211["{event}"{arguments}]')
        while not (said := connection.recv()).startswith("4311["):
            pass
        assert shaped(json.loads(said.removeprefix("4311"))[0])["code"] == "not_found"


@pytest.mark.parametrize("payload", [*ANYTHING, {"token": []}, {"token": {"a": 1}}, {"token": "a.b.c"}, {"token": "é"}])
def test_bad_authenticate_is_told_and_ends_the_socket(victim: Tenant, all_well: None, payload: Any) -> None:
    stranger = Listener(victim.server.url)
    stranger.client.emit("authenticate", payload)
    assert stranger.wait("authentication_error")["code"] == "unauthorized"
    assert stranger.is_gone.wait(5)
    stranger.close()


# --- packets ---------------------------------------------------------------------------------------------------------

PACKETS: list[str | bytes] = [
    "",
    "4",
    "42",
    "42{",
    "42[",
    "42[]",
    "42[1]",
    "42[null]",
    "42null",
    '42"ping"',
    '42[["ping"]]',
    '42[{"a":1}]',
    '42{"0":"ping"}',
    '42["connect"]',
    '42["disconnect"]',
    '42["nope",1]',
    '42["__class__"]',
    '42["sync_push",NaN]',
    '42["sync_push","\\ud800"]',
    '42["sync_push",1e400]',
    '42["sync_push",' + "[" * 100 + "]" * 100 + "]",
    "42" + "[" * 100_000,
    '42/nope,1["ping"]',
    '42/../../etc/passwd,1["ping"]',
    "42" + "9" * 5000 + '["ping"]',
    "43",
    "431[]",
    "43999[1]",
    "40{bad",
    "40[]",
    '40"x"',
    "40/nope,",
    "40/nope,{bad",
    "41",
    "41/nope,",
    "44",
    '44"x"',
    "45-[",
    "450-[]",
    '450-["ping"]',
    "45999-[",
    "459999999999-[",
    "45" + "9" * 100 + '-["ping"]',
    '451-["sync_push",{"_placeholder":true,"num":5}]',
    '451-["sync_push",{"_placeholder":true,"num":-1}]',
    '451-["sync_push",{"_placeholder":true,"num":"a"}]',
    '461-[{"_placeholder":true,"num":0}]',
    "47",
    "49",
    "0",
    "1",
    "2",
    "2probe",
    "3",
    "5",
    "6",
    "7",
    "9",
    "\x1e4",
    "\x00",
    "é",
    "-1",
    b"",
    b"\x04",
    b"\xff" * 100,
    b'42["ping"]',
]


@pytest.mark.parametrize("joined", [True, False], ids=["account", "stranger"])
@pytest.mark.parametrize("packet", PACKETS, ids=lambda packet: repr(packet)[:40])
def test_malformed_packet_harms_nobody(
    victim: Tenant, good: Listener, all_well: None, packet: str | bytes, joined: bool
) -> None:
    heard = len(good.heard)
    with raw_socket(victim, joined=joined) as connection, nothing_changes(victim):
        for _ in range(3):
            with contextlib.suppress(websocket.WebSocketException, OSError):  # It may have been closed for the first.
                if isinstance(packet, str):
                    connection.send(packet)
                else:
                    connection.send_binary(packet)
        is_answered(connection, 0.2)
    assert len(good.heard) == heard


def test_random_bytes_harm_nobody(victim: Tenant, all_well: None) -> None:
    for _ in range(20):
        with raw_socket(victim) as connection:
            connection.send_binary(os.urandom(200))
        with raw_socket(victim) as connection:
            connection.sock.sendall(os.urandom(200))


@pytest.mark.parametrize(
    "packet", ['42["authenticate",{}]', '421["sync_push",{}]', '451-["ping",{"_placeholder":true,"num":0}]']
)
def test_event_before_the_connection_to_the_namespace_ends_the_socket(
    victim: Tenant, all_well: None, packet: str
) -> None:
    """Socket.IO protocol 5, "Connection to a namespace". Fault, the library's: it was ignored."""
    connection: Any = websocket.create_connection(address(victim.server), timeout=60)
    with nothing_changes(victim), contextlib.closing(connection.sock):
        connection.send(packet)
        assert is_closed(connection)


def test_event_in_an_unknown_namespace_reaches_nobody(victim: Tenant, all_well: None) -> None:
    with raw_socket(victim) as connection, nothing_changes(victim):
        connection.send("40/admin," + json.dumps({"token": victim.token}))
        connection.send('42/admin,1["sync_push",{"table":"end_user","operation":"create","data":{"id":"x"}}]')
        while not (said := connection.recv()).startswith("4"):
            pass
        assert said.startswith("44/admin,")
        assert is_answered(connection)


def test_binary_attachments_are_not_collected_without_end(start_server: Callable[..., Server]) -> None:
    """One packet may announce 9,999,999,999 attachments; each frame is within its limit, their sum is not."""
    tenant = start_server().register()
    with raw_socket(tenant) as connection:
        before = peak_kilobytes(tenant.server)
        with contextlib.suppress(websocket.WebSocketException, OSError):
            connection.send('459999999999-["sync_push",{"_placeholder":true,"num":0}]')
            for _ in range(100):
                connection.send_binary(bytes(FRAME_BYTES - 100))
        is_answered(connection, 0.2)
    assert peak_kilobytes(tenant.server) - before < 50_000


# --- frames ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("joined", [True, False], ids=["account", "stranger"])
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


def test_server_took_all_this_without_a_bug(server: Server, victim: Tenant, device: Device, lines_before: int) -> None:
    """Runs last in this module: whatever happened above, the log tells of no bug and the row is as it was."""
    assert complaints(server, lines_before) == []
    kept = next(row for row in victim.device().rows() if row["id"] == "kept")
    assert (kept["name"], kept["version"]) == ("Asha", 1)
