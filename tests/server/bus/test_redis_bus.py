"""The bus over a real Redis: in order, felt by nobody when Redis hangs, and with no silent loss when it dies."""

from __future__ import annotations

import logging
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from server.bus import redis_bus
from server.bus.bus import Subscriber
from tests.conftest import needs, wait_for
from tests.redis_server import Redis
from tests.server.bus.conftest import CHANNEL, Heard

pytestmark = needs("redis-server")

MakeHeard = Callable[..., Heard]


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def publish(bus: redis_bus.RedisBus, messages: list[bytes], tenant_id: str = "t") -> None:
    for message in messages:
        bus.publish(tenant_id, message)


def without_repeats(messages: list[bytes]) -> list[bytes]:
    return list(dict.fromkeys(messages))


def test_messages_come_to_all_in_the_order_of_their_publisher(heard: MakeHeard) -> None:
    one, two = heard(), heard()
    for start in range(0, 1_000, 100):
        publish(one.bus, numbered(100, start))
        gevent.sleep(0.001)
    assert one.wait(1_000) == two.wait(1_000) == numbered(1_000)


def test_messages_of_two_publishers_keep_the_order_of_each(heard: MakeHeard) -> None:
    one, two, hearing = heard(), heard(), heard()
    for number in range(300):
        publish(one.bus, [b"a%d" % number])
        publish(two.bus, [b"b%d" % number])
        gevent.sleep(0)
    found = hearing.wait(600)
    for name in (b"a", b"b"):
        assert [message for message in found if message[:1] == name] == [name + number for number in numbered(300)]


def test_publishing_returns_while_redis_hangs_and_nothing_is_lost(heard: MakeHeard, redis_server: Redis) -> None:
    """Fault: published by who commits: this waits for ever, since Redis goes on only afterwards."""
    one, two = heard(), heard()
    with redis_server.stopped():
        publish(one.bus, numbered(500))
        gevent.sleep(0.1)  # The first of them are sent, and their answer is waited for; the connections stay.
        publish(one.bus, numbered(500, 500))
    assert without_repeats(two.wait(1_000)) == numbered(1_000)
    assert two.gaps == 1, "nothing was missed"


