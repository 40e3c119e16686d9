"""Transactions over a pipeline: errors that come late, greenlets that are killed, connections that are lent again."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from models import connection
from protocol.errors import Busy
from storage import group_commit
from storage.postgres import connection as connection_module
from storage.postgres import pool
from storage.postgres.connecting import connect
from storage.postgres.database import PostgresDatabase
from storage.postgres.engine import PostgresEngine
from storage.postgres.errors import StatementFailed
from storage.postgres.transactions import turn_to
from tests import postgres
from tests.inside import together
from tests.storage.engine.installations import PostgresInstallation, add, create, sequence, words


def test_error_that_nobody_read_fails_every_write_of_its_group(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: ``is_lost`` left as it was: the first write was answered, and rolled back to the second's savepoint."""
    monkeypatch.setattr(group_commit, "_GROUP_SECONDS", 60)

    def fails_late() -> int:
        connection().execute("INSERT INTO _digests (table_name, count, hash) VALUES ('end_user', 0, '')")
        return 1

    for first in (lambda: 0, lambda: add("before")):
        found = together(*[lambda work=work: database.write(work) for work in (first, fails_late, lambda: add("b"))])
        assert all(isinstance(error, StatementFailed) for error in found)
        assert database.read(words) == [] and database.read(sequence) == 0
    assert database.write(lambda: add("a")) == 1


def test_error_that_was_read_undoes_its_write_alone(database: PostgresDatabase) -> None:
    def fails() -> None:
        add("must not stay")
        list(connection().execute("SELECT 1 / 0"))

    works: list[Callable[[], Any]] = [lambda: add("a"), fails, lambda: add("b")]
    found = together(*[lambda work=work: database.write(work) for work in works])
    assert [type(one) for one in found] == [int, StatementFailed, int] and database.read(words) == ["a", "b"]


def test_work_that_goes_on_after_an_error_is_not_committed(database: PostgresDatabase) -> None:
    """PostgreSQL answers COMMIT of what failed with ROLLBACK, which is no error. Fault: taken for a commit."""

    def goes_on() -> int:
        number = add("must not stay")
        with pytest.raises(StatementFailed):
            list(connection().execute("SELECT 1 / 0"))
        return number

    with pytest.raises(StatementFailed):
        database.write(goes_on)
    assert database.read(sequence) == 0


def test_work_that_failed_amid_a_tenant_leaves_the_directory_to_the_next(engine: PostgresEngine) -> None:
    """Fault: its statements were still written as a tenant's: ON CONFLICT named a column that the directory has not."""

    def fails() -> None:
        turn_to(connection(), str(uuid.uuid4()))
        raise ValueError

    def keep() -> None:
        sql = "INSERT INTO tenants (id, epoch) VALUES ('one', '') ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch"
        connection().execute(sql)

    works: list[Callable[[], Any]] = [lambda: None, fails, keep]
    found = together(*[lambda work=work: engine.directory.write(work) for work in works])
    assert [type(one) for one in found] == [type(None), ValueError, type(None)]


# --- connections -----------------------------------------------------------------------------------------------------


def backends(installation: PostgresInstallation) -> set[int]:
    """Read which connections the server has for this database, and is not ending."""
    sql = f"SELECT pid FROM pg_stat_activity WHERE datname = '{installation.name}' AND state <> 'active'"
    return {row[0] for row in postgres.server().ask(sql)}


def sleep() -> None:
    """Keep the server busy with a statement, amid a write."""
    add("must not stay")
    list(connection().execute("SELECT 1 FROM pg_sleep(60)"))


@pytest.mark.parametrize("how", ["killed", "out of time"])
def test_connection_of_a_greenlet_that_ends_amid_a_statement_is_not_lent_again(
    installation: PostgresInstallation, how: str
) -> None:
    """Its statement is cancelled, and so its tenant free. Fault: ``abandon`` a mere close: the next write was Busy."""
    engine = PostgresEngine(installation.address, connections=1)
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    if how == "killed":
        writing = gevent.spawn(database.write, sleep, is_alone=True)
        gevent.sleep(0.2)
        writing.kill()
    else:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.2):
            database.write(sleep, is_alone=True)
    assert database.write(lambda: add("a")) == 1 and database.read(words) == ["a"]
    engine.close()


