"""Everything, or a tenant, moves from one engine to the other with every row, and of the two one at the most is written."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import connection
from operations import move as moves
from operations.move import Move
from operations.move_checks import MoveError
from protocol.errors import Moved
from storage import copying, devices, main_database
from storage.backup_runs import BackupRun
from storage.declarations.compatibility import MigrationRefused
from storage.devices import Seen
from storage.engine import CanNotOpen, Engine
from storage.last_positions import LastPosition
from storage.operator_sessions import OperatorSession
from storage.positions import position
from storage.postgres.engine import PostgresEngine
from storage.sqlite.engine import SQLiteEngine
from tenants import Tenants
from tests import postgres
from tests.conftest import JSON
from tests.customers import customer
from tests.declaring import declare
from tests.inside import pull, push, rows

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING),
]

Open = Callable[[str], Engine]


@pytest.fixture
def databases() -> Iterator[dict[str, str]]:
    made: dict[str, str] = {}
    yield made
    for name in made.values():
        postgres.server().drop(name)


@pytest.fixture
def open_engine(tmp_path: Path, databases: dict[str, str]) -> Iterator[Open]:
    """Open an installation by its name: one that begins with ``pg`` is a database, others are folders."""
    opened: dict[str, Engine] = {}

    def open_one(name: str) -> Engine:
        if name in opened:
            opened.pop(name).close()
        if name.startswith("pg"):
            database = databases.setdefault(name, "") or postgres.server().new_database()
            databases[name] = database
            opened[name] = PostgresEngine(postgres.server().address(database))
        else:
            opened[name] = SQLiteEngine(tmp_path / name)
        return opened[name]

    yield open_one
    for engine in opened.values():
        engine.close()


def begun(source: Engine, target: Engine, tenant_id: str | None = None, **options: Any) -> Move:
    return moves.begin(source, target, tenant_id, said.append, **options)


said: list[str] = []


def moved(source: Engine, target: Engine, tenant_id: str | None = None) -> None:
    move = begun(source, target, tenant_id)
    moves.copy(move)
    moves.cut_over(move)


def provision(tenants: Tenants) -> str:
    tenant_id = str(uuid.uuid4())
    tenants.provision(customer(f"{tenant_id}@example.com", tenant_id))
    return tenant_id


def fill(tenants: Tenants, tenant_id: str, count: int = 450) -> None:
    """Have everything in a tenant: rows of every type, edits, tombstones, conflicts, receipts, devices."""
    row = {"name": "Aşha 😀", "phoneModel": {"b": 1.5, "a": [None, True]}, "active": False, "extra": [1.0, "é"]}
    push(tenants, tenant_id, {"changes": {"end_user": [{**row, "id": f"r{n}"} for n in range(count)]}})
    push(tenants, tenant_id, {"changes": {"interactions": [{"id": "i", "type": "call", "title": "t"}]}})
    operation = {
        "table": "end_user",
        "operation": "update",
        "data": {"id": "r1", "name": "B"},
        "opId": "op",
        "baseVersion": 1,
    }
    push(tenants, tenant_id, {"operations": [operation]})
    push(tenants, tenant_id, {"operations": [{**operation, "opId": "op2", "data": {"id": "r1", "name": "C"}}]})
    push(tenants, tenant_id, {"table": "end_user", "operation": "delete", "data": {"id": "r2"}})
    seen = Seen(tenants.write)
    seen.note(tenant_id, "phone", {"end_user": 3}, 1, tenants.read(tenant_id, position).epoch)
    seen.save(tenant_id)


def everything(engine: Engine, tenant_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """Read every row of a tenant, all columns, and its position."""

    def read() -> dict[str, list[tuple[Any, ...]]]:
        tables = map(copying.table_of, copying.models_of_tenant())
        found = {table.name: list(copying.pages(connection(), table, table.columns)) for table in tables}
        return found | {"_meta": [tuple(position())]}

    return engine.peek(tenant_id, read)


WAYS = [("files", "pg"), ("pg", "files"), ("pg", "pg2"), ("files", "files2")]


@pytest.mark.parametrize(("here", "there"), WAYS)
def test_everything_moves_and_is_the_same(open_engine: Open, here: str, there: str) -> None:
    source, target = open_engine(here), open_engine(there)
    tenants = Tenants(source)
    ids = [provision(tenants) for _ in range(2)]
    fill(tenants, ids[0])
    before = everything(source, ids[0])
    assert all(before[name] for name in before if name != "_answers" and not name.startswith("_evid"))
    cursor = pull(tenants, ids[0], {"cursor": None})["cursor"]
    moved(source, target)
    assert everything(target, ids[0]) == before and target.tenant_ids() == sorted(ids)
    after = Tenants(target)
    push(after, ids[0], {"table": "end_user", "operation": "create", "data": {"id": "new"}})
    news = pull(after, ids[0], {"cursor": cursor})
    assert [row["id"] for row in news["data"]["end_user"]] == ["new"]
    for write in (lambda: push(tenants, ids[0], {"changes": {"end_user": [{"id": "x"}]}}), lambda: provision(tenants)):
        with pytest.raises(Moved):
            write()
    assert everything(source, ids[0]) == before and rows(tenants, ids[1]) == []


def test_every_table_of_the_directory_is_copied_or_stays_for_a_reason() -> None:
    """Of both engines: what PostgreSQL's has beside these is its own account of them. Backups are of the place where the
    data was, and an operator signs in anew."""
    stay = {LastPosition, main_database.Installation, BackupRun, OperatorSession}
    assert {*copying.DIRECTORY, *stay} == set(main_database._MODELS), "storage/copying.py must copy it"


def put(tenants: Tenants, tenant_id: str, *data: JSON, table: str = "end_user") -> None:
    push(tenants, tenant_id, {"changes": {table: list(data)}})


def test_what_changes_between_the_copy_and_the_cut_over_is_there(open_engine: Open) -> None:
    """Fault: no second copy: the rows of before."""
    source, target = open_engine("files"), open_engine("pg")
    tenants = Tenants(source)
    one, quiet, closed = [provision(tenants) for _ in range(3)]
    fill(tenants, one)
    put(tenants, quiet, {"id": "a"})
    put(tenants, closed, {"id": "a"})
    move = begun(source, target)
    moves.copy(move)
    put(tenants, one, {"id": "r300", "name": "later"}, {"id": "new"})
    push(tenants, one, {"table": "end_user", "operation": "delete", "data": {"id": "r5"}})
    tenants.write(one, lambda: devices.purge(0, 20))
    tenants.close_account(closed)
    new = provision(tenants)
    put(tenants, new, {"id": "a"})
    said.clear()
    moves.cut_over(move)
    assert target.tenant_ids() == sorted([one, quiet, new])
    assert all(everything(target, each) == everything(source, each) for each in (one, quiet, new))
    assert any(line.startswith(f"{quiet}: as of change 1, 0 rows copied") for line in said)
    assert not target.directory.read(
        lambda: list(connection().execute("SELECT id FROM tenants WHERE id = ?", (closed,)))
    )


def test_copy_takes_no_write_until_all_of_it_is_there(open_engine: Open) -> None:
    """Else a server that was started too soon would take pushes that the next copy removes."""
    source, target = open_engine("files"), open_engine("pg")
    tenants = Tenants(source)
    one = provision(tenants)
    move = begun(source, target)
    moves.copy(move)
    too_soon = Tenants(target)
    for write in (lambda: put(too_soon, one, {"id": "x"}), lambda: provision(too_soon)):
        with pytest.raises(Moved):
            write()
    put(tenants, one, {"id": "a"})
    moves.cut_over(move)
    assert [row["id"] for row in rows(too_soon, one)] == ["a"]
    put(too_soon, one, {"id": "b"})


def test_only_keys_are_read_again_of_what_was_compared(open_engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until somebody wants every row compared: then one that was changed in the copy is found, and put right."""
    source, target = open_engine("files"), open_engine("pg")
    tenants = Tenants(source)
    one = provision(tenants)
    fill(tenants, one)
    moves.copy(begun(source, target))
    target.rewrite(one, lambda: connection().execute("UPDATE end_user SET name = 'x' WHERE id = 'r7'").fetchall())
    put(tenants, one, {"id": "new"})
    moves.copy(begun(source, target))
    assert everything(target, one)["end_user"] != everything(source, one)["end_user"]
    said.clear()
    moves.copy(begun(source, target, compares_all=True))
    assert everything(target, one) == everything(source, one) and "1 rows copied" in said[-1]


