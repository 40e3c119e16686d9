"""Fields of the wrong type, times, cursors and limits that are none: refused by their place, and nothing is stored."""

from __future__ import annotations

import re
from typing import Any

import pytest

from models import synced_tables
from protocol.codec import has_null
from tests.api.bad_input.hostile import BAD_TIMES, CUSTOMERS, EXTREME_TIMES, REGISTRATION, SYNC
from tests.conftest import Device, Tenant
from tests.refusals import (
    ANYTHING,
    nothing_changes,
    paths,
    refused,
    wrong,
)

# --- fields of the wrong type ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("firstName", wrong("x")),
        ("lastName", wrong("x")),
        ("lastName", ["x" * 101, " ", "\n", "a\0b", "a\rb", "\x1b[31m", "\x7f", "\x85"]),
        ("email", wrong()),
        (
            "email",
            ["a", "@", "a@", "@b", "a b@c", "a@b@c", "a@b c", "a\n@b", "a@b\0", "a" * 65 + "@b", "a@" + "b" * 191],
        ),
        ("password", wrong()),
        ("password", ["x" * 7, "x" * 73, "é" * 37, "😀", "日" * 25]),
        ("phone", wrong(None, "", "x")),
        ("companyName", wrong(None, "", "x")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_registration_with_a_bad_field_names_it_and_creates_nobody(
    victim: Tenant, field: str, values: list[Any]
) -> None:
    with nothing_changes(victim):
        for value in values:
            answer = victim.server.post(f"{CUSTOMERS}/register", REGISTRATION | {field: value})
            assert paths(refused(answer, 400, "validation_error")) == [field], value


def test_registration_names_every_bad_field_at_once(victim: Tenant) -> None:
    with nothing_changes(victim):
        answer = victim.server.post(f"{CUSTOMERS}/register", {"email": 5, "phone": []})
    assert paths(refused(answer, 400, "validation_error")) == ["firstName", "lastName", "email", "password", "phone"]


@pytest.mark.parametrize(
    ("path", "field"), [("login", "email"), ("login", "password"), ("refresh", "refreshToken"), ("me", "password")]
)
def test_bad_type_in_a_proof_is_refused_and_a_wrong_text_is_401(victim: Tenant, path: str, field: str) -> None:
    body = {"email": "nobody@example.com", "password": "password123"}
    method = "DELETE" if path == "me" else "POST"
    with nothing_changes(victim):
        for value in ANYTHING:
            answer = victim.server.call(method, f"{CUSTOMERS}/{path}", body | {field: value}, victim.token)
            if isinstance(value, str) and value:
                refused(answer, 401, "unauthorized" if path == "refresh" else "invalid_credentials")
            else:
                assert paths(refused(answer, 400, "validation_error")) == [field]


@pytest.mark.parametrize(
    "field", ["firstName", "lastName", "phone", "companyName", "email", "id", "subscriptionPlan", "x"]
)
def test_profile_takes_no_bad_value_and_no_other_field(victim: Tenant, field: str) -> None:
    right = [None, "", "x"] if field in ("phone", "companyName") else ["x"] if field.endswith("Name") else []
    with nothing_changes(victim):
        for value in wrong(*right):
            answer = victim.server.call("PATCH", f"{CUSTOMERS}/me", {field: value}, victim.token)
            assert paths(refused(answer, 400, "validation_error")) == [field]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("table", [*ANYTHING, "End_User", "end_user ", "_changes", "_meta", "customers", "sqlite_master", "../main"]),
        ("table", ['end_user"; DROP TABLE end_user; --', "end_user--", "<script>", "\u202eend_user"]),
        ("operation", [*ANYTHING, "CREATE", "upsert", "drop"]),
        ("data", wrong({}, {"x": None})),
        ("timestamp", wrong(None)),
        ("tenantId", wrong(None)),
        ("atomic", wrong(True, False)),
        ("baseCursor", wrong(None)),
        ("operations", [[]]),
        ("changes", [{}]),
    ],
)
def test_push_of_one_row_with_a_bad_field_is_refused(device: Device, field: str, values: list[Any]) -> None:
    body = {"table": "end_user", "operation": "update", "data": {"id": "new"}}
    with nothing_changes(device.tenant):
        for value in values:
            code = "invalid_tenant_id" if field == "tenantId" else "validation_error"
            refused(device.push_raw(body | {field: value}), 400, code)


