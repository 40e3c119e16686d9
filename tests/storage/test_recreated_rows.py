"""A create of a deleted row: a new one brings it back as it says, a late repeat of the old one changes nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from models import connection
from protocol.codec import format_time
from protocol.errors import ValidationError
from storage import history
from tenants import Tenants
from tests.conftest import JSON
from tests.declaring import Restart, provision
from tests.pushing import EARLIER, LATER, Tenant, op

OLD: JSON = {"id": "a", "name": "A", "email": "a@x", "color": "red", "active": 0}
DELETED = "2026-05-15T00:00:00Z"


@pytest.fixture
def tenant(tenants: Tenants, new_tenant: Callable[[], str]) -> Tenant:
    return Tenant(tenants, new_tenant())


@pytest.fixture
def deleted(tenant: Tenant) -> Tenant:
    """A row of three versions, the last of which is a tombstone; EARLIER is before its deletion, LATER after it."""
    tenant.do("create", about={"timestamp": "2026-04-01T00:00:00Z"}, **OLD)
    tenant.do("update", about={"timestamp": "2026-04-02T00:00:00Z"}, id="a", note="n")
    tenant.do("delete", about={"timestamp": DELETED}, id="a")
    return tenant


NEW: dict[str, JSON] = {
    "name": {"opId": "fresh"},
    "name, though its clock is slow": {"opId": "fresh", "timestamp": EARLIER},
    "base": {"baseVersion": 3, "timestamp": EARLIER},
    "time": {"timestamp": LATER},
    "time, after a base before": {"baseVersion": 0, "timestamp": LATER},
    "other content": {},
}


@pytest.mark.parametrize("why", NEW)
@pytest.mark.parametrize("content", ["the same", "other"])
def test_new_create_of_a_deleted_row_revives_it(deleted: Tenant, why: str, content: str) -> None:
    """Fault: ``unchanged`` for the same content: the row vanished from the screen of who had just made it."""
    if (why, content) == ("other content", "the same"):
        pytest.skip("that is a repeat")
    row = {**OLD, "name": "A" if content == "the same" else "B"}
    applied = deleted.push({"operations": [op("create", about=NEW[why], **row)]})
    assert (applied.results[0]["status"], applied.results[0]["version"]) == ("updated", 4)
    now = deleted.row("a")
    assert {name: now[name] for name in row} == row
    assert (now["is_deleted"], now["note"], applied.conflicts) == (0, None, [])


def test_base_cursor_after_the_deletion_makes_a_create_new(deleted: Tenant) -> None:
    """As the JavaScript clients state it, whose creates have ``baseVersion`` 0 always."""
    cursor = deleted.push({"changes": {}}).after.cursor
    said = op("create", about={"baseVersion": 0, "timestamp": EARLIER}, **OLD)
    assert deleted.statuses({"baseCursor": cursor, "operations": [said]}) == ["updated"]
    assert deleted.row("a")["is_deleted"] == 0


def test_revived_row_holds_nothing_of_the_old_one_that_the_create_does_not_say(deleted: Tenant) -> None:
    """Defaults apply, unknown fields are gone; its history stays, with what it was."""
    row = deleted.do("create", about={"opId": "fresh"}, id="a", note="new")["row"]
    assert (row["name"], row["email"], row["active"], row["note"], "color" in row) == (None, None, 1, "new", False)
    assert row["createdAt"] == row["updatedAt"] == format_time(deleted.now)
    entries, _ = deleted.tenants.read(deleted.id, lambda: history.history("end_user", "a", None, 10))
    assert [entry["version"] for entry in entries] == [4, 3, 2, 1]
    assert {"name", "email", "color", "active", "is_deleted", "note"} <= set(entries[0]["fields"])
    assert entries[1]["row"]["color"] == "red"
    back, _ = deleted.tenants.read(deleted.id, lambda: history.fields_of_version("end_user", "a", 2))
    assert (back["color"], back["is_deleted"]) == ("red", 0)


def test_edit_of_an_older_base_meets_a_revived_row_as_it_meets_any(deleted: Tenant) -> None:
    """Fault: a field that the revival dropped was looked for in the row: an error of the server."""
    deleted.push({"operations": [op("create", about={"opId": "fresh"}, id="a", name="B")]}, device_id="d")
    edit = op("update", about={"baseVersion": 2, "timestamp": EARLIER}, id="a", name="C", color="blue")
    for device_id in ("d", "e"):
        assert deleted.push({"operations": [edit]}, device_id=device_id).results[0]["status"] != "rejected"
    assert deleted.row("a")["is_deleted"] == 0


REPEATS: dict[str, tuple[JSON, JSON]] = {
    "without a time": ({}, {}),
    "with the time of then": ({"timestamp": EARLIER}, {}),
    "with a base of then": ({"baseVersion": 0}, {}),
    "with the row's own time": ({}, {"last_updated": EARLIER}),
    "with the row's own time, sent now": ({"timestamp": LATER}, {"last_updated": EARLIER}),
}


@pytest.mark.parametrize("how", REPEATS)
@pytest.mark.parametrize("times_deleted", [1, 2])
def test_late_repeat_of_the_old_create_changes_nothing(tenant: Tenant, how: str, times_deleted: int) -> None:
    """Also of the one before the last: its row was deleted, made anew and deleted again. Nor is it a conflict."""
    about, own = REPEATS[how]
    first = op("create", about=about, **OLD, **own)
    tenant.push({"operations": [first]})
    tenant.do("update", id="a", note="n")
    tenant.do("delete", id="a")
    if times_deleted == 2:
        tenant.do("create", about={"opId": "fresh"}, id="a", name="B")
        tenant.do("delete", id="a")
    before = tenant.row("a")
    for body in ({"operations": [first]}, first):
        applied = tenant.push(body)
        assert (applied.results[0]["status"], applied.conflicts) == ("unchanged", [])
    assert tenant.row("a") == before


def test_create_that_is_older_than_the_deletion_and_no_repeat_is_an_edit_that_lost(deleted: Tenant) -> None:
    """It stays deleted, and what was typed stands in the answer and in the log of conflicts."""
    base_0 = {"baseVersion": 0, "opId": "fresh"}
    for about, name in (({}, "B"), (base_0, "C")):
        said = op("create", about={"timestamp": EARLIER, **about}, id="a", name=name)
        applied = deleted.push({"operations": [said]})
        assert applied.results[0]["status"] == "conflict"
        (conflict,) = applied.conflicts
        assert (conflict["id"], conflict["fields"]["name"]["client"]) == ("a", name)
        assert conflict["fields"]["is_deleted"]["winner"] == "server"
    assert deleted.row("a")["is_deleted"] == 1


@pytest.mark.parametrize("strategy", ["merge", "last-write-wins", "server-wins", "client-wins"])
def test_strategies_settle_only_creates_that_missed_the_deletion(deleted: Tenant, strategy: Any) -> None:
    said = op("create", about={"timestamp": EARLIER}, id="a", name="B")
    deleted.push({"operations": [said]}, strategy=strategy)
    row = deleted.row("a")
    assert row["is_deleted"] == (strategy != "client-wins")
    if strategy == "client-wins":
        assert (row["email"], row["active"], "color" in row) == (None, 1, False), "as the create says"
        deleted.do("delete", id="a")
    deleted.push({"operations": [op("create", about={"opId": "fresh"}, id="a", name="B")]}, strategy=strategy)
    assert deleted.row("a")["is_deleted"] == 0


@pytest.mark.parametrize("is_one_push", [True, False])
@pytest.mark.parametrize("table", ["end_user", "interactions"])
@pytest.mark.parametrize("device_id", ["d", None])
def test_create_after_a_delete_in_one_outbox_revives(
    tenant: Tenant, is_one_push: bool, table: str, device_id: str | None
) -> None:
    """A new client's, at one time by its clock: the order within a push is kept."""
    base = 0
    said = []
    for number, kind in enumerate(("create", "delete", "create")):
        about = {"opId": f"o{number}", "baseVersion": base, "timestamp": EARLIER}
        said.append(op(kind, table, about=about, id="a", **({} if kind == "delete" else {"note": "1"})))
        base += 0 if is_one_push else 1
    bodies = [{"operations": said}] if is_one_push else [{"operations": [one]} for one in said]
    statuses = [status for body in bodies for status in tenant.statuses(body, device_id=device_id)]
    assert statuses == ["created", "deleted", "updated"]
    (row,) = tenant.all(table)
    assert (row["is_deleted"], row["note"]) == (0, "1")


