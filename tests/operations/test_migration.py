"""The migration of all tenants: copied before, a few first, none stopped by another, and nothing lost if it is killed.

Seen to fail with: a copy after the change, a fingerprint noted in a transaction of its own, a row that a migration removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from models import connection
from operations import fleet, migration
from operations.backups.restore import restore_file
from operations.migration import Migration, NoRoomForCopies, Result
from protocol.errors import StorageFull
from storage import schema
from tenants import Tenants
from tests import forking
from tests.backing_up import operating
from tests.data_folder import engine_of, path_of
from tests.declaring import Restart, provision, put
from tests.inside import rows

JOB = "[job]\ncolumns.title = 'text'\n"
WIDER = JOB + "columns.priority = { type = 'integer', required = true, default = 3 }\n"


def everything_in(path: Path) -> list[str]:
    """Give all that a file holds, with its log."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        return [*file.iterdump(), str(file.execute("PRAGMA user_version").fetchone())]


@pytest.fixture
def ids(restart: Restart) -> list[str]:
    """Tenants with tables of before, each larger than the one before it."""
    tenants, ids = restart(JOB), [str(uuid.uuid4()) for _ in range(3)]
    for number, tenant_id in enumerate(ids):
        provision(tenants, tenant_id)
        put(tenants, tenant_id, *({"id": f"j{row}", "title": "x" * 5_000} for row in range(2 + 8 * number)))
        put(tenants, tenant_id, {"id": "j0", "is_deleted": 1})
        put(tenants, tenant_id, {"id": "j1", "priority": "high", "unknown": [1]})
    return ids


def migrating(tenants: Tenants, said: list[str] | None = None) -> Migration:
    return Migration(engine_of(tenants), engine_of(tenants).folder.path, (said if said is not None else []).append)


def migrated(tenants: Tenants, **options: Any) -> Result:
    run = migrating(tenants)
    return run.run(run.waiting(), 4, **{"copies": True, **options})


def states(tenants: Tenants) -> Counter[str]:
    found = migration.statuses(tenants.engine, engine_of(tenants).folder.path)
    return Counter(one["state"] for one in found)


def copy_of(tenants: Tenants, tenant_id: str) -> Path:
    """Give the one copy of a tenant of before."""
    path = path_of(tenants, tenant_id)
    (copy,) = engine_of(tenants).folder.before_migration.glob(f"{path.stem}-*")
    return copy


def test_each_file_is_copied_as_it_was_and_migrated(restart: Restart, ids: list[str]) -> None:
    tenants = restart(WIDER)
    assert states(tenants) == {"waiting": 3}
    before = {tenant_id: everything_in(path_of(tenants, tenant_id)) for tenant_id in ids}
    assert sorted(migrated(tenants).migrated) == sorted(ids) and states(tenants) == {"current": 3}
    for tenant_id in ids:
        copy = copy_of(tenants, tenant_id)
        assert everything_in(copy) == before[tenant_id] and copy.stat().st_mode & 0o077 == 0
        job = {row["id"]: row for row in rows(tenants, tenant_id, "job")}
        assert job["j1"]["priority"] == 3 and job["j1"]["_unfit"] == {"priority": "high"}
    assert migrated(tenants) == ([], {}, 0)


def test_next_migration_takes_the_place_of_the_copies_and_a_closed_account_takes_its_own(
    restart: Restart, ids: list[str]
) -> None:
    migrated(restart(WIDER))
    tenants = restart(WIDER + "columns.due = 'date'\n")
    assert migrated(tenants).left == 0
    assert column_names(copy_of(tenants, ids[0])) >= {"priority"} and "due" not in column_names(
        copy_of(tenants, ids[0])
    )
    tenants.close_account(ids[0])
    folder = engine_of(tenants).folder
    assert not list(folder.before_migration.glob(f"{path_of(tenants, ids[0]).stem}*"))
    engine_of(tenants).forget_migrated(0)
    assert copy_of(tenants, ids[1])
    assert migration.remove_copies(folder.path)[0] == 2 and not migration.copies_in(folder.path)


