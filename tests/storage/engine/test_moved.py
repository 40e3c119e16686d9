"""A database that moved away takes no write, of whichever process, and goes on to be read."""

from __future__ import annotations

import uuid
from pathlib import Path

import gevent
import pytest

from protocol.errors import Moved
from storage import main_database, moving
from storage.engine import Engine
from storage.positions import incarnation
from tests.customers import customer
from tests.storage.engine.installations import Installation, add, create, elsewhere, known_ids, lines_of, words


def leave(engine: Engine, tenant_id: str) -> None:
    engine.rewrite(tenant_id, lambda: moving.note_tenant("elsewhere"))


def test_tenant_that_moved_takes_no_write_and_is_read(engine: Engine, tenant_id: str) -> None:
    """Faults: no look at the note in ``_begin`` of SQLite's, in ``_commit`` of PostgreSQL's."""
    tenant = engine.tenant(create(engine, tenant_id))
    tenant.write(lambda: add("before"))
    leave(engine, tenant_id)
    for _ in range(2):
        with pytest.raises(Moved):
            tenant.write(lambda: add("after"))
    assert tenant.read(words) == ["before"]
    engine.rewrite(tenant_id, lambda: moving.note_tenant(None))
    assert tenant.write(lambda: add("again")) == 2


def test_writes_that_come_together_with_the_move_are_before_it_or_refused(engine: Engine, tenant_id: str) -> None:
    tenant = engine.tenant(create(engine, tenant_id))
    writing = [gevent.spawn(tenant.write, lambda: add("a", lambda: gevent.sleep(0.001))) for _ in range(20)]
    tenant.write(lambda: add("b"))
    gevent.joinall(writing)
    leave(engine, tenant_id)
    with pytest.raises(Moved):
        tenant.write(lambda: add("c"))
    assert len(tenant.read(words)) == 1 + sum(one.successful() for one in writing)


WRITE_UNTIL_IT_MOVED = """
from protocol.errors import Moved
tenant, count = engine.tenant(sys.argv[1]), 0
try:
    while True:
        count = tenant.write(lambda: add("a"))
        print(count, flush=True)
except Moved:
    print("moved", count, flush=True)
"""


def test_another_process_writes_nothing_after_the_move(
    installation: Installation, engine: Engine, tenant_id: str
) -> None:
    """What it was told is stored is all there when the move returns. Fault: the note looked at before the lock is held."""
    create(engine, tenant_id)
    other = elsewhere(installation, WRITE_UNTIL_IT_MOVED, tenant_id)
    for _ in range(5):
        lines_of(other).readline()
    leave(engine, tenant_id)
    count = len(engine.tenant(tenant_id).read(words))
    assert lines_of(other).read().splitlines()[-1] == f"moved {count}"
    assert len(engine.tenant(tenant_id).read(words)) == count and other.wait(60) == 0


def test_directory_that_moved_takes_no_customer(engine: Engine, tenant_id: str) -> None:
    create(engine, tenant_id)
    name = engine.rewrite(None, moving.name_of_installation)
    engine.rewrite(None, lambda: moving.note_directory("elsewhere"))
    with pytest.raises(Moved):
        create(engine, str(uuid.uuid4()))
    assert engine.directory.read(known_ids) == {tenant_id} and engine.tenant_ids() == [tenant_id]
    engine.rewrite(None, lambda: moving.note_directory(None))
    assert engine.rewrite(None, moving.name_of_installation) == name
    assert engine.directory.write(lambda: main_database.add_missing_customer(customer("b@example.com"))) is None


def test_tenant_that_is_rewritten_begins_with_it_or_not_at_all(engine: Engine, tenant_id: str) -> None:
    """Fault: what was begun not removed: a database without rows was there."""

    def fail() -> None:
        moving.note_tenant("here")
        raise ValueError

    with pytest.raises(ValueError):
        engine.rewrite(tenant_id, fail)
    engine.directory.write(lambda: customer("a@example.com", tenant_id).save(force_insert=True))
    assert engine.tenant_ids() == []
    engine.rewrite(tenant_id, lambda: add("a"))
    assert engine.tenant_ids() == [tenant_id] and engine.tenant(tenant_id).read(words) == ["a"]


def test_what_is_restored_takes_writes_also_if_it_was_copied_after_the_move(
    engine: Engine, tenant_id: str, tmp_path: Path
) -> None:
    """Fault: the note left by ``begin_epoch``: a backup of what had moved could not be used."""
    tenant = engine.tenant(create(engine, tenant_id))
    leave(engine, tenant_id)
    engine.copy_to(tenant_id, tmp_path / "copy.db")
    before = tenant.read(incarnation)
    engine.restore_from(tenant_id, tmp_path / "copy.db")
    assert tenant.read(incarnation) != before and tenant.write(lambda: add("a")) == 1