def test_plain_create_after_a_delete_in_one_push_revives(tenant: Tenant) -> None:
    tenant.do("create", **OLD)
    assert tenant.statuses({"operations": [op("delete", id="a"), op("create", **OLD)]}) == ["deleted", "updated"]
    assert tenant.row("a")["is_deleted"] == 0


def test_form_a_revives_as_form_c_does(deleted: Tenant) -> None:
    assert deleted.statuses(op("create", about={"timestamp": LATER}, **OLD)) == ["updated"]
    assert deleted.row("a")["is_deleted"] == 0


def test_create_by_unique_id_revives_the_deleted_row_of_it(tenant: Tenant) -> None:
    tenant.do("create", Unique_id="u", name="A", color="red")
    (row,) = tenant.all()
    tenant.do("delete", Unique_id="u")
    assert tenant.do("create", Unique_id="u", name="A", color="red")["status"] == "unchanged"
    result = tenant.do("create", about={"opId": "fresh"}, Unique_id="u", name="B")
    assert (result["id"], result["row"]["is_deleted"], "color" in result["row"]) == (row["id"], 0, False)


def test_revived_row_needs_what_a_new_one_needs(restart: Restart) -> None:
    """Fault: a required column taken from the old row."""
    tenant_id = str(uuid.uuid4())
    columns = '{ title = { type = "text", required = true }, state = { type = "text", default = "open" } }'
    tenant = Tenant(provision(restart(f"[visit]\ncolumns = {columns}"), tenant_id), tenant_id)
    tenant.do("create", "visit", id="v", title="T", state="done")
    tenant.do("delete", "visit", id="v")
    with pytest.raises(ValidationError) as refused:
        tenant.do("create", "visit", about={"opId": "fresh"}, id="v", place="P")
    assert refused.value.details == [{"path": "operations[0].data.title", "error": "is required"}]
    assert tenant.do("create", "visit", about={"opId": "fresh"}, id="v", title="T")["row"]["state"] == "open"


def test_purged_history_leaves_the_tombstone_to_tell_a_repeat_by(deleted: Tenant) -> None:
    deleted.tenants.write(deleted.id, lambda: connection().execute("DELETE FROM _changes WHERE seq < 3"))
    tombstone = {name: value for name, value in deleted.row("a").items() if name in {*OLD, "note"}}
    assert deleted.do("create", **tombstone)["status"] == "unchanged"
    assert deleted.do("create", **tombstone | {"note": "other"})["status"] == "updated"
