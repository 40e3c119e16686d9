"""Who wins where two devices edited one row, and what is told of it (docs/api.md)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from models import connection
from protocol.errors import ResyncRequired
from tenants import Tenants
from tests.conftest import JSON
from tests.pushing import EARLIER, FUTURE, LATER, Tenant, op


@pytest.fixture
def tenant(tenants: Tenants, new_tenant: Callable[[], str]) -> Tenant:
    return Tenant(tenants, new_tenant())


@pytest.fixture
def edited(tenant: Tenant) -> Tenant:
    """A row ``a`` at version 2: name A, then B."""
    tenant.do("create", id="a", name="A", email="a@x", note="n", about={"timestamp": "2026-04-01T00:00:00Z"})
    tenant.do("update", id="a", name="B", about={"timestamp": "2026-06-01T00:00:00Z"})
    return tenant


@pytest.mark.parametrize(
    ("stated", "name", "winner"), [(LATER, "C", "client"), (EARLIER, "B", "server"), (FUTURE, "C", "client")]
)
def test_field_edited_on_both_sides_goes_to_the_later_edit(edited: Tenant, stated: str, name: str, winner: str) -> None:
    """Fault: no check of versions (``stale = False``): ``updated``."""
    applied = edited.push(
        {"operations": [op("update", about={"baseVersion": 1, "timestamp": stated}, id="a", name="C")]}
    )
    assert applied.results[0]["status"] == "conflict" and edited.row("a")["name"] == name
    (conflict,) = applied.conflicts
    assert conflict["fields"] == {"name": {"base": "A", "client": "C", "server": "B", "winner": winner}}
    assert (conflict["table"], conflict["id"], conflict["baseVersion"]) == ("end_user", "a", 1)


def test_edit_of_a_clock_in_the_future_loses_against_a_later_one(edited: Tenant) -> None:
    edited.do("update", id="a", name="F", about={"timestamp": FUTURE})
    result = edited.do("update", id="a", name="G", about={"baseVersion": 2})
    assert (result["status"], edited.row("a")["name"]) == ("conflict", "G")


def test_fields_of_each_side_are_merged(edited: Tenant) -> None:
    result = edited.do("update", id="a", email="new@x", about={"baseVersion": 1, "timestamp": EARLIER})
    row = edited.row("a")
    assert (result["status"], row["name"], row["email"], row["version"]) == ("merged", "B", "new@x", 3)


def test_one_push_may_merge_one_field_and_lose_another(edited: Tenant) -> None:
    about = {"baseVersion": 1, "timestamp": EARLIER}
    applied = edited.push({"operations": [op("update", about=about, id="a", name="C", email="new@x", note="n")]})
    row = edited.row("a")
    assert (row["name"], row["email"], row["note"]) == ("B", "new@x", "n")
    assert list(applied.conflicts[0]["fields"]) == ["name"]


def test_same_value_on_both_sides_is_no_conflict(edited: Tenant) -> None:
    result = edited.do("update", id="a", name="B", about={"baseVersion": 1})
    assert (result["status"], result["version"]) == ("unchanged", 2)


def test_value_that_is_only_repeated_does_not_undo_the_other_side(edited: Tenant) -> None:
    applied = edited.push({"operations": [op("update", about={"baseVersion": 1}, id="a", name="A", note="m")]})
    assert applied.conflicts == [] and applied.results[0]["status"] == "merged"
    assert (edited.row("a")["name"], edited.row("a")["note"]) == ("B", "m")


def test_base_that_is_current_is_no_conflict(edited: Tenant) -> None:
    assert edited.do("update", id="a", name="C", about={"baseVersion": 2})["status"] == "updated"


@pytest.mark.parametrize(("stated", "name"), [(LATER, "C"), (EARLIER, "B")])
def test_base_that_the_row_never_had_is_of_another_row(edited: Tenant, stated: str, name: str) -> None:
    """It was purged and made anew, or a backup was put back: what the device saw is not known, so the later edit wins.

    Fault: a base above the row's version taken for current: ``updated``, and B is in no conflict.
    """
    applied = edited.push(
        {"operations": [op("update", about={"baseVersion": 3, "timestamp": stated}, id="a", name="C")]}
    )
    assert (applied.results[0]["status"], edited.row("a")["name"]) == ("conflict", name)
    assert applied.conflicts[0]["fields"]["name"]["base"] is None


def test_base_that_this_push_made_is_current(edited: Tenant) -> None:
    body = [op("update", about={"baseVersion": base}, id="a", name=name) for base, name in ((2, "C"), (3, "D"))]
    assert edited.statuses({"operations": body}) == ["updated", "updated"]


def test_version_that_a_device_counts_up_by_itself_is_no_conflict(edited: Tenant) -> None:
    assert edited.statuses(op("update", id="a", name="C", version=9), evidence=edited.seen_all()) == ["updated"]


def test_without_a_base_no_check_is_made(edited: Tenant) -> None:
    assert edited.do("update", id="a", name="C")["status"] == "updated"


def test_base_0_means_that_the_device_knew_no_row(edited: Tenant) -> None:
    """Two devices that make a row of one id conflict in what both set."""
    applied = edited.push({"operations": [op("create", about={"baseVersion": 0}, id="a", name="C", phone="1")]})
    assert applied.results[0]["status"] == "conflict"
    assert applied.conflicts[0]["fields"]["name"]["base"] is None
    assert (edited.row("a")["name"], edited.row("a")["phone"], edited.row("a")["email"]) == ("C", "1", "a@x")


@pytest.mark.parametrize(("version", "status"), [(2, "conflict"), (9, "conflict"), (1, "conflict"), (0, "updated")])
def test_version_of_a_device_that_was_sent_nothing_proves_nothing(edited: Tenant, version: int, status: str) -> None:
    """0 states no base at all. Fault: 9 was taken for a base of 8, and B went, untold."""
    assert edited.statuses(op("update", id="a", name="C", version=version)) == [status]


def test_version_of_a_row_among_changes_is_one_above_its_base(edited: Tenant) -> None:
    assert edited.statuses({"changes": {"end_user": [{"id": "a", "name": "C", "version": 2}]}}) == ["conflict"]


def test_base_cursor_holds_for_the_whole_push(tenant: Tenant) -> None:
    base = tenant.push({"changes": {"end_user": [{"id": "a", "name": "A"}, {"id": "b", "name": "A"}]}}).after.cursor
    tenant.do("update", id="a", name="B")
    rows = [{"id": row_id, "name": "C"} for row_id in "abc"]
    assert tenant.statuses({"baseCursor": base, "changes": {"end_user": rows}}) == ["conflict", "updated", "created"]
    now = tenant.push({"changes": {}}).after.cursor
    assert tenant.statuses({"baseCursor": now, "changes": {"end_user": [{"id": "a", "name": "D"}]}}) == ["updated"]


@pytest.mark.parametrize("cursor", ["000000000000-0", "{epoch}-99"])
def test_base_cursor_of_another_incarnation_or_beyond_is_refused(tenant: Tenant, cursor: str) -> None:
    own = tenant.push({"changes": {"end_user": [{"id": "a"}]}}).after
    with pytest.raises(ResyncRequired):
        tenant.push({"baseCursor": cursor.format(epoch=own.epoch), "changes": {"end_user": [{"id": "a", "name": "B"}]}})
    assert tenant.row("a")["name"] is None


def test_second_change_of_a_row_in_one_push_does_not_conflict_with_the_first(edited: Tenant) -> None:
    about = {"baseVersion": 2}
    body = [op("update", about=about, id="a", name="C"), op("update", about=about, id="a", name="D", note="o")]
    assert edited.statuses({"operations": body}) == ["updated", "updated"]
    assert edited.row("a")["name"] == "D"


EDIT = op("update", about={"baseVersion": 2, "opId": "edit"}, id="a", name="C")
REVERSAL = op("update", about={"baseVersion": 2, "opId": "reversal"}, id="a", name="B")


@pytest.mark.parametrize(
    ("later", "device_id"), [([EDIT, REVERSAL], None), ([EDIT, REVERSAL], "d"), ([REVERSAL], "d")], ids=str
)
def test_reversal_of_an_edit_whose_answer_was_lost_is_taken(
    edited: Tenant, later: list[JSON], device_id: str | None
) -> None:
    """The server knows that it was this device, by its name or by the edit that it sends again.

    Fault: the device's own change among those it missed: the reversal is ``unchanged``, and the row stays C.
    """
    edited.push({"operations": [EDIT]}, device_id=device_id)
    assert edited.statuses({"operations": later}, device_id=device_id)[-1] == "updated"
    assert (edited.row("a")["name"], edited.told[-1].conflicts) == ("B", [])


def test_reversal_beside_an_edit_of_another_device_is_taken(edited: Tenant) -> None:
    """Fault: what this push said before not laid over the base: ``unchanged``, and the row stays C."""
    edited.do("update", id="a", note="other")
    assert edited.statuses({"operations": [EDIT, REVERSAL]}) == ["merged", "merged"]
    assert (edited.row("a")["name"], edited.row("a")["note"]) == ("B", "other")


def test_same_value_from_another_device_is_no_reversal(edited: Tenant) -> None:
    edited.push({"operations": [EDIT]}, device_id="d")
    assert edited.statuses({"operations": [REVERSAL]}, device_id="e") == ["unchanged"]
    assert edited.row("a")["name"] == "C"


def test_edit_that_lost_is_not_taken_back_over_the_one_that_won(edited: Tenant) -> None:
    """C came after the edit and its reversal, which are told as lost, each with what the device had then."""
    edited.do("update", id="a", name="won", about={"timestamp": LATER})
    early = [one | {"timestamp": EARLIER} for one in (EDIT, REVERSAL)]
    applied = edited.push({"operations": early}, device_id="d")
    sides = [conflict["fields"]["name"] for conflict in applied.conflicts]
    assert edited.row("a")["name"] == "won"
    assert [(side["base"], side["client"], side["winner"]) for side in sides] == [
        ("B", "C", "server"),
        ("C", "B", "server"),
    ]


def test_edit_over_a_conflict_that_its_device_won_is_no_second_conflict(edited: Tenant) -> None:
    edited.do("update", id="a", name="other", about={"timestamp": EARLIER})
    assert edited.statuses({"operations": [EDIT]}, device_id="d") == ["conflict"]
    assert edited.statuses({"operations": [REVERSAL]}, device_id="d") == ["updated"]
    assert edited.row("a")["name"] == "B"


def test_device_that_another_sends_back_in_the_row_is_not_taken_for_its_own(edited: Tenant) -> None:
    """An older app sends whole rows as it pulled them. Fault: the field believed: ``updated``, and B in no conflict."""
    edited.push({"operations": [op("update", id="a", name="A1", device_id="d")]}, device_id="d")
    edited.push({"changes": {"end_user": [{"id": "a", "name": "B1", "device_id": "d", "version": 4}]}})
    applied = edited.push({"operations": [op("update", about={"baseVersion": 3}, id="a", name="A2")]}, device_id="d")
    assert applied.results[0]["status"] == "conflict"
    assert applied.conflicts[0]["fields"]["name"]["server"] == "B1"


def test_versions_that_a_device_counts_up_in_one_push_have_the_base_of_the_first(edited: Tenant) -> None:
    """Fault: each for itself: the second's was the version that another had made, and took the place of its edit."""
    rows = [{"id": "a", "name": name, "version": n, "last_updated": EARLIER} for n, name in ((2, "A1"), (3, "A2"))]
    assert edited.statuses({"changes": {"end_user": rows}}) == ["conflict", "conflict"]
    assert edited.row("a")["name"] == "B"


