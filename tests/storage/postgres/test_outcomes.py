"""Connections that break: amid work, at a COMMIT whose answer is lost, with the server that restarts."""

from __future__ import annotations

import contextlib
import logging
import signal
import uuid
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from models import connection
from operations.housekeeping import Housekeeping
from operations.usage_saving import UsageSaving
from protocol.errors import Busy, OutcomeUnknown, TenantNotFound
from server.usage import Usage
from settings import Settings
from storage.devices import Seen
from storage.postgres import connection as connection_module
from storage.postgres import outcomes, pool, transactions
from storage.postgres.database import PostgresDatabase
from storage.postgres.engine import PostgresEngine
from tenants import Tenants
from tests import postgres
from tests.conftest import WAIT_SECONDS, wait_for
from tests.inside import caught
from tests.relay import Relay
from tests.storage.engine.installations import PostgresInstallation, add, create, words
from tests.storage.postgres.writers import keep_what_was_answered


@pytest.fixture
def relay(installation: PostgresInstallation) -> Iterator[Relay]:
    relay = Relay(postgres.server().folder)
    yield relay
    relay.close()


@pytest.fixture
def engine(relay: Relay, installation: PostgresInstallation) -> Iterator[PostgresEngine]:
    engine = PostgresEngine(f"postgresql://app@127.0.0.1:{relay.port}/{installation.name}")
    yield engine
    engine.close()


def test_commit_whose_answer_is_lost_is_asked_for_and_answered(relay: Relay, database: PostgresDatabase) -> None:
    """Fault: taken for undone, as any lost connection: Busy, though it was stored."""
    before, reported = database.mark, list[int]()
    relay.cuts_at_commit = True
    assert database.write(lambda: add("a"), reported.append) == 1 and reported == [1] and relay.cuts == 1
    assert database.read(words) == ["a"] and database.mark is not before
    assert database.write(lambda: add("b")) == 2


@pytest.mark.parametrize("is_committing", [False, True])
def test_end_of_a_process_waits_for_no_server_that_hangs(
    relay: Relay,
    engine: PostgresEngine,
    database: PostgresDatabase,
    monkeypatch: pytest.MonkeyPatch,
    is_committing: bool,
) -> None:
    """With a read, a write and one that waits for a connection under way. Fault: it waited for as long as each did."""
    monkeypatch.setattr(connection_module, "ANSWER_SECONDS", None)
    begun = Event()
    with relay.holding() if not is_committing else contextlib.nullcontext(), contextlib.ExitStack() as stack:

        def write() -> None:
            add("a")
            connection().settle()
            begun.set()
            stack.enter_context(relay.holding())

        works = [lambda: database.write(write)] if is_committing else [lambda: database.read(words)] * 7
        running = [gevent.spawn(caught, work) for work in works]
        begun.wait() if is_committing else gevent.sleep(0.05)
        engine.give_up_after(0.1)
        with gevent.Timeout(WAIT_SECONDS):
            engine.close()
            gevent.joinall(running)
        expected = OutcomeUnknown if is_committing else Busy
        assert all(isinstance(one.value, expected) for one in running), [one.value for one in running]


