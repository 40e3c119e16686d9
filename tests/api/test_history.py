"""Conflicts and history: no edit is lost without a trace, and each can be brought back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import assembly
from api import history
from settings import Settings
from tests.conftest import JSON, Device, Listener, Server, Tenant


def call(tenant: Tenant, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return tenant.server.call(method, f"/api/client/sync/{path}", body, tenant.token, **headers)


def conflicts(tenant: Tenant, query: str = "") -> list[JSON]:
    found: list[JSON] = call(tenant, "GET", "conflicts" + query).json()["data"]
    return found


def stale(device: Device, base: int = 1, **data: Any) -> JSON:
    """Push an update that knew only an older version."""
    change = {"table": "end_user", "operation": "update", "data": data, "baseVersion": base}
    return device.push({"operations": [change]})


@pytest.fixture
def conflict(tenant: Tenant, device: Device) -> JSON:
    """One name edited on both sides: B stood, C came later and won."""
    device.create(id="a", name="A", email="a@x")
    device.update(id="a", name="B")
    stale(tenant.device(X_Device_Id="phone-2"), id="a", name="C", email="c@x")
    (found,) = conflicts(tenant)
    return found


def test_conflict_log_keeps_base_both_sides_who_and_when(conflict: JSON) -> None:
    assert conflict["fields"] == {"name": {"base": "A", "client": "C", "server": "B", "winner": "client"}}
    assert (conflict["table"], conflict["id"], conflict["state"]) == ("end_user", "a", "open")
    assert (conflict["strategy"], conflict["baseVersion"], conflict["version"]) == ("merge", 1, 3)
    assert conflict["client"]["deviceId"] == "phone-2" and conflict["client"]["editedAt"].endswith("Z")


def test_keep_leaves_the_row_and_closes_the_conflict(tenant: Tenant, device: Device, conflict: JSON) -> None:
    answer = call(tenant, "POST", f"conflicts/{conflict['conflictId']}/resolve", {"resolution": "keep"})
    assert answer.status_code == 200 and answer.json()["results"][0]["status"] == "unchanged"
    assert conflicts(tenant) == [] and device.rows()[0]["name"] == "C"
    (resolved,) = conflicts(tenant, "?state=resolved")
    assert resolved["resolution"] == "keep" and resolved["resolvedAt"]


def test_other_takes_the_value_that_lost_as_a_change_that_all_hear_of(
    tenant: Tenant, device: Device, conflict: JSON, listen: Callable[..., Listener]
) -> None:
    listener = listen()
    answer = call(tenant, "POST", f"conflicts/{conflict['conflictId']}/resolve", {"resolution": "other"})
    assert answer.json()["data"][0]["name"] == "B" and answer.json()["data"][0]["version"] == 4
    assert device.rows()[0]["email"] == "c@x"
    assert listener.wait_note("data_available")["data"]["name"] == "B"


def test_conflict_is_resolved_once(tenant: Tenant, device: Device, conflict: JSON) -> None:
    path = f"conflicts/{conflict['conflictId']}/resolve"
    assert call(tenant, "POST", path, {"resolution": "keep"}).status_code == 200
    again = call(tenant, "POST", path, {"resolution": "other"})
    assert (again.status_code, again.json()["error"]) == (400, "This conflict was resolved already.")
    assert device.rows()[0]["name"] == "C"


def test_row_sets_what_a_person_wrote(tenant: Tenant, device: Device, conflict: JSON) -> None:
    path = f"conflicts/{conflict['conflictId']}/resolve"
    assert call(tenant, "POST", path, {"resolution": "row", "row": {"active": 7}}).status_code == 400
    assert len(conflicts(tenant)) == 1, "a change that was refused must leave the conflict open"
    assert call(tenant, "POST", path, {"resolution": "row", "row": {"name": "B and C"}}).status_code == 200
    assert device.rows()[0]["name"] == "B and C" and conflicts(tenant) == []


@pytest.mark.parametrize(
    ("strategy", "edited", "name", "email", "losers"),
    [
        ("last-write-wins", "2099-01-01T00:00:00Z", "C", "c@x", {"name": "client"}),
        ("last-write-wins", "2000-01-01T00:00:00Z", "B", "a@x", {"name": "server", "email": "server"}),
        ("server-wins", "2099-01-01T00:00:00Z", "B", "a@x", {"name": "server", "email": "server"}),
        ("client-wins", "2000-01-01T00:00:00Z", "C", "c@x", {"name": "client"}),
    ],
)
def test_strategies_that_take_or_refuse_a_change_as_a_whole(
    start_server: Callable[..., Server], strategy: str, edited: str, name: str, email: str, losers: dict[str, str]
) -> None:
    tenant = start_server(CONFLICT_STRATEGY=strategy).register()
    device = tenant.device()
    device.create(id="a", name="A", email="a@x")
    device.update(id="a", name="B")
    change = {"table": "end_user", "operation": "update", "data": {"id": "a", "name": "C", "email": "c@x"}}
    device.push({"operations": [change | {"baseVersion": 1, "timestamp": edited}]})
    (row,), (conflict,) = device.rows(), conflicts(tenant)
    assert (row["name"], row["email"]) == (name, email)
    assert {field: sides["winner"] for field, sides in conflict["fields"].items()} == losers


def test_conflicts_are_paged_in_the_order_of_their_detection(tenant: Tenant, device: Device) -> None:
    device.create(id="a", name="0")
    for number in range(1, 6):
        device.update(id="a", name=str(number))
        stale(device, number, id="a", name=f"stale {number}")
    first = call(tenant, "GET", "conflicts?limit=2").json()
    rest = call(tenant, "GET", f"conflicts?limit=9&after={first['data'][-1]['conflictId']}").json()
    assert (first["hasMore"], rest["hasMore"]) == (True, False)
    numbers = [conflict["conflictId"] for conflict in first["data"] + rest["data"]]
    assert numbers == sorted(set(numbers)) and len(numbers) == 5


def test_conflict_that_the_server_wins_writes_no_version_but_is_logged(tenant: Tenant, device: Device) -> None:
    device.create(id="a", name="A")
    device.update(id="a", name="B")
    change = {"table": "end_user", "operation": "update", "data": {"id": "a", "name": "C"}, "baseVersion": 1}
    answer = device.push({"operations": [change | {"timestamp": "2001-01-01T00:00:00Z"}]})
    assert answer["results"][0] == {"table": "end_user", "id": "a", "status": "conflict", "version": 2}
    assert [conflict["fields"]["name"]["winner"] for conflict in conflicts(tenant)] == ["server"]


def test_history_tells_who_changed_what_newest_first(tenant: Tenant) -> None:
    tenant.device(X_Device_Id="one").create(id="a", name="A")
    tenant.device(X_Device_Id="two").update(id="a", name="B", note="n")
    tenant.device(X_Device_Id="one").delete(id="a")
    entries = call(tenant, "GET", "history/end_user/a").json()["data"]
    assert [(entry["version"], entry["operation"], entry["deviceId"]) for entry in entries] == [
        (3, "delete", "one"),
        (2, "update", "two"),
        (1, "create", "one"),
    ]
    assert entries[1]["fields"] == ["name", "note"] and entries[1]["row"]["name"] == "B"
    page = call(tenant, "GET", "history/end_user/a?limit=1&before=3").json()
    assert [entry["version"] for entry in page["data"]] == [2] and page["hasMore"]


def test_change_without_a_device_is_not_put_down_to_the_device_before(tenant: Tenant) -> None:
    tenant.device().create(id="a", name="A", device_id="till")
    tenant.device().update(id="a", name="B")
    entries = call(tenant, "GET", "history/end_user/a").json()["data"]
    assert [entry["deviceId"] for entry in entries] == [None, "till"]


def test_revert_is_a_new_change_that_undoes_also_a_delete_and_unknown_fields(tenant: Tenant, device: Device) -> None:
    first = device.create(id="a", name="A", color="red")
    device.update(id="a", name="B", color="blue", size=5)
    device.delete(id="a")
    row = call(tenant, "POST", "history/end_user/a/revert", {"version": 1}).json()["data"][0]
    assert (row["name"], row["color"], row["size"], row["is_deleted"], row["version"]) == ("A", "red", None, 0, 4)
    assert row["createdAt"] == first["createdAt"] and row["last_updated"] >= first["last_updated"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "history/nope/a", None, 400, "validation_error"),
        ("GET", "history/end_user/unknown", None, 404, "not_found"),
        ("GET", "history/end_user/a?limit=0", None, 400, "validation_error"),
        ("GET", "history/end_user/a?before=x", None, 400, "validation_error"),
        ("POST", "history/end_user/a/revert", {}, 400, "validation_error"),
        ("POST", "history/end_user/a/revert", {"version": True}, 400, "validation_error"),
        ("POST", "history/end_user/a/revert", {"version": 99}, 404, "not_found"),
        ("GET", "conflicts?state=lost", None, 400, "validation_error"),
        ("GET", "conflicts?after=-1", None, 400, "validation_error"),
        ("POST", "conflicts/99/resolve", {"resolution": "keep"}, 404, "not_found"),
        ("POST", "conflicts/1/resolve", {"resolution": "both"}, 400, "validation_error"),
        ("POST", "conflicts/1/resolve", {"resolution": "row"}, 400, "validation_error"),
        ("POST", "conflicts/1/resolve", [], 400, "validation_error"),
        ("POST", "conflicts/99999999999999999999/resolve", {"resolution": "keep"}, 404, "not_found"),
    ],
)
def test_bad_input_is_refused(
    tenant: Tenant, conflict: JSON, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = call(tenant, method, path, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_other_tenants_conflicts_and_history_are_not_there(other_tenant: Tenant, conflict: JSON) -> None:
    assert conflicts(other_tenant) == []
    path = f"conflicts/{conflict['conflictId']}/resolve"
    assert call(other_tenant, "POST", path, {"resolution": "keep"}).status_code == 404
    assert call(other_tenant, "GET", "history/end_user/a").status_code == 404


# --- many devices ----------------------------------------------------------------------------------------------------


def test_many_devices_are_listed_in_chunks_between_which_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: all of them in one read, which held up every tenant for 1.6 s with 100,000."""
    app = assembly.build(Settings(data_dir=tmp_path / "data", bcrypt_rounds=8, shutdown_seconds=1))
    yields: list[None] = []
    monkeypatch.setattr(history, "yield_if_due", lambda: yields.append(None))
    try:
        client = app.test_client()
        account = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}
        token = client.post("/api/customers/register", json=account, buffered=True).get_json()["data"]["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        names = {f"phone-{number}" for number in range(250)}
        for name in names:
            client.post(
                "/api/client/sync/pull", json={"cursor": None}, headers=bearer | {"X-Device-Id": name}, buffered=True
            )
        found = client.get("/api/client/devices", headers=bearer, buffered=True).get_json()["data"]
    finally:
        app.extensions["lifecycle"].end()
    assert len(found) == 250 and {one["deviceId"] for one in found} == names and len(yields) >= 3
    assert found == sorted(found, key=lambda one: one["lastSeen"], reverse=True)
