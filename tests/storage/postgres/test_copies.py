"""Copies of tenants out of PostgreSQL, and back: what is in them, and what becomes of tables of another version.

The faults named below were put into a copy; the tests named with them failed there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models import connection
from storage.engine import CanNotOpen, NotRestored
from storage.main_database import Customer
from storage.positions import position
from storage.postgres import copies
from storage.postgres.connecting import place_of
from storage.postgres.connection import Connection
from storage.postgres.engine import PostgresEngine
from storage.sqlite.engine import SQLiteEngine
from storage.sqlite.files import look_into
from storage.sqlite.tenant_files import open_tenant_file
from tenants import Tenants
from tests import inside, postgres
from tests.customers import customer
from tests.declaring import declare
from tests.storage.engine.installations import PostgresInstallation, add, create, elsewhere, lines_of, words

JOB = "[job]\ncolumns.title = 'text'\n"


@pytest.fixture
def declared() -> Iterator[Callable[[str], None]]:
    """Declare tables, until the end of the test."""
    yield declare
    declare("")


def new_id(engine: PostgresEngine) -> str:
    return create(engine, str(uuid.uuid4()))


def everything(copy: Path) -> dict[str, list[tuple[object, ...]]]:
    """Read each row of each table of a copy."""

    def read() -> dict[str, list[tuple[object, ...]]]:
        found = [name for (name,) in connection().execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: list(connection().execute(f'SELECT * FROM "{name}"')) for name in found}

    return look_into(copy, read)


def test_copy_has_every_row_of_its_tenant_and_none_of_another(engine: PostgresEngine, tmp_path: Path) -> None:
    """Fault: ``app.tenant`` left out where a read begins: PostgreSQL shows no row, and there is no copy at all."""
    ids = [new_id(engine) for _ in range(3)]
    for number, one in enumerate(ids):
        for word in range(number + 1):
            engine.tenant(one).write(lambda number=number, word=word: add(f"{number}.{word}"))  # type: ignore[misc]
    for number, one in enumerate(ids):
        copy = tmp_path / one
        engine.copy_to(one, copy)
        assert look_into(copy, words) == [f"{number}.{word}" for word in range(number + 1)]
        rows = everything(copy)
        assert len(rows["_meta"]) == 1 and rows["_meta"][0][1] == engine.tenant(one).read(position).epoch
        assert copy.stat().st_mode & 0o077 == 0


def test_restore_of_one_tenant_touches_no_row_of_another(
    installation: PostgresInstallation, engine: PostgresEngine, tmp_path: Path
) -> None:
    """Fault: ``app.tenant`` set to the other tenant's ID for the restore: its rows were replaced."""
    one, other = new_id(engine), new_id(engine)
    for tenant_id in (one, other):
        engine.tenant(tenant_id).write(lambda tenant_id=tenant_id: add(tenant_id))  # type: ignore[misc]
    engine.copy_to(one, tmp_path / "copy")
    before = postgres.server().ask(_ROWS_OF.format(other), installation.name)
    engine.tenant(one).write(lambda: add("later"))
    engine.restore_from(one, tmp_path / "copy")
    assert engine.tenant(one).read(words) == [one]
    assert postgres.server().ask(_ROWS_OF.format(other), installation.name) == before and before


_ROWS_OF = (
    "SELECT e::text FROM end_user AS e WHERE _tenant_id = '{0}' UNION ALL"
    " SELECT m::text FROM _meta AS m WHERE _tenant_id = '{0}' UNION ALL"
    " SELECT t::text FROM _tables AS t WHERE _tenant_id = '{0}'"
)


def test_directory_is_copied_without_the_secret_that_signs(engine: PostgresEngine, tmp_path: Path) -> None:
    one = new_id(engine)
    secret = engine.kept_secret(lambda: "a secret that signs")
    engine.copy_directory(tmp_path / "main.db")
    with pytest.raises(FileExistsError):
        engine.copy_directory(tmp_path / "main.db")
    rows = everything(tmp_path / "main.db")
    assert [row[0] for row in rows["customers"]] == [one] and {"sessions", "closings"} <= rows.keys()
    assert secret.encode() not in (tmp_path / "main.db").read_bytes()
    engine.directory.write(lambda: Customer.delete().execute())
    with pytest.raises(CanNotOpen, match="knows no customer"):
        engine.copy_directory(tmp_path / "none.db")


