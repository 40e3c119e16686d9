"""What a bus over NOTIFY has of its own: the longest payload, and a pooler through which nothing is heard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import pytest

from storage.postgres import notify_bus
from storage.postgres.connecting import connect
from storage.postgres.notify_bus import NotifyBus
from tests import postgres
from tests.conftest import all_closed
from tests.server.bus.conftest import CHANNEL, Heard, PostgresBroker

pytestmark = pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING)

MakeHeard = Callable[..., Heard]


@pytest.fixture
def notify() -> Iterator[PostgresBroker]:
    broker = PostgresBroker()
    broker.start()
    yield broker
    broker.end()


@pytest.fixture
def hear() -> Iterator[MakeHeard]:
    """Have buses hear until the end of the test."""
    yield from all_closed(Heard, lambda one: one.bus.close())


@pytest.mark.server
def test_of_what_is_too_long_the_first_line_is_carried_and_the_rest_is_not_held_up(
    notify: PostgresBroker, hear: MakeHeard
) -> None:
    """Fault: sent as it is: PostgreSQL refuses the statement, again and again, and nothing after it comes."""
    one, two = hear(notify.bus()), hear(notify.bus())
    fits, long = b"{}\n" + b"x" * 7_497, b"{}\n" + b"x" * 9_000
    for message in (fits, long, "{}\n\u00e9\U0001f600\\'\"".encode()):
        one.bus.publish("t", message)
    assert two.wait(3) == [fits, b"{}", "{}\n\u00e9\U0001f600\\'\"".encode()]


def test_one_connection_more_than_the_pool_has_is_open(notify: PostgresBroker, hear: MakeHeard) -> None:
    one = hear(notify.bus())
    for number in range(20):
        one.bus.publish("t", b"%d" % number)
        gevent.sleep(0)
    one.wait(20)
    open_ones = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{notify.database}'"
    assert postgres.server().ask(open_ones) == [(2,)], "of the pool one is enough"


def test_process_that_does_not_hear_itself_says_that_a_pooler_is_in_between(
    notify: PostgresBroker, hear: MakeHeard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As through PgBouncer in transaction mode: LISTEN succeeds, and hears nothing; here it is in another database."""
    monkeypatch.setattr(notify_bus, "SILENCE_SECONDS", 0.2)
    elsewhere = partial(connect, postgres.server().address("postgres"))
    bus = NotifyBus(notify.bus()._pool, elsewhere, CHANNEL)  # type: ignore[attr-defined]
    with caplog.at_level(logging.WARNING, "syncapp.bus"):
        one = hear(bus)
        while one.gaps < 4:
            bus.publish("t", b"alive")
            gevent.sleep(0.05)
    said = [vars(record) for record in caplog.records]
    assert [one["error"] for one in said] == [notify_bus.NOT_HEARD[:200]], "once"
    assert not bus.is_alive


def test_session_in_which_another_listened_keeps_nothing_of_what_it_hears(notify: PostgresBroker) -> None:
    """A pooler may give it. Fault: libpq keeps what nobody takes, for as long as the connection lives."""
    connection = connect(notify.url)
    connection.send(b"LISTEN other").fetchall()
    postgres.server().ask("NOTIFY other", notify.database)
    connection.send(b"SELECT 1").fetchall()
    assert connection.is_alive() and connection._wire.notifies() is None
    connection.close()
