"""The rules of push and pull, decided without a database."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from models import synced_tables
from protocol.codec import Cursor
from protocol.errors import PayloadTooLarge, ValidationError
from protocol.merge import decide
from protocol.messages import Change, Limits, MissedEdits, Outcome, StoredRow, Strategy, same
from protocol.pull_parser import parse_pull
from protocol.push_parser import parse_push

TABLES = {name: table.rules for name, table in synced_tables().items()}
LIMITS = Limits(push_rows=5, pull_rows=100, row_bytes=1000, name_characters=64)
NOW = 1_800_000_000_000


def one(body: dict[str, Any]) -> Change:
    change: Change
    (change,) = parse_push(body, TABLES, LIMITS, NOW).changes
    return change


def of_row(**data: Any) -> Change:
    return one({"table": "end_user", "operation": "update", "data": data})


def stored(**fields: Any) -> StoredRow:
    row = TABLES["end_user"].defaults | {"id": "a", "version": 3} | fields
    return StoredRow(row, 3, 30, NOW - 1000)


def merge(change: Change, row: StoredRow, changed: dict[str, int], base: dict[str, Any] | None) -> Outcome:
    return decide(change, row, lambda: MissedEdits(changed, base))


# --- parsing ---------------------------------------------------------------------------------------------------------


def test_three_forms_of_a_push_mean_the_same() -> None:
    row = {"id": "a", "name": "A"}
    a = one({"table": "end_user", "operation": "update", "data": row})
    b = one({"changes": {"end_user": [row]}})
    c = one({"operations": [{"table": "end_user", "operation": "update", "data": row}]})
    assert a.fields == b.fields == c.fields == {"name": "A"}
    assert (a.row_id, a.path, b.path, c.path) == ("a", "data", "changes.end_user[0]", "operations[0]")
    assert (a.kind, b.kind) == ("update", "upsert")


@pytest.mark.parametrize("flag", [{"is_deleted": 1}, {"is_deleted": True}, {"isDeleted": True}])
def test_row_marked_as_deleted_is_a_delete(flag: dict[str, Any]) -> None:
    change = one({"changes": {"end_user": [{"id": "a", **flag}]}})
    assert (change.kind, change.fields) == ("delete", {"is_deleted": 1})


@pytest.mark.parametrize("row_id", [None, "", 17, 0, 1.5])
def test_local_id_counts_as_absent(row_id: Any) -> None:
    assert of_row(id=row_id, name="A").problems == []
    assert of_row(id=row_id).row_id is None


def test_ill_formed_id_is_refused_unless_a_unique_id_stands_beside_it() -> None:
    assert of_row(id="../x").problems[0]["path"] == "data.id"
    beside = of_row(id="../x", Unique_id="u")
    assert (beside.row_id, beside.unique_id, beside.problems) == (None, "u", [])


def test_fields_of_the_server_are_no_change() -> None:
    assert of_row(id="a", version=9, sync_status="pending", createdAt="x", updatedAt="x", server_synced=0).fields == {}


def test_base_version_is_stated_or_one_below_the_rows_own() -> None:
    assert of_row(id="a", version=4).base_version == 3
    assert one({"table": "end_user", "operation": "create", "data": {"id": "a", "version": 4}}).base_version is None
    stated = {"table": "end_user", "operation": "update", "data": {"id": "a", "version": 4}, "baseVersion": 1}
    assert one({"operations": [stated]}).base_version == 1


@pytest.mark.parametrize(
    ("about", "edited_at"),
    [
        ({"timestamp": "2026-01-01T00:00:00Z"}, 1_767_225_600_000),
        ({"timestamp": "2099-01-01T00:00:00Z"}, NOW),
        ({}, NOW),
    ],
)
def test_edit_time_is_the_timestamp_but_never_the_future(about: dict[str, Any], edited_at: int) -> None:
    body = {"table": "end_user", "operation": "update", "data": {"id": "a"}, **about}
    assert one(body).edited_at == edited_at


def test_edit_time_falls_back_to_last_updated() -> None:
    assert of_row(id="a", last_updated="2026-01-01T00:00:00Z").edited_at == 1_767_225_600_000
    assert of_row(id="a", last_updated="no time").edited_at == NOW


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"active": 2}, "data.active"),
        ({"name": ["A"]}, "data.name"),
        ({"is_deleted": "yes"}, "data.is_deleted"),
        ({"x" * 65: 1}, "data." + "x" * 64 + "…"),
        ({"": 1}, "data."),
        ({"Unique_id": "u" * 256}, "data.Unique_id"),
    ],
)
def test_bad_field_is_named_by_its_path(data: dict[str, Any], path: str) -> None:
    assert [problem["path"] for problem in of_row(id="a", **data).problems] == [path]


def test_number_in_a_text_column_keeps_its_digits() -> None:
    assert of_row(id="a", phone=9820011223).fields == {"phone": "9820011223"}


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"changes": {}, "operations": []},
        {"changes": []},
        {"changes": {"end_user": {}}},
        {"operations": {}},
        {"changes": {}, "atomic": 1},
        {"changes": {}, "baseCursor": "x"},
    ],
)
def test_body_that_is_no_push_is_refused(body: Any) -> None:
    with pytest.raises(ValidationError):
        parse_push(body, TABLES, LIMITS, NOW)


def test_push_of_too_many_rows_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        parse_push({"changes": {"end_user": [{}] * 6}}, TABLES, LIMITS, NOW)


def test_each_form_of_a_pull_is_read_to_its_tables_time_and_limit() -> None:
    cursor = Cursor("0123456789ab", 7)
    assert parse_pull({"table": "end_user", "lastSync": "1970-01-01T00:00:00Z"}, TABLES, LIMITS).since is None
    assert parse_pull({"lastSyncTimestamp": "1970-01-01T00:00:01Z"}, TABLES, LIMITS).since == 1000
    paged = parse_pull({"cursor": str(cursor), "entityTypes": ["interactions"], "limit": 9}, TABLES, LIMITS)
    assert (paged.tables, paged.since, paged.limit) == (["interactions"], cursor, 9)
    assert parse_pull({"cursor": None}, TABLES, LIMITS).limit == 100


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"table": "nope"},
        {"table": None},
        {"entityTypes": []},
        {"entityTypes": ["end_user", 5]},
        {"table": "end_user", "entityTypes": ["end_user"]},
        {"cursor": None, "limit": 0},
        {"cursor": None, "limit": 101},
        {"cursor": None, "limit": True},
        {"cursor": 5},
        {"table": "end_user", "lastSync": "then"},
    ],
)
def test_body_that_is_no_pull_is_refused(body: Any) -> None:
    with pytest.raises(ValidationError):
        parse_pull(body, TABLES, LIMITS)


# --- deciding --------------------------------------------------------------------------------------------------------


def test_new_row_gets_the_defaults_of_its_table() -> None:
    outcome = decide(of_row(id="a", name="A"), None, lambda: None)
    assert outcome.status == "created" and outcome.row
    assert (outcome.row["name"], outcome.row["active"], outcome.row["is_deleted"]) == ("A", 1, 0)


def test_change_of_nothing_is_unchanged() -> None:
    assert decide(of_row(id="a", name="A"), stored(name="A"), lambda: MissedEdits({}, None)) == Outcome("unchanged")


def test_fields_changed_on_one_side_only_are_both_kept() -> None:
    outcome = merge(of_row(id="a", email="new@x"), stored(name="B"), {"name": NOW}, {"name": "A", "email": None})
    assert outcome.status == "merged" and outcome.row and not outcome.conflicts
    assert (outcome.row["name"], outcome.row["email"]) == ("B", "new@x")


def test_field_that_the_device_only_repeats_does_not_undo_the_servers() -> None:
    change = of_row(id="a", name="A", email="new@x")
    outcome = merge(change, stored(name="B"), {"name": NOW - 5000}, {"name": "A", "email": None})
    assert outcome.row and outcome.row["name"] == "B" and not outcome.conflicts


@pytest.mark.parametrize(("server_edit", "winner", "name"), [(NOW - 1, "client", "C"), (NOW + 1, "server", "B")])
def test_field_changed_on_both_sides_goes_to_the_later_edit(server_edit: int, winner: str, name: str) -> None:
    change = of_row(id="a", name="C", email="x")
    outcome = merge(change, stored(name="B"), {"name": server_edit}, {"name": "A", "email": None})
    assert outcome.status == "conflict" and outcome.row and outcome.conflicts
    assert outcome.row["name"] == name
    assert outcome.conflicts["name"] == {"base": "A", "client": "C", "server": "B", "winner": winner}


WINS: dict[str, tuple[str, str]] = {
    "merge": ("server", "client"),
    "last-write-wins": ("server", "client"),
    "server-wins": ("server", "server"),
    "client-wins": ("client", "client"),
}
"""Who wins a field that both edited, by strategy: if the device's edit is the earlier, and if it is the later."""