def test_server_that_does_not_answer_is_given_up_unless_tables_or_a_whole_tenant_change(
    installation: PostgresInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: no end was set: each connection that was lent when the server hung was waited for without end."""
    monkeypatch.setattr(connection_module, "ANSWER_SECONDS", 2)
    engine = PostgresEngine(installation.address, connections=1)
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    for use in (database.write, database.read):
        with pytest.raises(Busy):
            use(lambda: list(connection().execute("SELECT 1 FROM pg_sleep(60)")))
        assert database.read(words) == []
    assert database.replace(lambda: list(connection().execute("SELECT 1 FROM pg_sleep(2.5)"))) == [(1,)]
    assert database.write(lambda: add("a")) == 1
    engine.close()


def test_server_that_hangs_does_not_hold_up_who_gives_up_a_connection(installation: PostgresInstallation) -> None:
    """Fault: cancelled by libpq's blocking call in a thread, with Python's lock: all stood until the server went on."""
    connection = connect(installation.address)
    server = postgres.server().process_id
    os.kill(server, signal.SIGSTOP)
    going_on = subprocess.Popen(["sh", "-c", f"sleep 10; kill -CONT {server}"], process_group=0)  # From outside.
    try:
        connection.abandon()
        gevent.sleep(0.2)
        assert Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    finally:
        os.killpg(going_on.pid, signal.SIGKILL)
        going_on.wait()
        os.kill(server, signal.SIGCONT)


def test_connection_of_a_read_that_is_killed_is_not_lent_again(installation: PostgresInstallation) -> None:
    """Fault: not abandoned, and given back as it was: the next read waited for the one before, and got its rows."""
    engine = PostgresEngine(installation.address, connections=1)
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    reading = gevent.spawn(database.read, lambda: list(connection().execute("SELECT 'not yours' FROM pg_sleep(1)")))
    gevent.sleep(0.1)
    reading.kill()
    assert database.read(words) == []
    engine.close()


def test_connection_is_held_no_longer_than_its_transaction(installation: PostgresInstallation) -> None:
    """With one for all, reads, writes and their reports take turns."""
    engine = PostgresEngine(installation.address, connections=1)
    tenants = [engine.tenant(create(engine, str(uuid.uuid4()))) for _ in range(3)]
    reported: list[list[str]] = []

    def use(database: PostgresDatabase) -> None:
        for number in range(5):
            database.write(lambda number=number: add(f"w{number}"), lambda _: reported.append(database.read(words)))  # type: ignore[misc]
            database.read(words)

    together(*[lambda one=one: use(one) for one in tenants for _ in range(3)])
    assert [len(one.read(words)) for one in tenants] == [15] * 3 and len(reported) == 45
    engine.close()


def test_who_waits_too_long_for_a_connection_is_told_to_come_back(
    installation: PostgresInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "WAIT_SECONDS", 0.1)
    engine, begun, gate = PostgresEngine(installation.address, connections=1), Event(), Event()
    first, second = (engine.tenant(create(engine, str(uuid.uuid4()))) for _ in range(2))
    writing = gevent.spawn(first.write, lambda: (begun.set(), gate.wait(), add("a"))[2])
    begun.wait()
    for use in (lambda: second.read(words), lambda: second.write(lambda: add("b"))):
        with pytest.raises(Busy):
            use()
    gate.set()
    assert writing.get() == 1 and second.write(lambda: add("b")) == 1
    engine.close()


def test_batch_larger_than_what_both_sides_hold_goes_through(database: PostgresDatabase) -> None:
    """Neither side may wait for the other to take what it sends."""

    def work() -> int:
        asked = [connection().execute("SELECT repeat('x', 20000), ?::text", ("y" * 20_000,)) for _ in range(500)]
        return sum(len(one) + len(other) for answer in asked for one, other in answer)

    assert database.write(work) == 500 * 40_000


def test_statement_whose_columns_another_process_changed_is_prepared_anew(
    installation: PostgresInstallation, database: PostgresDatabase
) -> None:
    """Fault: kept as it was prepared: each later read of it failed, until the connection ended."""

    def look() -> object:
        return connection().execute("SELECT gender FROM end_user").fetchall()

    database.write(lambda: add("a"))
    assert together(*[lambda: database.read(look) for _ in range(10)]) == [[(None,)]] * 10
    postgres.server().ask("ALTER TABLE end_user ALTER gender TYPE bigint USING 1", installation.name)
    found = [one for _ in range(12) for one in together(lambda: database.read(look))]
    assert {type(one) for one in found} <= {Busy, list} and found[-1] == [(1,)]


def test_connections_are_no_more_than_allowed_and_used_again(installation: PostgresInstallation) -> None:
    engine = PostgresEngine(installation.address, connections=3)
    database = engine.tenant(create(engine, str(uuid.uuid4())))
    together(*[lambda: database.read(words) for _ in range(50)])
    before = backends(installation)
    together(*[lambda: database.read(words) for _ in range(50)])
    assert len(before) == 3 and backends(installation) == before
    engine.close()
