"""Tenants come and go with their customers, whatever crashes, and are copied out and restored in.

The faults named below were put into a copy of ``storage/sqlite/engine.py``; the tests named with them failed there.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import gevent
import pytest

from models import EndUser, connection
from operations.backups import manifest as manifests
from protocol.errors import Busy, TenantNotFound
from storage.engine import CanNotOpen, Database, Engine, NotRestored
from storage.main_database import Customer
from storage.positions import position
from tests.customers import customer
from tests.declaring import declare
from tests.storage.engine.installations import (
    Installation,
    add,
    create,
    elsewhere,
    known_ids,
    lines_of,
    sequence,
    words,
)

NewId = Callable[[], str]


def epoch(database: Database) -> str:
    return database.read(position).epoch


# --- created ---------------------------------------------------------------------------------------------------------


def test_new_tenant_is_empty_current_and_has_an_epoch_of_its_own(engine: Engine, new_id: NewId) -> None:
    ids = [new_id() for _ in range(3)]
    assert engine.tenant_ids() == sorted(ids) and all(engine.is_current(one) for one in ids)
    assert len({epoch(engine.tenant(one)) for one in ids}) == 3
    assert [engine.tenant(one).read(words) for one in ids] == [[], [], []]


def test_tenant_whose_note_fails_is_not_there_and_can_be_created_again(engine: Engine, tenant_id: str) -> None:
    """Fault: the file not removed: a database without a customer was there."""

    def fail() -> None:
        customer("a@example.com", tenant_id).save(force_insert=True)
        raise ValueError

    with pytest.raises(ValueError):
        engine.create(tenant_id, fail)
    assert engine.directory.read(known_ids) == set()
    with pytest.raises(TenantNotFound):
        engine.tenant(tenant_id).read(words)
    create(engine, tenant_id)
    assert engine.tenant(tenant_id).write(lambda: add("a")) == 1


DIE_IN_NOTE = """
import os
engine.create(sys.argv[1], lambda: (customer("a@example.com", sys.argv[1]).save(force_insert=True), os._exit(9)))
"""


def test_tenant_whose_creation_the_process_did_not_outlive_is_not_there_after_recovery(
    installation: Installation, tenant_id: str
) -> None:
    """Fault: ``recover`` empty: the tenant's database was there, without a customer."""
    assert elsewhere(installation, DIE_IN_NOTE, tenant_id).wait(60) == 9
    engine = installation.open()
    engine.recover(known_ids)
    assert engine.directory.read(known_ids) == set()
    with pytest.raises(TenantNotFound):
        engine.tenant(tenant_id).read(words)
    create(engine, tenant_id)
    engine.recover(known_ids)
    assert engine.tenant(tenant_id).read(words) == [] and engine.tenant_ids() == [tenant_id]
    engine.close()


# --- removed ---------------------------------------------------------------------------------------------------------


def test_removed_tenant_is_gone_and_no_other(engine: Engine, new_id: NewId) -> None:
    gone, kept = new_id(), new_id()
    for one in (gone, kept):
        engine.tenant(one).write(lambda: add("a"))
    for _ in range(2):  # It need not be there.
        engine.remove(gone)
    for use in (lambda: engine.tenant(gone).read(words), lambda: engine.tenant(gone).write(lambda: add("b"))):
        with pytest.raises(TenantNotFound):
            use()
    assert engine.tenant(kept).read(words) == ["a"] and engine.tenant_ids() == [kept]
    engine.directory.write(lambda: Customer.delete().where(Customer.id == gone).execute())
    assert engine.tenant_ids() == [kept]
    create(engine, gone)
    assert engine.tenant(gone).read(words) == []


def test_tenant_removed_amid_writes_ends_each_of_them_one_way_or_the_other(engine: Engine, new_id: NewId) -> None:
    tenant_id, ended = new_id(), list[type[Exception]]()

    def write(name: str) -> None:
        for number in range(2_000):
            try:
                engine.tenant(tenant_id).write(lambda number=number: add(f"{name}{number}", lambda: gevent.sleep(0)))  # type: ignore[misc]
            except Busy:
                gevent.sleep(0.001)
            except TenantNotFound as error:
                ended.append(type(error))
                return

    writing = [gevent.spawn(write, name) for name in "abcd"]
    gevent.sleep(0.01)
    engine.remove(tenant_id)
    gevent.joinall(writing, raise_error=True)
    assert ended == [TenantNotFound] * 4