def test_row_that_does_not_arrive_as_it_is_stops_the_move(open_engine: Open, databases: dict[str, str]) -> None:
    source, target = open_engine("files"), open_engine("pg")
    tenants = Tenants(source)
    one = provision(tenants)
    put(tenants, one, {"id": "a", "name": "A"}, {"id": "b"})
    move = begun(source, target)
    for statement in (
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.name = NEW.name || '!'; RETURN NEW; END $$",
        "CREATE TRIGGER spoil BEFORE INSERT ON end_user FOR EACH ROW EXECUTE FUNCTION spoil()",
    ):
        postgres.server().ask(statement, databases["pg"])
    with pytest.raises(MoveError, match=f"{one} can't be copied: end_user: the row with _seq 1 is not the same"):
        moves.copy(move)
    with pytest.raises(MoveError):
        moves.cut_over(move)
    assert target.tenant_ids() == []
    postgres.server().ask("DROP TRIGGER spoil ON end_user", databases["pg"])
    moved(source, target)
    assert everything(target, one) == everything(source, one)


def test_digest_that_is_not_that_of_the_rows_stops_the_move(open_engine: Open) -> None:
    source, target = open_engine("files"), open_engine("pg")
    tenants = Tenants(source)
    one = provision(tenants)
    put(tenants, one, {"id": "a"})
    tenants.write(one, lambda: connection().execute("UPDATE _digests SET count = 2 WHERE table_name = 'end_user'"))
    with pytest.raises(MoveError, match="digest"):
        moved(source, target)


