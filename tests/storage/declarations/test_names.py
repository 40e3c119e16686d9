"""Tables and columns that bear the names of our own schema, of SQLite and of Python: each lives through all that is done.

Names are taken from what there is, so that one that is added is tested too. What can't be declared is refused
with its place.
"""

from __future__ import annotations

import keyword
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

import models
from operations.backups import backup, verification
from storage import devices, digest, history, positions, pull_reader
from storage.declarations import toml_file
from storage.schema import tenant_models
from tenants import Tenants
from tests.conftest import JSON
from tests.data_folder import engine_of
from tests.declaring import Restart, column, provision
from tests.inside import pull, push, rows

OURS = ["e", "c", "m", "wanted", "place", "stored", "excluded", "new", "old", "main", "temp", "rowid", "oid"]
"""Aliases, and names that statements may use without a declaration."""
SCRIPTS = ["constructor", "prototype", "toString", "hasOwnProperty", "then", "length"]
REFUSED_TABLES = {"json_each", "batch", "end_user", "interactions", "end_user_id", "interactions_id"}
DAYS = 10**6


def names() -> list[str]:
    """Every name that could mean something else somewhere: of our schema, of SQLite, of Python's objects."""
    memory = apsw.Connection(":memory:")
    sqlite = ["pragma_function_list", "pragma_module_list", "pragma_pragma_list"]
    found = [row[0] for table in sqlite for row in memory.execute(f"SELECT DISTINCT name FROM {table}")]
    found += [row[1] for row in memory.execute("PRAGMA table_xinfo(json_each)")]
    for model in tenant_models():
        found += [model._meta.table_name.strip("_"), *(field.column_name for field in model._meta.sorted_fields)]
    found += [*apsw.keywords, *keyword.kwlist, *dir(models.SyncedRow), *dir(msgspec.Struct), *OURS, *SCRIPTS]
    wanted = {name.casefold(): name for name in found if re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)}
    return sorted(wanted.values())


def reserved() -> set[str]:
    """Columns that can't be declared, in lower case: what every table has, and what begins as SQLite's own."""
    server = {field.column_name.casefold() for field in models.SyncedRow._meta.sorted_fields} | {"isdeleted"}
    return server | {name.casefold() for name in names() if name.startswith("sqlite_")}


def is_taken(name: str) -> bool:
    return name in REFUSED_TABLES or name.startswith("sqlite_")


def batches(size: int, without: set[str], *spellings: Callable[[str], str]) -> Iterator[list[str]]:
    """Give all names that can be declared in parts, in each spelling."""
    usable = [name for name in names() if name.casefold() not in without]
    usable.sort(key=lambda name: name.casefold().endswith("_id"))  # A table may not be named as another's index.
    for spell in spellings:
        for start in range(0, len(usable), size):
            yield [spell(name) for name in usable[start : start + size]]


COLUMN_BATCHES = list(batches(150, reserved(), str, str.swapcase))
TABLE_BATCHES = list(batches(60, {name.casefold() for name in names() if is_taken(name.casefold())}, str.swapcase))
KINDS: dict[str, tuple[Any, Any]] = {
    "text": ("a", "b"),
    "integer": (1, 2),
    "number": (0.5, 2.5),
    "boolean": (0, 1),
    "json": ({"a": 1}, ["b"]),
}


def declaration(table: str, columns: Sequence[str]) -> str:
    kinds = list(KINDS)
    lines = [f"{name} = '{kinds[number % len(kinds)]}'" for number, name in enumerate(columns)]
    return f"[{table}.columns]\n" + "\n".join(lines) + "\n"


def values(columns: Sequence[str], which: int) -> JSON:
    kinds = list(KINDS.values())
    return {name: kinds[number % len(kinds)][which] for number, name in enumerate(columns)}


def live_through(tenants: Tenants, tenant_id: str, tables: Sequence[str], columns: Sequence[str], folder: Path) -> None:
    """Do with these tables all that is done with any: write by both ways, read, merge, look back, purge, back up."""
    first, second = values(columns, 0), values(columns, 1)
    ids = [f"r{number}" for number in range(6)]
    push(tenants, tenant_id, {"changes": {table: [{"id": one, **first} for one in ids] for table in tables}})
    push(tenants, tenant_id, {"changes": {table: [{"id": ids[0], "Unique_id": "u"}] for table in tables}})
    start = pull(tenants, tenant_id, {"cursor": None, "limit": 3})
    for table in tables:
        assert len(rows(tenants, tenant_id, table)) == len(ids)
        edit = {"table": table, "operation": "update", "baseVersion": 1, "data": {"id": ids[1], **second}}
        by_unique = {"table": table, "operation": "update", "data": {"id": None, "Unique_id": "u", **second}}
        gone = {"table": table, "operation": "delete", "data": {"id": ids[2]}}
        found = push(tenants, tenant_id, {"operations": [edit, by_unique, gone]}).results
        assert [one["status"] for one in found] == ["updated", "updated", "deleted"], table
        assert found[1]["id"] == ids[0]
        assert push(tenants, tenant_id, {"changes": {table: [{"id": ids[3], **second}]}}).results[0]["version"] == 2
        look_back(tenants, tenant_id, table, ids[3], columns)
    assert all(pull(tenants, tenant_id, {"cursor": start["cursor"]})["data"][table] for table in tables)
    tenants.read(tenant_id, lambda: [pull_reader.pending_rows(table, 0, 10) for table in tables])
    check_digests(tenants, tenant_id, tables)
    before = {table: rows(tenants, tenant_id, table) for table in tables}
    tenants.write(tenant_id, lambda: devices.purge(0, DAYS))
    assert {table: rows(tenants, tenant_id, table) for table in tables} == before
    check_digests(tenants, tenant_id, tables)
    edits = {table: [{"id": one, **second} for one in ids[4:]] for table in tables}
    assert {one["status"] for one in push(tenants, tenant_id, {"changes": edits}).results} == {"updated"}
    made = backup.make(engine_of(tenants), folder / "backups", None, None, lambda _: None)
    assert verification.verify(made.path, lambda _: None).is_good


