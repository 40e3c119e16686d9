"""PgBouncer in transaction mode between the server and PostgreSQL: each transaction may run in another session.

``SYNCAPP_TEST_ENGINE=pgbouncer`` runs any other test so.
"""

from __future__ import annotations

import logging
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import gevent
import psycopg
import pytest

from models import connection
from server.bus.bus import Subscriber
from storage.postgres import notify_bus
from storage.postgres.database import PostgresDatabase
from storage.postgres.engine import PostgresEngine
from tests import postgres
from tests.conftest import needs
from tests.inside import together
from tests.relay import Relay
from tests.storage.engine.installations import PostgresInstallation, add, create, words
from tests.storage.postgres.writers import keep_what_was_answered

pytestmark = needs("pgbouncer")


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """What the pooler reaches the server through."""
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        relay = Relay(postgres.server().folder, Path(folder))
        (Path(folder) / ".s.PGSQL.5432").chmod(0o777)
        yield relay
        relay.close()


@pytest.fixture(scope="module")
def pooler(relay: Relay) -> Iterator[postgres.Pooler]:
    pooler = postgres.Pooler(relay.folder)
    yield pooler
    pooler.kill()


@pytest.fixture
def engine(installation: PostgresInstallation, pooler: postgres.Pooler) -> Iterator[PostgresEngine]:
    """It has twice as many connections as the pooler has sessions."""
    engine = PostgresEngine(pooler.address(installation.name), connections=6)
    yield engine
    engine.close()


def test_tenants_of_many_greenlets_see_their_own_rows(engine: PostgresEngine) -> None:
    """Fault: statements with names: ``prepared statement "s1" already exists``."""
    tenants = {f"t{number}": engine.tenant(create(engine, str(uuid.uuid4()))) for number in range(6)}

    def use(word: str, database: PostgresDatabase) -> None:
        for _ in range(10):
            database.write(lambda: add(word))
            assert set(database.read(words)) == {word}
            assert engine.directory.read(lambda: connection().execute("SELECT count(*) FROM tenants").fetchone()) == (
                6,
            )

    using = [gevent.spawn(use, word, database) for word, database in tenants.items() for _ in range(4)]
    gevent.joinall(using, raise_error=True)
    assert [len(database.read(words)) for database in tenants.values()] == [40] * 6


def test_bus_over_notify_says_that_it_hears_nothing_through_the_pooler(
    engine: PostgresEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LISTEN succeeds, and so does NOTIFY, in whatever sessions they run."""
    monkeypatch.setattr(notify_bus, "SILENCE_SECONDS", 0.2)
    bus, heard, gaps = engine.bus("test"), list[bytes](), list[int]()
    with caplog.at_level(logging.WARNING, "syncapp.bus"):
        bus.start(Subscriber(heard.append, lambda: gaps.append(1), lambda _: b""))
        while len(gaps) < 3:
            bus.publish("t", b"alive")
            gevent.sleep(0.02)
    bus.close()
    assert heard == [] and [vars(record)["error"] for record in caplog.records] == [notify_bus.NOT_HEARD]
    about = engine.about()
    assert about.name.endswith(", behind a pooler") and about.most_connections is None


def test_lease_and_attempts_hold_through_the_pooler(engine: PostgresEngine) -> None:
    """Fault: locks of a session: all get them."""
    other = PostgresEngine(engine._url)
    assert engine.lease("purge", 60) and not other.lease("purge", 60)
    counts = [one.attempt_counts for one in (engine, other)]
    found = together(*[lambda one=one: one.acquire_entry("k", 5, 60) for one in counts for _ in range(5)])
    assert sum(found) == 5
    other.close()


def test_nothing_stays_in_the_sessions_of_the_pooler(
    engine: PostgresEngine, database: PostgresDatabase, pooler: postgres.Pooler, installation: PostgresInstallation
) -> None:
    """Another program is lent the same sessions. Fault: ``set_config`` for the session: it saw the tenant's row."""
    database.write(lambda: add("a"))
    left = (
        "SELECT (SELECT count(*) FROM pg_prepared_statements WHERE name <> ''), current_setting('app.tenant', true),"
        " current_setting('enable_seqscan'), current_setting('search_path'), (SELECT count(*) FROM public.end_user),"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),"
        " (SELECT count(*) FROM pg_settings WHERE source = 'session' AND name LIKE 'tcp%')"
    )
    with psycopg.connect(pooler.address(installation.name), autocommit=True, prepare_threshold=None) as other:
        for _ in range(4):
            found = other.execute(left).fetchone()
            assert found and (found[0], found[1] or "", *found[2:]) == (0, "", "on", '"$user", public', 0, 0, 0)


def test_commit_whose_answer_the_pooler_lost_is_asked_for(relay: Relay, database: PostgresDatabase) -> None:
    """The new connection asks in another session than the one that had the transaction."""
    relay.cuts_at_commit = True
    cuts = relay.cuts
    assert database.write(lambda: add("a")) == 1 and relay.cuts == cuts + 1
    assert database.read(words) == ["a"] and database.write(lambda: add("b")) == 2


def test_statement_of_a_greenlet_that_ends_is_stopped_through_the_pooler(database: PostgresDatabase) -> None:
    """Fault: closed before the pooler was asked, which then knew of no such client: the tenant was Busy."""

    def sleep() -> None:
        add("must not stay")
        list(connection().execute("SELECT 1 FROM pg_sleep(60)"))

    writing = gevent.spawn(database.write, sleep, is_alone=True)
    gevent.sleep(0.2)
    writing.kill()
    assert database.write(lambda: add("a")) == 1 and database.read(words) == ["a"]


def test_pooler_that_restarts_amid_writes_loses_nothing_that_was_answered(
    pooler: postgres.Pooler, database: PostgresDatabase
) -> None:

    def restart() -> None:
        pooler.kill(signal.SIGKILL)
        pooler.start()

    keep_what_was_answered(database, restart)