def test_there_and_back_into_the_folder_that_it_left(open_engine: Open) -> None:
    folder, database = open_engine("files"), open_engine("pg")
    tenants = Tenants(folder)
    one = provision(tenants)
    fill(tenants, one)
    moved(folder, database)
    there = Tenants(database)
    put(there, one, {"id": "r1", "name": "there"})
    two = provision(there)
    put(there, two, {"id": "a"})
    said.clear()
    moved(database, folder)
    assert all(everything(folder, each) == everything(database, each) for each in (one, two))
    assert any(f"{one}: as of change" in line and " 1," not in line for line in said)
    put(Tenants(open_engine("files")), one, {"id": "back"})
    with pytest.raises(Moved):
        put(there, one, {"id": "x"})


def test_move_that_ended_is_not_done_again(open_engine: Open) -> None:
    source, target = open_engine("files"), open_engine("pg")
    one = provision(Tenants(source))
    moved(source, target)
    put(Tenants(target), one, {"id": "a"})
    moved(source, target)
    assert [row["id"] for row in rows(Tenants(target), one)] == ["a"]


def test_table_that_is_synced_no_more_comes_along(open_engine: Open) -> None:
    """Fault: the tables of now alone: its rows stayed behind, and were not there when it was declared again."""
    text = "[old]\ncolumns.a = 'json'\ncolumns.n = 'number'\n"
    try:
        declare(text)
        tenants = Tenants(open_engine("files"))
        one = provision(tenants)
        put(tenants, one, {"id": "o", "a": {"z": [None, 1.50]}, "n": 1.5}, table="old")
        declare("")
        source, target = open_engine("files"), open_engine("pg")
        Tenants(source, ["old"])
        moved(source, target)
        moved(target, open_engine("files2"))
        declare(text)
        (row,) = rows(Tenants(open_engine("files2")), one, "old")
        assert (row["a"], row["n"]) == ({"z": [None, 1.5]}, 1.5)
    finally:
        declare("")


# --- one tenant ------------------------------------------------------------------------------------------------------


def test_one_tenant_moves_and_the_others_stay(open_engine: Open) -> None:
    source, target = open_engine("files"), open_engine("pg")
    tenants, there = Tenants(source), Tenants(target)
    one, other, native = provision(tenants), provision(tenants), provision(there)
    fill(tenants, one)
    moved(source, target, one)
    assert target.tenant_ids() == sorted([one, native]) and everything(target, one) == everything(source, one)
    put(there, one, {"id": "x"})
    put(tenants, other, {"id": "x"})
    provision(tenants)
    with pytest.raises(Moved):
        put(tenants, one, {"id": "x"})
    with pytest.raises(MoveError, match="other customers"):
        begun(source, target)
    with pytest.raises(MoveError, match="has moved to another"):
        moved(source, open_engine("pg2"))


