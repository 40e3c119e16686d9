"""Accounts and their files come and go together, whatever crashes; files are open in bounded number."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest
import requests

from models import connection
from protocol.errors import Busy, EmailTaken, InvalidTenantId, StorageFull, TenantNotFound
from storage import main_database
from storage.main_database import Customer
from storage.sqlite import database
from storage.sqlite.folder_locks import DataFolderInUse
from tenants import Tenants, parse_tenant_id
from tests import inside
from tests.conftest import ROOT, Server, wait_for

NewTenant = Callable[[], str]
ROW = {"changes": {"end_user": [{"id": "a", "name": "A"}]}}


def customer(email: str = "a@example.com") -> Customer:
    return Customer(
        id=str(uuid.uuid4()),
        name="A B",
        email=email,
        companyName="C",
        firstName="A",
        lastName="B",
        passwordHash="-",
        createdAt="2026-01-01T00:00:00.000Z",
    )


def provisioned(tenants: Tenants, count: int) -> list[str]:
    new = [customer(f"{number}@example.com") for number in range(count)]
    for one in new:
        tenants.provision(one)
    return [one.id for one in new]


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "tenants").iterdir() if not path.name.endswith(("-wal", "-shm"))}


def customers(tenants: Tenants) -> dict[str, str]:
    """Every customer's ID by e-mail address."""
    return tenants.directory.read(lambda: {found.email: found.id for found in Customer.select()})


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Callable[..., Tenants]]:
    """Open the test's data folder, as a start of the server does."""
    opened: list[Tenants] = []

    def start(**options: Any) -> Tenants:
        opened.append(Tenants(tmp_path / "data", **options))
        return opened[-1]

    yield start
    for tenants in opened:
        tenants.close()


# --- provisioning ----------------------------------------------------------------------------------------------------


