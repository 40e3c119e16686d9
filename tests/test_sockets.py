"""Who is let in, who hears what, and what ends a socket (docs/api.md, real time)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import pytest
import requests

from tests.by_hand import Poller, Raw
from tests.conftest import WAIT_SECONDS, Device, Listener, Server, Tenant, wait_for
from tests.system.test_faults import locked
from tests.system.test_soak import counts

Listen = Callable[..., Listener]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_three_clients_in_two_tenants_hear_their_own_tenant_only(
    server: Server, tenant: Tenant, other_tenant: Tenant, device: Device, listen: Listen, transport: str
) -> None:
    mine, mine_too, foreign = listen(transport=transport), listen(transport=transport), listen(other_tenant)
    row = device.create(name="Asha")
    for listener in (mine, mine_too):
        note = listener.wait_note("data_available")
        assert (note["entityType"], note["entityId"], note["data"]) == ("end_user", row["id"], row)
        assert note["message"] == "New end_user data available for sync"
        done = listener.wait_note("sync_complete")
        assert done["message"] == "end_user sync completed successfully"
    other_tenant.device().create(name="Bela")
    assert foreign.wait_note("sync_complete")
    assert [note["data"]["name"] for note in foreign.notes("data_available")] == ["Bela"]
    assert len(mine.notes()) == len(mine_too.notes()) == 2


def test_authenticated_tells_what_was_missed_since_a_cursor(device: Device, listen: Listen) -> None:
    cursor = device.push({"changes": {"end_user": [{"id": "a"}, {"id": "b"}]}})["cursor"]
    device.create(id="c")
    assert listen(cursor=cursor).wait("authenticated")["missed"] == 1
    assert listen().wait("authenticated")["missed"] == 3


def test_notifications_of_pushes_form_a_chain_of_cursors(device: Device, listen: Listen) -> None:
    listener = listen()
    for number in range(5):
        device.create(id=f"row-{number}")
    listener.wait_note("sync_complete", 5)
    chain = [(note["previousCursor"], note["cursor"]) for note in listener.notes("sync_complete")]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(chain))


def test_token_by_event_lets_a_socket_in(server: Server, tenant: Tenant) -> None:
    listener = Listener(server.url)
    listener.client.emit("authenticate", {"token": tenant.token, "tenantId": tenant.id})
    assert listener.wait("authenticated")["tenantId"] == tenant.id
    listener.close()


@pytest.mark.parametrize("how", ["handshake", "event"])
@pytest.mark.parametrize(
    ("auth", "code"),
    [
        ({"token": "nonsense"}, "unauthorized"),
        ({"token": 5}, "unauthorized"),
        ({"tenantId": "not a uuid"}, "invalid_tenant_id"),
        ({"tenantId": "1030070f-9824-49b3-b53b-8013e2eb363e"}, "tenant_mismatch"),
        ({"cursor": "nonsense"}, "validation_error"),
    ],
)
def test_bad_authentication_is_told_and_ends_the_socket(
    server: Server, tenant: Tenant, how: str, auth: dict[str, object], code: str
) -> None:
    said = {"token": tenant.token, **auth}
    listener = Listener(server.url, auth=said if how == "handshake" else None)
    if how == "event":
        listener.client.emit("authenticate", said)
    error = listener.wait("authentication_error")
    assert error["code"] == code and error["message"]
    assert listener.is_gone.wait(WAIT_SECONDS)


def test_logout_closes_the_sockets_of_that_session_only(server: Server, tenant: Tenant, listen: Listen) -> None:
    login = server.post("/api/customers/login", {"email": tenant.email, "password": tenant.password}).json()["data"]
    mine = listen()
    other = Listener(server.url, auth={"token": login["token"]})
    other.wait("authenticated")
    assert server.post("/api/customers/logout", token=login["token"]).status_code == 200
    assert other.is_gone.wait(WAIT_SECONDS)
    assert not mine.is_gone.is_set()


def test_socket_without_a_token_is_ended_in_time_and_hears_nothing(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(SOCKET_AUTH_SECONDS="1")
    anonymous = Listener(server.url)
    server.register().device().create(name="Asha")
    assert anonymous.is_gone.wait(WAIT_SECONDS)
    assert anonymous.of("sync_notification") == []


def test_expiry_of_the_token_ends_the_socket(start_server: Callable[..., Server]) -> None:
    server = start_server(ACCESS_TOKEN_SECONDS="5")
    token = server.register().token
    listener = Listener(server.url, auth={"token": token})  # On a slow machine it may expire before the greeting.
    assert listener.wait("authentication_error")["code"] == "token_expired"
    assert listener.is_gone.wait(WAIT_SECONDS)


def test_sockets_that_answer_no_ping_are_ended(start_server: Callable[..., Server]) -> None:
    """Fault: nobody looked, and they stayed: a phone without a network closes nothing."""
    server = start_server(PING_INTERVAL_SECONDS="1", PING_TIMEOUT_SECONDS="1")
    tenant = server.register()
    Poller(server).join(tenant)
    with Raw(server) as raw:
        raw.join(tenant)
        wait_for(lambda: not counts(server)["sockets"], "the end of both")
        assert raw.is_over()


def test_status_is_relayed_to_the_others_and_not_back(listen: Listen, other_tenant: Tenant) -> None:
    sender, receiver, foreign = listen(), listen(), listen(other_tenant)
    assert sender.call("sync_status_update", {"status": "syncing", "entityType": "end_user", "more": 1})["success"]
    assert receiver.wait("sync_status_update") == {"status": "syncing", "entityType": "end_user"}
    assert sender.of("sync_status_update") == foreign.of("sync_status_update") == []


def test_push_and_pull_as_events_answer_like_http(device: Device, listen: Listen) -> None:
    listener = listen()
    pushed = listener.call("sync_push", {"table": "end_user", "operation": "create", "data": {"id": "a", "name": "A"}})
    assert pushed["success"] and pushed["results"][0]["status"] == "created"
    assert listener.call("sync_pull", {"cursor": None}) == device.pull({"cursor": None})
    refused = listener.call("sync_push", {"table": "nope", "operation": "create", "data": {}})
    assert (refused["success"], refused["code"]) == (False, "validation_error")


def test_row_of_an_event_that_is_nested_too_deep_is_refused_and_stores_nothing(device: Device, listen: Listen) -> None:
    """A push's rows are read when they are stored: the socket must hear of it there too, and stay."""
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    listener = listen()
    refused = listener.call("sync_push", {"changes": {"end_user": [{"id": "a"}, {"id": "b", "phoneModel": deep}]}})
    assert (refused["success"], refused["code"]) == (False, "invalid_json")
    assert device.rows() == [] and listener.call("ping", {})["success"]


