"""Creates that are sent again, since their answer was lost, when another device has edited the row meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.conftest import JSON, Device, Listener, Server, Tenant
from tests.storage.test_seen_rows import log_in

FORMS = ("A", "B", "C")
TIME = "2026-05-04T10:20:30.123"


def session(tenant: Tenant) -> Device:
    """Log in as another device of the tenant."""
    return Device(replace(tenant, token=log_in(tenant)))


def push(device: Device, form: str, row: JSON, kind: str = "create") -> JSON:
    """Push a row; in form B it is an upsert. Give its result with the row that was answered."""
    one = {"table": "end_user", "operation": kind, "data": row}
    bodies: dict[str, JSON] = {"A": one, "B": {"changes": {"end_user": [row]}}, "C": {"operations": [one]}}
    answer = device.raw("sync/push", bodies[form]).json()
    assert answer["success"], answer
    return dict(answer["results"][0], row=answer["data"][0])


def stands(device: Device, key: str = "u") -> JSON:
    rows = device.pull({"table": "end_user", "lastSync": "2999-01-01T00:00:00Z"})["data"]["end_user"]
    (row,) = [row for row in rows if row["Unique_id"] == key]
    return dict(row)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "row",
    [
        {"Unique_id": "u", "name": "Asha", "note": "n", "last_updated": TIME},
        {"id": "r", "Unique_id": "u", "name": "Asha", "phone": "1", "last_updated": TIME, "extra": {"a": [1]}},
        {"id": "r", "Unique_id": "u", "name": "Asha"},
    ],
    ids=["timed", "timed with an unknown field", "untimed"],
)
def test_create_sent_again_after_anothers_edit_changes_nothing(tenant: Tenant, form: str, row: JSON) -> None:
    first, second = session(tenant), session(tenant)
    push(first, form, row)
    edited = push(second, "A", {"id": stands(second)["id"], "name": "Lakshmi"}, "update")["row"]
    again = push(first, form, row)
    assert (again["status"], again["row"]) == ("unchanged", edited)
    assert stands(second) == edited


@pytest.mark.parametrize("form", FORMS)
def test_create_sent_again_is_known_however_many_edits_came_between(tenant: Tenant, form: str) -> None:
    first, second = session(tenant), session(tenant)
    row = {"id": "r", "Unique_id": "u", "name": "Asha", "last_updated": TIME}
    push(first, form, row)
    for number in range(30):
        push(second, "A", {"id": "r", "name": f"name {number}"}, "update")
    assert push(first, form, row)["status"] == "unchanged"
    assert stands(second)["name"] == "name 29"


@pytest.mark.parametrize("form", FORMS)
def test_create_with_newer_content_is_an_upsert(tenant: Tenant, form: str) -> None:
    first, second = session(tenant), session(tenant)
    row = {"id": "r", "Unique_id": "u", "name": "Asha", "last_updated": TIME}
    push(first, form, row)
    push(second, "A", {"id": "r", "name": "Lakshmi"}, "update")
    again = push(first, form, row | {"name": "Asha", "last_updated": "2026-05-04T10:20:31.123"})
    assert (again["status"], stands(second)["name"]) == ("updated", "Asha")


@pytest.mark.parametrize("form", FORMS)
def test_create_sent_again_after_a_pull_changes_nothing_either(tenant: Tenant, form: str) -> None:
    """Fault: an app that counts versions, has pulled another's edit, and finds its first push still unanswered."""
    first, second = session(tenant), session(tenant)
    row = {"id": "r", "Unique_id": "u", "name": "Asha", "version": 1, "last_updated": TIME}
    push(first, form, row)
    push(second, "A", {"id": "r", "name": "Lakshmi"}, "update")
    since = first.pull({"table": "end_user", "lastSync": None})["syncTimestamp"]
    first.pull({"table": "end_user", "lastSync": since})
    again = push(first, form, row)
    assert (again["status"], stands(second)["name"]) == ("unchanged", "Lakshmi")


def test_untimed_create_of_another_device_is_an_upsert(tenant: Tenant) -> None:
    first, second, third = session(tenant), session(tenant), session(tenant)
    push(first, "A", {"id": "r", "Unique_id": "u", "name": "Asha"})
    push(second, "A", {"id": "r", "name": "Lakshmi"}, "update")
    assert push(third, "A", {"id": "r", "Unique_id": "u", "name": "Asha"})["status"] == "updated"


def test_event_knows_a_create_sent_again(tenant: Tenant, listen: Callable[..., Listener]) -> None:
    first, second = session(tenant), session(tenant)
    row = {"id": "r", "Unique_id": "u", "name": "Asha", "last_updated": TIME}
    push(first, "A", row)
    push(second, "A", {"id": "r", "name": "Lakshmi"}, "update")
    answer = listen().call("sync_push", {"table": "end_user", "operation": "create", "data": row})
    assert answer["results"][0]["status"] == "unchanged"
    assert stands(second)["name"] == "Lakshmi"