def test_all_is_there_after_the_engine_was_closed_and_opened_anew(installation: Installation, tenant_id: str) -> None:
    first = installation.open()
    database = first.tenant(create(first, tenant_id))
    database.write(lambda: add("a"))
    here = epoch(database)
    first.close()
    second = installation.open()
    second.recover(known_ids)
    assert second.tenant(tenant_id).read(words) == ["a"] and epoch(second.tenant(tenant_id)) == here
    assert second.directory.read(known_ids) == {tenant_id} and second.renewed() == []
    assert second.is_intact() and second.has_room()
    second.maintain()
    second.close()


def test_end_waits_for_the_writes_under_way(installation: Installation, tenant_id: str) -> None:
    engine = installation.open()
    database = engine.tenant(create(engine, tenant_id))
    writes = [gevent.spawn(database.write, lambda n=n: add(f"w{n}", lambda: gevent.sleep(0.001))) for n in range(5)]
    gevent.sleep(0)
    engine.close()
    gevent.joinall(writes, raise_error=True)
    again = installation.open()
    assert len(again.tenant(tenant_id).read(words)) == 5
    again.close()


def test_engine_beside_the_server_says_so_and_both_see_what_is_written(
    installation: Installation, engine: Engine, new_id: NewId
) -> None:
    tenant_id, beside = new_id(), installation.open(is_server=False)
    assert (engine.is_server, beside.is_server) == (True, False)
    assert beside.tenant(tenant_id).write(lambda: add("theirs")) == 1
    assert engine.tenant(tenant_id).write(lambda: add("ours")) == 2
    assert beside.tenant(tenant_id).read(words) == engine.tenant(tenant_id).read(words) == ["theirs", "ours"]
    beside.close()


# --- another version -------------------------------------------------------------------------------------------------


@pytest.fixture
def new_version() -> Iterator[Callable[[], None]]:
    """Become a version that has one more table."""
    yield lambda: declare("[job]\ncolumns.title = 'text'\n")
    declare("")


def count_of_jobs() -> int:
    return int(connection().execute("SELECT count(*) FROM job").fetchone()[0])


def test_tenant_of_an_older_version_is_peeked_at_as_it_is_and_becomes_current_by_migration_or_use(
    installation: Installation, new_version: Callable[[], None]
) -> None:
    """Fault: ``peek`` by opening the tenant: it was made current by that."""
    older = installation.open()
    migrated, used = (create(older, str(uuid.uuid4())) for _ in range(2))
    for one in (migrated, used):
        older.tenant(one).write(lambda: add("a"))
    older.close()
    new_version()
    engine = installation.open()
    for one in (migrated, used):
        assert engine.peek(one, words) == ["a"]
        with pytest.raises(Exception, match=r"job|too much to do"):  # PostgreSQL's tables may be changed soon.
            engine.peek(one, count_of_jobs)
        assert not engine.is_current(one)
    engine.migrate(migrated)
    assert engine.tenant(used).read(count_of_jobs) == 0
    for one in (migrated, used):
        assert engine.is_current(one) and engine.peek(one, count_of_jobs) == 0
        assert engine.tenant(one).write(lambda: add("b")) == 2 and engine.tenant(one).read(words) == ["a", "b"]
    engine.close()


# --- looked at, copied, restored -------------------------------------------------------------------------------------


def test_peek_reads_a_tenant_and_can_not_write_it(engine: Engine, new_id: NewId) -> None:
    tenant_id = new_id()
    engine.tenant(tenant_id).write(lambda: add("a"))
    assert engine.peek(tenant_id, words) == ["a"]
    with pytest.raises(Exception):  # noqa: B017 -- each engine has an error of its own
        engine.peek(tenant_id, lambda: add("b"))
    engine.migrate(tenant_id)
    assert engine.tenant(tenant_id).read(words) == ["a"]


def test_copy_is_of_one_moment_though_it_is_written_meanwhile(engine: Engine, new_id: NewId, tmp_path: Path) -> None:
    """Restored, it has the first of the words, each with its sequence."""
    tenant_id, copy = new_id(), tmp_path / "copy"
    database = engine.tenant(tenant_id)
    for number in range(20):
        database.write(lambda number=number: add(f"w{number}"))  # type: ignore[misc]
    writing = [gevent.spawn(database.write, lambda n=n: add(f"w{n}", lambda: gevent.sleep(0))) for n in range(20, 40)]
    gevent.sleep(0)
    engine.copy_to(tenant_id, copy)
    gevent.joinall(writing, raise_error=True)
    engine.restore_from(tenant_id, copy)
    found = database.read(words)
    assert 20 <= len(found) <= 40 and found == [f"w{n}" for n in range(len(found))]
    assert database.read(sequence) == len(found)


