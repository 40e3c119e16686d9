"""Accounts and their files come and go together; files are open in bounded number."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest
import requests

import assembly
from accounts.signing_key import BadSigningKey
from models import connection
from protocol.errors import Busy, EmailTaken, InvalidTenantId, TenantNotFound
from settings import Settings
from storage.declarations.compatibility import MigrationRefused
from storage.sqlite import database
from storage.sqlite.folder_locks import DataFolderInUse
from tenants import Tenants, parse_tenant_id
from tests import inside, postgres
from tests.conftest import ROOT, WAIT_SECONDS, Server, wait_for
from tests.customers import ROW, NewTenant, customer, customers, files
from tests.data_folder import engine_of, folder_of, opened, path_of, stored_in
from tests.declaring import Restart, declare, provision, put


def provisioned(tenants: Tenants, count: int) -> list[str]:
    new = [customer(f"{number}@example.com") for number in range(count)]
    for one in new:
        tenants.provision(one)
    return [one.id for one in new]


# --- provisioning ----------------------------------------------------------------------------------------------------


@pytest.mark.files("its name and mode")
def test_new_tenant_has_a_file_of_its_name_for_the_owner_only(tenants: Tenants, new_tenant: NewTenant) -> None:
    tenant_id = new_tenant()
    path = folder_of(tenants).path / "tenants" / f"tenant_{tenant_id.replace('-', '')}.db"
    assert path_of(tenants, tenant_id) == path and path.stat().st_mode & 0o777 == 0o600
    assert [folder.stat().st_mode & 0o777 for folder in (folder_of(tenants).path, path.parent)] == [0o700, 0o700]
    assert (folder_of(tenants).path / "main.db").stat().st_mode & 0o777 == 0o600
    assert files(folder_of(tenants).path) == {path.name}
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        names = {row[0] for row in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {"end_user", "interactions"} <= names
    assert all(name.startswith(("_", "sqlite_")) for name in names - {"end_user", "interactions"})


def test_each_tenant_has_an_epoch_of_its_own(tenants: Tenants, new_tenant: NewTenant) -> None:
    cursors = [inside.pull(tenants, new_tenant(), {"cursor": None})["cursor"] for _ in range(5)]
    assert len({cursor.split("-")[0] for cursor in cursors}) == 5


def test_address_that_is_taken_leaves_no_data(tenants: Tenants, tmp_path: Path) -> None:
    first = customer()
    tenants.provision(first)
    with pytest.raises(EmailTaken):
        tenants.provision(customer())
    assert stored_in(tmp_path / "data") == {first.id}


def test_one_of_many_concurrent_registrations_of_an_address_wins(tenants: Tenants, tmp_path: Path) -> None:
    """Fault: the check for the address before the transaction and no unique column: two customers."""
    greenlets = [gevent.spawn(tenants.provision, customer()) for _ in range(20)]
    gevent.joinall(greenlets)
    assert sorted(type(greenlet.exception).__name__ for greenlet in greenlets) == ["EmailTaken"] * 19 + ["NoneType"]
    (winner,) = customers(tenants).values()
    assert stored_in(tmp_path / "data") == {winner}


def test_concurrent_registrations_over_http_have_one_winner_that_works(server: Server) -> None:
    body = {"firstName": "A", "lastName": "B", "email": f"{uuid.uuid4()}@x.org", "password": "password123"}
    before, answers = stored_in(server.data), []
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
    assert len(stored_in(server.data)) == len(before) + 1
    assert list((server.data / "tenants").glob("*.new*")) == []


# --- open files ------------------------------------------------------------------------------------------------------


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.files("how many are open")
@pytest.mark.slow
def test_many_more_tenants_than_may_be_open_are_served_with_bounded_files(
    open_folder: Callable[..., Tenants], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: ``_make_room`` empty: 60 open. Fault: it closes busy ones: closed within a transaction."""
    tenants = open_folder(most_open=5)
    before = open_descriptors()
    ids = provisioned(tenants, 30)
    close = database.SQLiteDatabase.close
    closed_amid: list[bool] = []
    most: list[tuple[int, int]] = []

    def spy(store: database.SQLiteDatabase) -> None:
        closed_amid.append(not store.is_idle or not store._writer.conn.get_autocommit())
        close(store)

    monkeypatch.setattr(database.SQLiteDatabase, "close", spy)

    def use(number: int) -> None:
        chance = random.Random(number)
        for turn in range(15):
            tenant_id = chance.choice(ids)
            rows = [{"id": f"{number}-{turn}-{part}"} for part in range(chance.choice((1, 70)))]
            inside.push(tenants, tenant_id, {"changes": {"end_user": rows}})
            found = {row["id"] for row in inside.rows(tenants, tenant_id)}
            assert {row["id"] for row in rows} <= found
            most.append((len(engine_of(tenants).files), open_descriptors() - before))

    gevent.joinall([gevent.spawn(use, number) for number in range(8)], raise_error=True)
    assert len(closed_amid) > 50 and not any(closed_amid)
    assert max(count for count, _ in most) <= 5 + 8
    assert max(descriptors for _, descriptors in most) <= (5 + 8) * 5
    inside.rows(tenants, ids[0]), inside.rows(tenants, ids[1])
    assert len(engine_of(tenants).files) <= 5