@pytest.mark.parametrize("form", ["operations", "changes"])
def test_push_of_many_rows_takes_no_other_shape(device: Device, form: str) -> None:
    inner = [{form: {"end_user": value}} for value in wrong([])] if form == "changes" else []
    rows = [{form: {"end_user": [value]}} if form == "changes" else {form: [value]} for value in wrong({}, {"x": None})]
    with nothing_changes(device.tenant):
        right: list[Any] = [{}] if form == "changes" else [[]]
        for body in [{form: value} for value in wrong(*right)] + inner + rows:
            refused(device.push_raw(body), 400, "validation_error")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("baseVersion", wrong(None, 0, 10**40)),
        ("opId", [*wrong(None, "x"), "a b", "a/b", "x" * 65, "ä"]),
        ("timestamp", wrong(None)),
        ("table", ANYTHING),
        ("operation", ANYTHING),
        ("data", wrong({}, {"x": None})),
    ],
)
def test_operation_with_a_bad_field_is_named_by_its_place(device: Device, field: str, values: list[Any]) -> None:
    good = {"table": "end_user", "operation": "update", "data": {"id": "new"}}
    with nothing_changes(device.tenant):
        operations = [good] + [good | {field: value} for value in values]
        body = refused(device.push_raw({"operations": operations}), 400, "validation_error")
    assert paths(body) == [f"operations[{index + 1}].{field}" for index in range(len(values))]


BAD_VALUES = {
    "text": [True, False, [], {}, ["x"]],
    "flag": ["", "x", "1", 2, -1, 1.5, 10**40, [], {}],
    "type": ["", "Email", "email ", 0, True, [], {}, ["email"]],
    "status": ["", "done", 1, False, [], {}],
}


def bad_cells(table: str) -> list[tuple[str, Any]]:
    """Pair each column of a table with each value that it must refuse."""
    cells = []
    for name, column in synced_tables()[table].rules.columns.items():
        if name in synced_tables()[table].json_columns:
            continue
        is_choice = table == "interactions" and name in ("type", "status")
        kind = name if is_choice else "flag" if isinstance(column.default, int) else "text"
        cells += [(name, value) for value in BAD_VALUES[kind]]
    return cells


@pytest.mark.parametrize("table", ["end_user", "interactions"])
def test_every_bad_cell_of_a_push_is_named_and_none_of_it_is_stored(device: Device, table: str) -> None:
    cells = bad_cells(table)
    rows = [{"id": "good"}] + [{"id": f"bad-{index}", name: value} for index, (name, value) in enumerate(cells)]
    with nothing_changes(device.tenant):
        body = refused(device.push_raw({"changes": {table: rows}}), 400, "validation_error")
    assert paths(body) == [f"changes.{table}[{index + 1}].{name}" for index, (name, _) in enumerate(cells)]
    assert len(cells) > 20


def test_bad_rows_are_rejected_one_by_one_if_the_push_says_so(device: Device) -> None:
    rows: list[Any] = [{"id": "n1"}, {"id": "n2", "dob": []}, None, {"id": "../n4"}, {"id": "n5", "active": 1}]
    body = {"changes": {"end_user": rows, "nope": [{"id": "n6"}], "interactions": [{"id": "n7"}]}, "atomic": False}
    answer = device.push(body)
    assert [result["status"] for result in answer["results"]] == ["created"] + ["rejected"] * 3 + ["created"] + [
        "rejected",
        "created",
    ]
    assert [result.get("error", "").partition(" ")[0] for result in answer["results"]] == [
        "",
        "changes.end_user[1].dob",
        "changes.end_user[2]",
        "changes.end_user[3].id",
        "",
        "changes.nope[0]",
        "",
    ]
    assert [row and row["id"] for row in answer["data"]] == ["n1", None, None, None, "n5", None, "n7"]
    assert {"n1", "n5"} <= {row["id"] for row in device.rows()}


@pytest.mark.parametrize("flag", ["is_deleted", "isDeleted"])
def test_null_as_mark_of_deletion_means_not_deleted(device: Device, flag: str) -> None:
    row = device.push({"changes": {"end_user": [{"id": f"null-{flag}", "name": "A", flag: None}]}})["data"][0]
    assert row["is_deleted"] == 0


def test_null_in_every_column_is_taken(device: Device) -> None:
    for table, synced in synced_tables().items():
        nulls = dict.fromkeys([*synced.rules.columns, "createdAt", "version", "sync_status", "unknown"])
        row = device.push({"changes": {table: [{"id": "nulls"} | nulls]}})["data"][0]
        assert [row[name] for name in synced.rules.columns if name != "is_deleted"] == [None] * (len(nulls) - 5)


@pytest.mark.parametrize("name", ["", "x" * 65, "ä" * 65, "\0" * 65])
def test_field_with_a_name_of_no_or_too_many_characters_is_refused(device: Device, name: str) -> None:
    with nothing_changes(device.tenant):
        body = refused(device.push_raw({"changes": {"end_user": [{"id": "n", name: 1}]}}), 400, "validation_error")
    assert "64 characters" in body["error"] + body["details"][0]["error"]


