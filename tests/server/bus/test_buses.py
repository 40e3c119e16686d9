"""A bus over each broker: in order, felt by nobody when the broker hangs, and with no silent loss when it dies."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from server.bus import queued_bus
from server.bus.bus import Subscriber
from server.bus.queued_bus import QueuedBus
from tests.conftest import wait_for
from tests.server.bus.conftest import Broker, Heard

MakeHeard = Callable[..., Heard]


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def publish(bus: QueuedBus, messages: list[bytes], tenant_id: str = "t") -> None:
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


def test_publishing_returns_while_the_broker_hangs_and_nothing_is_lost(heard: MakeHeard, broker: Broker) -> None:
    """Fault: published by who commits: this waits for ever, since the broker goes on only afterwards."""
    one, two = heard(), heard()
    with broker.stopped():
        publish(one.bus, numbered(500))
        gevent.sleep(0.1)  # The first of them are sent, and their answer is waited for; the connections stay.
        publish(one.bus, numbered(500, 500))
    assert without_repeats(two.wait(1_000)) == numbered(1_000)
    assert two.gaps == 1, "nothing was missed"


def test_what_was_under_way_when_the_broker_died_is_published_again_and_the_gap_is_told(
    heard: MakeHeard, broker: Broker
) -> None:
    """Fault: taken out of the queue before it is answered: the ten that the broker never read are missing."""
    one, two, gate = heard(), heard(), Event()
    publish(one.bus, numbered(10))
    two.wait(10)
    broker.hold_publisher(one.bus, gate)
    with broker.stopped():
        publish(one.bus, numbered(10, 10))
        gevent.sleep(0.1)  # They are sent, into its socket.
        broker.kill()
    publish(one.bus, numbered(10, 20))
    broker.start()
    two.wait_gaps(2)
    gate.set()
    wait_for(lambda: two.messages[-1] == b"29", "the last message")
    assert without_repeats(two.messages) == numbered(30)


def test_bus_starts_before_its_broker_does(idle_broker: Broker, hearing: MakeHeard) -> None:
    one = hearing(idle_broker.bus(), is_ready=False)
    publish(one.bus, [b"early"])
    wait_for(lambda: one.bus._publishing._is_broken and one.bus._hearing._is_broken, "a try of each")
    assert one.gaps == 0 and not one.bus.is_alive
    idle_broker.start()
    one.wait_gaps(1)
    publish(one.bus, [b"late"])
    wait_for(lambda: one.messages[-1:] == [b"late"], "the message")
    assert one.bus.is_alive


def test_messages_that_are_alike_are_told_each(heard: MakeHeard) -> None:
    """Fault: PostgreSQL sends one of those that a transaction tells alike, and the last one here is not that of before."""
    one, two = heard(), heard()
    publish(one.bus, [b"syncing", b"idle", b"syncing"])
    assert two.wait(3) == [b"syncing", b"idle", b"syncing"]


def test_what_is_dropped_is_told_by_its_tenants(
    heard: MakeHeard, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: the tenants of dropped messages not told: their listeners would never know."""
    monkeypatch.setattr(queued_bus, "_MOST_WAITING", 100)
    one, two = heard(), heard()
    with broker.stopped():
        publish(one.bus, numbered(100))
        for tenant_id in ("b", "a", "b"):
            publish(one.bus, [b"dropped"], tenant_id)
    assert two.wait(101) == [*numbered(100), b"lost a,b"]


def test_message_that_never_fits_is_told_of_though_nothing_else_is_published(
    heard: MakeHeard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: nobody was woken to tell it until the next message."""
    monkeypatch.setattr(queued_bus, "_MOST_WAITING_BYTES", 3)
    one, two = heard(), heard()
    one.bus.publish("a", b"1234")
    assert two.wait(1) == [b"lost a"]


@pytest.mark.parametrize("tenant_ids", [["", "a"], [str(number) for number in range(6)]])
def test_what_is_dropped_may_be_any_tenants(
    heard: MakeHeard, broker: Broker, monkeypatch: pytest.MonkeyPatch, tenant_ids: list[str]
) -> None:
    monkeypatch.setattr(queued_bus, "_MOST_WAITING_BYTES", 3)
    monkeypatch.setattr(queued_bus, "_MOST_LOST", 5)
    one, two = heard(), heard()
    with broker.stopped():
        publish(one.bus, [b"123"])
        for tenant_id in tenant_ids:
            publish(one.bus, [b"dropped"], tenant_id)
    assert two.wait(2) == [b"123", b"lost "]


def test_what_is_dropped_while_an_earlier_loss_is_told_is_told_too(
    heard: MakeHeard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same tenant, as when the broker hangs then. Fault: struck off with the earlier one, untold."""
    monkeypatch.setattr(queued_bus, "_MOST_WAITING_BYTES", 3)
    one, two = heard(), heard()
    send, dropped_amid = one.bus._send, list[bytes]()

    def send_late(messages: list[bytes]) -> None:
        send(messages)
        if not dropped_amid:
            dropped_amid.append(b"12345")
            publish(one.bus, dropped_amid)

    monkeypatch.setattr(one.bus, "_send", send_late)
    publish(one.bus, [b"1234"])
    assert two.wait(2) == [b"lost t"] * 2


@pytest.mark.parametrize("where", ["_send", "_received"])
def test_error_that_nobody_expects_ends_neither_way(
    heard: MakeHeard, broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As what a library raises on an answer that makes no sense to it. Fault: the greenlet ended, and with it the way."""
    one, two, failures = heard(), heard(), list[ValueError]()
    bus = one.bus if where == "_send" else two.bus
    does = getattr(bus, where)

    def fails_once(*arguments: list[bytes]) -> object:
        if not failures:
            failures.append(ValueError("no number"))
            raise failures[0]
        return does(*arguments)

    with caplog.at_level(logging.ERROR, "syncapp.bus"):
        monkeypatch.setattr(bus, where, fails_once)
        if where == "_received":
            broker.kill()
            broker.start()
            two.wait_gaps(3)
        publish(one.bus, [b"after it"])
        wait_for(lambda: b"after it" in two.messages, "the message")
    assert failures and "did not expect" in caplog.text


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
    heard: MakeHeard, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    one = heard()
    ways = one.bus._publishing, one.bus._hearing
    with caplog.at_level(logging.WARNING, "syncapp.bus"):
        broker.kill()
        publish(one.bus, [b"x"])
        wait_for(lambda: min(way._pause for way in ways) > 4 * queued_bus._FIRST_PAUSE_SECONDS, "several tries of each")
        broker.start()
        one.wait_gaps(2)
        publish(one.bus, [b"y"])
        one.wait(1)
    for link in ("publish", "subscribe"):
        said = [record.getMessage() for record in caplog.records if getattr(record, "link", "") == link]
        assert said == [f"{one.bus.broker} is not reached, it is tried again", f"{one.bus.broker} is back"]


def test_channel_of_another_installation_is_not_heard(heard: MakeHeard, broker: Broker) -> None:
    one = heard()
    other = broker.bus("another")
    other.start(Subscriber(lambda _: None, lambda: None, lambda _: b""))
    publish(other, [b"theirs"])
    wait_for(lambda: broker.subscribers("another") == 1 and not other._waiting, "the other")
    publish(one.bus, [b"ours"])
    assert one.wait(1) == [b"ours"] and broker.subscribers() == 1
    other.close()