def test_events_of_an_unauthenticated_socket_are_refused_and_reach_nobody(
    server: Server, tenant: Tenant, listen: Listen
) -> None:
    listener, anonymous = listen(), Listener(server.url)
    for event in ("ping", "sync_status_update", "sync_push", "sync_pull"):
        answer = anonymous.call(event, {"status": "x", "table": "end_user", "operation": "create", "data": {"id": "a"}})
        assert (answer["success"], answer["code"]) == (False, "unauthorized"), event
    anonymous.close()
    assert listener.heard == [("authenticated", listener.of("authenticated")[0])]


def test_ping_is_answered(listen: Listen) -> None:
    listener = listen()
    listener.client.emit("ping")
    assert listener.wait("pong")["timestamp"].endswith("Z")


def test_large_push_costs_a_listener_two_messages(device: Device, listen: Listen) -> None:
    listener = listen()
    device.push({"changes": {"end_user": [{"id": f"r{number}"} for number in range(500)]}})
    listener.wait_note("sync_complete")
    (note,) = listener.notes("data_available")
    assert note["count"] == 500 and len(note["data"]["entityIds"]) == 100
    assert len(listener.notes()) == 2


def test_test_notification_reaches_the_own_tenant_only(tenant: Tenant, other_tenant: Tenant, listen: Listen) -> None:
    mine, foreign = listen(), listen(other_tenant)
    sent = tenant.device().raw("notifications/test", {"type": "sync_error", "entityType": "end_user", "message": "<b>"})
    assert sent.status_code == 200
    assert mine.wait_note("sync_error")["message"] == "<b>"
    assert foreign.notes() == []