def column_names(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        return {name for (name,) in file.execute("SELECT name FROM pragma_table_info('job')")}


def test_broken_file_stops_no_other_and_is_named_until_it_is_migrated(restart: Restart, ids: list[str]) -> None:
    tenants = restart(WIDER)
    path = path_of(tenants, ids[1])
    shutil.copy(path, path.with_suffix(".good"))
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    found = migrated(tenants)
    assert found.failed.keys() == {ids[1]} and len(found.migrated) == 2
    assert states(tenants) == {"current": 2, "failed": 1}
    told = migration.statuses(tenants.engine, engine_of(tenants).folder.path)
    assert [one["error"] for one in told if one["state"] == "failed"] == list(found.failed.values())
    path.with_suffix(".good").replace(path)
    assert migrated(tenants).migrated == [ids[1]] and states(tenants) == {"current": 3}
    path.unlink()
    assert states(tenants) == {"current": 2, "missing": 1}


# --- canaries --------------------------------------------------------------------------------------------------------


def test_canaries_are_of_all_sizes(restart: Restart, ids: list[str]) -> None:
    run = migrating(restart(WIDER))
    chosen = [[ids.index(one) for one in run.canaries(ids[::-1], count)] for count in (1, 2, 3, 9)]
    assert chosen == [[1], [0, 2], [0, 1, 2], [0, 1, 2]]


def remove_a_row() -> None:
    connection().execute("DELETE FROM job WHERE id = 'j1'")


def change_a_field() -> None:
    connection().execute("UPDATE _changes SET row = replace(row, '[1]', '[2]')")


def lose_history() -> None:
    connection().execute("DELETE FROM _changes WHERE seq NOT IN (SELECT _seq FROM job)")


@pytest.mark.parametrize("fault", [remove_a_row, change_a_field, lose_history])
def test_canary_that_lost_something_is_put_back_and_the_others_wait_until_it_loses_nothing(
    restart: Restart, ids: list[str], monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    tenants, prepare = restart(WIDER), schema.prepare_tenant
    before = everything_in(path_of(tenants, ids[0]))
    monkeypatch.setattr(schema, "prepare_tenant", lambda now: (prepare(now), fault()))
    found = migrating(tenants).run(ids[:1], 1, copies=True, verifies=True)
    assert found.migrated == [] and "was not what it was" in found.failed[ids[0]]
    assert everything_in(path_of(tenants, ids[0])) == everything_in(copy_of(tenants, ids[0])) == before
    assert states(tenants) == {"failed": 1, "waiting": 2}
    with pytest.raises(migration.Lost, match=ids[0]):
        migrating(tenants).must_have_lost_nothing(ids)
    monkeypatch.undo()
    run = migrating(tenants)
    assert run.canaries(ids[1:] + ids[:1], 1)[0] == ids[0]
    assert run.run(ids[:1], 1, copies=True, verifies=True).migrated == ids[:1]
    migrating(tenants).must_have_lost_nothing(ids)
    assert {row["id"]: row.get("unknown") for row in rows(tenants, ids[0], "job")} == {"j1": [1]}
    assert tenants.engine.faults_in(ids[0]) == []


def test_copy_can_be_restored(restart: Restart, ids: list[str]) -> None:
    tenants = restart(WIDER)
    migrated(tenants)
    put(tenants, ids[0], {"id": "later", "title": "x"})
    restore_file(tenants.engine, copy_of(tenants, ids[0]), ids[0])
    assert {row["id"] for row in rows(tenants, ids[0], "job")} == {"j1"}


def test_canary_of_a_run_that_was_cut_off_is_compared_with_what_it_was_before(
    restart: Restart, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = restart(WIDER)
    before = everything_in(path_of(tenants, ids[0]))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tenants.engine, "faults_in", interrupted)
        engine_of(tenants).folder.before_migration.mkdir()
        migrating(tenants)._migrate(ids[0], copies=True, verifies=True)
    assert tenants.engine.is_current(ids[0]) and states(tenants) == {"failed": 1, "waiting": 2}
    assert migration.remove_copies(engine_of(tenants).folder.path) == (0, 0), "it is still to be compared with its copy"
    with pytest.raises(migration.Lost, match=ids[0]):
        migrating(tenants).must_have_lost_nothing(migrating(tenants).waiting())
    run = migrating(tenants)
    assert run.run(run.canaries(run.waiting(), 1)[:1], 1, copies=True, verifies=True).migrated == ids[:1]
    assert everything_in(copy_of(tenants, ids[0])) == before and states(tenants) == {"current": 1, "waiting": 2}


def test_copies_are_not_removed_while_they_are_made(
    restart: Restart, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: a canary whose copy was removed meanwhile could not be compared, and passed the next time."""
    tenants, seen = restart(WIDER), list[str]()

    def look(tenant_id: str) -> list[str]:
        with pytest.raises(migration.CopiesInUse):
            migration.remove_copies(engine_of(tenants).folder.path)
        seen.append(tenant_id)
        return []

    monkeypatch.setattr(tenants.engine, "faults_in", look)
    assert migrated(tenants, verifies=True).failed == {} and sorted(seen) == sorted(ids)
    assert migration.remove_copies(engine_of(tenants).folder.path)[0] == 3


def interrupted(_: str) -> list[str]:
    raise KeyboardInterrupt


def test_sound_canaries_pass(restart: Restart, ids: list[str]) -> None:
    assert migrated(restart(WIDER), verifies=True).failed == {}


# --- room, progress, kill --------------------------------------------------------------------------------------------


def test_copies_that_would_not_fit_are_refused_before_anything(
    restart: Restart, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = migrating(restart(WIDER))
    size = sum(run._size_of(tenant_id) for tenant_id in ids)
    largest = max(run._size_of(tenant_id) for tenant_id in ids)
    free = migration._SPARE_BYTES + 2 * largest
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free + size - 1))
    with pytest.raises(NoRoomForCopies, match="--no-copy"):
        run.must_have_room(ids, copies=True)
    run.must_have_room(ids, copies=False)
    run.must_have_room(ids[:1], copies=True)


def test_disk_that_is_full_stops_the_run_and_leaves_the_others_as_they_are(
    restart: Restart, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants, tried = restart(WIDER), list[str]()

    def fill(tenant_id: str) -> None:
        tried.append(tenant_id)
        raise StorageFull

    monkeypatch.setattr(tenants.engine, "migrate", fill)
    run = migrating(tenants)
    found = run.run(run.waiting(), 1, copies=True)
    assert len(tried) == 1 and found.failed.keys() == set(tried) and found.left == 2
    assert states(tenants) == {"failed": 1, "waiting": 2}


def test_progress_has_a_rate_and_the_time_that_is_left() -> None:
    said, now = list[str](), [100.0]
    progress = fleet.Progress(200, "tenants", said.append, lambda: now[0])
    for _ in range(200):
        now[0] += 0.5
        progress.note()
    assert (
        said[0] == "4 of 200 tenants, 2.0 a second, 1 min 38 s left" and said[-1] == "200 of 200 tenants, 2.0 a second"
    )
    assert len(said) == 50


def test_interrupt_lets_those_under_way_end_and_leaves_the_others(
    restart: Restart, ids: list[str], request: pytest.FixtureRequest
) -> None:
    """Fault: it was raised in the midst of a tenant, which was noted as failed, and all others were migrated."""
    tenants = restart(WIDER)
    migrate = tenants.engine.migrate
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Tests before may have left their library's own.
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupt(tenant_id: str) -> None:
        if tenant_id == ids[0]:
            os.kill(os.getpid(), signal.SIGINT)
        migrate(tenant_id)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tenants.engine, "migrate", interrupt)
        migrating(tenants).run(ids, 1, copies=True)
    assert states(tenants) == {"current": 2, "waiting": 1}, "one was under way, and one next in line"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


KILLED = """
import os, sys, syncapp
from storage.sqlite import files
seen = []
def prepared(prepare, fingerprint, real=files.prepared):
    real(prepare, fingerprint)
    seen.append(1)
    if len(seen) == 2:
        os.kill(os.getpid(), 9)
files.prepared = prepared
syncapp.main()
"""


def test_run_that_was_killed_goes_on_and_copies_what_was_before(
    restart: Restart, ids: list[str], tmp_path: Path
) -> None:
    """It dies in the transaction of the second, when nothing but the fingerprint's commit is missing."""
    tenants = restart(WIDER)
    before = {tenant_id: everything_in(path_of(tenants, tenant_id)) for tenant_id in ids}
    tenants.close()
    (tmp_path / "own.toml").write_text(WIDER)
    environ = operating(tmp_path / "data") | {"TABLES_FILE": str(tmp_path / "own.toml")}
    ended = forking.run(["-c", KILLED, "migrate", "--jobs", "1"], environ)
    assert ended.returncode == -9, ended.stderr
    tenants = restart(WIDER)
    assert states(tenants) == {"current": 1, "waiting": 2}
    assert len(migrated(tenants).migrated) == 2 and states(tenants) == {"current": 3}
    for tenant_id in ids:
        assert everything_in(copy_of(tenants, tenant_id)) == before[tenant_id]
        assert {row["priority"] for row in rows(tenants, tenant_id, "job")} == {3}