def test_outcome_is_asked_for_while_every_connection_is_lent(
    relay: Relay, installation: PostgresInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a server restarts amid as many commits as there are connections. Fault: asked over one more of the pool:
    nobody had one to give, and what was stored was answered by Busy, which says that nothing was kept."""
    monkeypatch.setattr(pool, "WAIT_SECONDS", 0.5)
    engine = PostgresEngine(f"postgresql://app@127.0.0.1:{relay.port}/{installation.name}", connections=1)
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    relay.cuts_at_commit = True
    assert database.write(lambda: add("a")) == 1 and relay.cuts == 1
    assert database.read(words) == ["a"]
    engine.close()


def test_commit_of_which_nobody_can_tell_has_an_error_of_its_own(
    relay: Relay, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "ASK_SECONDS", 0.3)
    relay.cuts_at_commit = True
    relay.on_cut = lambda: setattr(relay, "is_closed", True)
    with pytest.raises(OutcomeUnknown):
        database.write(lambda: add("a"))
    with pytest.raises(Busy):
        database.write(lambda: add("b"))
    relay.is_closed = False
    assert database.read(words) == ["a"] and database.write(lambda: add("c")) == 2


def test_connection_that_is_lost_before_the_commit_keeps_nothing(relay: Relay, database: PostgresDatabase) -> None:
    def work() -> None:
        add("must not stay")
        connection().settle()
        relay.cut()
        gevent.sleep(0.05)
        list(connection().execute("SELECT 1"))

    with pytest.raises(Busy):
        database.write(work)
    assert database.read(words) == [] and database.write(lambda: add("a")) == 1


def test_tenant_that_was_not_there_is_not_said_to_be_missing_while_nobody_can_tell(
    relay: Relay, engine: PostgresEngine
) -> None:
    """Fault: what the transaction before had found was left: a client was told that its tenant is gone."""
    database = engine.tenant(str(uuid.uuid4()))
    with pytest.raises(TenantNotFound):
        database.write(lambda: add("a"))
    relay.is_closed = True
    relay.cut()
    gevent.sleep(0.1)
    with pytest.raises(Busy):
        database.write(lambda: add("a"))


def test_connection_that_was_lost_while_nobody_used_it_is_not_lent(relay: Relay, database: PostgresDatabase) -> None:
    database.write(lambda: add("a"))
    relay.cut()
    gevent.sleep(0.1)
    assert database.read(words) == ["a"] and database.write(lambda: add("b")) == 2


def test_server_that_is_away_is_said_once(
    relay: Relay, engine: PostgresEngine, database: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault: each of the background's looks, two a second, left a traceback in the log."""
    tenants = Tenants(engine)
    usage = UsageSaving(Usage(), tenants.directory, lambda: None, "", 400)
    background = Housekeeping(
        Settings(), tenants, None, Seen(tenants.write), usage, lambda _: None, lambda: None, lambda _: None
    )
    with caplog.at_level(logging.INFO, "syncapp"):
        relay.is_closed = True
        relay.cut()
        gevent.sleep(0.1)
        for _ in range(5):
            background._log_errors(lambda: [engine.renewed()])
        assert not engine.is_intact()
        relay.is_closed = False
        database.write(lambda: add("a"))
        background._log_errors(lambda: [engine.renewed()])
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("WARNING", "PostgreSQL is not reached, it is tried again"), ("INFO", "PostgreSQL is reached")]
    assert engine.is_intact()


def test_tenant_of_a_process_that_is_cut_off_amid_a_write_is_free_again(
    relay: Relay, database: PostgresDatabase, installation: PostgresInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine may be gone without a word. Fault: PostgreSQL waited for it for two hours, with the tenant's lock."""
    monkeypatch.setattr(transactions, "_TENANT", transactions._TENANT.replace(b"'15s'", b"'1s'"))

    def hangs() -> None:
        add("must not stay")
        connection().settle()
        freezing.enter_context(relay.holding())
        list(connection().execute("SELECT 1"))

    with contextlib.ExitStack() as freezing:
        writing = gevent.spawn(database.write, hangs)
        other = PostgresEngine(installation.address, connections=1)
        wait_for(lambda: written(other.tenant(database.tenant_id or "")), "the tenant")
        writing.kill()
        other.close()


def written(database: PostgresDatabase) -> bool:
    try:
        return database.write(lambda: add("a")) == 1
    except Busy:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_restart_amid_writes_loses_nothing_that_was_answered(
    installation: PostgresInstallation, how: signal.Signals
) -> None:
    engine = PostgresEngine(installation.address)
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    keep_what_was_answered(database, lambda: postgres.server().restart(how))
    engine.close()