def test_conflict_is_told_to_the_listeners(device: Device, listen: Listen) -> None:
    listener = listen()
    device.create(id="a", name="A")
    device.update(id="a", name="B")
    change = {"table": "end_user", "operation": "update", "data": {"id": "a", "name": "C"}, "baseVersion": 1}
    device.push({"operations": [change]})
    note = listener.wait_note("conflict_detected")
    assert note["message"] == "Conflict detected for end_user"
    assert note["data"]["fields"]["name"] == {"base": "A", "client": "C", "server": "B", "winner": "client"}


def test_slow_listener_is_disconnected_and_costs_the_others_nothing(start_server: Callable[..., Server]) -> None:
    server = start_server(SOCKET_QUEUE_MESSAGES="8")
    tenant = server.register()
    device = tenant.device()
    listener = device.listen()
    slow = server.call("GET", "/socket.io/?EIO=4&transport=polling").text
    sid = slow.split('"sid":"')[1].split('"')[0]
    hello = f'40{{"token":"{tenant.token}"}}'
    address = f"{server.url}/socket.io/?EIO=4&transport=polling&sid={sid}"
    assert requests.post(address, data=hello, timeout=WAIT_SECONDS).text == "ok"
    for number in range(20):
        device.create(id=f"r{number}")
    listener.wait_note("sync_complete", 20)
    wait_for(lambda: any("fell behind" in line["message"] for line in server.log), "the slow listener's end")
    assert not listener.is_gone.is_set()


def test_many_conflicts_in_one_push_cost_a_listener_a_handful_of_messages(device: Device, listen: Listen) -> None:
    ids = [f"r{number}" for number in range(300)]
    device.push({"changes": {"end_user": [{"id": row_id, "name": "A"} for row_id in ids]}})
    device.push({"changes": {"end_user": [{"id": row_id, "name": "B"} for row_id in ids]}})
    listener = listen()
    stale = [{"table": "end_user", "operation": "update", "data": {"id": row_id, "name": "C"}} for row_id in ids]
    device.push({"operations": [change | {"baseVersion": 1} for change in stale]})
    listener.wait_note("sync_complete")
    (note,) = listener.notes("conflict_detected")
    assert (note["count"], note["data"]["entityIds"]) == (300, ids[:100])


def test_burst_of_events_is_answered_to_the_last(listen: Listen) -> None:
    listener = listen()
    for _ in range(2000):
        listener.client.emit("ping")
    listener.wait("pong", 2000)
    assert not listener.is_gone.is_set()