@pytest.mark.files("how many are open")
def test_tenant_that_is_being_written_is_not_closed(open_folder: Callable[..., Tenants]) -> None:
    tenants, gate = open_folder(most_open=1), gevent.event.Event()
    ids = provisioned(tenants, 3)
    busy = gevent.spawn(
        tenants.write, ids[0], lambda: (connection().execute("UPDATE _meta SET clock = 7"), gate.wait())
    )
    gevent.sleep(0.001)
    inside.push(tenants, ids[1], ROW)
    assert len(engine_of(tenants).files) == 2
    gate.set()
    busy.get()
    inside.rows(tenants, ids[2])
    assert len(engine_of(tenants).files) == 1
    assert tenants.read(ids[0], lambda: connection().execute("SELECT clock FROM _meta").fetchall()) == [(7,)]


def test_end_waits_for_writes_under_way(open_folder: Callable[..., Tenants], tmp_path: Path) -> None:
    tenants, new = opened(tmp_path / "data"), customer()
    tenants.provision(new)
    rows = [{"id": f"r{number}"} for number in range(500)]
    writes = [gevent.spawn(inside.push, tenants, new.id, {"changes": {"end_user": rows[part::5]}}) for part in range(5)]
    gevent.sleep(0)
    tenants.close()
    gevent.joinall(writes, raise_error=True)
    again = open_folder()
    assert len(inside.rows(again, new.id)) == 500


# --- closing accounts ------------------------------------------------------------------------------------------------


def test_closed_account_leaves_nothing_and_is_not_found(tenants: Tenants, tmp_path: Path) -> None:
    new = customer()
    tenants.provision(new)
    inside.push(tenants, new.id, ROW)
    tenants.close_account(new.id)
    for call in (tenants.read, tenants.write):
        with pytest.raises(TenantNotFound):
            call(new.id, lambda: None)
    assert stored_in(tmp_path / "data") == set()
    if postgres.IS_UNDER_TEST:
        assert not any(postgres.dump(tmp_path / "data", new.id).values())
    else:
        assert list((folder_of(tenants).path / "tenants").iterdir()) == [] and len(engine_of(tenants).files) == 0
    tenants.provision(customer())


def test_account_closed_amid_pushes_ends_each_of_them_one_way_or_the_other(
    open_folder: Callable[..., Tenants], tmp_path: Path
) -> None:
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
        assert stored_in(tmp_path / "data") == {other.id for other in others}


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
    assert listener.is_gone.wait(WAIT_SECONDS)
    assert stored_in(server.data) == set() and not list((server.data / "tenants").glob("*"))
    assert [line for line in server.log if line["level"] in ("raw", "error")] == []
    body = {"firstName": "A", "lastName": "B", "email": tenant.email, "password": "password123"}
    assert server.post("/api/customers/register", body).status_code == 201


