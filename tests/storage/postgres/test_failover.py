"""A replica that becomes the primary, without the last commits of the one before it."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import connection
from protocol.errors import Busy, OutcomeUnknown
from storage.postgres.connecting import connect
from storage.postgres.engine import PostgresEngine
from storage.postgres.errors import ConnectionLost
from storage.postgres.outcomes import history_of
from tests import postgres
from tests.conftest import wait_for
from tests.relay import Relay
from tests.storage.engine.installations import add, create, words

pytestmark = pytest.mark.slow


@pytest.fixture
def primary() -> Iterator[postgres.Server]:
    if not postgres.is_there():
        pytest.skip(postgres.MISSING)
    primary = postgres.Server()
    primary.ask("CREATE ROLE app LOGIN")
    primary.ask("CREATE DATABASE app OWNER app TEMPLATE template0")
    yield primary
    primary.kill()


@pytest.fixture
def replica(primary: postgres.Server) -> Iterator[postgres.Replica]:
    replica = postgres.Replica(primary)
    yield replica
    replica.kill()


@pytest.fixture
def relay(primary: postgres.Server) -> Iterator[Relay]:
    """The way to the primary."""
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as folder:
        relay = Relay(primary.folder, Path(folder))
        yield relay
        relay.close()


def test_commit_that_the_new_primary_never_had_is_not_said_to_be_kept(
    primary: postgres.Server, replica: postgres.Replica, relay: Relay
) -> None:
    """The number of its transaction is another one's there. Fault: asked for by that alone: answered, and lost."""
    engine = PostgresEngine(f"postgresql://app@/app?host={replica.folder},{relay.folder}")
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    assert database.write(lambda: add("a")) == 1
    at = primary.ask("SELECT pg_current_wal_flush_lsn()::text")[0][0]
    wait_for(lambda: replica.ask(f"SELECT pg_last_wal_replay_lsn() >= '{at}'")[0][0], "the replica")
    replica.stop_following()

    def fail_over() -> None:
        primary.kill()
        replica.promote()
        for _ in range(20):
            replica.ask("SELECT pg_current_xact_id()")

    relay.cuts_at_commit, relay.on_cut = True, fail_over
    with pytest.raises(OutcomeUnknown):
        database.write(lambda: add("b"))
    assert database.read(words) == ["a"] and database.write(lambda: add("c")) == 2
    engine.close()


def test_commit_that_a_crash_took_back_is_not_said_to_be_kept(primary: postgres.Server) -> None:
    """What a server that crashes had not written to its log is gone, with the number of the transaction, which the next
    one gets. Fault: asked for by that alone: answered, and lost."""
    primary.ask("ALTER SYSTEM SET wal_writer_delay = '10s'")
    primary.restart()
    engine = PostgresEngine(primary.address("app"))
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    assert database.write(lambda: add("a")) == 1

    def crash() -> None:
        add("b")
        connection().settle()
        primary.restart(signal.SIGQUIT)
        for _ in range(20):
            primary.ask("SELECT pg_current_xact_id()")

    with pytest.raises((Busy, OutcomeUnknown)):
        database.write(crash)
    assert database.read(words) == ["a"] and database.write(lambda: add("c")) == 2
    engine.close()


def test_crash_begins_another_history_and_a_restart_goes_on_with_the_same(primary: postgres.Server) -> None:
    """Fault: a commit of before a restart that nobody could confirm any more."""

    def history() -> str | None:
        opened = connect(primary.address("app"))
        found = history_of(opened)
        opened.close()
        return found

    def has_begun_another() -> bool:
        try:
            return history() not in (before, None)
        except ConnectionLost:  # The server takes a moment to notice the crash, and another to recover from it.
            return False

    before = history()
    primary.restart()
    assert history() == before is not None
    (process_id,) = primary.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'")[0]
    os.kill(process_id, signal.SIGKILL)
    wait_for(has_begun_another, "another history")


def test_replica_is_passed_by(primary: postgres.Server, replica: postgres.Replica) -> None:
    """Else each push would fail."""
    found = connect(f"postgresql://app@/app?host={replica.folder},{primary.folder}")
    assert found.send(b"SELECT pg_is_in_recovery()").fetchone() == (False,)
    found.close()
    with pytest.raises(ConnectionLost, match=r"read-only|standby"):
        connect(f"postgresql://app@/app?host={replica.folder}")