def test_restored_tenant_has_what_was_copied_under_a_new_epoch_and_goes_on(
    engine: Engine, new_id: NewId, tmp_path: Path
) -> None:
    """Fault: the copy's own epoch kept: cursors of after the copy would fit, and skip rows."""
    tenant_id, other, copy = new_id(), new_id(), tmp_path / "copy"
    database = engine.tenant(tenant_id)
    for one in (tenant_id, other):
        engine.tenant(one).write(lambda: add("then"))
    before, others = epoch(database), epoch(engine.tenant(other))
    engine.copy_to(tenant_id, copy)
    database.write(lambda: add("lost with the restore"))
    database.write(lambda: EndUser.update(name="changed").where(EndUser.name == "then").execute())
    new = engine.restore_from(tenant_id, copy)
    assert database.read(words) == ["then"] and epoch(database) == new != before
    assert engine.renewed() == [tenant_id] and engine.renewed() == []
    assert database.write(lambda: add("now")) == 2 and database.read(words) == ["then", "now"]
    assert engine.tenant(other).read(words) == ["then"] and epoch(engine.tenant(other)) == others


def test_directory_is_copied_unless_it_has_lost_its_customers(engine: Engine, new_id: NewId, tmp_path: Path) -> None:
    """Fault: not looked at: a backup of nobody was made, and the last real one removed for it."""
    ids = [new_id() for _ in range(3)]
    engine.copy_directory(tmp_path / "main.db")
    assert manifests.customers_in(tmp_path / "main.db").keys() == set(ids)
    assert (tmp_path / "main.db").stat().st_mode & 0o077 == 0
    engine.directory.write(lambda: Customer.delete().execute())
    with pytest.raises(CanNotOpen, match="knows no customer"):
        engine.copy_directory(tmp_path / "lost.db")


def test_tenant_that_is_missing_is_told(engine: Engine, new_id: NewId, tmp_path: Path) -> None:
    tenant_id, other = new_id(), new_id()
    assert engine.fault_of(tenant_id) is None
    engine.copy_to(tenant_id, tmp_path / "copy")
    engine.remove(tenant_id)
    assert "missing" in str(engine.fault_of(tenant_id)) and engine.fault_of(other) is None
    engine.restore_from(tenant_id, tmp_path / "copy")
    assert engine.fault_of(tenant_id) is None


def test_several_tenants_are_restored_together_each_with_its_customer(
    engine: Engine, new_id: NewId, tmp_path: Path
) -> None:
    """What can't be written leaves the tenant as it was, and so does a note that fails, where that is one transaction."""
    ids = [new_id() for _ in range(3)]
    for one in ids:
        engine.tenant(one).write(lambda one=one: add(one))  # type: ignore[misc]
        engine.copy_to(one, tmp_path / one)
        engine.tenant(one).write(lambda: add("later"))

    def note(one: str) -> None:
        Customer.update(name=f"restored {one}").where(Customer.id == one).execute()

    epochs = {one: engine.lay_ready(one, partial(shutil.copyfile, tmp_path / one), partial(note, one)) for one in ids}
    engine.wait_until_taken(epochs, 60)
    assert {one: epoch(engine.tenant(one)) for one in ids} == epochs
    assert [engine.tenant(one).read(words) for one in ids] == [[one] for one in ids]
    assert engine.directory.read(lambda: {row.name for row in Customer.select()}) == {f"restored {one}" for one in ids}
    assert engine.renewed() == sorted(ids) and engine.renewed() == []
    engine.remove(ids[0])
    with pytest.raises(NotRestored, match=ids[0]):
        engine.wait_until_taken(epochs, 60)
    with pytest.raises(OSError, match="No such file"):
        engine.lay_ready(ids[1], partial(shutil.copyfile, tmp_path / "nowhere"), lambda: None)
    assert engine.tenant(ids[1]).read(words) == [ids[1]] and engine.renewed() == []


