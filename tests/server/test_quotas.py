"""Quotas of tenants and sockets, fair scheduling between tenants, and what a client over its quota is answered.

Seen to fail with: a ``Quota`` that never refuses, a ``Scheduler.wait_turn`` that returns at once, a
``Scheduler.exclusive`` that only yields, a ``_sweep`` that drops no key, a ``release`` that does not count, an
``is_flood`` that is never true.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import pytest
import requests
from gevent.socket import socketpair
from hypothesis import given
from hypothesis import strategies as st

import assembly
from protocol.errors import Busy, RateLimited
from server.quotas import Quota, Quotas, RemainingQuota, rate_headers
from server.scheduler import _MAX_A_ROUND, Scheduler, is_more_ready, yield_if_due, yield_to_loop
from settings import SettingError, Settings, load
from tests.conftest import WAIT_SECONDS, Device, Listener, Server, wait_for
from tests.refusals import nothing_changes, refused

StartServer = Callable[..., Server]

# --- one quota -------------------------------------------------------------------------------------------------------


def test_whole_quota_may_be_used_in_one_burst_and_refills_evenly() -> None:
    quota = Quota("requests", "10 per 5 seconds")
    assert [quota.spend("a", 1, 100.0) for _ in range(10)] == [0.0] * 10
    assert quota.spend("a", 1, 100.0) == pytest.approx(0.5)
    assert quota.spend("a", 1, 100.5) == 0.0
    assert quota.spend("a", 2, 100.5) == pytest.approx(1.0)
    assert quota.remaining("a", 103.0) == RemainingQuota("requests", 10, 5, 5, 3)


def test_spending_too_much_spends_nothing() -> None:
    quota = Quota("rows", "10 per 10 seconds")
    assert quota.spend("a", 8, 0.0) == 0.0
    assert quota.spend("a", 5, 0.0) == pytest.approx(3.0)
    assert quota.spend("a", 2, 0.0) == 0.0


def test_keys_have_quotas_of_their_own() -> None:
    quota = Quota("requests", "1 per day")
    assert quota.spend("a", 1, 0.0) == quota.spend("b", 1, 0.0) == 0.0
    assert quota.spend("a", 1, 0.0) > 80_000


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 10)), max_size=60))
def test_no_span_of_time_gives_more_than_a_quota_and_what_came_back(steps: list[tuple[float, int]]) -> None:
    quota, now, spent = Quota("x", "10 per 10 seconds"), 1000.0, list[tuple[float, int]]()
    for pause, amount in steps:
        now += pause
        if not quota.spend("a", amount, now):
            spent.append((now, amount))
    for first, last in itertools.combinations_with_replacement(range(len(spent)), 2):
        used = sum(amount for _, amount in spent[first : last + 1])
        assert used <= 10 + (spent[last][0] - spent[first][0]) + 0.001


def test_full_quotas_are_not_stored() -> None:
    quota = Quota("requests", "10 per second")
    for number in range(100_000):
        quota.spend(f"tenant-{number}", 1, number / 100)
    assert len(quota) < 3_000


def test_headers_are_written_as_the_draft_has_them() -> None:
    assert rate_headers([RemainingQuota("requests", 100, 60, 99, 1), RemainingQuota("rows", 5, 10, 0, 10)]) == {
        "RateLimit-Policy": '"requests";q=100;w=60, "rows";q=5;w=10',
        "RateLimit": '"requests";r=99;t=1, "rows";r=0;t=10',
    }


@pytest.mark.parametrize("name", ["TENANT_BYTES", "SOCKET_BYTES", "TENANT_ROWS"])
def test_quota_that_no_allowed_request_would_fit_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(SettingError, match=f"^{name} must allow at least one of MAX_"):
        load({name: "10 per minute"})


# --- reservations ----------------------------------------------------------------------------------------------------


@pytest.fixture
def quotas() -> Quotas:
    settings = Settings(max_tenant_requests=3, tenant_wait_ms=10, max_tenant_body_bytes=1_000, max_body_bytes=1_024)
    return Quotas(settings, Scheduler(), lambda: 1000.0)


def test_no_more_of_a_tenant_is_under_way_than_may_be(quotas: Quotas) -> None:
    reservations = [quotas.reserve("a", 0) for _ in range(3)]
    with pytest.raises(Busy):
        quotas.reserve("a", 0)
    quotas.reserve("b", 0)
    reservations[0].release()
    quotas.reserve("a", 0)


def test_no_more_bytes_of_a_tenants_bodies_are_under_way_than_may_be(quotas: Quotas) -> None:
    first = quotas.reserve("a", 100, held_bytes=900)
    with pytest.raises(Busy):
        quotas.reserve("a", 101)
    first.adjust(500)
    second = quotas.reserve("a", 500)
    with pytest.raises(Busy):
        quotas.reserve("a", 1)
    for reservation in (first, second):
        reservation.release()
    quotas.reserve("a", 1_000)


def test_refused_reservation_holds_nothing() -> None:
    quotas = Quotas(Settings(tenant_requests="1 per day", max_tenant_requests=1), Scheduler())
    quotas.reserve("a", 10).release()
    for _ in range(3):
        with pytest.raises(RateLimited):
            quotas.reserve("a", 10)


# --- scheduler -----------------------------------------------------------------------------------------------------------


def test_one_request_waits_for_a_few_of_a_thousand_and_not_for_all() -> None:
    """Of the busy tenant's thousand that came first, a few go before the only one of the other."""
    scheduler, order = Scheduler(), list[str]()

    def work(who: str) -> None:
        for _ in range(3):
            scheduler.wait_turn(who)
            order.append(who)

    gevent.joinall([*(gevent.spawn(work, "busy") for _ in range(1000)), gevent.spawn(work, "other")], raise_error=True)
    assert len(order) == 3003
    last = max(index for index, who in enumerate(order) if who == "other")
    assert last < 30 * _MAX_A_ROUND, last  # Three rounds, or a few more on a machine with other work.


