"""The short way of new rows and the long way make the same of a push: rows, log, digests, results, refusals.

Faults that this was seen to find: ``last_updated`` filled in by its default, flags left ``true``, ``is_deleted`` left
null, JSON a level too deep, a row that an earlier slice of the same push wrote taken for another device's.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import inside
import pytest
from conftest import JSON
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from peewee import Field, FloatField, IntegerField, TextField

import changes
import models
import parsing
import typed
from errors import Problem
from models import connection, synced_tables
from protocol import Table
from tenants import Tenants
from typed import NewRow, form_of
from wire import decode_push

NOW = 1_800_000_000_000
DEEP: Any = 1
for _ in range(61):
    DEEP = [DEEP]

IDS: st.SearchStrategy[Any] = st.sampled_from(["a", "b", "c", "d", None, "", 7, 0, 1.5, "a b", "x" * 65, True, [], "é"])
TEXTS: st.SearchStrategy[Any] = st.sampled_from(["", "x", "Ä", None, 5, 2.5, True, [], "\u2028"])
FLAGS = st.sampled_from([0, 1, None, True, False, 1.0, 2, "1"])
OPEN = st.sampled_from([None, {}, {"a": [1, None]}, [1], "text", 5, DEEP, [DEEP], {"a": "Ä"}])
TIMES = st.sampled_from(["2025-06-29T23:45:26.002Z", "1999", "", None, 5, "2999-01-01T00:00:00Z", "1750000000000"])
ROW = st.fixed_dictionaries(
    {},
    optional={
        "id": IDS,
        "Unique_id": st.sampled_from(["u1", "u2", "", None, "u" * 256, 9]),
        "name": TEXTS,
        "active": FLAGS,
        "is_deleted": FLAGS,
        "isDeleted": FLAGS,
        "phoneModel": OPEN,
        "last_updated": TIMES,
        "device_id": st.sampled_from(["d1", None, 3]),
        "version": st.sampled_from([1, 2, None, "x", [1], DEEP]),
        "createdAt": TIMES,
        "sync_status": TEXTS,
        "status": st.sampled_from(["pending", "completed", "other", None, 1]),
        "unknown": OPEN,
    },
)
PLAIN = st.fixed_dictionaries(
    {"id": st.sampled_from([*"abcdefgh", None, 7])},
    optional={
        "Unique_id": st.sampled_from(["u1", "u2", "u3", "u4", ""]),
        "name": st.sampled_from(["", "x", "Ä", None]),
        "active": st.sampled_from([0, 1, None, True, False]),
        "is_deleted": st.sampled_from([0, False, None]),
        "phoneModel": st.sampled_from([None, {}, {"a": [1, None]}, "text", 5, DEEP, [DEEP]]),
        "last_updated": st.sampled_from(["2025-06-29T23:45:26.002Z", "1999", "", None, "2999-01-01T00:00:00Z"]),
        "version": st.integers(1, 3),
        "updatedAt": st.none(),
    },
)
"""What the short way takes, mostly."""
PLAIN_PUSH = st.fixed_dictionaries({"end_user": st.lists(PLAIN, min_size=1, max_size=12)})
LISTS = st.dictionaries(st.sampled_from(["end_user", "interactions"]), st.lists(ROW | PLAIN, max_size=8), min_size=1)
ONE = st.fixed_dictionaries(
    {
        "table": st.sampled_from(["end_user", "end_user", "interactions", "no"]),
        "operation": st.sampled_from(["create", "create", "create", "update", "delete", "upsert", None]),
        "data": ROW | PLAIN,
    },
    optional={
        "timestamp": st.sampled_from(["2025-06-29T23:45:26.002Z", "1999", "", None, 5, "1750000000000"]),
        "opId": st.sampled_from(["o1", "o2", None]),
        "baseVersion": st.sampled_from([0, 1, None, "x"]),
    },
)
PUSH = st.fixed_dictionaries({"changes": LISTS | PLAIN_PUSH}, optional={"atomic": st.booleans()}) | ONE


def outcome(tenants: Tenants, tenant_id: str, pushes: list[bytes], is_short: bool) -> Any:
    """Give all that pushes leave and are answered."""
    answers: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        numbers = itertools.count()
        patch.setattr(changes, "new_id", lambda _: f"new-{next(numbers)}")
        patch.setattr(changes, "_SLICE_ROWS", 3)
        if not is_short:
            patch.setattr(parsing, "read", lambda *_: None)
        for raw in pushes:
            try:
                applied = inside.push(tenants, tenant_id, decode_push(raw), NOW)
                answers.append((applied.rows, applied.results, applied.conflicts, applied.touched))
            except Problem as problem:
                answers.append((problem.code, problem.details))
    return answers, tenants.read(tenant_id, stored)


def stored() -> dict[str, Any]:
    """Read every table that a push writes."""
    names = ["_changes", "_digests", *synced_tables()]
    return {name: list(connection().execute(f'SELECT * FROM "{name}" ORDER BY 1')) for name in names}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PUSH, min_size=1, max_size=4))
def test_short_way_and_long_way_make_the_same(
    tenants: Tenants, new_tenant: Callable[[], str], pushes: list[JSON]
) -> None:
    raws = [json.dumps(push).encode() for push in pushes]
    short, long = (outcome(tenants, new_tenant(), raws, is_short) for is_short in (True, False))
    assert short == long


A, B = {"Unique_id": "u1", "name": "a"}, {"Unique_id": "u1", "name": "b"}


@pytest.mark.parametrize("pushes", [[[A], [B]], [[A, B]], [[{"id": "x", **A}, B]], [[A, {"id": "x", **B}]], [[A] * 9]])
def test_rows_named_by_their_unique_id_alone_are_found(
    tenants: Tenants, new_tenant: Callable[[], str], pushes: list[list[JSON]]
) -> None:
    """Faults: only ids looked up; a ``Unique_id`` twice in one slice not seen: a second row was made."""
    raws = [json.dumps({"changes": {"end_user": rows}}).encode() for rows in pushes]
    short, long = (outcome(tenants, new_tenant(), raws, is_short) for is_short in (True, False))
    assert short == long


def typed_rows(rows: list[JSON], table: str = "end_user") -> list[bool]:
    """Tell which rows of a push would go the short way if they are new."""
    body = decode_push(json.dumps({"changes": {table: rows}}).encode())
    return [isinstance(one, NewRow) for one in parsing.parse_push(body, inside.tables(), inside.LIMITS, NOW).changes]


def test_rows_as_apps_send_them_go_the_short_way() -> None:
    plain = {"id": "a", "Unique_id": "u", "name": "Asha", "active": True, "phoneModel": {"a": 1}, "is_deleted": 0}
    pulled = plain | {"version": 3, "sync_status": "pending", "createdAt": "x", "updatedAt": None, "server_synced": 0}
    local: list[JSON] = [{"id": 5, "name": "local key"}, {"Unique_id": "u"}, {"id": "a b", "Unique_id": "u"}]
    assert typed_rows([plain, pulled, *local]) == [True] * 5


def test_rows_with_anything_to_say_of_them_go_the_long_way() -> None:
    odd: list[JSON] = [{"unknown": 1}, {"name": 5}, {"active": 2}, {"id": "a b"}, {"id": True}, {"is_deleted": 1}]
    assert typed_rows(odd) == [False] * len(odd)


def test_row_that_was_there_makes_the_rest_of_its_push_go_the_long_way(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    tenant_id = new_tenant()
    rows = [{"id": f"r{number}", "name": "n"} for number in range(40)]
    inside.push(tenants, tenant_id, {"changes": {"end_user": rows[:1]}}, NOW)
    tried: list[Any] = []

    def read(*about: Any) -> Any:
        tried.append(about)
        return typed.read(*about)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "read", read)
        inside.push(tenants, tenant_id, decode_push(json.dumps({"changes": {"end_user": rows}}).encode()), NOW)
    assert 0 < len(tried) < 40


def test_types_take_all_kinds_of_columns_and_their_defaults() -> None:
    """Also numbers at the bounds of what is stored, and JSON that every row begins with."""
    made: dict[str, Field] = {
        "Unique_id": TextField(null=True),
        "count": IntegerField(null=True, default=7),
        "size": FloatField(null=True, default=0.5),
        "tags": models.JsonField(null=True, default=["a"]),
        "grade": IntegerField(null=True, choices=[(1, "good"), (3, "bad")]),
        "kind": TextField(null=True, choices=[("a", "A"), ("b", "B")]),
        "day": models.DateText(null=True),
        "title": TextField(null=True),
    }
    columns = {name: models.column_of(field) for name, field in made.items()}
    table = Table("visit", columns | {"last_updated": columns["Unique_id"]}, required=("title",))

    def fields(**row: Any) -> Any:
        found = typed.read(table, Raw(json.dumps(row).encode()))
        return found and {name: getattr(found, name) for name in columns if name != "Unique_id"}

    first = {"count": 7, "size": 0.5, "tags": ["a"], "grade": None, "kind": None, "day": None, "title": "t"}
    other = {"count": 2**63 - 1, "size": 3.0, "tags": {}, "kind": "b", "day": "2026-02-28"}
    assert fields(title="t") == first
    assert fields(title="t", **other) == first | other
    odd: list[JSON] = [{"count": 2**63}, {"count": True}, {"size": 1e308}, {"size": "1"}, {"grade": 1}, {"kind": "c"}]
    odd += [{"day": "2026-02-30"}, {"day": 5}, {"title": None}]
    assert [fields(**{"title": "t"} | row) for row in odd] == [None] * len(odd) and fields() is None


def test_every_column_that_has_a_check_has_a_type_or_goes_the_long_way() -> None:
    for table in inside.tables().values():
        assert set(form_of(table).names) == {*table.columns, *parsing.SERVER_FIELDS}
