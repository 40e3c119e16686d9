"""Several servers on one PostgreSQL, with or without a Redis: what one commits, the listeners of all hear, in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests import postgres
from tests.by_hand import Raw
from tests.conftest import JSON, Listener, Server, Tenant, needs, wait_for
from tests.proxy_processes import Behind, certified, documented, running
from tests.redis_server import Redis
from tests.server.http.test_lifecycle import procfile_command
from tests.signing_in import log_in
from version import VERSION

pytestmark = [needs("redis-server"), pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING)]


Pair = tuple[Tenant, Tenant]


BY_EITHER = pytest.mark.parametrize(
    "redis_url", ["redis", pytest.param("", marks=postgres.not_pooled)], ids=["redis", "notify"], indirect=True
)
"""With and without a Redis."""


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """Give the address of a Redis, unless the test is to have none."""
    if getattr(request, "param", "redis"):
        redis_server: Redis = request.getfixturevalue("redis_server")
        return redis_server.url
    return ""


_KEYS = "the key that the first server signs with", "and the one that takes its place at the second"


@pytest.fixture
def pair(start_server: Callable[..., Server], redis_url: str, tmp_path: Path) -> Iterator[Pair]:
    """One tenant with a row, at two servers, of which one has a new key already."""
    env = {
        "DATABASE_URL": postgres.address_of(tmp_path / "data"),
        "REDIS_URL": redis_url,
        "TRUSTED_PROXIES": "1",
        "RATE_LIMIT_LOGIN": "5 per minute",
    }
    one = start_server("one", PROCESS_NAME="one", JWT_SECRET_KEY=_KEYS[0], **env)
    two = start_server("two", PROCESS_NAME="two", JWT_SECRET_KEY=_KEYS[1], JWT_OLD_KEYS=_KEYS[0], **env)
    tenant = one.register()
    tenant.device().create(id="a", name="first")
    yield tenant, replace(tenant, server=two)
    for server in (one, two):
        server.kill()
    postgres.drop_those_in(tmp_path)


def rows_of(listener: Listener) -> list[str]:
    return [note["data"]["name"] for note in listener.notes("data_available") if "data" in note]


def hear_each_other(here: Tenant, there: Tenant, ours: Listener, theirs: Listener) -> None:
    """Wait until messages go both ways: a server subscribes soon after its start."""

    def is_through() -> bool:
        for tenant in (here, there):
            tenant.server.post("/api/client/notifications/test", {"message": tenant.server.url}, tenant.token)
        return all(
            any(note["message"] == tenant.server.url for note in listener.notes())
            for tenant, listener in ((there, ours), (here, theirs))
        )

    wait_for(is_through, "messages both ways")


@pytest.fixture
def listeners(pair: Pair, listen: Callable[..., Listener]) -> tuple[Listener, Listener]:
    """A listener at each server; messages go both ways."""
    here, there = pair
    ours, theirs = listen(here), listen(there)
    hear_each_other(here, there, ours, theirs)
    return ours, theirs


@BY_EITHER
def test_push_at_one_server_is_heard_at_both_with_the_same_words(
    pair: Pair, listeners: tuple[Listener, Listener]
) -> None:
    pair[0].device().update(id="a", name="second")
    for listener in listeners:
        listener.wait_note("sync_complete")
    heard: list[list[JSON]] = [
        [note for note in listener.notes() if note.get("previousCursor")] for listener in listeners
    ]
    assert heard[0] == heard[1] and rows_of(listeners[1]) == ["second"]


def cursors_of(listener: Listener) -> list[int]:
    """Give the sequences that a listener was told of, in the order of its notifications."""
    cursors = [note["cursor"] for note in listener.notes() if "cursor" in note]
    return [int(cursor.partition("-")[2]) for cursor in dict.fromkeys(cursors)]


def sequence_of(cursor: str) -> int:
    return int(cursor.partition("-")[2])


def storm(pair: Pair, count: int) -> Callable[[], int]:
    """Push at both at once; the result waits for the end and gives the last sequence."""

    def push(tenant: Tenant, name: str) -> list[str]:
        device = tenant.device()
        return [device.push({"changes": {"end_user": [{"id": name, "note": str(n)}]}})["cursor"] for n in range(count)]

    pool = ThreadPoolExecutor(2)
    pushes = [pool.submit(push, tenant, name) for tenant, name in zip(pair, "bc", strict=True)]
    return lambda: max(sequence_of(cursor) for one in pushes for cursor in one.result())


@BY_EITHER
def test_pushes_at_both_at_once_are_told_to_all_in_the_order_of_their_cursors(
    pair: Pair, listeners: tuple[Listener, Listener]
) -> None:
    """Fault: told as they come: a cursor after a later one."""
    last = storm(pair, 100)()
    for listener in listeners:
        wait_for(lambda one=listener: last in cursors_of(one), "the last commit")  # type: ignore[misc]
        assert cursors_of(listener) == sorted(cursors_of(listener))
    found = [{name: note.get("data") for note in one.notes() if (name := note.get("cursor"))} for one in listeners]
    both = found[0].keys() & found[1].keys()
    assert len(both) > 100, "most are told as they are, few as hints"


def test_key_that_both_are_asked_under_at_once_has_one_answer(pair: Pair) -> None:
    body = {"table": "end_user", "operation": "create", "data": {"name": "no id: a retry would make another"}}
    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            answers = list(pool.map(lambda one, key=f"k{number}": one.device(Idempotency_Key=key).push_raw(body), pair))
            assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
            assert answers[0].content == answers[1].content
    assert len(pair[0].device().rows()) == 21


def test_commit_that_a_killed_server_did_not_tell_of_is_found(
    pair: Pair, listeners: tuple[Listener, Listener], redis_server: Redis
) -> None:
    """Redis is gone, so that nothing is told; then the server that pushed is killed. Fault: a gap is no reason to look."""
    redis_server.kill()
    cursor = pair[0].device().push({"changes": {"end_user": [{"id": "a", "name": "last words"}]}})["cursor"]
    pair[0].server.kill()
    redis_server.start()
    wait_for(lambda: sequence_of(cursor) in cursors_of(listeners[1]), "a hint")


def test_event_of_one_device_reaches_those_of_the_other_server(
    pair: Pair, listeners: tuple[Listener, Listener]
) -> None:
    listeners[0].call("sync_status_update", {"status": "syncing"})
    assert listeners[1].wait("sync_status_update") == {"status": "syncing"}
    assert listeners[0].of("sync_status_update") == []


@BY_EITHER
def test_logging_out_at_one_server_closes_the_sockets_at_the_other(
    pair: Pair, listeners: tuple[Listener, Listener]
) -> None:
    here, _ = pair
    assert here.server.post("/api/customers/logout", None, here.token).ok
    for listener in listeners:
        assert listener.wait("authentication_error")["code"] == "unauthorized"


def test_attempts_to_log_in_are_counted_over_both(pair: Pair) -> None:
    """Fault: counted in each: ten of five."""
    found = [log_in(one, password="password124").status_code for _ in range(5) for one in pair]
    assert found == [401] * 5 + [429] * 5


def test_session_that_ends_at_one_server_while_its_socket_is_greeted_at_the_other_lets_nobody_in(
    pair: Pair, listeners: tuple[Listener, Listener], tmp_path: Path
) -> None:
    """The greeting waits for a table. Fault: the token is verified again, but trusted for a second."""
    here, there = pair
    with Raw(there.server) as raw:
        with postgres.locked(tmp_path / "data", "public._meta"):
            raw.say("40" + json.dumps({"token": there.token}))
            raw.until("40")
            assert here.server.post("/api/customers/logout", None, here.token).ok
            listeners[1].wait("authentication_error")
        assert "unauthorized" in raw.until('42["auth')


def test_session_whose_end_nobody_told_is_found(
    pair: Pair, listeners: tuple[Listener, Listener], redis_server: Redis, tmp_path: Path
) -> None:
    """As of a server that died, or an account that was closed while Redis was away."""
    redis_server.kill()
    postgres.ask(tmp_path / "data", "DELETE FROM syncapp.sessions")
    redis_server.start()
    for listener in listeners:
        assert listener.wait("authentication_error")["code"] == "unauthorized"


def test_pushes_and_listeners_of_a_server_go_on_without_redis(
    pair: Pair, listeners: tuple[Listener, Listener], redis_server: Redis
) -> None:
    """And what was told meanwhile reaches the other, once Redis is back."""
    with redis_server.stopped():
        pair[0].device().update(id="a", name="while it hangs")
        wait_for(lambda: rows_of(listeners[0]) == ["while it hangs"], "the notification here")
    wait_for(lambda: rows_of(listeners[1]) == ["while it hangs"], "the notification there")
    redis_server.kill()
    pair[0].device().update(id="a", name="while it is gone")
    wait_for(lambda: rows_of(listeners[0])[1:] == ["while it is gone"], "the notification here")
    redis_server.start()
    wait_for(lambda: len(listeners[1].notes("data_available")) >= 2, "a hint, or the row")


def test_health_of_each_names_all(pair: Pair) -> None:
    def healths() -> list[JSON]:
        return [one.server.call("GET", "/health").json()["processes"] for one in pair]

    wait_for(lambda: [one["names"] for one in healths()] == [["one", "two"]] * 2, "both")
    assert all(one["count"] == 2 and one["connected"] for one in healths())
    assert [(one["versions"], one["over"]) for one in healths()] == [([VERSION], "Redis")] * 2


@postgres.not_pooled
def test_workers_of_one_gunicorn_are_processes_that_tell_each_other(
    tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    """By the Procfile's own line. Fault: one worker whatever ``WEB_CONCURRENCY`` says; the same name for both."""
    env = {"DATABASE_URL": postgres.address_of(tmp_path / "data"), "WEB_CONCURRENCY": "2", "PROCESS_NAME": "web"}
    server = Server(tmp_path / "gunicorn", env, procfile_command()).start()
    tenant = server.register()
    listeners: dict[str, Listener] = {}

    def is_at_both() -> bool:
        listener = listen(tenant)
        listeners[listener.client.eio.sid.partition(".")[0]] = listener
        return len(listeners) == 2

    wait_for(is_at_both, "a listener at each")
    hear_each_other(tenant, tenant, *listeners.values())
    tenant.device().create(id="a", name="for both")
    for listener in listeners.values():
        wait_for(lambda one=listener: rows_of(one) == ["for both"], "the row")  # type: ignore[misc]
    assert listeners.keys() == {"web1", "web2"}
    assert server.stop() == 0