def look_back(tenants: Tenants, tenant_id: str, table: str, row_id: str, columns: Sequence[str]) -> None:
    """Read a row's history, bring its first version back, and let a conflict happen."""
    entries, _ = tenants.read(tenant_id, lambda: history.history(table, row_id, None, 10))
    assert [entry["version"] for entry in entries] == [2, 1]
    assert sorted(entries[0]["fields"]) == sorted(columns)
    fields, _ = tenants.read(tenant_id, lambda: history.fields_of_version(table, row_id, 1))
    was = {"id": row_id} | {name: fields[name] for name in columns}
    push(tenants, tenant_id, {"changes": {table: [was]}})
    lost = {"table": table, "operation": "update", "baseVersion": 1, "data": {"id": row_id, **values(columns, 1)}}
    (conflict,) = push(tenants, tenant_id, {"operations": [lost]}).conflicts
    assert conflict["fields"].keys() == set(columns)


def check_digests(tenants: Tenants, tenant_id: str, tables: Sequence[str]) -> None:
    """Hold the digests that are kept to the rows that are pulled."""
    _, kept = tenants.read(tenant_id, positions.position_and_digests)
    for table in tables:
        whole = 0
        found = [row for row in rows(tenants, tenant_id, table) if not row["is_deleted"]]
        for row in found:
            whole ^= digest.number_of(row["id"], row["version"])
        assert kept[table] == {"count": len(found), "hash": digest.text_of(whole)}, table


@pytest.mark.slow
@pytest.mark.parametrize("columns", COLUMN_BATCHES, ids=lambda columns: columns[0])
def test_column_of_any_name_loses_nothing(
    restart: Restart,
    tenant_id: str,
    tmp_path: Path,
    columns: list[str],
) -> None:
    """Fault: ``seq`` unqualified beside a table with a column ``seq``: a purge emptied the table."""
    tenants = provision(restart(declaration("job", columns)), tenant_id)
    live_through(tenants, tenant_id, ["job"], columns, tmp_path)
    found = {row["id"]: row for row in rows(tenants, tenant_id, "job")}
    kept = columns[: len(columns) // 2]
    tenants = restart(declaration("job", kept))  # The others go, and come back.
    assert {row["id"]: {name: row[name] for name in columns} for row in rows(tenants, tenant_id, "job")} == {
        one: {name: row[name] for name in columns} for one, row in found.items()
    }
    tenants = restart(declaration("job", columns))
    for row in rows(tenants, tenant_id, "job"):
        assert {name: row[name] for name in columns} == {name: found[row["id"]][name] for name in columns}
    for name in random.Random(1).sample(columns, 5):
        assert len(column(tenants, tenant_id, f'SELECT "{name}" FROM job')) == len(found)


@pytest.mark.slow
@pytest.mark.parametrize("tables", TABLE_BATCHES, ids=lambda tables: tables[0])
def test_table_of_any_name_loses_nothing(
    restart: Restart,
    tenant_id: str,
    tmp_path: Path,
    tables: list[str],
) -> None:
    """Fault: a table called ``json_each`` hid the function of that name, and each registration was a 500."""
    columns = ["seq", "title", "value", "row_number"]
    text = "".join(declaration(table, columns) for table in tables)
    tenants = provision(restart(text), tenant_id)
    live_through(tenants, tenant_id, tables, columns, tmp_path)


def refused(text: str, place: str) -> bool:
    """Tell whether a declaration is refused, and see that it is for what stands at this place."""
    try:
        toml_file.read(text)
    except toml_file.DeclarationError as error:
        assert str(error).startswith(f"tables.toml:{place}: ") and len(error.mistakes) == 1, error
        return True
    return False


@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
def test_exactly_the_names_that_are_taken_are_refused_with_their_place(spell: Callable[[str], str]) -> None:
    tables = {name for name in names() if refused(f"\n[{spell(name)}.columns]\na = 'text'\n", "2:2")}
    assert {name.casefold() for name in tables} == {name for name in map(str.casefold, names()) if is_taken(name)}
    columns = {name for name in names() if refused(f"[job.columns]\n{spell(name)} = 'text'\n", "2:1")}
    assert {name.casefold() for name in columns} == reserved() & {name.casefold() for name in names()}
