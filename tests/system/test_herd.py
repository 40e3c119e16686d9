"""The devices of many tenants come back at once, after a restart or in the middle of a flood: none is turned away.

Seen to fail with: unauthenticated sockets refused at their bound; places that only time frees; a bound that grows, which
the first test does not find.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack

import gevent
import pytest

from tests.by_hand import Raw
from tests.conftest import JSON, Server, Tenant, wait_for
from tests.raw_http import converse
from tests.system.test_soak import counts

pytestmark = pytest.mark.server

TENANTS, DEVICES, MISSED = 5, 50, 3


def come_back(tenant: Tenant, cursor: str, sockets: list[Raw]) -> tuple[int, list[str]]:
    """Do as a device does: a socket with its token and cursor, then a pull; give what it missed, as told and as rows."""
    raw = Raw(tenant.server)
    sockets.append(raw)
    assert raw.answer.startswith("HTTP/1.1 101 "), raw.answer
    raw.say("40" + json.dumps({"token": tenant.token, "cursor": cursor}))
    greeting = json.loads(raw.until('42["authenticated"')[2:])[1]
    assert greeting["tenantId"] == tenant.id
    body = json.dumps({"cursor": cursor, "entityTypes": ["end_user"]})
    head = [
        "POST /api/client/sync/pull HTTP/1.1",
        "Host: x",
        "Connection: close",
        f"Authorization: Bearer {tenant.token}",
    ]
    head += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", body]
    [answer], _ = converse(tenant.server, "\r\n".join(head).encode())
    rows: list[JSON] = json.loads(answer.body)["data"]["end_user"]
    return greeting["missed"], [row["id"] for row in rows]


def test_herd_after_a_restart_is_let_in_to_the_last(start_server: Callable[..., Server]) -> None:
    server = start_server(MAX_STRANGER_SOCKETS="4", MAX_CONNECTIONS="2000", OPEN_TENANTS="3")
    tenants = [server.register() for _ in range(TENANTS)]
    cursors = [tenant.device().pull({"entityTypes": ["end_user"]})["cursor"] for tenant in tenants]
    for number, tenant in enumerate(tenants):
        for missed in range(MISSED):
            tenant.device().create(id=f"t{number}-{missed}")
    sockets: list[Raw] = []

    def herd(devices: int) -> None:
        coming = [gevent.spawn(come_back, tenants[i % TENANTS], cursors[i % TENANTS], sockets) for i in range(devices)]
        gevent.joinall(coming, timeout=100, raise_error=True)
        for i, device in enumerate(coming):
            assert device.value == (MISSED, [f"t{i % TENANTS}-{missed}" for missed in range(MISSED)])

    herd(TENANTS)
    leaving = [gevent.spawn(raw.is_over) for raw in sockets]
    assert server.stop() == 0
    assert all(one.get(timeout=60) for one in leaving)
    server.start()
    herd(TENANTS * DEVICES)
    told = {line["message"] for line in server.log if "refused" in line["message"] or "rejected" in line["message"]}
    assert told == set()
    for raw in sockets:
        raw.network.close()


def test_flood_without_tokens_keeps_nobody_with_a_token_out(start_server: Callable[..., Server]) -> None:
    """Fault: those who were silent kept their places until their time was over, and newcomers got 503."""
    most = 4
    server = start_server(MAX_STRANGER_SOCKETS=str(most), SOCKET_AUTH_SECONDS="300")
    tenant = server.register()
    with ExitStack() as stack:
        joined = [stack.enter_context(Raw(server)).join(tenant) for _ in range(3)]
        silent = [stack.enter_context(Raw(server)) for _ in range(most)]
        silent[0].say("40")
        silent[0].until("40")
        for _ in range(3):
            joined.append(stack.enter_context(Raw(server)).join(tenant))
            assert counts(server)["sockets"] <= len(joined) + most
        assert "busy" in silent[0].until('42["authentication_error"')
        assert silent[0].is_over()
        joined[0].say('420["ping",{}]')
        assert joined[0].until("430")


def test_newcomer_that_waits_for_a_place_does_not_hold_up_a_stop(start_server: Callable[..., Server]) -> None:
    """Fault: as the others left it was let in, and its open socket was waited for."""
    server = start_server(MAX_STRANGER_SOCKETS="1", SOCKET_AUTH_SECONDS="300", SHUTDOWN_SECONDS="300")
    with Raw(server):
        coming = gevent.spawn(Raw, server)
        wait_for(lambda: counts(server)["in_flight"] == 2, "the newcomer")
        assert server.stop() == 0
        with coming.get(timeout=60) as newcomer:
            assert newcomer.answer.startswith("HTTP/1.1 503 ")


def test_more_than_may_wait_for_a_place_are_refused_and_counted_in_the_log(start_server: Callable[..., Server]) -> None:
    most = 3
    server = start_server(MAX_STRANGER_SOCKETS=str(most), SOCKET_AUTH_SECONDS="300", MAX_CONNECTIONS=str(4 * most))
    with ExitStack() as stack:
        for _ in range(most):
            stack.enter_context(Raw(server))
        address = "GET /socket.io/?EIO=4&transport=polling{} HTTP/1.1\r\nHost: x\r\n\r\n"
        claims = ["", "&xsid=1", "&sid="] * 3  # Neither names a socket that there is.
        coming = [gevent.spawn(converse, server, address.format(claim).encode()) for claim in claims]
        answers = [one.get(timeout=60)[0][0] for one in coming]
    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) == len(claims) - most
    assert all(json.loads(answer.body)["code"] == "busy" and answer.headers["retry-after"] == "1" for answer in refused)

    def told() -> int:
        lines = [line for line in server.log if line["message"].endswith("sockets were refused")]
        return sum(int(line["message"].split()[0]) for line in lines if line["code"] == "busy")

    wait_for(lambda: told() == len(refused), "the count")