def test_what_was_under_way_when_redis_died_is_published_again_and_the_gap_is_told(
    heard: MakeHeard, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: taken out of the queue before it is answered: the ten that Redis never read are missing."""
    one, two, gate = heard(), heard(), Event()
    publish(one.bus, numbered(10))
    two.wait(10)
    publisher = one.bus._publisher
    make = publisher._make
    monkeypatch.setattr(publisher, "_make", lambda: gate.wait() and make())
    with redis_server.stopped():
        publish(one.bus, numbered(10, 10))
        gevent.sleep(0.1)  # They are sent, into its socket.
        redis_server.kill()
    publish(one.bus, numbered(10, 20))
    redis_server.start()
    two.wait_gaps(2)
    gate.set()
    wait_for(lambda: two.messages[-1] == b"29", "the last message")
    assert without_repeats(two.messages) == numbered(30)


def test_bus_starts_before_redis_does(tmp_path: Path, heard: MakeHeard) -> None:
    late = Redis(tmp_path)
    one = heard(late.url, is_ready=False)
    publish(one.bus, [b"early"])
    wait_for(lambda: one.bus._publisher._is_broken and one.bus._subscriber._is_broken, "a try of each")
    assert one.gaps == 0
    late.start()
    try:
        one.wait_gaps(1)
        publish(one.bus, [b"late"])
        wait_for(lambda: one.messages[-1:] == [b"late"], "the message")
    finally:
        late.kill()


def test_what_is_dropped_is_told_by_its_tenants(
    heard: MakeHeard, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: the tenants of dropped messages not told: their listeners would never know."""
    monkeypatch.setattr(redis_bus, "_MOST_WAITING", 100)
    one, two = heard(), heard()
    with redis_server.stopped():
        publish(one.bus, numbered(100))
        for tenant_id in ("b", "a", "b"):
            publish(one.bus, [b"dropped"], tenant_id)
    assert two.wait(101) == [*numbered(100), b"lost a,b"]


def test_message_that_never_fits_is_told_of_though_nothing_else_is_published(
    heard: MakeHeard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: nobody was woken to tell it until the next message."""
    monkeypatch.setattr(redis_bus, "_MOST_WAITING_BYTES", 3)
    one, two = heard(), heard()
    one.bus.publish("a", b"1234")
    assert two.wait(1) == [b"lost a"]


@pytest.mark.parametrize("tenant_ids", [["", "a"], [str(number) for number in range(6)]])
def test_what_is_dropped_may_be_any_tenants(
    heard: MakeHeard, redis_server: Redis, monkeypatch: pytest.MonkeyPatch, tenant_ids: list[str]
) -> None:
    monkeypatch.setattr(redis_bus, "_MOST_WAITING_BYTES", 3)
    monkeypatch.setattr(redis_bus, "_MOST_LOST", 5)
    one, two = heard(), heard()
    with redis_server.stopped():
        publish(one.bus, [b"123"])
        for tenant_id in tenant_ids:
            publish(one.bus, [b"dropped"], tenant_id)
    assert two.wait(2) == [b"123", b"lost "]


def test_bus_that_closes_gives_what_waits(heard: MakeHeard) -> None:
    one, two = heard(), heard()
    publish(one.bus, numbered(200))
    one.bus.close()
    assert two.wait(200) == numbered(200)


def test_message_that_can_not_be_passed_on_ends_nothing(
    heard: MakeHeard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = heard()

    def hear(message: bytes) -> None:
        if message == b"bad":
            raise RuntimeError("broken")
        one.messages.append(message)

    monkeypatch.setattr(one.bus, "_hear", hear)
    with caplog.at_level(logging.ERROR):
        publish(one.bus, [b"bad", b"good"])
        assert one.wait(1) == [b"good"]
    assert "not passed on" in caplog.text


def test_outage_is_one_line_of_the_log_and_its_end_another(
    heard: MakeHeard, redis_server: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, tries = heard(), {"publish": 0, "subscribe": 0}
    for link in (one.bus._publisher, one.bus._subscriber):

        def make(link: redis_bus._Link = link, make: Callable[[], object] = link._make) -> object:
            tries[link._what] += 1
            return make()

        monkeypatch.setattr(link, "_make", make)
    with caplog.at_level(logging.WARNING, "syncapp.bus"):
        redis_server.kill()
        publish(one.bus, [b"x"])
        wait_for(lambda: min(tries.values()) >= 3, "several tries of each")
        redis_server.start()
        one.wait_gaps(2)
        wait_for(lambda: not one.bus._waiting, "the message")
    for link in ("publish", "subscribe"):
        said = [record.getMessage() for record in caplog.records if getattr(record, "link", "") == link]
        assert said == ["Redis is not reached, it is tried again", "Redis is back"]


def test_password_of_the_address_is_used_and_not_logged(
    tmp_path: Path, heard: MakeHeard, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = Redis(tmp_path, "--requirepass", "s3cret")
    guarded.start()
    try:
        with caplog.at_level(logging.WARNING, "syncapp.bus"):
            heard(guarded.url.replace("://", "://:wr0ng@"), is_ready=False)
            wait_for(lambda: len(caplog.records) >= 1, "a refusal")
        said = str([vars(record) for record in caplog.records])
        assert "invalid username-password pair" in said and "wr0ng" not in said
        heard(guarded.url.replace("://", "://:s3cret@"))
    finally:
        guarded.kill()


@needs("openssl")
def test_certificate_that_nobody_vouches_for_is_refused_unless_told(
    tmp_path: Path, heard: MakeHeard, caplog: pytest.LogCaptureFixture
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=nobody -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    options = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    secured = Redis(tmp_path, *options, tls=True)
    secured.start()
    try:
        with caplog.at_level(logging.WARNING, "syncapp.bus"):
            heard(secured.url, is_ready=False)
            wait_for(lambda: len(caplog.records) >= 1, "a refusal")
        assert "certificate verify failed" in str([vars(record) for record in caplog.records])
        one = heard(secured.url, verifies=False)
        publish(one.bus, [b"secret"])
        assert one.wait(1) == [b"secret"]
    finally:
        secured.kill()


def test_channel_of_another_installation_is_not_heard(heard: MakeHeard, redis_server: Redis) -> None:
    one = heard()
    other = redis_bus.RedisBus(redis_server.url, "another")
    other.start(Subscriber(lambda _: None, lambda: None, lambda _: b""))
    publish(other, [b"theirs"])
    wait_for(lambda: redis_server.subscribers("another") == 1 and not other._waiting, "the other")
    publish(one.bus, [b"ours"])
    assert one.wait(1) == [b"ours"] and redis_server.subscribers(CHANNEL) == 1
    other.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://:hush@localhost",
        "redis://:hush/more@localhost:6379",
        "redis://:hush@localhost:99999",
        "redis://[hush/x",
        "redis://:ok?hush=1@localhost",
        "redis://localhost?socket_timeout=hush",
        "rediss://localhost?ssl_cert_reqs=hush",
    ],
)
def test_address_that_is_none_is_refused_at_once_and_its_password_not_shown(url: str) -> None:
    """Fault: redis-py's own words, which quote what they stumble on, and a TypeError only when it connects, which ended
    the greenlets of the bus."""
    with pytest.raises(ValueError, match="must be an address") as refused:
        redis_bus.RedisBus(url, CHANNEL)
    assert "hush" not in "".join(traceback.format_exception(refused.value))
