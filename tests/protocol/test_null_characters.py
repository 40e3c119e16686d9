"""U+0000 in a text is refused, wherever a client may send it: not every database can store it. What older versions stored
is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol import change_parser
from protocol.errors import ValidationError
from protocol.messages import SERVER_FIELDS
from storage import history
from tenants import Tenants
from tests import postgres
from tests.conftest import JSON, Device, Listener, Tenant
from tests.inside import pull, push, rows

NULL = "a\0b"
ERROR = "must have no U+0000, which not every database can store; remove it"
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
    assert answer.json()["details"] == [{"path": f"{place}.{field}", "error": ERROR}]


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


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PATCH", "/api/client/devices/phone", {"name": NULL}, "name"),
        ("POST", "/api/client/notifications/test", {"message": NULL}, "message"),
        ("POST", "/api/client/sync/conflicts/1/resolve", {"resolution": "row", "row": {"note": NULL}}, "data.note"),
        ("POST", "/api/customers/register", {"firstName": NULL}, "firstName"),
        ("POST", "/api/customers/register", {"email": "a\0b@example.com"}, "email"),
    ],
)
def test_null_character_elsewhere_is_refused_with_its_field(
    tenant: Tenant, method: str, path: str, body: JSON, field: str
) -> None:
    device = tenant.device(X_Device_Id="phone")
    device.create(id="a", name="A")
    device.update(id="a", name="B")
    stale = {"table": "end_user", "operation": "update", "data": {"id": "a", "name": "C"}, "baseVersion": 1}
    tenant.device().push({"operations": [stale]})
    answer = tenant.server.call(method, path, body, tenant.token)
    assert answer.status_code == 400, answer.text
    assert field in [detail["path"] for detail in answer.json()["details"]]


def test_null_character_in_a_status_is_refused(tenant: Tenant, listen: Callable[..., Listener]) -> None:
    answer = listen(tenant).call("sync_status_update", {"status": NULL})
    assert answer["details"] == [{"path": "status", "error": ERROR}]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/client/sync/history/end_user/a%00b"),
        ("POST", "/api/client/sync/history/end_user/a%00b/revert"),
        ("PATCH", "/api/client/devices/a%00b"),
        ("DELETE", "/api/client/devices/a%00b"),
    ],
)
def test_id_with_a_null_character_in_an_address_is_nobodys(tenant: Tenant, method: str, path: str) -> None:
    answer = tenant.server.call(method, path, {"version": 1, "name": "x"}, tenant.token)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# --- what older versions stored --------------------------------------------------------------------------------------


@pytest.fixture
def tenant_of_old(tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A tenant with a row of three versions, of which the last two have U+0000 in a column and in a field's name."""
    postgres.must_be_about_files()  # No version could store it there.
    tenant_id = new_tenant()
    with monkeypatch.context() as older:
        older.setattr(change_parser, "has_null", lambda _: False)
        push(tenants, tenant_id, body("B", {"id": "old", "name": "clean", "email": "a@x"}))
        push(tenants, tenant_id, body("B", {"id": "old", "name": NULL, "unknown": {NULL: [NULL]}}))
        push(tenants, tenant_id, body("B", {"id": "old", "email": "b@x"}))
    return tenant_id


def revert(tenants: Tenants, tenant_id: str, version: int) -> JSON:
    """Revert the row as ``api.history`` does."""
    found, base = tenants.read(tenant_id, lambda: history.fields_of_version("end_user", "old", version))
    not_edited = SERVER_FIELDS | {"last_updated", "device_id"}
    data = {name: value for name, value in found.items() if name not in not_edited} | {"id": "old"}
    one = {"table": "end_user", "operation": "update", "data": data, "baseVersion": base}
    push(tenants, tenant_id, {"operations": [one]})
    return rows(tenants, tenant_id)[0]


def test_stored_null_character_is_pulled_and_shown_in_the_history(tenants: Tenants, tenant_of_old: str) -> None:
    (row,) = rows(tenants, tenant_of_old)
    assert (row["name"], row["unknown"], row["email"]) == (NULL, {NULL: [NULL]}, "b@x")
    entries, _ = tenants.read(tenant_of_old, lambda: history.history("end_user", "old", None, 10))
    assert [entry["row"]["name"] for entry in entries] == [NULL, NULL, "clean"]


def test_row_with_a_stored_null_character_is_edited_deleted_and_undeleted(tenants: Tenants, tenant_of_old: str) -> None:
    push(tenants, tenant_of_old, body("B", {"id": "old", "phone": "1"}))
    push(tenants, tenant_of_old, body("B", {"id": "old", "is_deleted": 1}))
    assert pull(tenants, tenant_of_old, {"cursor": None})["data"]["end_user"] == []
    push(tenants, tenant_of_old, body("B", {"id": "old", "is_deleted": 0}))
    (row,) = rows(tenants, tenant_of_old)
    assert (row["name"], row["unknown"], row["phone"]) == (NULL, {NULL: [NULL]}, "1")
    push(tenants, tenant_of_old, body("B", {"id": "old", "name": "clean again", "unknown": None}))
    assert rows(tenants, tenant_of_old)[0]["name"] == "clean again"


def test_merge_on_a_base_with_a_null_character_keeps_both_edits(tenants: Tenants, tenant_of_old: str) -> None:
    for field in ("phone", "note"):
        one = {"table": "end_user", "operation": "update", "data": {"id": "old", field: "x"}, "baseVersion": 2}
        push(tenants, tenant_of_old, {"operations": [one]})
    (row,) = rows(tenants, tenant_of_old)
    assert (row["name"], row["phone"], row["note"], row["email"]) == (NULL, "x", "x", "b@x")


def test_row_is_reverted_from_a_null_character_and_among_versions_that_have_it(
    tenants: Tenants, tenant_of_old: str
) -> None:
    row = revert(tenants, tenant_of_old, 2)
    assert (row["email"], row["name"], row["unknown"]) == ("a@x", NULL, {NULL: [NULL]}), "what it has already is kept"
    row = revert(tenants, tenant_of_old, 1)
    assert (row["name"], row.get("unknown")) == ("clean", None)


def test_revert_that_would_store_a_null_character_anew_is_refused_with_its_place(
    tenants: Tenants, tenant_of_old: str
) -> None:
    revert(tenants, tenant_of_old, 1)
    with pytest.raises(ValidationError) as caught:
        revert(tenants, tenant_of_old, 3)
    assert [detail["path"].rpartition(".")[2] for detail in caught.value.details] == ["name", "unknown"]
    assert rows(tenants, tenant_of_old)[0]["name"] == "clean"
