"""Whatever comes in over sockets: it is refused or ignored, costs nobody else anything, and is no bug in the log."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
import websocket

from tests.conftest import WAIT_SECONDS, Device, Listener, Server, Tenant
from tests.raw_sockets import FRAME_BYTES, address, is_answered, is_closed, raw_socket
from tests.refusals import ANYTHING, complaints, nothing_changes, peak_kilobytes, shaped, wrong

Listen = Callable[..., Listener]


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
    anonymous = Listener(victim.server.url)
    anonymous.client.emit("authenticate", payload)
    assert anonymous.wait("authentication_error")["code"] == "unauthorized"
    assert anonymous.is_gone.wait(WAIT_SECONDS)
    anonymous.close()


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


@pytest.mark.parametrize("joined", [True, False], ids=["authenticated", "unauthenticated"])
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


# --- transports and origins ------------------------------------------------------------------------------------------


def test_server_took_all_this_without_a_bug(server: Server, victim: Tenant, device: Device, lines_before: int) -> None:
    """Runs last in this module: whatever happened above, the log tells of no bug and the row is as it was."""
    assert complaints(server, lines_before) == []
    kept = next(row for row in victim.device().rows() if row["id"] == "kept")
    assert (kept["name"], kept["version"]) == ("Asha", 1)
