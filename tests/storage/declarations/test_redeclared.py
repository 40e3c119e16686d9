"""Tables and columns that go, come and come back: every device hears of what becomes of rows, and no type is broken."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models import connection, synced_tables
from operations.backups import backup, restore, verification
from protocol.codec import format_time
from protocol.pull_parser import parse_pull
from storage import devices, pull_reader
from storage.declarations.compatibility import MigrationRefused
from storage.positions import now_ms, position
from tenants import Tenants
from tests.conftest import JSON
from tests.data_folder import engine_of
from tests.declaring import Restart, column, provision, put
from tests.inside import LIMITS, SKEW_MS, pull, push, rows, tables
from tests.storage.declarations.test_compatibility import VALUES, any_declaration
from tests.storage.declarations.test_names import check_digests

JOB = "[job]\ncolumns.title = 'text'\n"
VISIT = "[visit]\ncolumns.at = 'date'\n"


def by_id(found: JSON, table: str = "job") -> dict[str, JSON]:
    return {row["id"]: row for row in found["data"][table]}


# --- a table that comes back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [JOB, JOB + "columns.note = 'text'\n", "[job]\ncolumns.note = 'text'\n"])
@pytest.mark.parametrize("form", ["cursor", "syncTimestamp", "clock"])
def test_rows_of_a_table_that_is_declared_again_reach_devices_that_passed_them(
    restart: Restart, tenant_id: str, again: str, form: str
) -> None:
    """Fault: the device had pulled the other tables meanwhile, and its cursor was beyond these rows for ever."""
    tenants = provision(restart(JOB + VISIT), tenant_id)
    put(tenants, tenant_id, {"id": "j0", "title": "old"}, {"id": "gone"})
    start = pull(tenants, tenant_id, {"cursor": None})
    put(tenants, tenant_id, {"id": "j1", "title": "Roof"}, {"id": "gone", "is_deleted": 1})
    tenants = restart(VISIT, retiring=("job",))
    put(tenants, tenant_id, {"id": "v1"}, table="visit")
    later = pull(tenants, tenant_id, {"cursor": start["cursor"], "entityTypes": ["job", "visit"]})
    assert by_id(later, "visit").keys() == {"v1"} and "job" not in later["data"]
    clock = format_time(now_ms() + 1) if form == "clock" else later["syncTimestamp"]
    tenants = restart(VISIT)
    tenants = restart(VISIT + again)
    since = {"cursor": later["cursor"]} if form == "cursor" else {"lastSyncTimestamp": clock}
    found = pull(tenants, tenant_id, since)
    assert {name: row["is_deleted"] for name, row in by_id(found).items()} == {"j0": 0, "j1": 0, "gone": 1}
    assert by_id(found)["j1"]["title"] == "Roof" and (form == "clock" or found["data"]["visit"] == [])
    assert by_id(pull(tenants, tenant_id, {"cursor": found["cursor"]})) == {}
    check_digests(tenants, tenant_id, ["job", "visit"])
    late = {"table": "job", "operation": "update", "baseVersion": 1, "data": {"id": "j0", "title": "edited meanwhile"}}
    assert push(tenants, tenant_id, late).results[0]["status"] == "updated", "nobody else edited it"
    tenants.write(tenant_id, lambda: devices.purge(0, 10**6))
    assert {row["id"] for row in rows(tenants, tenant_id, "job")} == {"j0", "j1"}
    tenants = restart(VISIT + again)
    assert by_id(pull(tenants, tenant_id, {"cursor": found["cursor"]})).keys() == {"j0"}, "once, and not at each start"


def writer(tenants: Tenants) -> Callable[[str, Callable[[], None]], None]:
    def write(tenant_id: str, work: Callable[[], None]) -> None:
        tenants.write(tenant_id, work)

    return write


def test_place_of_a_device_in_a_table_that_went_holds_up_nothing(restart: Restart, tenant_id: str) -> None:
    """Fault: what is too old is purged as far as each device is in each table; in this one no device ever goes on."""
    tenants = provision(restart(JOB + VISIT), tenant_id)
    put(tenants, tenant_id, {"id": "j1"})
    seen = devices.Seen(writer(tenants))
    epoch = tenants.read(tenant_id, position).epoch
    seen.note(tenant_id, "phone", {"job": 1, "visit": 1}, now_ms(), epoch)
    seen.save(tenant_id)
    tenants = restart(VISIT, retiring=("job",))
    put(tenants, tenant_id, *({"id": f"v{number}"} for number in range(5)), table="visit")
    seen = devices.Seen(writer(tenants))
    seen.note(tenant_id, "phone", {"visit": 6}, now_ms(), epoch)
    seen.save(tenant_id)
    (known,) = tenants.read(tenant_id, lambda: devices.devices(["phone"]))
    assert (known["behind"], known["tables"]) == (0, ["visit"])
    assert tenants.read(tenant_id, lambda: devices.purge_limit(now_ms() + 10_000, 0)) == 6
    tenants = restart(JOB + VISIT)
    places = {"job": 0, "visit": 6}
    assert tenants.read(tenant_id, lambda: devices.reached("phone", ["job", "visit"])) == places


# --- columns that come -----------------------------------------------------------------------------------------------


def test_what_a_new_column_makes_of_rows_reaches_every_device_and_what_it_leaves_does_not(
    restart: Restart, tenant_id: str
) -> None:
    """Fault: a device that pulled from the start had the default, one that had pulled before never, with equal digests."""
    tenants = provision(restart(JOB), tenant_id)
    held: list[JSON] = [{"id": "has", "level": 3, "phone": "1"}, {"id": "null", "level": None}, {"id": "none"}]
    put(tenants, tenant_id, *held, {"id": "number", "level": 3, "phone": 5550}, {"id": "unfit", "level": "high"})
    put(tenants, tenant_id, {"id": "gone", "is_deleted": 0}, {"id": "gone", "is_deleted": 1})
    before = pull(tenants, tenant_id, {"cursor": None})
    column_ = "columns.level = {{ type = 'integer', {} }}\ncolumns.phone = 'text'\n"
    tenants = restart(JOB + column_.format("default = 5"))
    found = by_id(pull(tenants, tenant_id, {"cursor": before["cursor"]}))
    assert {name: (row["level"], row["phone"]) for name, row in found.items()} == {
        "none": (5, None),
        "number": (3, "5550"),
        "unfit": (5, None),
    }
    assert found["unfit"]["_unfit"] == {"level": "high"} and found["none"]["version"] == 2
    assert {**by_id(before), **found}.keys() == {row["id"] for row in rows(tenants, tenant_id, "job")}
    for row in rows(tenants, tenant_id, "job"):  # What devices hold now is what a new device gets.
        mine = {**by_id(before), **found}[row["id"]]
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in mine.items() if value is not None
        }
    check_digests(tenants, tenant_id, ["job"])
    entries = column(tenants, tenant_id, "SELECT fields FROM _changes WHERE row_id = 'none'")
    assert entries == [None, "[]"]
    cursor = pull(tenants, tenant_id, {"cursor": before["cursor"]})["cursor"]
    tenants = restart(JOB + column_.format("default = 7"))
    assert by_id(pull(tenants, tenant_id, {"cursor": cursor})) == {}, "another default is for new rows"


def test_edit_that_waited_on_a_device_meets_no_conflict(restart: Restart, tenant_id: str) -> None:
    tenants = provision(restart(JOB), tenant_id)
    put(tenants, tenant_id, {"id": "j1", "title": "a"}, {"id": "j2", "title": "a"})
    cursor = pull(tenants, tenant_id, {"cursor": None})["cursor"]
    tenants = restart(JOB + "columns.level = { type = 'integer', default = 5 }\n")
    for row_id, said in (("j1", {"baseVersion": 1}), ("j2", {"baseCursor": cursor})):
        edit = {"table": "job", "operation": "update", "data": {"id": row_id, "title": "b"}, **said}
        applied = push(tenants, tenant_id, edit)
        assert applied.conflicts == [] and applied.results[0]["status"] == "updated"
    assert [(row["title"], row["level"]) for row in rows(tenants, tenant_id, "job")] == [("b", 5)] * 2


@pytest.mark.parametrize("count", [0, 1, 40])
def test_pull_page_by_page_over_such_a_change_misses_nothing(restart: Restart, tenant_id: str, count: int) -> None:
    tenants = provision(restart(JOB), tenant_id)
    if count:
        put(tenants, tenant_id, *({"id": f"j{number}"} for number in range(count)))
    page = pull(tenants, tenant_id, {"cursor": None, "limit": 7})
    mine = by_id(page)
    tenants = restart(JOB + "columns.level = { type = 'integer', default = 5 }\n")
    while page["hasMore"] or len(mine) < count or any(row.get("level") != 5 for row in mine.values()):
        page = pull(tenants, tenant_id, {"cursor": page["cursor"], "limit": 7})
        assert page["data"]["job"], "nothing came, and the device is not right"
        mine |= by_id(page)
    assert (
        list(mine.values()) == [mine[row["id"]] for row in rows(tenants, tenant_id, "job")]
        or count == 0
        or len(mine) == count
    )


# --- columns that go and come back -----------------------------------------------------------------------------------


def without_versions(found: list[JSON]) -> dict[str, JSON]:
    server = {"version", "updatedAt", "createdAt", "last_updated"}
    return {
        row["id"]: {name: value for name, value in row.items() if name not in server and value is not None}
        for row in found
    }


def all_rows(tenants: Tenants, tenant_id: str) -> list[JSON]:
    """Tombstones too."""
    future = parse_pull({"lastSyncTimestamp": "2999-01-01T00:00:00Z"}, tables(), LIMITS)
    page = tenants.read(tenant_id, lambda: pull_reader.page_of(future, now_ms(), SKEW_MS))
    return tenants.read(tenant_id, lambda: pull_reader.rows_of(page, "job", 0, 10_000)).rows()


def check_types(tenants: Tenants, tenant_id: str) -> None:
    """See that no column holds what it would not take, in rows and in their copy for SQL, also of tombstones."""
    table = synced_tables()["job"]
    for row in all_rows(tenants, tenant_id):
        copied = tenants.read(tenant_id, partial(copy_of, row["id"], table.columns))
        for name, rule in table.rules.columns.items():
            value, shown = row.get(name), copied[name]
            assert value is None or rule.check(value) == value, (name, row)
            is_json = name in table.json_columns and shown is not None
            assert (json.loads(shown) if is_json else shown) == value, (name, row)


def copy_of(row_id: str, columns: Sequence[str]) -> JSON:
    listed = ", ".join(f'"{name}"' for name in columns)
    return dict(
        zip(columns, next(iter(connection().execute(f"SELECT {listed} FROM job WHERE id = ?", (row_id,)))), strict=True)
    )


def fewer(chance: random.Random, text: str) -> str:
    """Take columns out of a declaration, and leave one at least."""
    head, *lines = text.splitlines()
    return "\n".join([head, *chance.sample(lines, chance.randint(1, len(lines)))]) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_file_that_was_open_meanwhile_and_one_that_was_not_end_the_same(restart: Restart, seed: int) -> None:
    """Fault: in a file that nobody opened while a column was not declared, it kept values that its new type forbids."""
    chance = random.Random(seed)
    ids = [str(uuid.uuid4()) for _ in range(2)]
    text = any_declaration(chance)
    tenants = restart(text)
    for tenant_id in ids:
        provision(tenants, tenant_id)
    for _ in range(6):
        for _ in range(10):
            row = {
                "id": f"r{chance.randint(1, 8)}",
                chance.choice("abcd"): chance.choice(VALUES[chance.choice(list(VALUES))]),
            }
            row |= {"is_deleted": 1} if chance.random() < 0.2 else {}
            for tenant_id in ids:
                push(tenants, tenant_id, {"changes": {"job": [row]}, "atomic": False})
        for step in (fewer(chance, text), any_declaration(chance)):
            try:
                tenants = restart(step)
                text = step
            except MigrationRefused:
                tenants = restart(text)
            if chance.random() < 0.7:
                rows(tenants, ids[0], "job")  # Opens this one alone.
        opened, closed = (without_versions(all_rows(tenants, tenant_id)) for tenant_id in ids)
        assert opened == closed
        for tenant_id in ids:
            check_types(tenants, tenant_id)
            check_digests(tenants, tenant_id, ["job"])


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        ("'text'", "'date'", "soon"),
        ("'text'", "{ type = 'text', enum = ['a'] }", "b"),
        ("'text'", "'timestamp'", "2026-13-01"),
        ("'json'", "'text'", {"a": 1}),
        ("'integer'", "'boolean'", 7),
        ("'integer'", "'number'", 2**53 + 1),
        ("'number'", "'integer'", 0.5),
    ],
)
@pytest.mark.slow
@pytest.mark.parametrize("is_open", [True, False])
def test_typed_column_never_holds_what_its_type_forbids(
    restart: Restart, tenant_id: str, tmp_path: Path, before: str, after: str, value: Any, is_open: bool
) -> None:
    """By a column that goes and comes back, in a tombstone, and in a backup of before."""
    first, second = (f"[job]\ncolumns.a = {said}\ncolumns.b = 'text'\n" for said in (before, after))
    tenants = provision(restart(first), tenant_id)
    put(tenants, tenant_id, {"id": "j1", "a": value}, {"id": "gone", "a": value}, {"id": "gone", "is_deleted": 1})
    made = backup.make(engine_of(tenants), tmp_path / "backups", None, None, lambda _: None).path
    tenants = restart("[job]\ncolumns.b = 'text'\n")
    if is_open:
        rows(tenants, tenant_id, "job")
    tenants = restart(second)
    for _ in range(2):
        check_types(tenants, tenant_id)
        found = {row["id"]: row for row in all_rows(tenants, tenant_id)}
        assert found["j1"]["a"] is None and found["j1"]["_unfit"] == found["gone"]["_unfit"] == {"a": value}
        assert verification.verify(made, lambda _: None).good == [tenant_id]
        restore.restore(
            engine_of(tenants), restore.choose(engine_of(tenants), made), restore.Source("it"), lambda _: None
        )


@pytest.mark.files("older versions had no other")
def test_file_of_a_version_that_did_not_note_its_tables_is_prepared_as_any(restart: Restart, tenant_id: str) -> None:
    """Of its tables those are retired of which there is a digest and no declaration."""
    tenants = provision(restart(JOB), tenant_id)
    put(tenants, tenant_id, {"id": "j1"})
    cursor = pull(tenants, tenant_id, {"cursor": None})["cursor"]
    tenants = restart("", retiring=("job",))
    rows(tenants, tenant_id)
    for declared, expected in (("", set()), (JOB, {"j1"})):
        tenants.write(tenant_id, as_before)
        tenants = restart(declared)
        assert {row["id"] for row in pull(tenants, tenant_id, {"cursor": cursor})["data"].get("job", [])} == expected
        tenants = restart(declared)


def as_before() -> None:
    """Make the bound file one of the version before."""
    if not synced_tables().get("job"):
        connection().execute("DROP TABLE _tables")
    connection().pragma("user_version", 1)