def proxied(name: str, two: Server) -> str:
    """Give the configuration that the docs show for several processes, the second of them ``two``."""
    if name == "nginx":
        text = documented("Several processes", 0) + documented("nginx").replace(
            "http://127.0.0.1:3000;", "http://$syncapp;"
        )
    else:
        text = documented("HAProxy").replace("    server syncapp 127.0.0.1:3000\n", documented("Several processes", 1))
    return text.replace("3001", str(two.port))


@pytest.mark.slow
@needs("openssl")
@pytest.mark.parametrize(
    "name", [pytest.param("nginx", marks=needs("nginx")), pytest.param("HAProxy", marks=needs("haproxy"))]
)
@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_listeners_behind_a_proxy_find_their_process_again(
    pair: Pair, name: str, transport: str, monkeypatch: pytest.MonkeyPatch, listen: Callable[..., Listener]
) -> None:
    """Fault: ``PROCESS_NAME`` not set: polling goes to the other process, which does not know the session."""
    here, there = pair
    with certified() as folder, running(name, here.server, folder, proxied(name, there.server)) as url:
        for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "WEBSOCKET_CLIENT_CA_BUNDLE"):
            monkeypatch.setenv(variable, str(folder / "certificates" / "certificate.pem"))
        front = replace(here, server=Behind(here.server.data, port=here.server.port, proxy_url=url))
        listeners = [listen(front, transport) for _ in range(6)]
        for listener in listeners:
            listener.call("ping", None)
        names = {listener.client.eio.sid.partition(".")[0] for listener in listeners}
        assert names == {"one", "two"}
        for listener in listeners:
            listener.close()


def test_address_of_redis_that_is_none_refuses_the_start_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="REDIS_URL must be an address") as refusal:
        Server(tmp_path / "data", {"REDIS_URL": "http://:s3cret@host"}).start()
    assert "s3cret" not in str(refusal.value)
