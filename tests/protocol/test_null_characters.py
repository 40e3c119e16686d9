"""U+0000 in a text is refused, wherever a push may have it: SQLite's functions and programs in C take it for the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import JSON, Device, Listener, Tenant

NULL = "a\0b"
FIELDS: list[tuple[str, Any]] = [
    ("name", NULL),
    ("name", "\0"),
    ("Unique_id", NULL),
    ("unknown", NULL),
    ("unknown", [{"a": NULL}]),
    ("phoneModel", {"brand": [NULL]}),
    ("phoneModel", {NULL: 1}),
    ("device_id", NULL),
]


def body(form: str, row: JSON) -> JSON:
    one = {"table": "end_user", "operation": "create", "data": row}
    bodies: dict[str, JSON] = {"A": one, "B": {"changes": {"end_user": [row]}}, "C": {"operations": [one]}}
    return bodies[form]


@pytest.mark.parametrize("form", "ABC")
@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_text_with_u_0000_is_refused_with_its_place(device: Device, form: str, field: str, value: Any) -> None:
    answer = device.push_raw(body(form, {"id": "null", field: value}))
    place = {"A": "data", "B": "changes.end_user[0]", "C": "operations[0].data"}[form]
    assert answer.status_code == 400, answer.text
    assert answer.json()["details"] == [{"path": f"{place}.{field}", "error": "must have no U+0000"}]


def test_name_of_a_field_with_it_is_refused_and_other_rows_go_on(device: Device) -> None:
    rows = [{"id": "good", "name": "Asha"}, {"id": "bad", NULL: 1}]
    answer = device.push({"changes": {"end_user": rows}, "atomic": False})
    assert [one["status"] for one in answer["results"]] == ["created", "rejected"]


def test_null_character_in_an_event_is_refused_like_over_http(tenant: Tenant, listen: Callable[..., Listener]) -> None:
    answer = listen(tenant).call("sync_push", body("A", {"id": "null", "name": NULL}))
    assert (answer["success"], answer["code"]) == (False, "validation_error")


def test_escape_that_only_looks_like_it_is_text(device: Device) -> None:
    device.push(body("B", {"id": "text", "name": "\\u0000", "unknown": ["\\u0000"]}))
    (row,) = [row for row in device.rows() if row["id"] == "text"]
    assert (row["name"], row["unknown"]) == ("\\u0000", ["\\u0000"])