def test_yielding_lets_timers_run_too() -> None:
    """Fault: ``gevent.sleep(0)``: 1 tick in 60 calls."""
    ticks = itertools.count()

    def tick() -> None:
        while True:
            gevent.sleep(0.0005)
            next(ticks)

    ticker = gevent.spawn(tick)
    for _ in range(60):
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            pass
        yield_to_loop()
    ticker.kill()
    assert next(ticks) >= 20


def test_first_of_two_sockets_that_can_be_read_knows_of_the_other() -> None:
    """Faults: always true; never."""
    pairs, known = [socketpair() for _ in range(2)], list[bool]()
    watchers = [gevent.get_hub().loop.io(ours.fileno(), 1) for ours, _ in pairs]

    def note(watcher: Any) -> None:
        watcher.stop()
        known.append(is_more_ready())

    for watcher, (_, theirs) in zip(watchers, pairs, strict=True):
        theirs.send(b"x")
        watcher.start(note, watcher)
    while len(known) < 2:
        gevent.sleep(0.001)
    for watcher, pair in zip(watchers, pairs, strict=True):
        watcher.close()
        for end in pair:
            end.close()
    assert known == [True, False]


def test_long_work_yields_when_due_and_not_at_each_call() -> None:
    """Faults: at each call, which makes a tick of each; never, which makes none."""
    ticks = itertools.count()

    def tick() -> None:
        while True:
            next(ticks)
            yield_to_loop()

    ticker = gevent.spawn(tick)
    end = time.monotonic() + 0.03
    calls = 0
    while time.monotonic() < end:
        calls += 1
        yield_if_due()
    ticker.kill()
    assert 2 <= next(ticks) < calls / 2