# --- undone ----------------------------------------------------------------------------------------------------------


def test_undone_move_leaves_the_source_as_it_was(open_engine: Open) -> None:
    source, target = open_engine("files"), open_engine("pg")
    tenants = Tenants(source)
    one = provision(tenants)
    put(tenants, one, {"id": "a"})
    moved(source, target)
    moves.undo(begun(source, target))
    put(tenants, one, {"id": "b"})
    provision(tenants)
    with pytest.raises(Moved):
        put(Tenants(target), one, {"id": "x"})
    moved(source, target)
    put(Tenants(target), one, {"id": "c"})
    with pytest.raises(MoveError, match=f"took changes of the tenant {one}"):
        moves.undo(begun(source, target))
    put(Tenants(target), one, {"id": "d"})
    with pytest.raises(Moved):
        put(tenants, one, {"id": "x"})


# --- refused ---------------------------------------------------------------------------------------------------------


def test_what_can_not_be_moved_is_refused_before_anything_is(open_engine: Open, tmp_path: Path) -> None:
    source, target = open_engine("files"), open_engine("pg")
    tenants = Tenants(source)
    one = provision(tenants)
    put(tenants, one, {"id": "a"}, {"id": "b", "name": "x"})

    def refused(sentence: str, kind: type[Exception] = MoveError, **options: Any) -> None:
        with pytest.raises(kind, match=sentence):
            begun(source, options.get("target", target), options.get("tenant_id"))
        assert target.tenant_ids() == [] and target.directory.read(main_database.customer_ids) <= {one}

    refused("one installation", target=source)
    with pytest.raises(MoveError, match="There are no tenants here"):
        begun(open_engine("pg2"), target)
    refused("There is no tenant", tenant_id=str(uuid.uuid4()))
    tenants.write(one, lambda: connection().execute("UPDATE end_user SET name = ? WHERE id = 'b'", ("a\0b",)))
    refused(f"row b of end_user of the tenant {one} has a text with U\\+0000")
    put(tenants, one, {"id": "b", "name": "y"})
    begun(source, target)
    tenants.directory.write(lambda: main_database.change_customer(one, phone="1\0"))
    refused(f"row {one} of customers has a text")
    tenants.directory.write(lambda: main_database.change_customer(one, phone="1"))
    declare("[job]\ncolumns.a = 'text'\n")
    refused("job: new table", MigrationRefused)
    declare("")
    two = provision(tenants)
    assert isinstance(source, SQLiteEngine)
    path = source.folder.path_of(two)
    with source.files.closed(two):
        path.rename(tmp_path / "aside")
        refused(f"The database of {two} is missing")
        (tmp_path / "aside").rename(path)
    begun(source, target)


@pytest.mark.parametrize("text", [f"[{'t' * 64}]\ncolumns.a = 'text'\n", "[job]\ncolumns.xmin = 'text'\n"])
def test_names_that_the_target_can_not_have_are_refused(open_engine: Open, text: str) -> None:
    try:
        declare(text)
        tenants = Tenants(open_engine("files"))
        provision(tenants)
        with pytest.raises(CanNotOpen):
            begun(tenants.engine, open_engine("pg"))
    finally:
        declare("")


def test_target_of_others_or_that_is_written_is_refused(open_engine: Open) -> None:
    source, target = open_engine("files"), open_engine("pg")
    tenants, others = Tenants(source), Tenants(target)
    one, foreign = provision(tenants), provision(others)
    with pytest.raises(MoveError, match=f"other customers at the target already, such as {foreign}"):
        begun(source, target)
    others.close_account(foreign)
    others.provision(customer(f"{one}@example.com", one))
    put(others, one, {"id": "theirs"})
    with pytest.raises(MoveError, match="is written there"):
        begun(source, target)
    assert [row["id"] for row in rows(others, one)] == ["theirs"]