def test_tenant_begins_a_new_epoch_on_the_rows_it_has(engine: Engine, new_id: NewId, tenant_id: str) -> None:
    """As when all of the storage was put back: no cursor of what came after fits, and the server tells devices."""
    one, other = new_id(), new_id()
    database = engine.tenant(one)
    database.write(lambda: add("then"))
    before = database.read(position)
    new = engine.begin_epoch(one)
    here = database.read(position)
    assert here.epoch == new != before.epoch and here.sequence == before.sequence and here.restored_at == here.clock
    assert database.read(words) == ["then"] and database.write(lambda: add("now")) == 2
    assert engine.renewed() == [one] and engine.renewed() == [] and engine.owner_of(new) in (one, None)
    assert epoch(engine.tenant(other)) != new
    assert engine.begin_epoch(one) != new and engine.renewed() == [one], "again, and again it is told"
    with pytest.raises(TenantNotFound):
        engine.begin_epoch(tenant_id)


def test_what_was_replaced_is_kept_until_it_is_to_be_forgotten(engine: Engine, new_id: NewId, tmp_path: Path) -> None:
    """Fault, on PostgreSQL: not removed with the tenant: rows of an account that was closed stayed on the disk."""
    tenant_id, copy = new_id(), tmp_path / "copy"
    database = engine.tenant(tenant_id)
    database.write(lambda: add("then"))
    engine.copy_to(tenant_id, copy)
    database.write(lambda: add("now"))
    began = time.time()
    engine.restore_from(tenant_id, copy)
    assert engine.replaced is not None
    (kept,) = engine.replaced.iterdir()
    assert kept.stat().st_mode & 0o077 == 0 == engine.replaced.stat().st_mode & 0o077
    engine.restore_from(tenant_id, kept)
    assert database.read(words) == ["then", "now"] and len([*engine.replaced.iterdir()]) == 2
    engine.forget_replaced(tenant_id, began - 1)
    assert len([*engine.replaced.iterdir()]) == 2
    engine.forget_replaced(tenant_id, time.time() + 1)
    assert not [*engine.replaced.iterdir()]
    engine.restore_from(tenant_id, copy)
    engine.remove(tenant_id)
    assert not [*engine.replaced.iterdir()]


RESTORE = """
from pathlib import Path
print(engine.restore_from(sys.argv[1], Path(sys.argv[2])))
"""


def test_tenant_that_a_command_restores_beside_the_server_is_listed_as_renewed_once(
    installation: Installation, engine: Engine, new_id: NewId, tmp_path: Path
) -> None:
    tenant_id, copy, renewed = new_id(), tmp_path / "copy", list[str]()
    database = engine.tenant(tenant_id)
    database.write(lambda: add("then"))
    engine.copy_to(tenant_id, copy)
    database.write(lambda: add("lost with the restore"))
    command = elsewhere(installation, RESTORE, tenant_id, str(copy))
    while command.poll() is None:
        renewed += engine.renewed()
        gevent.sleep(0.01)
    assert command.returncode == 0 and renewed + engine.renewed() == [tenant_id]
    assert lines_of(command).read().strip() == epoch(database) and database.read(words) == ["then"]


def test_copy_restores_a_tenant_that_is_gone_and_one_that_is_gone_has_no_copy(
    engine: Engine, new_id: NewId, tmp_path: Path
) -> None:
    tenant_id, copy = new_id(), tmp_path / "copy"
    engine.tenant(tenant_id).write(lambda: add("a"))
    engine.copy_to(tenant_id, copy)
    engine.remove(tenant_id)
    with pytest.raises(TenantNotFound):
        engine.copy_to(tenant_id, tmp_path / "another")
    engine.restore_from(tenant_id, copy)
    assert engine.tenant(tenant_id).read(words) == ["a"]


def test_tenant_is_restored_amid_writes_each_of_which_is_of_before_or_after(
    engine: Engine, new_id: NewId, tmp_path: Path
) -> None:
    """What was answered under the new epoch is there; of what was answered before it nothing is."""
    tenant_id, copy, answered = new_id(), tmp_path / "copy", list[tuple[str, str]]()
    database = engine.tenant(tenant_id)
    database.write(lambda: add("copied"))
    engine.copy_to(tenant_id, copy)
    is_over = False

    def write(name: str) -> None:
        while not is_over:
            word = str(uuid.uuid4())
            with contextlib.suppress(Busy):
                answered.append((database.write(lambda word=word: (add(word), position().epoch)[1]), word))  # type: ignore[misc]
            gevent.sleep(0.001)

    writing = [gevent.spawn(write, name) for name in "abcd"]
    gevent.sleep(0.02)
    new = engine.restore_from(tenant_id, copy)
    gevent.sleep(0.02)
    is_over = True
    gevent.joinall(writing, raise_error=True)
    assert set(database.read(words)) == {"copied"} | {word for under, word in answered if under == new}
    assert {under == new for under, _ in answered} == {True, False}