def test_requests_of_a_tenant_go_on_in_the_order_of_their_arrival() -> None:
    scheduler, order = Scheduler(), list[int]()

    def work(number: int) -> None:
        scheduler.wait_turn("a")
        order.append(number)

    gevent.joinall([gevent.spawn(work, number) for number in range(50)], raise_error=True)
    assert order == list(range(50))


@pytest.mark.parametrize(
    ("tenant_id", "seconds", "gone_on"), [("a", 60, 20), ("a", 0, _MAX_A_ROUND), ("b", 60, _MAX_A_ROUND)]
)
def test_those_who_wait_go_first_of_the_same_tenant_and_not_for_ever(
    tenant_id: str, seconds: float, gone_on: int
) -> None:
    """Faults: ``let_waiting_go_first`` returns at once; it has no end; it waits for the requests of all tenants."""
    scheduler, order = Scheduler(), list[int]()

    def work(number: int) -> None:
        scheduler.wait_turn("a")
        order.append(number)

    requests = [gevent.spawn(work, number) for number in range(20)]
    gevent.sleep(0)
    scheduler.let_waiting_go_first(tenant_id, seconds)
    assert order == list(range(gone_on))
    gevent.joinall(requests, raise_error=True)


def test_request_that_gives_up_waiting_delays_no_other() -> None:
    scheduler, went = Scheduler(), list[int]()

    def work(number: int) -> None:
        scheduler.wait_turn("a")
        went.append(number)
        if number == 1:
            line[3].kill(block=False)

    line = [gevent.spawn(work, number) for number in range(5)]
    gevent.joinall(line)
    assert went == [0, 1, 2, 4]
    gevent.sleep(0.01)
    assert not scheduler._queues


def test_large_work_of_one_tenant_goes_one_after_the_other() -> None:
    scheduler, running, most = Scheduler(), list[str](), list[int]()

    def work(who: str, size_bytes: int) -> None:
        with scheduler.exclusive(who, size_bytes):
            running.append(who)
            most.append(running.count(who))
            gevent.sleep(0.001)
            running.remove(who)

    gevent.joinall([gevent.spawn(work, "a", 10_000_000) for _ in range(10)], raise_error=True)
    assert most == [1] * 10 and not scheduler._locks
    most.clear()
    gevent.joinall([gevent.spawn(work, "a", 100) for _ in range(10)], raise_error=True)
    assert max(most) == 10


# --- over HTTP -------------------------------------------------------------------------------------------------------


def rows(number: int) -> dict[str, Any]:
    """Give a push of five rows and about 2,300 bytes."""
    return {"changes": {"end_user": [{"id": f"r{number}-{index}", "note": "x" * 420} for index in range(5)]}}


@pytest.mark.parametrize(
    "env",
    [
        {"TENANT_REQUESTS": "3 per 3 seconds"},
        {"TENANT_ROWS": "15 per 3 seconds", "MAX_PUSH_ROWS": "5"},
        {"TENANT_BYTES": "7000 per 3 seconds", "MAX_BODY_BYTES": "4096"},
    ],
    ids=lambda env: next(iter(env)),
)
def test_tenant_over_its_quota_is_told_when_to_retry_and_nothing_is_stored(
    start_server: StartServer, env: dict[str, str]
) -> None:
    server = start_server(**env)
    tenant, other = server.register(), server.register()
    for number in range(3):
        tenant.device().push(rows(number))
    with nothing_changes(tenant):
        answer = tenant.device().push_raw(rows(3))
        refused(answer, 429, "rate_limited")
    other.device().push(rows(3))
    time.sleep(int(answer.headers["Retry-After"]))
    tenant.device().push(rows(3))


def test_compressed_body_spends_what_it_inflates_to(start_server: StartServer) -> None:
    server = start_server(TENANT_BYTES="20000 per day", MAX_BODY_BYTES="16384")
    tenant = server.register()
    body = gzip.compress(json.dumps({"changes": {}, "x": "y" * 12_000}).encode())
    assert len(body) < 200
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert _send(tenant.device(), body, **headers).status_code == 200
    refused(_send(tenant.device(), body, **headers), 429, "rate_limited")


