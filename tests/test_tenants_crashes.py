"""Accounts and their files come and go together, whatever crashes."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gevent
import gevent.event
import pytest

from models import connection
from protocol.errors import StorageFull
from storage import main_database
from storage.main_database import Customer
from storage.positions import position
from storage.sqlite.files import copy_file
from tenants import Tenants
from tests import forking, inside
from tests.conftest import ROOT, wait_for
from tests.customers import ROW, customer, customers, files
from tests.data_folder import engine_of, folder_of, opened, path_of

pytestmark = pytest.mark.files("accounts and their files")
CRASH = """
import syncapp
import os, sys
from storage import main_database
from storage import group_commit
from storage.sqlite import engine
from storage.sqlite.engine import SQLiteEngine
import tenants
from pathlib import Path
sys.path.insert(0, "tests")

def before(module, name, count=1):
    original, calls = getattr(module, name), [0]
    def crash(*arguments, **named):
        calls[0] += 1
        if calls[0] == count:
            os._exit(9)
        return original(*arguments, **named)
    setattr(module, name, crash)

def after(module, name):
    original = getattr(module, name)
    def crash(*arguments, **named):
        original(*arguments, **named)
        os._exit(9)
    setattr(module, name, crash)

customer = main_database.Customer(id=sys.argv[2], name="A B", email="a@example.com", companyName="C", firstName="A",
    lastName="B", passwordHash="-", createdAt="2026-01-01T00:00:00.000Z")
opened = tenants.Tenants(SQLiteEngine(Path(sys.argv[1])))
if sys.argv[3].startswith("close"):
    opened.provision(customer)
    opened.write(customer.id, lambda: main_database.connection().execute("UPDATE _meta SET sequence = 5"))
{
    "file half made": lambda: after(Path, "touch"),
    "file made": lambda: before(os, "fsync"),
    "before rename": lambda: before(os, "replace"),
    "after rename": lambda: after(os, "replace"),
    "before insert": lambda: before(main_database, "id_by_email"),
    "before commit": lambda: after(main_database, "add_customer"),
    "after commit": lambda: before(group_commit.Write, "finish"),
    "close: before commit": lambda: after(main_database, "remove_customer"),
    "close: after commit": lambda: before(group_commit.Write, "finish"),
    "close: before removal": lambda: before(engine, "remove_file"),
    "close: half removed": lambda: before(Path, "unlink", 2),
    "close: before note": lambda: before(main_database, "finish_closing"),
}[sys.argv[3]]()
opened.close_account(customer.id) if sys.argv[3].startswith("close") else opened.provision(customer)
"""


def crash(folder: Path, point: str) -> str:
    """Register, or close an account that has rows, in a process that dies at ``point``; give the customer's ID."""
    tenant_id = str(uuid.uuid4())
    process = forking.run(["-c", CRASH, str(folder), tenant_id, point], {**os.environ})
    assert process.returncode == 9, process.stderr
    return tenant_id


@pytest.mark.parametrize(
    "point", ["file half made", "file made", "before rename", "after rename", "before insert", "before commit"]
)
def test_crash_before_a_registration_counts_leaves_the_address_free_and_no_file(
    open_folder: Callable[..., Tenants], tmp_path: Path, point: str
) -> None:
    """Fault: ``_recover`` left out: the files stayed. Fault: the directory's row first: a customer without a file."""
    crash(tmp_path / "data", point)
    tenants = open_folder()
    assert files(folder_of(tenants).path) == set() and customers(tenants) == {}
    assert list((folder_of(tenants).path / "tenants").iterdir()) == []
    again = customer()
    tenants.provision(again)
    inside.push(tenants, again.id, ROW)


def test_crash_after_a_registration_counts_leaves_an_account_that_works(
    open_folder: Callable[..., Tenants], tmp_path: Path
) -> None:
    tenant_id = crash(tmp_path / "data", "after commit")
    tenants = open_folder()
    assert customers(tenants) == {"a@example.com": tenant_id}
    assert inside.push(tenants, tenant_id, ROW).results[0]["status"] == "created"


def test_next_attempt_needs_no_restart(open_folder: Callable[..., Tenants], tmp_path: Path) -> None:
    crash(tmp_path / "data", "after rename")
    tenants = open_folder(is_server=False)  # Like the operator's command, it recovers nothing.
    again = customer()
    tenants.provision(again)
    inside.push(tenants, again.id, ROW)
    assert path_of(tenants, again.id).exists()