@pytest.mark.parametrize(
    ("method", "query", "status", "code"),
    [
        ("GET", "EIO=3&transport=polling", 400, "validation_error"),
        ("GET", "EIO=4&transport=pigeon", 400, "validation_error"),
        ("GET", "EIO=4&transport=polling&sid=unknown", 400, "validation_error"),
        ("POST", "EIO=4&transport=polling&sid=unknown", 400, "validation_error"),
        ("PUT", "EIO=4&transport=polling", 405, "method_not_allowed"),
    ],
)
def test_what_socket_io_refuses_is_said_in_the_one_shape(
    server: Server, method: str, query: str, status: int, code: str
) -> None:
    answer = requests.request(method, f"{server.url}/socket.io/?{query}", timeout=WAIT_SECONDS)
    body = answer.json()
    assert (answer.status_code, body["success"], body["code"]) == (status, False, code)
    assert body["error"] == body["message"] and body["requestId"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("bound", ["MAX_STRANGER_SOCKETS", "MAX_CONNECTIONS"])
def test_closed_sockets_whose_clients_are_silent_keep_no_newcomer_out(
    start_server: Callable[..., Server], bound: str
) -> None:
    """Faults: they counted as unauthenticated, or as connections, until their clients closed or their time was over."""
    env = {"MAX_STRANGER_SOCKETS": "3"} if bound == "MAX_STRANGER_SOCKETS" else {"MAX_CONNECTIONS": "12"}
    server = start_server(SOCKET_AUTH_SECONDS="1", **env)
    with ExitStack() as stack:
        tenants = [server.register() for _ in range(2)] if bound == "MAX_CONNECTIONS" else []
        silent = [stack.enter_context(Raw(server)) for _ in range(3 - len(tenants))]
        silent += [stack.enter_context(Raw(server)).join(tenant) for tenant in tenants for _ in range(5)]
        for tenant in tenants:
            server.post("/api/customers/logout", {}, tenant.token)
        for raw in silent:
            raw.closed()
        for _ in range(3):
            assert stack.enter_context(Raw(server)).answer.startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize("why", ["ping time-out", "logout"])
def test_listeners_that_read_nothing_make_room_as_soon_as_their_sessions_are_over(
    start_server: Callable[..., Server], why: str
) -> None:
    """Fault: what was still being sent came first: each kept its connection and its megabytes for up to 25 s."""
    pings = {"PING_INTERVAL_SECONDS": "1", "PING_TIMEOUT_SECONDS": "2"} if why == "ping time-out" else {}
    server = start_server(MAX_CONNECTIONS="10", MAX_ROW_BYTES="2000000", **pings)
    *tenants, newcomer = (server.register() for _ in range(3))
    with ExitStack() as stack:
        for tenant in tenants:
            for _ in range(5):
                tenant.device().create(note="x" * 1_500_000)
            for _ in range(4):
                stack.enter_context(Raw(server)).join(tenant).say('420["sync_pull",{"cursor":null}]')
        for tenant in tenants if why == "logout" else ():
            server.post("/api/customers/logout", {}, tenant.token)
        wait_for(lambda: not counts(server)["sockets"], "the end of the sessions")
        for _ in range(5):
            stack.enter_context(Raw(server)).join(newcomer)


def test_tenant_has_no_more_sockets_than_it_may(start_server: Callable[..., Server]) -> None:
    server = start_server(MAX_TENANT_SOCKETS="2")
    tenant = server.register()
    with ExitStack() as stack:
        first, _ = (stack.enter_context(closing(tenant.device().listen())) for _ in range(2))
        third = stack.enter_context(closing(Listener(server.url, auth={"token": tenant.token})))
        assert third.wait("authentication_error")["code"] == "rate_limited"
        stack.enter_context(closing(server.register().device().listen()))
        first.close()
        wait_for(lambda: any(line["message"] == "socket left" for line in server.log), "the first to leave")
        stack.enter_context(closing(tenant.device().listen()))


def test_socket_that_brings_a_new_token_keeps_its_place(start_server: Callable[..., Server]) -> None:
    """Fault: it counted itself, and was ended where its tenant had as many sockets as it may."""
    server = start_server(MAX_TENANT_SOCKETS="1")
    tenant = server.register()
    with Raw(server) as raw:
        raw.join(tenant)
        raw.say("42" + json.dumps(["authenticate", {"token": tenant.token}]))
        assert raw.packet().startswith('42["authenticated"')


def test_session_that_ends_while_its_socket_is_greeted_lets_nobody_in(start_server: Callable[..., Server]) -> None:
    """Its tenant's file is locked meanwhile. Fault: the token was verified only before the greeting was read."""
    server = start_server(OPEN_TENANTS="1")
    tenant, other = server.register(), server.register()
    other.device().create(name="a")  # So that the tenant's file is closed.
    with Raw(server) as raw:
        with locked(tenant.path, "exclusive"):
            raw.say("40" + json.dumps({"token": tenant.token}))
            raw.until("40")
            assert server.post("/api/customers/logout", token=tenant.token).status_code == 200
        assert "unauthorized" in raw.until('42["auth')
        assert raw.is_over()


def test_lone_push_is_told_to_all_before_it_is_answered(tenant: Tenant) -> None:
    """Fault: the answer sent first: of what a crowd waits for, it costs a hundredth."""
    listener = tenant.device().listen()
    heard: list[str] = []
    take = listener.client.eio._receive_packet

    def note_and_take(packet: Any) -> None:
        heard.append(str(packet.data)[:1])
        take(packet)

    listener.client.eio._receive_packet = note_and_take
    for number in range(5):
        listener.call("sync_push", {"table": "end_user", "operation": "create", "data": {"id": f"r{number}"}})
    wait_for(lambda: len(heard) == 15, "all packets")
    assert [packet == "3" for packet in heard] == [False, False, True] * 5
    listener.close()