def test_body_in_chunks_spends_what_came(start_server: StartServer) -> None:
    tenant = start_server(TENANT_BYTES="20000 per day", MAX_BODY_BYTES="16384").register()
    body = json.dumps({"changes": {}, "x": "y" * 12_000}).encode()
    assert _send(tenant.device(), iter([body[:5_000], body[5_000:]])).status_code == 200
    refused(_send(tenant.device(), iter([body])), 429, "rate_limited")


def _send(device: Device, data: Any, **headers: str) -> Any:
    named = {"Authorization": f"Bearer {device.tenant.token}", "Content-Type": "application/json", **headers}
    url = f"{device.tenant.server.url}/api/client/sync/push"
    return requests.post(url, data=data, headers=named, timeout=30)


def test_every_call_with_a_token_spends_a_request(start_server: StartServer, tmp_path: Path) -> None:
    app = assembly.build(Settings(data_dir=tmp_path / "other"))
    free = {"/register", "/login", "/refresh", "/forgotten", "/reset", "/confirm", "/health", "/limits", "/tables"}
    calls = [
        (method, re.sub(r"<int.*?>", "1", re.sub(r"<\w+>", "end_user", rule.rule)))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api") and not rule.rule.endswith(tuple(free))
    ]
    app.extensions["lifecycle"].end()
    tenant = start_server(TENANT_REQUESTS="1 per day").register()
    tenant.device().push({"changes": {}})
    assert len(calls) >= 16
    for method, path in calls:
        answer = tenant.server.call(method, path, {}, tenant.token)
        refused(answer, 429, "rate_limited")
        assert int(answer.headers["Retry-After"]) > 80_000, path


def test_answers_say_what_is_left(server: Server) -> None:
    device = server.register().device()
    rows = [{"id": f"r{number}"} for number in range(1000)]
    headers = device.push_raw({"changes": {"end_user": rows}}).headers
    policies = headers["RateLimit-Policy"].split(", ")
    assert policies == ['"requests";q=60000;w=60', '"bytes";q=1073741824;w=60', '"rows";q=1000000;w=60']
    requests_left, bytes_left, rows_left = headers["RateLimit"].split(", ")
    assert requests_left in ('"requests";r=59999;t=1', '"requests";r=60000;t=0')
    assert bytes_left.startswith('"bytes";r=10737')
    (left,) = re.findall(r'"rows";r=(\d+);t=[01]', rows_left)
    assert 999_000 <= int(left) <= 1_000_000  # A thousand come back in 60 ms, perhaps before the answer.


def test_answers_to_proofs_say_how_many_are_left(start_server: StartServer) -> None:
    server = start_server(RATE_LIMIT_LOGIN="2 per minute;50 per hour", RATE_LIMIT_REGISTER="7 per hour")
    fields = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}
    headers = server.post("/api/customers/register", fields).headers
    assert headers["RateLimit-Policy"] == '"register per hour";q=7;w=3600'
    assert headers["RateLimit"].startswith('"register per hour";r=6;t=')
    proof = {"email": "a@example.com", "password": "wrong password"}
    found = [server.post("/api/customers/login", proof) for _ in range(3)]
    assert [answer.status_code for answer in found] == [401, 401, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in found] == ["r=1", "r=0", "r=0"]
    assert found[0].headers["RateLimit-Policy"] == '"login per minute";q=2;w=60, "login per hour";q=50;w=3600'


def test_request_without_a_token_gets_no_quota_headers(server: Server) -> None:
    assert "RateLimit" not in server.call("GET", "/health").headers


def test_page_of_another_origin_may_read_the_headers(server: Server) -> None:
    answer = server.call("GET", "/health", Origin=server.url)
    assert {"RateLimit", "RateLimit-Policy"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))