def test_owner_of_an_epoch_is_known_from_the_beginning(engine: PostgresEngine, tmp_path: Path) -> None:
    """So that nobody gets a file of another customer's by a mistaken ID."""
    one, other = new_id(engine), new_id(engine)
    for tenant_id in (one, other):
        assert engine.owner_of(engine.tenant(tenant_id).read(position).epoch) == tenant_id
    engine.copy_to(one, tmp_path / "copy")
    assert engine.owner_of(engine.restore_from(one, tmp_path / "copy")) == one
    assert engine.owner_of("nobody's") is None


def test_place_is_named_without_the_password() -> None:
    assert place_of("postgresql://user:secret@db.example.com:5433/app") == "the database app at db.example.com"


# --- other versions, other tables -------------------------------------------------------------------------------------


@pytest.fixture
def filled(installation: PostgresInstallation, declared: Callable[[str], None]) -> Iterator[str]:
    """A tenant of a server that declares jobs with a size; it has stopped."""
    declared(JOB + "columns.size = 'integer'\n")
    tenants = Tenants(PostgresEngine(installation.address))
    one = customer()
    tenants.provision(one)
    inside.push(tenants, one.id, {"changes": {"job": [{"id": "a", "title": "T", "size": 7}]}})
    tenants.close()
    yield one.id


def test_copy_by_another_version_changes_no_table_and_becomes_that_version_when_it_is_opened(
    installation: PostgresInstallation, filled: str, declared: Callable[[str], None], tmp_path: Path
) -> None:
    """Fault: copied by a read, which makes the tables what this process declares, without asking whether rows allow it."""
    declared("[task]\ncolumns.a = 'text'\n" + JOB.replace("title", "due"))
    beside = PostgresEngine(installation.address, is_server=False)
    before = postgres.server().ask(_COLUMNS, installation.name)
    beside.copy_to(filled, tmp_path / "copy")
    assert postgres.server().ask(_COLUMNS, installation.name) == before
    assert everything(tmp_path / "copy")["job"][0][:2] == (1, "a") and "task" not in everything(tmp_path / "copy")
    file = open_tenant_file(tmp_path / "copy")
    (row,) = file.read(lambda: list(connection().execute("SELECT due, _extra FROM job")))
    assert row[0] is None and json.loads(row[1]) == {"title": "T", "size": 7}
    assert file.read(lambda: list(connection().execute("SELECT count(*) FROM task"))) == [(0,)]
    file.close()
    beside.close()


_COLUMNS = (
    "SELECT table_name, column_name, data_type FROM information_schema.columns"
    " WHERE table_schema = 'public' ORDER BY 1, 2"
)


def test_command_of_another_version_never_changes_the_tables(
    installation: PostgresInstallation, filled: str, declared: Callable[[str], None], tmp_path: Path
) -> None:
    """Fault: a restore made them what its own TABLES_FILE says, for every tenant, without asking whether rows allow it."""
    server = PostgresEngine(installation.address)
    server.copy_to(filled, tmp_path / "copy")
    server.close()
    declared(JOB)
    beside = PostgresEngine(installation.address, is_server=False)
    before = postgres.server().ask(_COLUMNS, installation.name)
    with pytest.raises(CanNotOpen, match="another TABLES_FILE"):
        beside.restore_from(filled, tmp_path / "copy")
    with pytest.raises(CanNotOpen, match="another TABLES_FILE"):
        create(beside, str(uuid.uuid4()))
    assert postgres.server().ask(_COLUMNS, installation.name) == before
    beside.close()


def test_rows_of_a_table_that_is_declared_no_more_come_into_a_database_that_never_had_it(
    filled: str, installation: PostgresInstallation, declared: Callable[[str], None], tmp_path: Path
) -> None:
    """Fault: only tables that are there were filled: declared again, the table had none of its rows."""
    first = PostgresEngine(installation.address)
    first.copy_to(filled, tmp_path / "copy")
    first.close()
    declared("")
    elsewhere = PostgresInstallation(tmp_path)
    engine = PostgresEngine(elsewhere.address)
    create(engine, filled)
    engine.restore_from(filled, tmp_path / "copy")
    (policy,) = postgres.server().ask("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'job'", elsewhere.name)
    assert policy == (True,)
    engine.close()
    declared(JOB + "columns.size = 'integer'\n")
    tenants = Tenants(PostgresEngine(elsewhere.address))
    assert [(row["title"], row["size"]) for row in inside.rows(tenants, filled, "job")] == [("T", 7)]
    tenants.close()
    elsewhere.end()


