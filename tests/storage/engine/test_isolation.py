"""Isolation: code sees the rows of the tenant that it is bound to, as of one moment, and no others.

The faults named below were put into a copy; the tests named with them failed there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool

import models
from models import EndUser, NotBound
from protocol.errors import TenantNotFound
from storage.engine import Database, Engine
from storage.main_database import Customer
from storage.system_tables import CommitOrder, Logged
from tests.inside import together
from tests.storage.engine.installations import Installation, add, elsewhere, lines_of, sequence, words

NewId = Callable[[], str]


# --- tenants ---------------------------------------------------------------------------------------------------------


def test_interleaved_writes_and_reads_of_tenants_never_meet(engine: Engine, new_id: NewId) -> None:
    """A switch between any two statements. Fault: ``models.bound`` a module's global: words were in other tenants."""
    ids = [new_id() for _ in range(5)]

    def device(tenant_id: str, name: str) -> None:
        database = engine.tenant(tenant_id)
        for number in range(8):
            word = f"{tenant_id} {name} {number}"
            database.write(lambda word=word: add(word, lambda: gevent.sleep(0)))  # type: ignore[misc]
            assert {one.split()[0] for one in database.read(words)} == {tenant_id}
            gevent.sleep(0)

    together(*[lambda one=one, name=name: device(one, name) for one in ids for name in "ab"])
    for one in ids:
        assert sorted(engine.tenant(one).read(words)) == sorted(f"{one} {name} {n}" for name in "ab" for n in range(8))


def test_same_ids_in_two_tenants_are_two_rows(engine: Engine, new_id: NewId) -> None:
    first, second = engine.tenant(new_id()), engine.tenant(new_id())
    assert first.write(lambda: add("same")) == second.write(lambda: add("same")) == 1
    first.write(lambda: EndUser.delete().where(EndUser.id == "same 1").execute())
    assert first.read(words) == [] and second.read(words) == ["same"]


def test_statement_without_a_condition_changes_one_tenant(engine: Engine, new_id: NewId) -> None:
    one, other = engine.tenant(new_id()), engine.tenant(new_id())
    for database in (one, other):
        database.write(lambda: add("before"))
    one.write(lambda: EndUser.update(name="after").execute())
    one.write(lambda: CommitOrder.update(sequence=7).execute())
    assert (one.read(words), one.read(sequence)) == (["after"], 7)
    assert (other.read(words), other.read(sequence)) == (["before"], 1)


def test_tenant_that_is_not_there_is_not_found_and_does_not_come_by_that(engine: Engine, tenant_id: str) -> None:
    for use in (lambda: engine.tenant(tenant_id).read(words), lambda: engine.tenant(tenant_id).write(lambda: add("a"))):
        with pytest.raises(TenantNotFound):
            use()
    assert engine.tenant_ids() == []


def test_tenants_are_not_in_the_directory_nor_customers_in_a_tenant(engine: Engine, database: Database) -> None:
    def customers() -> int:
        return int(Customer.select().count())

    assert engine.directory.read(customers) == 1
    for where, query in ((database, customers), (engine.directory, words)):
        with pytest.raises(Exception) as refused:
            where.read(query)
        assert re.search("customers|end_user", f"{refused.value} {refused.value.__cause__}")


# --- code that is bound to nothing -----------------------------------------------------------------------------------


def unbound_uses() -> dict[str, Callable[[], Any]]:
    return {
        "connection": models.connection,
        "select": lambda: list(EndUser.select()),
        "get": CommitOrder.get,
        "insert": lambda: EndUser.insert(id="x").execute(),
        "delete": lambda: Logged.delete().execute(),
        "create_table": EndUser.create_table,
        "connect": lambda: models.database.connect(reuse_if_open=True),
        "atomic": lambda: models.database.atomic().__enter__(),
        "execute_sql": lambda: models.database.execute_sql("SELECT 1"),
    }


@pytest.mark.parametrize("where", ["here", "greenlet", "pool thread"])
def test_code_that_is_bound_to_nothing_gets_no_database(database: Database, where: str) -> None:
    """Also while others are bound. Fault: ``bound`` a module's global: the query ran in the tenant that was bound."""
    gate = Event()
    busy = gevent.spawn(database.write, lambda: (EndUser.select().exists(), gate.wait(5)))
    gevent.sleep(0)
    try:
        for name, use in unbound_uses().items():
            with pytest.raises(NotBound):
                _run(where, use)
                raise AssertionError(name)
    finally:
        gate.set()
        busy.get()


def _run(where: str, use: Callable[[], Any]) -> None:
    if where == "here":
        use()
    elif where == "greenlet":
        gevent.spawn(use).get()
    else:
        ThreadPool(1).apply(use)


@pytest.mark.parametrize("where", ["greenlet", "pool thread"])
def test_what_bound_code_starts_is_not_bound(database: Database, where: str) -> None:
    """Else it would go on in a transaction that has ended."""

    def work() -> None:
        with pytest.raises(NotBound):
            _run(where, words)

    database.write(work)


def test_binding_ends_with_the_work_also_when_it_fails(database: Database) -> None:
    """Fault: ``bound.reset`` left out, of a read and of a write: the query after the work ran."""

    def fail() -> None:
        raise ValueError

    for work, outcome in ((words, contextlib.nullcontext()), (fail, pytest.raises(ValueError))):
        for run in (database.read, database.write, partial(database.write, is_alone=True)):
            with outcome:
                run(work)
            with pytest.raises(NotBound):
                words()


# --- reads -----------------------------------------------------------------------------------------------------------


def test_reader_sees_nothing_of_a_write_under_way_and_all_of_it_right_after(database: Database) -> None:
    """Fault: reads bound to the connection that writes: the word was seen before its commit."""
    written, gate = Event(), Event()
    writing = gevent.spawn(database.write, lambda: (add("a"), written.set(), gate.wait()))
    written.wait()
    seen = database.read(words), database.read(sequence)
    gate.set()
    writing.get()
    assert seen == ([], 0)
    assert database.read(words) == ["a"] and database.read(sequence) == 1


WRITE_WHEN_TOLD = """
database = engine.tenant(sys.argv[1])
for line in sys.stdin:
    database.write(lambda: add(line.strip()))
    print("written", flush=True)
"""


def test_read_sees_one_state_from_its_first_statement_to_its_last(
    installation: Installation, engine: Engine, new_id: NewId
) -> None:
    """Another process commits between two of them, as a thread does. Fault: no transaction around a read: it saw both."""
    tenant_id = new_id()
    database = engine.tenant(tenant_id)
    other = elsewhere(installation, WRITE_WHEN_TOLD, tenant_id)

    def twice() -> tuple[list[str], list[str]]:
        first = words()
        print("late", file=other.stdin, flush=True)
        assert lines_of(other).readline() == "written\n"
        return first, words()

    assert database.read(twice) == ([], [])
    assert engine.peek(tenant_id, twice) == (["late"], ["late"])
    assert database.read(words) == ["late", "late"]
    other.communicate()


def test_write_within_a_read_is_refused_and_stores_nothing(database: Database) -> None:
    with pytest.raises(Exception):  # noqa: B017 -- each engine has an error of its own
        database.read(lambda: add("a"))
    assert database.read(words) == [] and database.write(lambda: add("b")) == 1
