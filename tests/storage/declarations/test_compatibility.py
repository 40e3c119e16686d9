"""A declaration that changes: what becomes of rows, what is refused before anything is touched, and at what cost."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models
from operations.backups import backup, restore, verification
from protocol.errors import ValidationError
from storage import devices
from storage.declarations.compatibility import MigrationRefused
from storage.sqlite import files
from storage.sqlite.engine import SQLiteEngine
from tenants import Tenants
from tests.conftest import JSON
from tests.data_folder import engine_of, path_of
from tests.declaring import Restart, column, provision, put
from tests.inside import pull, push, rows

JOB = "[job]\ncolumns.title = 'text'\n"


def refused(restart: Restart, text: str) -> str:
    with pytest.raises(MigrationRefused) as caught:
        restart(text)
    return str(caught.value)


# --- required --------------------------------------------------------------------------------------------------------

REQUIRED = """
[job.columns]
title = { type = "text", required = true }
status = { type = "text", required = true, default = "open" }
note = "text"
"""


@pytest.mark.parametrize("operation", ["create", "update"])
def test_new_row_without_a_required_column_is_refused_with_its_path(
    restart: Restart, tenant_id: str, operation: str
) -> None:
    tenants = provision(restart(REQUIRED), tenant_id)
    change = {"table": "job", "operation": operation, "data": {"id": "j1", "note": "x"}}
    for body, path in (
        (change, "data.title"),
        ({"operations": [change]}, "operations[0].data.title"),
        ({"changes": {"job": [{"id": "j1"}]}}, "changes.job[0].title"),
        ({"changes": {"job": [{"id": "j1", "title": None}]}}, "changes.job[0].title"),
    ):
        with pytest.raises(ValidationError) as caught:
            push(tenants, tenant_id, body)
        assert caught.value.details == [{"path": path, "error": "is required"}]
    assert rows(tenants, tenant_id, "job") == []
    (row,) = put(tenants, tenant_id, {"id": "j1", "title": "Roof"})
    assert (row["title"], row["status"]) == ("Roof", "open")


def test_required_column_is_asked_of_new_rows_only_and_never_cleared(restart: Restart, tenant_id: str) -> None:
    tenants = provision(restart(REQUIRED), tenant_id)
    put(tenants, tenant_id, {"id": "j1", "title": "Roof"})
    assert put(tenants, tenant_id, {"id": "j1", "note": "x"})[0]["title"] == "Roof"
    for name in ("title", "status"):
        with pytest.raises(ValidationError):
            put(tenants, tenant_id, {"id": "j1", name: None})
    mixed = {"changes": {"job": [{"id": "j2"}, {"id": "j3", "title": "Gutter"}]}, "atomic": False}
    assert [result["status"] for result in push(tenants, tenant_id, mixed).results] == ["rejected", "created"]


def test_delete_needs_no_required_column_but_bringing_back_does(restart: Restart, tenant_id: str) -> None:
    tenants = provision(restart(REQUIRED.replace("required = true }", "required = false }")), tenant_id)
    put(tenants, tenant_id, {"id": "j1"}, {"id": "j1", "is_deleted": 1, "title": None}, {"id": "j2", "is_deleted": 1})
    tenants = restart(REQUIRED)
    with pytest.raises(ValidationError) as caught:
        put(tenants, tenant_id, {"id": "j1", "is_deleted": 0})
    assert caught.value.details == [{"path": "changes.job[0].title", "error": "is required"}]
    put(tenants, tenant_id, {"id": "j1", "is_deleted": 0, "title": "Roof"})
    put(tenants, tenant_id, {"id": "j1", "is_deleted": 1, "title": None, "status": None})
    assert rows(tenants, tenant_id, "job") == []
    with pytest.raises(ValidationError):
        put(tenants, tenant_id, {"id": "j1", "is_deleted": 0})


# --- what migrates ---------------------------------------------------------------------------------------------------


def test_table_and_columns_are_added_to_tenants_that_are_there(restart: Restart, tenant_id: str) -> None:
    provision(restart(), tenant_id)
    tenants = restart(JOB)
    put(tenants, tenant_id, {"id": "j1", "title": "Roof", "priority": 2}, {"id": "j2", "priority": None}, {"id": "j3"})
    before = pull(tenants, tenant_id, {"cursor": None})
    tenants = restart(JOB + "columns.priority = { type = 'integer', required = true, default = 5, index = true }\n")
    found = {row["id"]: row["priority"] for row in rows(tenants, tenant_id, "job")}
    assert found == {"j1": 2, "j2": 5, "j3": 5}, "what was held, else the default, also for null"
    assert column(tenants, tenant_id, "SELECT priority FROM job ORDER BY id") == [2, 5, 5]
    sent = pull(tenants, tenant_id, {"cursor": before["cursor"]})["data"]["job"]
    assert {row["id"]: row["priority"] for row in sent} == {"j2": 5, "j3": 5}


def test_held_value_that_does_not_fit_a_new_column_is_put_aside_and_not_lost(restart: Restart, tenant_id: str) -> None:
    tenants = provision(restart(JOB), tenant_id)
    held: list[JSON] = [
        {"id": "a", "priority": "high", "due": [1, {"x": None}], "color": "red"},
        {"id": "b", "priority": 3, "due": "2026-01-31", "_unfit": "own"},
        {"id": "c", "priority": {"b": 1}, "_unfit": {"other": 1}},
    ]
    put(tenants, tenant_id, *held)
    tenants = restart(JOB + "columns.priority = { type = 'integer', default = 5 }\ncolumns.due = 'date'\n")
    found = {row["id"]: row for row in rows(tenants, tenant_id, "job")}
    assert (found["a"]["priority"], found["a"]["due"], found["a"]["color"]) == (5, None, "red")
    assert found["a"]["_unfit"] == {"priority": "high", "due": [1, {"x": None}]}
    assert (found["b"]["priority"], found["b"]["due"], found["b"]["_unfit"]) == (3, "2026-01-31", "own")
    assert found["c"]["_unfit"] == {"other": 1, "priority": {"b": 1}}
    extra = [json.loads(text) for text in column(tenants, tenant_id, "SELECT _extra FROM job ORDER BY id")]
    assert extra == [
        {"color": "red", "_unfit": found["a"]["_unfit"]},
        {"_unfit": "own"},
        {"_unfit": found["c"]["_unfit"]},
    ]
    assert put(tenants, tenant_id, {"id": "a", "priority": 1, "_unfit": None})[0]["_unfit"] is None


def test_number_that_was_held_becomes_the_text_that_a_column_would_store(restart: Restart, tenant_id: str) -> None:
    tenants = provision(restart(JOB), tenant_id)
    put(tenants, tenant_id, {"id": "a", "phone": 5550100})
    tenants = restart(JOB + "columns.phone = 'text'\n")
    assert rows(tenants, tenant_id, "job")[0]["phone"] == "5550100"
    assert push(tenants, tenant_id, {"changes": {"job": [{"id": "a", "phone": 5550100}]}}).results[0]["status"] == (
        "unchanged"
    )


def test_column_that_goes_and_comes_back_loses_nothing(restart: Restart, tenant_id: str) -> None:
    """Fault: a column that stays in the table is not filled when it comes back; rows of meanwhile lacked it, 500."""
    with_due = JOB + "columns.due = { type = 'date', index = true, default = '2026-01-01' }\n"
    tenants = provision(restart(with_due), tenant_id)
    put(tenants, tenant_id, {"id": "a", "due": "2026-02-01"}, {"id": "b", "due": None})
    tenants = restart(JOB)
    assert column(tenants, tenant_id, "SELECT _extra FROM job ORDER BY id") == ['{"due":"2026-02-01"}', '{"due":null}']
    put(tenants, tenant_id, {"id": "a", "due": "2026-03-01"}, {"id": "c", "title": "C"}, {"id": "d", "due": "soon"})
    tenants = restart(with_due)
    found = {row["id"]: row["due"] for row in rows(tenants, tenant_id, "job")}
    assert found == {"a": "2026-03-01", "b": None, "c": "2026-01-01", "d": "2026-01-01"}
    assert put(tenants, tenant_id, {"id": "c", "title": "D"})[0]["due"] == "2026-01-01"
    assert column(tenants, tenant_id, "SELECT due FROM job ORDER BY id") == [
        "2026-03-01",
        None,
        "2026-01-01",
        "2026-01-01",
    ]


@pytest.mark.parametrize(
    ("before", "after", "value", "becomes"),
    [
        ("integer", "number", 5, 5.0),
        ("boolean", "integer", True, 1),
        ("boolean", "number", True, 1.0),
        ("date", "text", "2026-01-31", "2026-01-31"),
        ("timestamp", "text", "2026-01-31T10:00", "2026-01-31T10:00"),
        ("text", "date", "2026-01-31", "2026-01-31"),
        ("number", "integer", 5.0, 5),
    ],
)
def test_type_that_takes_every_stored_value_may_follow(
    restart: Restart, tenant_id: str, before: str, after: str, value: Any, becomes: Any
) -> None:
    tenants = provision(restart(f"[job]\ncolumns.a = '{before}'"), tenant_id)
    put(tenants, tenant_id, {"id": "j1", "a": value}, {"id": "j2"})
    tenants = restart(f"[job]\ncolumns.a = '{after}'")
    stored = [row["a"] for row in rows(tenants, tenant_id, "job")]
    assert stored == [becomes, None] and type(stored[0]) is type(becomes)
    (shown,) = column(tenants, tenant_id, "SELECT a FROM job WHERE id = 'j1'")
    assert shown == becomes and type(shown) is type(becomes)
    again = {"changes": {"job": [{"id": "j1", "a": int(value) if value is True else value}]}}
    assert push(tenants, tenant_id, again).results[0]["status"] == "unchanged"


@pytest.mark.files("its own catalog")
def test_indexes_are_those_that_are_declared_and_an_operators_own(restart: Restart, tenant_id: str) -> None:
    names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'job' AND sql IS NOT NULL ORDER BY name"
    text = "[job]\nindexes = {}\ncolumns.a = {{ type = 'text', index = {} }}\ncolumns.b = 'text'\n"
    tenants = provision(restart(text.format("[['a', 'b']]", "true")), tenant_id)
    first = column(tenants, tenant_id, names)
    assert first == ["_ix_job(a)", "_ix_job(a,b)", "job_Unique_id", "job_id"]
    with contextlib.closing(sqlite3.connect(path_of(tenants, tenant_id))) as shell:
        shell.execute('CREATE INDEX "my""own" ON job (b)')
    tenants = restart(text.format("['b']", "false"))
    assert column(tenants, tenant_id, names) == ["_ix_job(b)", "job_Unique_id", "job_id", 'my"own']


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "value", "told"),
    [
        ("type = 'text'", "type = 'integer'", "x", "job.a: type text becomes integer"),
        ("type = 'integer'", "type = 'text'", 5, "job.a: type integer becomes text"),
        ("type = 'text'", "type = 'date'", "soon", "job.a: type text becomes date"),
        ("type = 'text'", "type = 'json'", "x", "job.a: type text becomes json"),
        ("type = 'json'", "type = 'text'", "x", "job.a: type json becomes text"),
        ("type = 'text'", "type = 'text', required = true", None, "job.a: required false becomes true"),
        (
            "type = 'text'",
            "type = 'text', required = true, default = 'y'",
            None,
            "required false becomes true, default",
        ),
        ("type = 'text'", "type = 'text', enum = ['y']", "x", 'job.a: enum null becomes ["y"]'),
        (
            "type = 'text', enum = ['x', 'y']",
            "type = 'text', enum = ['y']",
            "x",
            'job.a: enum ["x", "y"] becomes ["y"]',
        ),
    ],
)
def test_change_that_a_row_does_not_fit_is_refused_and_nothing_is_touched(
    restart: Restart, tenant_id: str, before: str, after: str, value: Any, told: str
) -> None:
    first, second = (f"[job]\ncolumns.a = {{ {said} }}\n" for said in (before, after))
    tenants = provision(restart(first), tenant_id)
    put(tenants, tenant_id, {"id": "gone", "a": value}, {"id": "gone", "is_deleted": 1})
    put(tenants, tenant_id, {"id": "j1", "a": value})
    path = path_of(restart(first), tenant_id)  # What was in the write-ahead log is in the file now.
    files = [path, path.parent.parent / "main.db"]
    content = [file.read_bytes() for file in files]
    sentence = refused(restart, second + "columns.b = 'text'\n[new]\ncolumns.a = 'text'\n")
    assert told in sentence and f"1 row of 1 tenant: row j1 of tenant {tenant_id}" in sentence
    assert [file.read_bytes() for file in files] == content
    tenants = restart(first)
    push(tenants, tenant_id, {"table": "job", "operation": "delete", "data": {"id": "j1"}})
    restart(second)


def test_required_column_without_a_default_is_refused_where_rows_have_no_value(
    restart: Restart, tenant_id: str
) -> None:
    tenants = provision(restart(JOB), tenant_id)
    put(tenants, tenant_id, {"id": "j1"}, {"id": "j2", "customer": "c1"}, {"id": "j3", "customer": 7})
    sentence = refused(restart, JOB + "columns.customer = { type = 'text', required = true }\n")
    assert "job.customer: new column. That does not fit 2 rows of 1 tenant: row j1" in sentence
    assert "Give it a default, or leave it optional." in sentence
    tenants = restart(JOB)
    put(tenants, tenant_id, {"id": "j1", "customer": "c2"}, {"id": "j3", "customer": "c3"})
    tenants = restart(JOB + "columns.customer = { type = 'text', required = true }\n")
    assert {row["customer"] for row in rows(tenants, tenant_id, "job")} == {"c1", "c2", "c3"}


def test_table_with_rows_is_let_go_only_on_demand_and_comes_back_whole(restart: Restart, tenant_id: str) -> None:
    tenants = provision(restart(JOB), tenant_id)
    (row,) = put(tenants, tenant_id, {"id": "j1", "title": "Roof"})
    put(tenants, tenant_id, {"id": "u1"}, table="end_user")
    sentence = refused(restart, "")
    assert sentence.startswith("job: no longer declared. That does not fit 1 row of 1 tenant")
    assert "migrate --retire job." in sentence
    tenants = restart("", retiring=("job",))
    assert "job" not in pull(tenants, tenant_id, {"cursor": None})["data"]
    tenants = restart("")
    push(tenants, tenant_id, {"changes": {"end_user": [{"id": "u1", "name": "A"}]}})
    tenants.write(tenant_id, lambda: devices.purge(0, 10**6))
    assert refused(restart, "[job]\ncolumns.title = 'integer'\n").startswith("job.title: type text becomes integer")
    tenants = restart(JOB)
    (found,) = rows(tenants, tenant_id, "job")
    assert found == row | {"version": 2, "updatedAt": found["updatedAt"]}


def test_table_without_rows_may_go(restart: Restart, tenant_id: str) -> None:
    tenants = provision(restart(JOB), tenant_id)
    put(tenants, tenant_id, {"id": "j1"}, {"id": "j1", "is_deleted": 1})
    restart("")
    restart(JOB.replace("text", "integer"))


def test_everything_in_the_way_is_told_at_once(restart: Restart) -> None:
    text = "[job]\ncolumns.a = 'text'\n[visit]\ncolumns.b = 'text'\n"
    tenants = restart(text)
    for _ in range(5):
        tenant_id = str(uuid.uuid4())
        provision(tenants, tenant_id)
        put(tenants, tenant_id, {"a": "x"}, {"a": "y"})
        put(tenants, tenant_id, {"b": "x"}, table="visit")
    lines = refused(restart, "[job]\ncolumns.a = 'date'\n").splitlines()
    assert [line.split(".")[0] for line in lines] == ["job", "visit: no longer declared"]
    assert "10 rows of 5 tenants" in lines[0] and "5 rows of 5 tenants" in lines[1] and lines[0].count("tenant ") == 3


# --- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.files("a look at each file")
def test_rows_are_looked_at_only_for_a_change_that_they_could_violate(
    restart: Restart, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def peek(engine: SQLiteEngine, tenant_id: str, query: Callable[[], Any]) -> Any:
        looked.append(tenant_id)
        return files.look_into(engine.folder.path_of(tenant_id), query)

    monkeypatch.setattr(SQLiteEngine, "peek", peek)
    tenants = provision(restart(JOB), tenant_id)
    put(tenants, tenant_id, {"id": "j1", "title": "Roof"})
    for text in (JOB, JOB + "columns.a = { type = 'text', enum = ['x'] }\n", JOB + "columns.a = 'text'\n", JOB):
        restart(text)
    assert looked == []
    restart(JOB.replace("'text'", "{ type = 'text', required = true }"))
    assert len(looked) == 1
    restart(JOB.replace("'text'", "{ type = 'text', required = true }"))
    assert len(looked) == 1


# --- at random -------------------------------------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "text": ["x", "y", "5", "2026-01-31"],
    "integer": [0, 1, 5, -(2**40)],
    "number": [0.5, 5, 2.0],
    "boolean": [True, False],
    "json": [[], {"a": [None, 1]}, "x", 5, True],
    "date": ["2026-01-31", "2026-02-28"],
}


def any_declaration(chance: random.Random) -> str:
    lines = []
    for name in chance.sample("abcd", chance.randint(1, 4)):
        kind = chance.choice(list(VALUES))
        said = [f"type = '{kind}'"]
        if chance.random() < 0.4:
            said.append(f"default = {toml(chance.choice(VALUES[kind]))}")
        if chance.random() < 0.2:
            said.append("required = true")
        if chance.random() < 0.3 and kind != "json":
            said.append("index = true")
        if chance.random() < 0.2 and kind == "text" and len(said) == 1:
            said.append("enum = ['x', '5']")
        lines.append(f"{name} = {{ {', '.join(said)} }}")
    return "[job.columns]\n" + "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, dict) else "{ a = [] }"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_declarations_at_random_lose_nothing_that_was_pushed(restart: Restart, tenant_id: str, seed: int) -> None:
    """Each value that was taken is in its row, or put aside, whatever was declared since; SQL shows what pulls give."""
    chance = random.Random(seed)
    text = any_declaration(chance)
    tenants = provision(restart(text), tenant_id)
    typed: dict[str, JSON] = {}
    for _ in range(12):
        for _ in range(6):
            row_id, name = f"r{chance.randint(1, 5)}", chance.choice("abcd")
            value = chance.choice([None, *VALUES[chance.choice(list(VALUES))]])
            body = {"changes": {"job": [{"id": row_id, name: value}]}, "atomic": False}
            if push(tenants, tenant_id, body).results[0]["status"] != "rejected":
                typed.setdefault(row_id, {})[name] = value
        found = {row["id"]: row for row in rows(tenants, tenant_id, "job")}
        assert found.keys() == typed.keys()
        for row_id, fields in typed.items():
            for name, value in fields.items():
                aside = (found[row_id].get("_unfit") or {}).get(name)
                digits = str(value).removesuffix(".0")
                assert value is None or value in (found[row_id][name], aside) or digits == found[row_id][name]
        check_copy(tenants, tenant_id, found)
        wanted = any_declaration(chance)
        try:
            tenants = restart(wanted)
            text = wanted
        except MigrationRefused:
            tenants = restart(text)


def by_id(tenants: Tenants, tenant_id: str, name: str) -> dict[str, Any]:
    return dict(tenants.read(tenant_id, lambda: list(models.connection().execute(f'SELECT id, "{name}" FROM job'))))


def check_copy(tenants: Tenants, tenant_id: str, found: dict[str, JSON]) -> None:
    """See that the columns for SQL hold what the rows do, and ``_extra`` the rest."""
    table = models.synced_tables()["job"]
    for name in set(table.columns) & set("abcd"):
        shown = by_id(tenants, tenant_id, name)
        for row_id, row in found.items():
            is_json = name in table.json_columns and row[name] is not None
            assert (json.loads(shown[row_id]) if is_json else shown[row_id]) == row[name], (name, row)
    extra = by_id(tenants, tenant_id, "_extra")
    for row_id, row in found.items():
        unknown = {name: value for name, value in row.items() if name not in table.columns}
        assert json.loads(extra[row_id] or "{}") == unknown


# --- backups -------------------------------------------------------------------------------------------------------


def test_backup_of_another_declaration_is_good_and_can_be_restored(
    restart: Restart, tenant_id: str, tmp_path: Path
) -> None:
    """Fault: a table that was added since, or retired, made the file another than the manifest tells."""
    visit = "[visit]\ncolumns.at = 'date'\n"
    tenants = provision(restart(visit), tenant_id)
    put(tenants, tenant_id, {"id": "v1", "at": "2026-01-31"}, table="visit")
    put(tenants, tenant_id, {"id": "u1", "name": "A"}, table="end_user")
    made = backup.make(engine_of(tenants), tmp_path / "backups", None, None, lambda _: None).path
    tenants = restart(JOB, retiring=("visit",))
    assert verification.verify(made, lambda _: None).good == [tenant_id]
    restore.restore(engine_of(tenants), restore.choose(engine_of(tenants), made), restore.Source("it"), lambda _: None)
    assert [row["id"] for row in rows(tenants, tenant_id)] == ["u1"]
    tenants = restart(JOB + visit)
    assert [row["id"] for row in rows(tenants, tenant_id, "visit")] == ["v1"]
    assert verification.verify(made, lambda _: None).good == [tenant_id]