# --- from files ------------------------------------------------------------------------------------------------------


def test_text_with_u0000_that_an_older_version_took_comes_in_as_devices_know_it(
    engine: PostgresEngine, tmp_path: Path
) -> None:
    """The column, which is for SQL, has the character for what can't be shown. In an ID it is refused."""
    files = Tenants(SQLiteEngine(tmp_path / "data"))
    one = customer()
    files.provision(one)
    inside.push(files, one.id, {"changes": {"end_user": [{"id": "a", "name": "A-B"}]}})

    def spoil(column: str) -> None:
        row = "UPDATE _changes SET row = replace(row, 'A-B', ?)"
        connection().execute(row, (json.dumps("A\0B")[1:-1],))
        connection().execute(f"UPDATE end_user SET {column} = ?", ("A\0B",))

    files.write(one.id, lambda: spoil("name"))
    files.engine.copy_to(one.id, tmp_path / "copy")
    engine.restore_from(one.id, tmp_path / "copy")
    tenants = Tenants(engine)
    assert [row["name"] for row in inside.rows(tenants, one.id)] == ["A\0B"]
    assert engine.tenant(one.id).read(words) == ["A\N{REPLACEMENT CHARACTER}B"]
    files.write(one.id, lambda: spoil("id"))
    files.engine.copy_to(one.id, tmp_path / "worse")
    with pytest.raises(NotRestored, match="U\\+0000"):
        engine.restore_from(one.id, tmp_path / "worse")
    assert engine.tenant(one.id).read(words) == ["A\N{REPLACEMENT CHARACTER}B"]
    files.close()


# --- cut off, and large ----------------------------------------------------------------------------------------------


RESTORE = """
import os
from pathlib import Path
from storage.postgres import copies, engine as module
original = copies._copy_table_in

def copy_table_in(target, table, names):
    original(target, table, names)
    if table == "end_user":
        target.settle()
        print("amid", flush=True)
        sys.stdin.readline()

copies._copy_table_in = copy_table_in
engine.restore_from(sys.argv[1], Path(sys.argv[2]))
"""


def test_restore_that_is_killed_amid_its_rows_leaves_what_was_there(
    installation: PostgresInstallation, engine: PostgresEngine, tmp_path: Path
) -> None:
    """Fault: committed after each table: the tenant had the old log and the new rows."""
    one = new_id(engine)
    database = engine.tenant(one)
    database.write(lambda: add("copied"))
    engine.copy_to(one, tmp_path / "copy")
    database.write(lambda: add("later"))
    before = database.read(position)
    process = elsewhere(installation, RESTORE, one, str(tmp_path / "copy"))
    assert lines_of(process).readline() == "amid\n"
    assert database.read(words) == ["copied", "later"], "a read goes on meanwhile, and sees the old"
    process.kill()
    process.wait()
    assert database.write(lambda: add("goes on")) == 3
    assert database.read(words) == ["copied", "later", "goes on"] and database.read(position).epoch == before.epoch
    assert engine.renewed() == []


def test_copies_hold_few_rows_at_once(engine: PostgresEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a table read at once: all of its rows were there."""
    one = new_id(engine)

    def add_many() -> None:
        for number in range(60):
            add(f"w{number}")

    engine.tenant(one).write(add_many)
    monkeypatch.setattr(copies, "_AT_ONCE", 10)
    most = {"answered": 0, "waiting": 0}
    original = Connection.settle

    def settle(self: Connection) -> None:
        sent = [answer for answer in self._expected if answer is not None]
        original(self)
        most["waiting"] = max(most["waiting"], len(sent))
        most["answered"] = max([most["answered"], *(len(answer.rows) for answer in sent)])

    monkeypatch.setattr(Connection, "settle", settle)
    engine.copy_to(one, tmp_path / "copy")
    assert most["answered"] < 40, "the columns of a table are more than 10"
    engine.restore_from(one, tmp_path / "copy")
    assert most["waiting"] < 40 and len(engine.tenant(one).read(words)) == 60