def test_every_strategy_has_its_winners_here() -> None:
    assert WINS.keys() == {*get_args(Strategy)}, "protocol/merge.py must decide each strategy, and WINS here say how"


@pytest.mark.parametrize("strategy", WINS)
def test_strategy_decides_between_two_edits_of_a_field(strategy: Any) -> None:
    for edited_ago, winner in zip((2000, -2000), WINS[strategy], strict=True):
        change = of_row(id="a", name="C")
        change.edited_at = NOW - 1000 - edited_ago
        since = MissedEdits({"name": NOW - 1000}, {"name": "A"})
        outcome = decide(change, stored(name="B"), lambda since=since: since, strategy)  # type: ignore[misc]
        assert outcome.conflicts and outcome.conflicts["name"]["winner"] == winner, edited_ago


def test_change_that_loses_all_its_fields_writes_nothing_but_is_told() -> None:
    outcome = merge(of_row(id="a", name="C"), stored(name="B"), {"name": NOW + 1}, {"name": "A"})
    assert (outcome.status, outcome.row) == ("conflict", None) and outcome.conflicts


def test_base_no_longer_held_counts_every_field_as_the_devices_change() -> None:
    outcome = merge(of_row(id="a", name="C"), stored(name="B"), {"name": NOW - 1}, None)
    assert outcome.conflicts and outcome.conflicts["name"]["winner"] == "client"


def test_delete_against_an_edit_is_a_merge() -> None:
    change = one({"table": "end_user", "operation": "delete", "data": {"id": "a"}})
    change.base_version = 1
    outcome = merge(change, stored(name="B"), {"name": NOW}, {"name": "A", "is_deleted": 0})
    assert outcome.row and (outcome.row["is_deleted"], outcome.row["name"]) == (1, "B")


def test_create_of_a_deleted_row_brings_it_back_but_its_retry_does_not() -> None:
    create = one({"table": "end_user", "operation": "create", "data": {"id": "a", "name": "A"}})
    tombstone = stored(name="A", is_deleted=1)
    assert decide(create, tombstone, lambda: None).status == "unchanged"
    outcome = decide(create, stored(name="B", is_deleted=1), lambda: None)
    assert outcome.row and outcome.row["is_deleted"] == 0


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        (1, 1, True),
        (1, True, False),
        (1, 1.0, False),
        (0, None, False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": [1]}, {"a": [True]}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1], [1, 2], False),
    ],
)
def test_same_knows_json_from_python(one: Any, other: Any, are_same: bool) -> None:
    assert same(one, other) is are_same