# --- times, cursors, limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", BAD_TIMES, ids=lambda time: str(time)[:30])
def test_time_that_is_none_is_refused(device: Device, time: Any) -> None:
    row = {"table": "end_user", "operation": "update", "data": {"id": "timed"}, "timestamp": time}
    with nothing_changes(device.tenant):
        refused(device.push_raw(row), 400, "validation_error")
        refused(device.push_raw({"operations": [row]}), 400, "validation_error")
        if time != "":
            for body in ({"table": "end_user", "lastSync": time}, {"lastSyncTimestamp": time}):
                assert paths(refused(device.pull_raw(body), 400, "validation_error"))[0].startswith("lastSync")


@pytest.mark.parametrize("time", EXTREME_TIMES)
def test_extreme_time_is_taken_everywhere(device: Device, time: str) -> None:
    row_id = time.replace("+", "_")
    created = {"table": "end_user", "operation": "create", "data": {"id": row_id, "name": "A"}, "timestamp": time}
    device.push(created)
    device.push(created | {"operation": "update", "data": {"id": row_id, "name": "B"}})
    conflicting = {"table": "end_user", "operation": "update", "data": {"id": row_id, "name": "C"}, "baseVersion": 1}
    device.push({"operations": [conflicting | {"timestamp": time}]})
    device.update(id=row_id, last_updated=time)
    stored = device.update(id=row_id, name="D")
    assert stored["name"] == "D"
    history = device.tenant.server.call("GET", f"{SYNC}/history/end_user/{row_id}", token=device.tenant.token)
    assert all(re.match(r"\d{4}-", entry["editedAt"]) for entry in history.json()["data"])
    assert device.pull_raw({"lastSyncTimestamp": time}).status_code == 200


@pytest.mark.parametrize("time", [time for time in BAD_TIMES if type(time) in (str, int) and not has_null(time)])
def test_last_updated_that_is_no_time_costs_nobody_the_row(device: Device, time: Any) -> None:
    row = device.push({"changes": {"end_user": [{"id": "clockless", "last_updated": time, "name": str(time)}]}})
    assert row["data"][0]["last_updated"] == str(time)


BAD_CURSORS = ["", "x", 0, -1, True, [], {}, "0123456789ab", "0123456789ab-", "0123456789ab--1", "0123456789ab-1-1-1"]
BAD_CURSORS += [
    "0123456789ab-" + "9" * 19,
    "0123456789AB-1",
    "0123456789ab-1 ",
    "0123456789ab-\u0661",
    "../x-1",
    "1" * 10_000,
]


def test_cursor_that_no_server_gave_is_refused(device: Device) -> None:
    with nothing_changes(device.tenant):
        for cursor in BAD_CURSORS:
            refused(device.pull_raw({"cursor": cursor}), 400, "validation_error")
            refused(device.push_raw({"changes": {}, "baseCursor": cursor}), 400, "validation_error")


def test_cursor_of_another_database_or_beyond_the_end_asks_for_a_resync(device: Device, other_tenant: Tenant) -> None:
    epoch = device.pull({"cursor": None})["cursor"].partition("-")[0]
    foreign = other_tenant.device().create(id="kept") and other_tenant.device().pull({"cursor": None})["cursor"]
    row = {"changes": {"end_user": [{"id": "kept", "name": "hostile"}]}}
    with nothing_changes(device.tenant):
        for cursor in (foreign, f"{epoch}-{'9' * 18}", f"{epoch}-{'9' * 18}-1", "0123456789ab-0"):
            refused(device.pull_raw({"cursor": cursor}), 410, "resync_required")
            refused(device.push_raw(row | {"baseCursor": cursor}), 410, "resync_required")


@pytest.mark.parametrize("limit", [0, -1, 10_001, 10**40, 1.5, "5", True, [], {}])
def test_limit_out_of_bounds_is_refused(device: Device, limit: Any) -> None:
    assert paths(refused(device.pull_raw({"cursor": None, "limit": limit}), 400, "validation_error")) == ["limit"]


@pytest.mark.parametrize("path", ["pull", "pull-pending"])
@pytest.mark.parametrize("field", ["table", "entityTypes"])
def test_pull_of_no_such_table_is_refused(device: Device, path: str, field: str) -> None:
    names: list[Any] = ["nope", "_changes", "sqlite_master", "end_user'--", "", 5, [], {}]
    names += [["nope"], ["end_user", 5], [None], None if field == "table" else 0]
    for value in names:
        refused(device.raw(f"sync/{path}", {field: value}), 400, "validation_error")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("type", wrong(None, "data_available")),
        ("entityType", wrong(None, "x")),
        ("entityId", wrong(None, "x", "\0")),
        ("message", wrong(None, "x", "\0")),
    ],
)
def test_test_notification_with_a_bad_field_is_refused(device: Device, field: str, values: list[Any]) -> None:
    for value in values:
        if value == "\0":
            continue  # It is a text; JSON keeps it one.
        refused(device.raw("notifications/test", {field: value}), 400, "validation_error")
