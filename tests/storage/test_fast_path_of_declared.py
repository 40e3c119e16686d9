"""The fast path of a push and the general one make the same of declared tables, with every option of a column, and of every
optional member of every form. Seen to fail: a required JSON column that was ``null`` or left out was stored; a create with
``data.version`` was not checked against its ``baseCursor``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tenants import Tenants
from tests.conftest import JSON
from tests.declaring import Restart, provision
from tests.fuzzing import times_as_many
from tests.storage.test_push_fast_path import SAID_BESIDE, assert_same, outcome

DECLARED = """
[visit]
indexes = [["grade", "day"]]
[visit.columns]
title = { type = "text", required = true }
tags = { type = "json", required = true }
parts = { type = "json", required = true, default = ["a"] }
meta = { type = "json", default = { a = 1 } }
count = { type = "integer", default = 7, index = true }
grade = { type = "integer", enum = [1, 3], default = 1 }
size = { type = "number", required = true, default = 0.5 }
rate = { type = "number", enum = [0.5, 2.0] }
flag = { type = "boolean", default = true }
must = { type = "boolean", required = true, default = false }
kind = { type = "text", enum = ["a", "b"], default = "a", index = true }
day = "date"
at = "time"
moment = { type = "timestamp", required = true, default = "2026-01-01T00:00:00Z" }
[note.columns]
body = "json"
"""

JSONS: st.SearchStrategy[Any] = st.sampled_from([None, {}, [], {"a": [1, None]}, "text", 0, False, "null"])
OWN: dict[str, st.SearchStrategy[Any]] = {
    "title": st.sampled_from(["T", "", "Ä", None, 5, ["x"]]),
    "tags": JSONS,
    "parts": JSONS,
    "meta": JSONS,
    "count": st.sampled_from([0, 1, -5, 2**63 - 1, 2**63, 2.0, 2.5, None, True, "1"]),
    "grade": st.sampled_from([1, 3, 2, 1.0, None, True]),
    "size": st.sampled_from([0, 1, 0.5, 1e308, None, "1", 2**60 + 1]),
    "rate": st.sampled_from([0.5, 2.0, 2, 1, None]),
    "flag": st.sampled_from([0, 1, True, False, None, 1.0, 2]),
    "must": st.sampled_from([0, 1, True, None]),
    "kind": st.sampled_from(["a", "b", "c", None, 1]),
    "day": st.sampled_from(["2026-02-28", "2026-02-30", "28.2.2026", None, 5]),
    "at": st.sampled_from(["23:45", "23:45:26.002", "24:00", None]),
    "moment": st.sampled_from(["2025-06-29T23:45:26.002Z", "2025-06-29 23:45", "soon", None]),
}
NAMED: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from([*"abcd", *"abcd", None, 7, "a b"]),
    "Unique_id": st.sampled_from(["u1", "u2", None, ""]),
}
BESIDE: dict[str, st.SearchStrategy[Any]] = {
    "is_deleted": st.sampled_from([0, 0, 1, False, None]),
    "isDeleted": st.sampled_from([False, False, True]),
    "last_updated": st.sampled_from(["2025-06-29T23:45:26.002Z", "2026-05-01", "", None, "soon"]),
    "device_id": st.sampled_from(["d1", "d2", None]),
    "version": st.sampled_from([1, 2, 3, 2.0, None, "x"]),
    "createdAt": st.sampled_from([None, "2025-06-29T23:45:26.002Z"]),
    "sync_status": st.just("pending"),
    "server_synced": st.sampled_from([0, 1]),
    "unknown": JSONS,
}
GOOD: JSON = {"title": "T", "tags": ["x"]}
FEW = st.lists(st.sampled_from(sorted(OWN | BESIDE)), max_size=2, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: (OWN | BESIDE)[name] for name in names})
)
PLAIN = st.fixed_dictionaries({"id": st.sampled_from("abcd")}, optional={"Unique_id": NAMED["Unique_id"]})
LITTLE = st.builds(
    lambda named, few, left_out: {name: value for name, value in (GOOD | named | few).items() if name != left_out},
    PLAIN,
    FEW,
    st.sampled_from([None, "title", "tags"]),
)
VISIT = LITTLE | LITTLE | st.fixed_dictionaries({}, optional=NAMED | OWN | BESIDE)
"""Any row, or one with little to say against."""
NOTE = st.fixed_dictionaries({"id": st.sampled_from("abcd")}, optional={"body": JSONS} | BESIDE)
ROWS = st.tuples(st.just("visit"), VISIT) | st.tuples(st.just("visit"), LITTLE) | st.tuples(st.just("note"), NOTE)
AROUND: dict[str, st.SearchStrategy[Any]] = {"atomic": st.booleans()}
SAID: dict[str, st.SearchStrategy[Any]] = {
    "timestamp": st.sampled_from(["2025-06-29T23:45:26.002Z", "2026-05-01T00:00:00Z", "", None, "soon", 5]),
    "opId": st.sampled_from(["o1", "o2", "o3", None, "no name"]),
    "baseVersion": st.sampled_from([0, 1, 2, 2.0, 9, None, "x"]),
}


def operations(rows: st.SearchStrategy[Any]) -> st.SearchStrategy[JSON]:
    kinds = st.sampled_from(["create", "create", "update", "update", "delete"])
    return st.builds(
        lambda row, kind, said: {"table": row[0], "operation": kind, "data": row[1], **said},
        rows,
        kinds,
        st.just({}) | st.fixed_dictionaries({}, optional=SAID),
    )


FORM_A = st.builds(lambda one, around: one | around, operations(ROWS), st.fixed_dictionaries({}, optional=AROUND))
FORM_B = st.fixed_dictionaries(
    {
        "changes": st.fixed_dictionaries(
            {}, optional={"visit": st.lists(VISIT, max_size=7), "note": st.lists(NOTE, max_size=7)}
        )
    },
    optional=AROUND,
)
FORM_C = st.fixed_dictionaries({"operations": st.lists(operations(ROWS), max_size=4)}, optional=AROUND)
PUSHES = st.lists(
    st.tuples(
        FORM_A | FORM_B | FORM_C,
        SAID_BESIDE,
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture
def both(restart: Restart) -> tuple[Tenants, Callable[[], str]]:
    """Tenants with declared tables, and a way to more of them."""
    tenants = restart(DECLARED)

    def another() -> str:
        tenant_id = str(uuid.uuid4())
        provision(tenants, tenant_id)
        return tenant_id

    return tenants, another


@pytest.mark.slow
@times_as_many(2)
@given(pushes=PUSHES)
def test_both_ways_make_the_same_of_declared_tables(both: tuple[Tenants, Callable[[], str]], pushes: list[Any]) -> None:
    assert_same(*both, pushes)


def test_required_json_is_required_on_both_ways(both: tuple[Tenants, Callable[[], str]]) -> None:
    """Left out, null, and cleared by an edit. Fault: null was JSON before it was looked for, and was stored."""
    tenants, another = both
    for is_short in (True, False):
        for form in ("A", "B"):
            tenant_id = another()
            bad: list[JSON] = [{"title": "T"}, {"title": "T", "tags": None}]
            good = {"id": "a", "title": "T", "tags": {}}
            pushes = [body(form, row) for row in [*bad, good, {"id": "a", "tags": None}, {"id": "a", "parts": None}]]
            answers, _ = outcome(tenants, tenant_id, [(push, (None, None, None)) for push in pushes], is_short)
            assert [answer[0] == "validation_error" for answer in answers] == [True, True, False, True, True]


def body(form: str, row: JSON) -> JSON:
    if form == "B":
        return {"changes": {"visit": [row]}}
    return {"table": "visit", "operation": "update" if set(row) <= {"id", "tags", "parts"} else "create", "data": row}


def test_create_with_a_version_is_checked_against_its_base_cursor(both: tuple[Tenants, Callable[[], str]]) -> None:
    """Fault: ``data.version`` taken for a base, which a create's is not: ``updated``, over what another had written."""
    tenants, another = both
    row = {"id": "a", "title": "T", "tags": 1, "last_updated": "2025-01-01T00:00:00Z"}
    create = {"table": "visit", "operation": "create"}
    pushes = [
        (create | {"data": row}, ("d1", None, None)),
        (create | {"data": row | {"tags": 2, "last_updated": "2025-03-01T00:00:00Z"}}, ("d2", None, None)),
        (create | {"data": row | {"tags": 3, "version": 9}}, ("d1", 1, None)),
    ]
    for is_short in (True, False):
        answers, _ = outcome(tenants, another(), pushes, is_short)
        assert [answer[1][0]["status"] for answer in answers] == ["created", "updated", "conflict"]