# --- events ----------------------------------------------------------------------------------------------------------


def create(number: int) -> dict[str, Any]:
    return {"table": "end_user", "operation": "create", "data": {"id": f"e{number}"}}


def test_event_over_the_tenants_quota_is_acknowledged_with_an_error_and_nothing_is_stored(
    start_server: StartServer,
) -> None:
    tenant = start_server(TENANT_REQUESTS="6 per day").register()
    with closing(tenant.device().listen()) as first, closing(tenant.device().listen()) as second:
        for number, listener in enumerate([first, second] * 3):
            assert listener.call("sync_push", create(number))["success"]
        with nothing_changes(tenant):
            answer = second.call("sync_push", create(9))
        assert (answer["code"], answer["success"]) == ("rate_limited", False)
        assert answer["retryAfterSeconds"] > 10_000
        refused(tenant.device().pull_raw({}), 429, "rate_limited")
        assert not first.is_gone.is_set()


def test_socket_over_its_own_quota_is_refused_and_the_tenants_others_are_not(start_server: StartServer) -> None:
    tenant = start_server(SOCKET_EVENTS="5 per 2 seconds").register()
    with closing(tenant.device().listen()) as busy, closing(tenant.device().listen()) as calm:
        answers = [busy.call("ping", None) for _ in range(7)]
        over = [answer for answer in answers if not answer["success"]]
        assert over and {answer["code"] for answer in over} == {"rate_limited"}
        assert calm.call("sync_push", create(1))["success"]
        time.sleep(over[-1]["retryAfterSeconds"])
        assert busy.call("sync_push", create(2))["success"]


def test_socket_that_goes_on_regardless_is_told_and_ended(start_server: StartServer) -> None:
    tenant = start_server(SOCKET_EVENTS="20 per minute").register()
    with closing(tenant.device().listen()) as flood, closing(tenant.device().listen()) as calm:
        for _ in range(60):
            flood.client.emit("ping")
        assert flood.wait("error")["code"] == "rate_limited"
        assert flood.is_gone.wait(WAIT_SECONDS)
        assert calm.call("ping", None)["success"] and not calm.is_gone.is_set()
        with closing(tenant.device().listen()) as again:
            assert again.call("ping", None)["success"]


def test_unauthenticated_socket_that_floods_is_ended(start_server: StartServer) -> None:
    server = start_server(SOCKET_EVENTS="20 per minute", SOCKET_AUTH_SECONDS="300")
    anonymous = Listener(server.url)
    for _ in range(60):
        anonymous.client.emit("nonsense")
    assert anonymous.is_gone.wait(WAIT_SECONDS)
    anonymous.close()


def test_socket_that_sends_many_bytes_is_read_more_slowly_and_loses_nothing(start_server: StartServer) -> None:
    tenant = start_server(SOCKET_BYTES="30000 per second", MAX_FRAME_BYTES="4096").register()
    answers: list[Any] = []
    with closing(tenant.device().listen()) as listener:
        for number in range(40):
            row = {"id": f"b{number}", "note": "x" * 2_000}
            body = {"table": "end_user", "operation": "create", "data": row}
            listener.client.emit("sync_push", body, callback=answers.append)
        wait_for(lambda: len(answers) == 40, "40 acknowledgements")
    assert all(answer["success"] for answer in answers)
    assert len(tenant.device().rows()) == 40


def test_socket_beyond_its_byte_quota_is_read_later() -> None:
    quotas = Quotas(Settings(socket_bytes="2000000 per second"), Scheduler(), lambda: 50.0)
    assert quotas.pause_seconds("s", 2_000_000) == 0.0
    assert quotas.pause_seconds("s", 1_000_000) == pytest.approx(0.5)
    assert quotas.pause_seconds("s", 1_000_000) == pytest.approx(1.0)
    assert quotas.pause_seconds("other", 1_000_000) == 0.0