@pytest.mark.parametrize(("stated", "deleted"), [(LATER, 1), (EARLIER, 1)])
def test_delete_that_did_not_know_an_edit_is_a_merge(edited: Tenant, stated: str, deleted: int) -> None:
    """``is_deleted`` was changed on one side only, so both are kept: the edit in the tombstone."""
    edited.do("delete", id="a", about={"baseVersion": 1, "timestamp": stated})
    assert (edited.row("a")["is_deleted"], edited.row("a")["name"]) == (deleted, "B")


def test_edit_that_did_not_know_a_delete_stays_deleted_and_keeps_the_edit(edited: Tenant) -> None:
    edited.do("delete", id="a")
    edited.do("update", id="a", note="m", about={"baseVersion": 2})
    assert (edited.row("a")["is_deleted"], edited.row("a")["note"]) == (1, "m")


def test_conflict_is_told_once_and_logged_with_both_sides(edited: Tenant) -> None:
    edited.push({"operations": [op("update", about={"baseVersion": 1}, id="a", name="C")]})
    sql = "SELECT pushed, fields FROM _conflicts"
    ((pushed, about),) = edited.tenants.read(edited.id, lambda: connection().execute(sql).fetchall())
    assert (json.loads(pushed)["name"], json.loads(about)["name"]["server"]) == ("C", "B")
    assert len(edited.told[-1].conflicts) == 1
