"""The process dies half way, in a commit, a migration or a restore: each is whole, or has not happened.

The faults named below were put into a copy of the server; the tests named with them failed there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from operations.backups import backup, restore
from storage import positions
from storage.sqlite import files
from tenants import Tenants
from tests import forking, inside
from tests.conftest import Server, Tenant
from tests.data_folder import engine_of, folder_of, opened, path_of
from tests.pushed_rows import ROW, names, push_of

pytestmark = [pytest.mark.slow, pytest.mark.files("where they die")]

DYING_SERVER = """
import syncapp
import os, sys
from pathlib import Path
from storage import group_commit
from storage.sqlite import database
from storage import push_writer
from storage import push_batch
arm = Path(os.environ["DATA_DIR"] + ".arm")

def die(*_, **__):
    os._exit(9)

def before(owner, name, act=die):
    original = getattr(owner, name)
    def dying(*arguments, **named):
        if arm.exists():
            act(original, *arguments, **named)
        return original(*arguments, **named)
    setattr(owner, name, dying)

def amid_commit(original, commit):
    database.disk._threads.spawn(commit)
    die()

{
    "between log and rows": lambda: (before(push_writer, "insert_row"), before(push_batch, "insert_row")),
    "before COMMIT": lambda: before(database.disk, "at_once"),
    "amid COMMIT": lambda: before(database.disk, "at_once", amid_commit),
    "after COMMIT": lambda: before(group_commit.Write, "finish"),
}[os.environ["POINT"]]()
syncapp.main()
"""


@pytest.mark.parametrize("point", ["between log and rows", "before COMMIT", "amid COMMIT", "after COMMIT"])
def test_server_that_dies_in_a_group_commit_keeps_each_push_whole_or_not_at_all(tmp_path: Path, point: str) -> None:
    server = Server(tmp_path / "data", {"POINT": point}, [sys.executable, "-c", DYING_SERVER]).start()
    tenants = [server.register() for _ in range(2)]
    for tenant in tenants:
        tenant.device().push(push_of("then"))
    (tmp_path / "data.arm").touch()
    push_until_gone(server, tenants)
    (tmp_path / "data.arm").unlink()
    server.command = [sys.executable, "syncapp.py"]
    server.start()
    for tenant in tenants:
        check_after_death(tenant, point)
    assert server.stop() == 0


def push_until_gone(server: Server, tenants: list[Tenant]) -> None:
    """Push from several devices at once to a server that dies of it."""

    def push(tenant: Tenant, name: str) -> None:
        with pytest.raises(requests.ConnectionError):
            tenant.device(Idempotency_Key=name).push_raw(push_of(f"{name}.1", f"{name}.2"))

    threads = [threading.Thread(target=push, args=(tenant, name)) for tenant in tenants for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.process is not None and server.process.wait(timeout=20) == 9


def check_after_death(tenant: Tenant, point: str) -> None:
    """All or nothing of each push, and a retry under its key makes it whole and only once."""
    there = names(tenant.device())
    assert "then" in there
    assert all((f"{name}.1" in there) == (f"{name}.2" in there) for name in "xyz")
    if point in ("between log and rows", "before COMMIT"):
        assert there == {"then"}
    for name in "xyz":
        tenant.device(Idempotency_Key=name).push(push_of(f"{name}.1", f"{name}.2"))
    rows = tenant.device().rows()
    assert len(rows) == 7 and {row["version"] for row in rows} == {1}
    assert files.faults_of(tenant.path) == []


DYING = """
import syncapp
import os, sys
from pathlib import Path
from storage import main_database
from storage import digest
from storage.sqlite import files
from storage import positions
from operations.backups import restore
from storage import schema
from storage.sqlite import database
from storage.sqlite import file_replacement

folder, tenant_id, made, work, when, owner, name, about = sys.argv[1:]
from storage.sqlite.engine import SQLiteEngine
engine = SQLiteEngine(Path(folder), is_server=False)
module, _, attribute = owner.partition(":")
owner = getattr(sys.modules[module], attribute) if attribute else sys.modules[module]
original = getattr(owner, name)

def dying(*arguments, **named):
    meant = about in str(arguments)
    if meant and when == "before":
        os._exit(9)
    result = original(*arguments, **named)
    if meant:
        os._exit(9)
    return result

setattr(owner, name, dying)
if work == "open":
    engine.tenant(tenant_id).read(positions.position)
else:
    restore.restore(engine, restore.choose(engine, Path(made)), restore.Source(made), print)
"""


def die(folder: Path, tenant_id: str, made: Path, work: str, *point: str) -> None:
    """Open a tenant's file, or restore, in a process that dies before or after a call."""
    process = forking.run(["-c", DYING, str(folder), tenant_id, str(made), work, *point], {**os.environ})
    assert process.returncode == 9, process.stdout + process.stderr