# --- whose folder, which tenant --------------------------------------------------------------------------------------


@pytest.mark.files("a folder has one server")
def test_second_server_in_a_folder_is_refused(open_folder: Callable[..., Tenants], tmp_path: Path) -> None:
    first = opened(tmp_path / "data")
    with pytest.raises(DataFolderInUse):
        open_folder()
    first.close()
    open_folder()


@pytest.mark.files("a folder has one server")
def test_second_server_process_in_a_folder_ends_with_one_sentence(start_server: Callable[..., Server]) -> None:
    first = start_server()
    environ = {**os.environ, "DATA_DIR": str(first.data), "PORT": "0"}
    code = "import os, syncapp, assembly, pathlib; assembly.SQLiteEngine(pathlib.Path(os.environ['DATA_DIR']))"
    command = [sys.executable, "-c", code]
    second = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 1 and "Another server is running in" in second.stderr
    assert requests.get(f"{first.url}/health", timeout=WAIT_SECONDS).ok


def damage_key(folder: Path) -> None:
    if postgres.IS_UNDER_TEST:
        postgres.ask(folder, "INSERT INTO syncapp.secrets VALUES ('signing', 'damaged')")
    else:
        (folder / "jwt_secret_key").write_text("damaged")


@pytest.mark.parametrize(("refusal", "error"), [("tables", MigrationRefused), ("key", BadSigningKey)])
def test_start_that_is_refused_leaves_the_folder_to_the_next(
    restart: Restart, tmp_path: Path, refusal: str, error: type[Exception]
) -> None:
    """Fault: the engine left open when a later part of the start failed: the folder stayed locked."""
    tenants = provision(restart("[job]\ncolumns.title = 'text'\n"), tenant_id := str(uuid.uuid4()))
    put(tenants, tenant_id, {"id": "a", "title": "A"})
    tenants.close()
    if refusal == "tables":
        declare("")
    else:
        damage_key(tmp_path / "data")
    with pytest.raises(error):
        assembly.build(Settings(data_dir=tmp_path / "data", bcrypt_rounds=8))
    opened(tmp_path / "data", retiring=["job"]).close()


def test_tenant_without_a_database_is_not_found(tenants: Tenants, tmp_path: Path) -> None:
    with pytest.raises(TenantNotFound):
        tenants.read(str(uuid.uuid4()), lambda: None)
    assert stored_in(tmp_path / "data") == set()


@pytest.mark.files("one that is gone")
def test_token_of_a_tenant_whose_file_is_gone_says_so(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.register()
    tenant.path.unlink()
    answer = tenant.device().pull_raw({"cursor": None})
    assert (answer.status_code, answer.json()["code"]) == (404, "tenant_not_found")
    assert answer.json()["error"] == "Tenant database not found. Register the client first."
    assert not tenant.path.exists()


@pytest.mark.files("their paths")
@pytest.mark.parametrize(
    "text",
    ["", "x", "..", "../main", "a/b", "\0", "1" * 31, "1" * 33, "g" * 32, None, 5, True, [], {}, b"1" * 32,
     "../../../../../../../../etc/passwd__", "{1030070f982449b3b53b8013e2eb363e}"],
)  # fmt: skip
def test_malformed_id_is_refused_and_never_becomes_a_path(tenants: Tenants, text: Any) -> None:
    with pytest.raises(InvalidTenantId):
        parse_tenant_id(text)
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        assert path_of(tenants, text).parent == folder_of(tenants).path / "tenants"


@pytest.mark.files("their paths")
@pytest.mark.parametrize(
    "text",
    ["1030070f982449b3b53b8013e2eb363e", "1030070F-9824-49B3-B53B-8013E2EB363E", " 030070f982449b3b53b8013e2eb363e"],
)
def test_id_in_any_form_is_read_as_one_and_stays_in_the_folder(tenants: Tenants, text: str) -> None:
    tenant_id = parse_tenant_id(text)
    assert str(uuid.UUID(tenant_id)) == tenant_id
    assert path_of(tenants, tenant_id).parent == folder_of(tenants).path / "tenants"