@pytest.mark.parametrize("version", [1, 3])
def test_create_that_states_a_version_overwrites_nothing_unseen(tenant: Tenant, version: int) -> None:
    """An app that calls a row of its own new until it was pulled sends later edits as creates."""
    first, second = session(tenant), session(tenant)
    row = {"id": "r", "Unique_id": "u", "name": "Asha", "note": "n", "version": version}
    push(first, "A", row | {"last_updated": TIME})
    push(second, "A", {"id": "r", "name": "Lakshmi"}, "update")
    again = push(first, "A", row | {"note": "typed later", "last_updated": "2026-05-04T10:20:31.123"})
    now = stands(second)
    assert (now["name"], now["note"]) == ("Lakshmi", "typed later"), again


@pytest.mark.parametrize("since", [{"lastSync": None}, {"lastSyncTimestamp": "1970-01-01T00:00:00.000"}])
@pytest.mark.parametrize("is_edited", [False, True])
def test_first_pull_after_a_push_tells_of_own_rows_that_others_deleted(
    tenant: Tenant, since: JSON, is_edited: bool
) -> None:
    """An app that ignores what a push answers, whose first one got lost."""
    first, second = session(tenant), session(tenant)
    push(second, "A", {"id": "old", "name": "Old"})
    push(second, "A", {"id": "old"}, "delete")
    row = {"id": "r", "Unique_id": "u", "name": "Asha", "last_updated": TIME}
    push(first, "A", row)
    push(second, "A", {"id": "r"}, "delete")
    push(first, "A", {"id": "own", "name": "Own"})
    push(first, "A", {"id": "own"}, "delete")
    if is_edited:
        edited = row | {"note": "n", "last_updated": "2026-05-04T10:20:31.123", "version": 2}
        assert push(first, "A", edited, "update")["status"] == "conflict"
    else:
        assert push(first, "A", row)["status"] == "unchanged"
    for _ in range(2):  # The first of these may get lost, too.
        pulled = first.pull({"table": "end_user", **since})["data"]["end_user"]
        assert [(one["id"], one["is_deleted"]) for one in pulled] == [("r", 1)]
    new = session(tenant).pull({"table": "end_user", **since})["data"]["end_user"]
    assert new == []


@pytest.mark.parametrize("end", ["kill", "stop"])
@pytest.mark.parametrize("has_pulled", [False, True])
def test_first_pull_tells_the_same_when_the_server_was_started_anew_since(
    start_server: Callable[..., Server], end: str, has_pulled: bool
) -> None:
    """Faults: only the memory of the running process had where a device first pushed; what was noted of an earlier pull
    went over it when the server stopped."""
    server = start_server()
    tenant = server.register()
    first, second = session(tenant), session(tenant)
    push(second, "A", {"id": "old", "name": "Old"})
    push(second, "A", {"id": "old"}, "delete")
    if has_pulled:  # The answer got lost, and the app begins again with a pull of everything.
        first.pull({"table": "end_user", "lastSync": None})
    push(first, "A", {"id": "r", "name": "Asha"})
    push(first, "A", {"id": "own", "name": "Own"})
    push(first, "A", {"id": "own"}, "delete")
    getattr(server, end)()
    server.start()
    push(second, "A", {"id": "r"}, "delete")
    push(first, "A", {"id": "later", "name": "Ravi"})
    pulled = first.pull({"table": "end_user", "lastSync": None})["data"]["end_user"]
    assert {one["id"]: one["is_deleted"] for one in pulled} == {"r": 1, "later": 0}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("said", ["none", "as pulled", "counted"])
@pytest.mark.parametrize("row", [{"id": "r", "note": "open"}, {"Unique_id": "u", "note": None, "active": 1}])
def test_device_that_edited_its_row_since_puts_its_first_values_back(
    tenant: Tenant, row: JSON, said: str, form: str
) -> None:
    """Fault: taken for the create sent again, and lost: a row that was done could not be opened again in form B."""
    device = session(tenant)
    push(device, form, row)
    for note, other in (("done", 0), (row["note"], 1)):
        (held,) = device.pull({"table": "end_user", "lastSync": "2999-01-01T00:00:00Z"})["data"]["end_user"]
        version = {"as pulled": held["version"], "counted": held["version"] + 1}.get(said)
        counted = {} if version is None else {"version": version}
        changed = {
            name: other if name == "active" else note if name == "note" else value for name, value in row.items()
        }
        assert push(device, form, changed | counted)["status"] == "updated"
    (held,) = device.pull({"table": "end_user", "lastSync": "2999-01-01T00:00:00Z"})["data"]["end_user"]
    assert (held["note"], held["active"], held["version"]) == (row["note"], 1, 3)


def test_device_that_counts_puts_first_values_back_after_anothers_edit_that_it_pulled(tenant: Tenant) -> None:
    first, second = session(tenant), session(tenant)
    push(first, "B", {"id": "r", "Unique_id": "u", "note": "open"})
    push(second, "A", {"id": "r", "note": "done"}, "update")
    cursor = first.pull({"cursor": None})["cursor"]
    first.pull({"cursor": cursor})
    assert push(first, "B", {"id": "r", "Unique_id": "u", "note": "open", "version": 3})["status"] == "updated"
    assert stands(second)["note"] == "open"


@pytest.mark.parametrize("row", [{"isDeleted": True, "is_deleted": 0}, {"is_deleted": 1, "isDeleted": False}])
def test_delete_under_either_name_is_one(tenant: Tenant, row: JSON) -> None:
    device = session(tenant)
    push(device, "B", {"id": "r", "note": "x"})
    assert push(device, "B", {"id": "r", **row})["status"] == "deleted"