def make_older(path: Path) -> None:
    """Make a tenant's file one of a version that knew less."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        for sql in (
            "ALTER TABLE end_user DROP COLUMN name",
            "ALTER TABLE end_user DROP COLUMN firstName",
            "DROP TABLE _digests",
            "PRAGMA user_version = 7",
        ):
            file.execute(sql)


def everything_in(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        return [*file.iterdump(), str(file.execute("PRAGMA user_version").fetchone())]


@pytest.mark.parametrize(
    "point",
    [
        ("before", "storage.sqlite.schema_changes", "add_column", "name"),
        ("after", "storage.sqlite.schema_changes", "add_column", "name"),
        ("before", "storage.digest", "add_missing", ""),
        ("after", "storage.digest", "add_missing", ""),
    ],
    ids=" ".join,
)
def test_migration_that_dies_has_not_happened_and_the_next_opening_does_it(
    tmp_path: Path, tenants: Tenants, new_tenant: Callable[[], str], point: tuple[str, ...]
) -> None:
    """Fault: no transaction around ``prepare``."""
    tenant_id = new_tenant()
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "a", "name": "A", "firstName": "F"}]}})
    shutil.copytree(folder_of(tenants).path, tmp_path / "older")
    new = opened(tmp_path / "older")
    path = path_of(new, tenant_id)
    make_older(path)
    before = everything_in(path)
    die(folder_of(new).path, tenant_id, tmp_path, "open", *point)
    assert everything_in(path) == before
    assert [(row["name"], row["firstName"]) for row in inside.rows(new, tenant_id)] == [("A", "F")]
    assert new.read(tenant_id, positions.position_and_digests)[1]["end_user"]["count"] == 1
    inside.push(new, tenant_id, push_of("b"))
    new.close()
    assert files.faults_of(path) == []


class Crashed(NamedTuple):
    """A folder as a crash leaves it, write-ahead log and all, and a backup of what was before its last push."""

    folder: Path
    tenant_id: str
    made: Path
    epoch: str


@pytest.fixture
def crashed(tmp_path: Path, tenants: Tenants, new_tenant: Callable[[], str]) -> Crashed:
    tenant_id = new_tenant()
    inside.push(tenants, tenant_id, ROW)
    made = backup.make(engine_of(tenants), tmp_path / "backups", None, None, lambda _: None).path
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "a", "name": "now"}]}})
    folder = tmp_path / "crashed"
    shutil.copytree(folder_of(tenants).path, folder)
    return Crashed(folder, tenant_id, made, tenants.read(tenant_id, positions.position).epoch)


def check_state(crashed: Crashed, expected: str) -> None:
    """Open the folder as the next start does: one state or the other, with its epoch, and nothing left over."""
    tenants = opened(crashed.folder)
    assert [row["name"] for row in inside.rows(tenants, crashed.tenant_id)] == [expected]
    assert (tenants.read(crashed.tenant_id, positions.position).epoch == crashed.epoch) == (expected == "now")
    inside.push(tenants, crashed.tenant_id, push_of("on"))
    assert len(inside.rows(tenants, crashed.tenant_id)) == 2
    tenants.close()
    path = path_of(tenants, crashed.tenant_id)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert files.faults_of(path) == []


@pytest.mark.parametrize(
    ("expected", "point"),
    [
        ("now", ("before", "storage.sqlite.restored_files", "open_tenant_file", ".making")),
        ("now", ("before", "storage.positions", "begin_epoch", "")),
        ("now", ("after", "storage.positions", "begin_epoch", "")),
        ("now", ("before", "pathlib:Path", "rename", ".making")),
        ("then", ("before", "storage.sqlite.restored_files", "sync_folder", "")),
        ("then", ("before", "storage.main_database", "add_missing_customer", "")),
        ("then", ("before", "storage.sqlite.file_replacement", "keep_aside", "")),
        ("then", ("after", "storage.sqlite.file_replacement", "copy_file", "")),
        ("then", ("before", "storage.sqlite.file_replacement", "replace_contents", "")),
        ("then", ("after", "storage.sqlite.file_replacement", "replace_contents", "")),
        ("then", ("before", "pathlib:Path", "unlink", ".restored")),
        ("then", ("before", "storage.sqlite.file_replacement", "sync_folder", "/crashed/restored")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_restore_that_dies_is_the_old_state_or_the_new_one_and_never_a_mixture(
    crashed: Crashed, expected: str, point: tuple[str, ...]
) -> None:
    """Faults: the old write-ahead log left beside the new file, which ``crashed`` has; the old epoch kept."""
    die(crashed.folder, crashed.tenant_id, crashed.made, "restore", *point)
    check_state(crashed, expected)


def test_restore_of_a_lost_customer_that_dies_before_it_is_known_is_put_right_by_another_restore(
    crashed: Crashed, tmp_path: Path
) -> None:
    lost = crashed._replace(folder=tmp_path / "new machine")
    die(
        lost.folder, lost.tenant_id, lost.made, "restore", "before", "storage.main_database", "add_missing_customer", ""
    )
    opened(lost.folder).close()
    tenants = opened(lost.folder)
    assert path_of(tenants, lost.tenant_id).exists(), "rows of nobody were removed"
    restore.restore(
        engine_of(tenants), restore.choose(engine_of(tenants), lost.made), restore.Source("it"), lambda _: None
    )
    tenants.close()
    check_state(lost, "then")