@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "storage.main_database.id_by_email"])
def test_registration_that_fails_leaves_nothing_at_once(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Fault: the file made outside of ``try``: it stayed, and on a full disk each attempt left another."""

    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            patch.undo()
            raise StorageFull if where.startswith("storage.main_database") else OSError(errno.ENOSPC, "no room")

        patch.setattr(where, fail)
        with pytest.raises(OSError if where == "os.replace" else StorageFull):
            tenants.provision(customer())
    assert list((folder_of(tenants).path / "tenants").iterdir()) == [] and customers(tenants) == {}
    tenants.provision(customer())


def test_registration_whose_caller_ends_while_it_waits_is_whole_or_nothing(
    open_folder: Callable[..., Tenants],
) -> None:
    """Fault: the file removed on any BaseException: the insert came later, and the customer had no file."""
    tenants, gate, new = open_folder(), gevent.event.Event(), customer()
    begun = gevent.event.Event()
    busy = gevent.spawn(tenants.directory.write, lambda: (begun.set(), gate.wait()))
    begun.wait()
    registering = gevent.spawn(tenants.provision, new)
    wait_for(lambda: engine_of(tenants).directory._waiting, "the registration to wait for its turn")
    registering.kill()
    gate.set()
    busy.get()
    engine_of(tenants).directory.wait()
    assert customers(tenants) == {new.email: new.id}
    inside.push(tenants, new.id, ROW)


def test_start_beside_a_registration_leaves_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator registers while a server starts. Fault: no lock: the start removed the file, its customer stayed."""
    operators, new, starts = opened(tmp_path / "data", is_server=False), customer(), []
    script = (
        "import syncapp, sys, pathlib; from storage.sqlite.engine import SQLiteEngine; from tenants import Tenants;"
        " Tenants(SQLiteEngine(pathlib.Path(sys.argv[1]))).engine.close()"
    )

    def start_meanwhile(folder: Path) -> None:
        starts.append(subprocess.Popen([sys.executable, "-c", script, str(folder_of(operators).path)], cwd=ROOT))
        with contextlib.suppress(subprocess.TimeoutExpired):
            starts[0].wait(2)

    monkeypatch.setattr("storage.sqlite.engine.sync_folder", start_meanwhile)
    operators.provision(new)
    assert starts[0].wait(20) == 0
    inside.push(operators, new.id, ROW)
    operators.close()


@pytest.mark.parametrize(
    "point", ["close: after commit", "close: before removal", "close: half removed", "close: before note"]
)
def test_closing_that_a_crash_cut_off_is_finished_at_the_next_start(
    open_folder: Callable[..., Tenants], tmp_path: Path, point: str
) -> None:
    """Fault: no ``closings`` table: the file with its rows stayed for good."""
    crash(tmp_path / "data", point)
    tenants = open_folder()
    assert list((folder_of(tenants).path / "tenants").iterdir()) == [] and customers(tenants) == {}
    assert tenants.directory.read(main_database.unfinished_closings) == []
    tenants.provision(customer())


def test_closing_that_a_crash_prevented_has_not_happened(open_folder: Callable[..., Tenants], tmp_path: Path) -> None:
    tenant_id = crash(tmp_path / "data", "close: before commit")
    tenants = open_folder()
    assert customers(tenants) == {"a@example.com": tenant_id}
    assert tenants.read(tenant_id, lambda: connection().execute("SELECT sequence FROM _meta").fetchall()) == [(5,)]


def test_file_that_an_older_version_laid_ready_is_taken_over(
    open_folder: Callable[..., Tenants], tmp_path: Path
) -> None:
    """It lay beside the tenants' files. Fault: only looked for in a folder of its own: what was restored never came."""
    first, kept = opened(tmp_path / "data"), customer()
    first.provision(kept)
    inside.push(first, kept.id, ROW)
    folder = folder_of(first)
    epoch = engine_of(first).lay_ready(kept.id, partial(copy_file, folder.path_of(kept.id)))
    first.close()
    ready = folder.restored_path_of(kept.id)
    ready.rename(folder.tenants / ready.name)
    tenants = open_folder()
    assert tenants.engine.renewed() == [kept.id]
    assert tenants.read(kept.id, position).epoch == epoch
    assert files(folder.path) == {path_of(tenants, kept.id).name} and not (folder.tenants / ready.name).exists()


def test_file_of_nobody_with_rows_is_left_alone(
    open_folder: Callable[..., Tenants], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault: every file of nobody removed: the rows were gone."""
    first, kept = opened(tmp_path / "data"), customer()
    first.provision(kept)
    inside.push(first, kept.id, ROW)
    first.directory.write(lambda: Customer.delete().execute())
    first.close()
    tenants = open_folder()
    assert files(folder_of(tenants).path) == {path_of(tenants, kept.id).name}
    assert "belongs to no customer but holds rows" in caplog.text
    assert [row["id"] for row in inside.rows(tenants, kept.id)] == ["a"]


@pytest.mark.parametrize(
    "content", [b"no database at all, but something someone may want" * 100, b"SQLite format 3\0x"]
)
def test_file_of_nobody_that_is_no_database_is_left_alone_and_does_not_stop_the_start(
    open_folder: Callable[..., Tenants], tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data" / "tenants"
    folder.mkdir(parents=True)
    odd = folder / f"tenant_{uuid.uuid4().hex}.db"
    odd.write_bytes(content)
    tenants = open_folder()
    assert odd.read_bytes() == content and odd.name in caplog.text
    tenants.provision(customer())