def test_new_tenant_has_a_file_of_its_name_for_the_owner_only(tenants: Tenants, new_tenant: NewTenant) -> None:
    tenant_id = new_tenant()
    path = tenants.folder / "tenants" / f"tenant_{tenant_id.replace('-', '')}.db"
    assert tenants.path_of(tenant_id) == path and path.stat().st_mode & 0o777 == 0o600
    assert [folder.stat().st_mode & 0o777 for folder in (tenants.folder, path.parent)] == [0o700, 0o700]
    assert (tenants.folder / "main.db").stat().st_mode & 0o777 == 0o600
    assert files(tenants.folder) == {path.name}
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        names = {row[0] for row in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {"end_user", "interactions"} <= names
    assert all(name.startswith(("_", "sqlite_")) for name in names - {"end_user", "interactions"})


def test_each_tenant_has_an_epoch_of_its_own(tenants: Tenants, new_tenant: NewTenant) -> None:
    cursors = [inside.pull(tenants, new_tenant(), {"cursor": None})["cursor"] for _ in range(5)]
    assert len({cursor.split("-")[0] for cursor in cursors}) == 5


def test_address_that_is_taken_leaves_no_file(tenants: Tenants) -> None:
    first = customer()
    tenants.provision(first)
    with pytest.raises(EmailTaken):
        tenants.provision(customer())
    assert files(tenants.folder) == {tenants.path_of(first.id).name}


def test_one_of_many_concurrent_registrations_of_an_address_wins(tenants: Tenants) -> None:
    """Fault: the check for the address before the transaction and no unique column: two customers."""
    greenlets = [gevent.spawn(tenants.provision, customer()) for _ in range(20)]
    gevent.joinall(greenlets)
    assert sorted(type(greenlet.exception).__name__ for greenlet in greenlets) == ["EmailTaken"] * 19 + ["NoneType"]
    (winner,) = customers(tenants).values()
    assert files(tenants.folder) == {tenants.path_of(winner).name}


def test_concurrent_registrations_over_http_have_one_winner_that_works(server: Server) -> None:
    body = {"firstName": "A", "lastName": "B", "email": f"{uuid.uuid4()}@x.org", "password": "password123"}
    before, answers = len(list((server.data / "tenants").glob("*.db"))), []
    emails = [body["email"], body["email"].upper(), f" {body['email']} "]

    def register(number: int) -> None:
        answers.append(server.post("/api/customers/register", {**body, "email": emails[number % 3]}))

    threads = [threading.Thread(target=register, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 8
    token = next(answer for answer in answers if answer.status_code == 201).json()["data"]["token"]
    assert server.post("/api/client/sync/push", ROW, token).status_code == 200
    assert len(list((server.data / "tenants").glob("*.db"))) == before + 1
    assert list((server.data / "tenants").glob("*.new*")) == []


# --- crashes ---------------------------------------------------------------------------------------------------------

CRASH = """
import syncapp
import os, sys
from storage import main_database
from storage.sqlite import database
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
opened = tenants.Tenants(Path(sys.argv[1]))
if sys.argv[3].startswith("close"):
    opened.provision(customer)
    opened.write(customer.id, lambda: database.models.connection().execute("UPDATE _meta SET sequence = 5"))
{
    "file half made": lambda: after(Path, "touch"),
    "file made": lambda: before(os, "fsync"),
    "before rename": lambda: before(os, "replace"),
    "after rename": lambda: after(os, "replace"),
    "before insert": lambda: before(main_database, "customer_by_email"),
    "before commit": lambda: after(main_database.Customer, "save"),
    "after commit": lambda: before(database, "_answer"),
    "close: before commit": lambda: after(main_database, "remove_customer"),
    "close: after commit": lambda: before(database, "_answer"),
    "close: before removal": lambda: before(tenants, "remove_file"),
    "close: half removed": lambda: before(Path, "unlink", 2),
    "close: before note": lambda: before(main_database, "finish_closing"),
}[sys.argv[3]]()
opened.close_account(customer.id) if sys.argv[3].startswith("close") else opened.provision(customer)
"""


def crash(folder: Path, point: str) -> str:
    """Register, or close an account that has rows, in a process that dies at ``point``; give the customer's ID."""
    tenant_id = str(uuid.uuid4())
    command = [sys.executable, "-c", CRASH, str(folder), tenant_id, point]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
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
    assert files(tenants.folder) == set() and customers(tenants) == {}
    assert list((tenants.folder / "tenants").iterdir()) == []
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
    assert tenants.path_of(again.id).exists()


@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "storage.main_database.customer_by_email"])
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
    assert list((tenants.folder / "tenants").iterdir()) == [] and customers(tenants) == {}
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
    wait_for(lambda: tenants.directory._waiting, "the registration to wait for its turn")
    registering.kill()
    gate.set()
    busy.get()
    tenants.directory.wait()
    assert customers(tenants) == {new.email: new.id}
    inside.push(tenants, new.id, ROW)


def test_start_beside_a_registration_leaves_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator registers while a server starts. Fault: no lock: the start removed the file, its customer stayed."""
    operators, new, starts = Tenants(tmp_path / "data", is_server=False), customer(), []
    script = "import syncapp, sys, tenants, pathlib; tenants.Tenants(pathlib.Path(sys.argv[1])).close()"

    def start_meanwhile(folder: Path) -> None:
        starts.append(subprocess.Popen([sys.executable, "-c", script, str(operators.folder)], cwd=ROOT))
        with contextlib.suppress(subprocess.TimeoutExpired):
            starts[0].wait(2)

    monkeypatch.setattr("tenants.sync_folder", start_meanwhile)
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
    assert list((tenants.folder / "tenants").iterdir()) == [] and customers(tenants) == {}
    assert tenants.directory.read(main_database.unfinished_closings) == []
    tenants.provision(customer())


def test_closing_that_a_crash_prevented_has_not_happened(open_folder: Callable[..., Tenants], tmp_path: Path) -> None:
    tenant_id = crash(tmp_path / "data", "close: before commit")
    tenants = open_folder()
    assert customers(tenants) == {"a@example.com": tenant_id}
    assert tenants.read(tenant_id, lambda: connection().execute("SELECT sequence FROM _meta").fetchall()) == [(5,)]


def test_file_of_nobody_with_rows_is_left_alone(
    open_folder: Callable[..., Tenants], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault: every file of nobody removed: the rows were gone."""
    first, kept = Tenants(tmp_path / "data"), customer()
    first.provision(kept)
    inside.push(first, kept.id, ROW)
    first.directory.write(lambda: Customer.delete().execute())
    first.close()
    tenants = open_folder()
    assert files(tenants.folder) == {tenants.path_of(kept.id).name}
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


# --- open files ------------------------------------------------------------------------------------------------------


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
def test_many_more_tenants_than_may_be_open_are_served_with_bounded_files(
    open_folder: Callable[..., Tenants], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: ``_make_room`` empty: 60 open. Fault: it closes busy ones: closed within a transaction."""
    tenants = open_folder(most_open=5)
    before = open_descriptors()
    ids = provisioned(tenants, 30)
    close = database.Store.close
    closed_amid: list[bool] = []
    most: list[tuple[int, int]] = []

    def spy(store: database.Store) -> None:
        closed_amid.append(not store.is_idle or not store._writer.conn.get_autocommit())
        close(store)

    monkeypatch.setattr(database.Store, "close", spy)

    def use(number: int) -> None:
        chance = random.Random(number)
        for turn in range(15):
            tenant_id = chance.choice(ids)
            rows = [{"id": f"{number}-{turn}-{part}"} for part in range(chance.choice((1, 70)))]
            inside.push(tenants, tenant_id, {"changes": {"end_user": rows}})
            found = {row["id"] for row in inside.rows(tenants, tenant_id)}
            assert {row["id"] for row in rows} <= found
            most.append((tenants.open_count, open_descriptors() - before))

    gevent.joinall([gevent.spawn(use, number) for number in range(8)], raise_error=True)
    assert len(closed_amid) > 50 and not any(closed_amid)
    assert max(count for count, _ in most) <= 5 + 8
    assert max(descriptors for _, descriptors in most) <= (5 + 8) * 5
    inside.rows(tenants, ids[0]), inside.rows(tenants, ids[1])
    assert tenants.open_count <= 5


def test_tenant_that_is_being_written_is_not_closed(open_folder: Callable[..., Tenants]) -> None:
    tenants, gate = open_folder(most_open=1), gevent.event.Event()
    ids = provisioned(tenants, 3)
    busy = gevent.spawn(
        tenants.write, ids[0], lambda: (connection().execute("UPDATE _meta SET clock = 7"), gate.wait())
    )
    gevent.sleep(0.001)
    inside.push(tenants, ids[1], ROW)
    assert tenants.open_count == 2
    gate.set()
    busy.get()
    inside.rows(tenants, ids[2])
    assert tenants.open_count == 1
    assert tenants.read(ids[0], lambda: connection().execute("SELECT clock FROM _meta").fetchall()) == [(7,)]


def test_end_waits_for_writes_under_way(open_folder: Callable[..., Tenants], tmp_path: Path) -> None:
    tenants, new = Tenants(tmp_path / "data"), customer()
    tenants.provision(new)
    rows = [{"id": f"r{number}"} for number in range(500)]
    writes = [gevent.spawn(inside.push, tenants, new.id, {"changes": {"end_user": rows[part::5]}}) for part in range(5)]
    gevent.sleep(0)
    tenants.close()
    gevent.joinall(writes, raise_error=True)
    again = open_folder()
    assert len(inside.rows(again, new.id)) == 500


# --- closing accounts ------------------------------------------------------------------------------------------------


def test_closed_account_leaves_nothing_and_is_not_found(tenants: Tenants) -> None:
    new = customer()
    tenants.provision(new)
    inside.push(tenants, new.id, ROW)
    tenants.close_account(new.id)
    for call in (tenants.read, tenants.write):
        with pytest.raises(TenantNotFound):
            call(new.id, lambda: None)
    assert list((tenants.folder / "tenants").iterdir()) == [] and tenants.open_count == 0
    tenants.provision(customer())


def test_account_closed_amid_pushes_ends_each_of_them_one_way_or_the_other(open_folder: Callable[..., Tenants]) -> None:
    """Fault: closed after one wait, though the next write had begun: the commit met a closed connection, and
    who waited for it did so for ever."""
    tenants = open_folder(most_open=2)
    others = [customer(f"{number}@x.org") for number in range(3)]
    for other in others:
        tenants.provision(other)
    for turn in range(8):
        new = customer()
        tenants.provision(new)
        ended: list[Exception] = []

        def push(name: str, tenant_id: str = new.id, ended: list[Exception] = ended) -> None:
            for number in range(10_000):
                try:
                    rows = [{"id": f"{name}-{number}-{part}"} for part in range(1 + number % 70)]
                    inside.push(tenants, tenant_id, {"changes": {"end_user": rows}})
                except Busy:
                    gevent.sleep(0.001)
                except Exception as error:
                    ended.append(error)
                    return

        pushing = [gevent.spawn(push, f"{turn}-{number}") for number in range(6)]
        gevent.sleep(0.01)
        closings = [gevent.spawn(tenants.close_account, new.id) for _ in range(2)]
        for other in others:
            inside.push(tenants, other.id, ROW)
        gevent.joinall([*closings, *pushing], raise_error=True)
        assert [type(error) for error in ended] == [TenantNotFound] * 6
        assert not tenants.path_of(new.id).exists()
    assert len(files(tenants.folder)) == 3


def test_account_closed_over_http_amid_pushes_answers_without_errors_of_ours(
    start_server: Callable[..., Server],
) -> None:
    server = start_server()
    tenant = server.register()
    listener = tenant.device().listen()
    codes: set[int] = set()

    def push(name: str) -> None:
        for number in range(10_000):
            rows = [{"id": f"{name}-{number}-{part}"} for part in range(70)]
            answer = tenant.device().push_raw({"changes": {"end_user": rows}})
            codes.add(answer.status_code)
            if not answer.ok:
                return

    threads = [threading.Thread(target=push, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: codes, "the first push")
    gone = server.call("DELETE", "/api/customers/me", {"password": tenant.password}, tenant.token)
    for thread in threads:
        thread.join()
    assert gone.status_code == 200 and codes <= {200, 401, 404}
    assert listener.is_gone.wait(5)
    assert list((server.data / "tenants").iterdir()) == []
    assert [line for line in server.log if line["level"] in ("raw", "error")] == []
    body = {"firstName": "A", "lastName": "B", "email": tenant.email, "password": "password123"}
    assert server.post("/api/customers/register", body).status_code == 201


# --- whose folder, which tenant --------------------------------------------------------------------------------------


def test_second_server_in_a_folder_is_refused(open_folder: Callable[..., Tenants], tmp_path: Path) -> None:
    first = Tenants(tmp_path / "data")
    with pytest.raises(DataFolderInUse):
        open_folder()
    first.close()
    open_folder()


def test_second_server_process_in_a_folder_ends_with_one_sentence(start_server: Callable[..., Server]) -> None:
    first = start_server()
    environ = {**os.environ, "DATA_DIR": str(first.data), "PORT": "0"}
    code = "import os, pathlib, syncapp; syncapp.Tenants(pathlib.Path(os.environ['DATA_DIR']))"
    command = [sys.executable, "-c", code]
    second = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 1 and "Another server is running in" in second.stderr
    assert requests.get(f"{first.url}/health", timeout=5).ok


def test_tenant_without_a_database_is_not_found(tenants: Tenants) -> None:
    with pytest.raises(TenantNotFound):
        tenants.read(str(uuid.uuid4()), lambda: None)
    assert list((tenants.folder / "tenants").iterdir()) == []


def test_token_of_a_tenant_whose_file_is_gone_says_so(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.register()
    tenant.path.unlink()
    answer = tenant.device().pull_raw({"cursor": None})
    assert (answer.status_code, answer.json()["code"]) == (404, "tenant_not_found")
    assert answer.json()["error"] == "Tenant database not found. Register the client first."
    assert not tenant.path.exists()


@pytest.mark.parametrize(
    "text",
    ["", "x", "..", "../main", "a/b", "\0", "1" * 31, "1" * 33, "g" * 32, None, 5, True, [], {}, b"1" * 32,
     "../../../../../../../../etc/passwd__", "{1030070f982449b3b53b8013e2eb363e}"],
)  # fmt: skip
def test_malformed_id_is_refused_and_never_becomes_a_path(tenants: Tenants, text: Any) -> None:
    with pytest.raises(InvalidTenantId):
        parse_tenant_id(text)
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        assert tenants.path_of(text).parent == tenants.folder / "tenants"


@pytest.mark.parametrize(
    "text",
    ["1030070f982449b3b53b8013e2eb363e", "1030070F-9824-49B3-B53B-8013E2EB363E", " 030070f982449b3b53b8013e2eb363e"],
)
def test_id_in_any_form_is_read_as_one_and_stays_in_the_folder(tenants: Tenants, text: str) -> None:
    tenant_id = parse_tenant_id(text)
    assert str(uuid.UUID(tenant_id)) == tenant_id
    assert tenants.path_of(tenant_id).parent == tenants.folder / "tenants"
