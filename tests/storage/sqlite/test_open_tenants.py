"""How a tenant's file is opened, and what it holds when it is open."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import gevent
import pytest
from gevent.event import Event

from storage import last_positions
from storage.positions import incarnation, position
from storage.sqlite import open_files
from storage.sqlite.engine import SQLiteEngine
from tenants import Tenants
from tests import inside
from tests.data_folder import engine_of, folder_of, path_of
from tests.storage.sqlite.words import descriptors

_TENANTS = 10


def push(tenants: Tenants, tenant_id: str, row_id: str) -> None:
    """Push a row of some 500 bytes."""
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": row_id, "name": "A", "note": "x" * 400}]}})


def heap_kib(tenants: Tenants, ids: list[str]) -> float:
    """Give how much more SQLite has allocated for each of some tenants after a push to it."""
    before = apsw.memory_used()
    for tenant_id in ids:
        push(tenants, tenant_id, str(uuid.uuid4()))
    return (apsw.memory_used() - before) / 1024 / len(ids)


def test_open_tenant_takes_little_memory(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    """Faults: SQLite's own lookaside, of 48 KiB a connection; a second connection that nothing needs; 20 pages reserved at
    once, also after it has rested."""
    push(tenants, new_tenant(), "a")  # What is allocated once.
    ids = [new_tenant() for _ in range(_TENANTS)]
    assert heap_kib(tenants, ids) < 120
    for tenant_id in ids:
        engine_of(tenants).files.database(tenant_id).rest()
    assert heap_kib(tenants, ids) < 50


def test_tenant_that_nobody_uses_gives_its_pages_back_and_goes_on_when_it_is_used(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    """Faults: it keeps them as long as it is open; one in use gives them up, too."""
    used, unused = new_tenant(), new_tenant()
    for tenant_id in (used, unused):
        push(tenants, tenant_id, "a")
    for _ in range(3):
        engine_of(tenants).maintain()
        tenants.read(used, position)
    assert pages_kib(tenants, unused) < 10 < 30 < pages_kib(tenants, used)
    push(tenants, unused, "b")
    assert [row["id"] for row in inside.rows(tenants, unused)] == ["a", "b"]


def test_tenant_that_nobody_uses_for_long_is_closed_and_loses_nothing(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults: its log taken in at once, so that the loop waits for the disk; one closed that was used between two looks, or
    that is being written."""
    monkeypatch.setattr(open_files, "_LOOKS_UNTIL_CLOSED", 2)
    used, unused, written = new_tenant(), new_tenant(), new_tenant()
    gate = Event()
    writing = gevent.spawn(tenants.write, written, gate.wait)
    push(tenants, unused, "a")
    push(tenants, used, "a")
    files = engine_of(tenants).files
    stays = files.database(used)
    for _ in range(4):
        assert unused in files
        engine_of(tenants).maintain()
        tenants.read(used, position)
    assert unused not in files and descriptors(path_of(tenants, unused)) == 0 and unused in files.left_logs
    assert files.database(used) is stays and written in files
    gate.set()
    assert writing.get() is True
    push(tenants, unused, "b")
    assert [row["id"] for row in inside.rows(tenants, unused)] == ["a", "b"]


def pages_kib(tenants: Tenants, tenant_id: str) -> float:
    """Give how much of an open file SQLite keeps in memory."""
    connection = engine_of(tenants).files._open[tenant_id]._writer.conn
    return connection.status(apsw.SQLITE_DBSTATUS_CACHE_USED)[0] / 1024


def test_damaged_file_that_is_closed_to_make_room_fails_no_other_tenant(
    tenants: Tenants,
    new_tenant: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Fault: its position, which can't be read any more, was the error of the tenant that came."""
    monkeypatch.setattr(engine_of(tenants).files, "_most_open", 1)
    damaged, other = new_tenant(), new_tenant()
    push(tenants, damaged, "a")
    engine_of(tenants).files.database(damaged).rest()
    log = Path(f"{path_of(tenants, damaged)}-wal")
    with log.open("r+b") as file:
        file.write(b"\xff" * log.stat().st_size)
    push(tenants, other, "b")
    assert [row["id"] for row in inside.rows(tenants, other)] == ["b"]
    assert f"the position of tenant {damaged}" in caplog.text


@pytest.mark.parametrize("work", ["read", "write"])
def test_file_that_another_connection_holds_is_waited_for(
    tenants: Tenants, new_tenant: Callable[[], str], work: str
) -> None:
    """A device that came back while the monitor recovered its tenant's write-ahead log was told to try again."""
    tenant_id = new_tenant()
    holder = apsw.Connection(str(path_of(tenants, tenant_id)))
    holder.pragma("locking_mode", "exclusive")
    holder.execute("BEGIN IMMEDIATE")
    use = partial(tenants.read, tenant_id, position) if work == "read" else partial(push, tenants, tenant_id, "a")
    using = [gevent.spawn(use) for _ in range(3)]
    gevent.sleep(0.1)
    assert not any(one.ready() for one in using)
    holder.close()
    gevent.joinall(using, raise_error=True)


def test_file_that_went_back_and_is_held_is_waited_for_and_opened_once(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults: what was opened for a try that failed stays open; the lock is an unforeseen error."""
    tenant_id, engine = new_tenant(), engine_of(tenants)
    epoch, sequence = engine.peek(tenant_id, incarnation)
    engine.directory.write(lambda: last_positions.note_positions({tenant_id: (epoch, sequence + 9)}))
    holder = apsw.Connection(str(path_of(tenants, tenant_id)))
    holder.execute("BEGIN IMMEDIATE")
    tries, opened = [], engine.rollbacks.opened

    def release_after_three(*about: Any) -> bool:
        tries.append(about)
        if len(tries) == 4:
            holder.close()
        return opened(*about)

    monkeypatch.setattr(engine.rollbacks, "opened", release_after_three)
    assert tenants.read(tenant_id, position).epoch != epoch
    with engine.files.closed(tenant_id):
        assert descriptors(path_of(tenants, tenant_id)) == 0


def test_file_of_an_account_that_another_process_closed_leaves_no_copy(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    """Fault: it was taken for one that somebody removed, and its rows were kept."""
    tenant_id = new_tenant()
    push(tenants, tenant_id, "a")
    folder = folder_of(tenants)
    beside = Tenants(SQLiteEngine(folder.path, is_server=False))
    beside.close_account(tenant_id)
    beside.close()
    engine_of(tenants).maintain()
    assert tenant_id not in engine_of(tenants).files
    assert not path_of(tenants, tenant_id).exists() and not list(
        folder.path.rglob(f"*{path_of(tenants, tenant_id).stem}*")
    )
