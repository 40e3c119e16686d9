"""Edit against delete: what was typed is never gone untold, whatever the strategy and whoever came first.

Seen to fail before: ``merged``, deleted, and no conflict; an edit without a base was ``updated``, in a tombstone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest

from protocol.messages import Strategy
from tenants import Tenants
from tests.conftest import JSON, Device, Listener, Server, Tenant
from tests.pushing import EARLIER, LATER, op
from tests.pushing import Tenant as Inside

every_strategy = pytest.mark.parametrize("strategy", get_args(Strategy))
each_time = pytest.mark.parametrize("time", [EARLIER, LATER])


@pytest.fixture
def inside(tenants: Tenants, new_tenant: Callable[[], str]) -> Inside:
    """A row at version 1, which all know."""
    tenant = Inside(tenants, new_tenant())
    tenant.do("create", id="a", name="A", note="n", about={"timestamp": "2026-04-01T00:00:00Z"})
    return tenant


def values(applied: Any, side: str) -> list[Any]:
    """Give what the answer's conflicts hold of one side."""
    return [sides[side] for one in applied.conflicts for sides in one["fields"].values()]


@every_strategy
@each_time
def test_edit_that_a_deletion_did_not_know_is_told(inside: Inside, strategy: Strategy, time: str) -> None:
    edit = op("update", about={"baseVersion": 1, "timestamp": "2026-05-15T00:00:00Z"}, id="a", name="typed", note="n")
    inside.push({"operations": [edit]}, strategy=strategy, device_id="one")
    delete = op("delete", about={"baseVersion": 1, "timestamp": time}, id="a")
    applied = inside.push({"operations": [delete]}, strategy=strategy, device_id="two")
    row = inside.row("a")
    assert applied.results[0]["status"] == "conflict" and row["name"] == "typed"
    (told,) = applied.conflicts
    assert told["fields"]["is_deleted"]["winner"] == ("client" if row["is_deleted"] else "server")
    assert not row["is_deleted"] or told["fields"]["name"] == {
        "base": "A",
        "client": "A",
        "server": "typed",
        "winner": "client",
    }
    assert "note" not in told["fields"]


@every_strategy
@each_time
def test_edit_that_did_not_know_a_deletion_is_told(inside: Inside, strategy: Strategy, time: str) -> None:
    delete = op("delete", about={"baseVersion": 1, "timestamp": "2026-05-15T00:00:00Z"}, id="a")
    inside.push({"operations": [delete]}, strategy=strategy, device_id="one")
    edit = op("update", about={"baseVersion": 1, "timestamp": time}, id="a", name="typed", note="n")
    applied = inside.push({"operations": [edit]}, strategy=strategy, device_id="two")
    assert applied.results[0]["status"] == "conflict" and inside.row("a")["is_deleted"] == 1
    assert "typed" in values(applied, "client") and applied.conflicts[0]["fields"].keys() >= {"name"}


@every_strategy
@pytest.mark.parametrize("form", ["A", "B", "C"])
def test_edit_of_a_row_that_another_deleted_is_told_also_without_a_base(
    inside: Inside, strategy: Strategy, form: str
) -> None:
    inside.push({"operations": [op("delete", id="a")]}, device_id="one")
    one = op("update", id="a", name="typed")
    bodies: dict[str, JSON] = {"A": one, "B": {"changes": {"end_user": [one["data"]]}}, "C": {"operations": [one]}}
    applied = inside.push(bodies[form], strategy=strategy, device_id="two")
    assert applied.results[0]["status"] == "conflict"
    assert values(applied, "client") == ["typed", 0] and inside.row("a")["is_deleted"] == 1
    again = inside.push(bodies[form], strategy=strategy, device_id="two")
    assert (again.results[0]["status"], again.conflicts) == ("unchanged", [])


def test_device_that_deleted_a_row_itself_may_edit_it(inside: Inside) -> None:
    inside.push({"operations": [op("delete", id="a")]}, device_id="one")
    assert inside.statuses(op("update", id="a", name="B"), device_id="one") == ["updated"]
    known = inside.push({"changes": {}}).after.cursor
    body = {"baseCursor": known, "changes": {"end_user": [{"id": "a", "name": "C"}]}}
    assert inside.statuses(body, device_id="two") == ["updated"]


def test_deletion_that_knew_the_edit_is_none(inside: Inside) -> None:
    inside.do("update", id="a", name="typed")
    applied = inside.push({"operations": [op("delete", about={"baseVersion": 2}, id="a")]})
    assert (applied.results[0]["status"], applied.conflicts) == ("deleted", [])


def test_deletion_over_what_was_set_back_or_is_the_default_tells_nothing_of_it(inside: Inside) -> None:
    inside.do("update", id="a", name="B")
    inside.do("update", id="a", name="A", active=1)
    applied = inside.push({"operations": [op("delete", about={"baseVersion": 1}, id="a")]})
    assert (applied.results[0]["status"], applied.conflicts) == ("merged", [])


# --- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=get_args(Strategy))
def of_strategy(request: pytest.FixtureRequest, start_server: Callable[..., Server]) -> Iterator[Tenant]:
    yield start_server(CONFLICT_STRATEGY=request.param).register()


@pytest.mark.parametrize("order", ["edit first", "deletion first"])
def test_edit_that_a_deletion_swallows_is_in_the_conflict_log_and_comes_back_from_it(
    of_strategy: Tenant, order: str
) -> None:
    one, two = (of_strategy.device(X_Device_Id=name) for name in ("one", "two"))
    one.create(id="a", name="A")
    edit = op("update", about={"baseVersion": 1}, id="a", name="typed")
    delete = op("delete", about={"baseVersion": 1}, id="a")
    first, second = (edit, delete) if order == "edit first" else (delete, edit)
    one.push(first)
    (told,) = two.push(second)["conflicts"]
    (logged,) = of_strategy.server.call("GET", "/api/client/sync/conflicts", token=of_strategy.token).json()["data"]
    assert logged == told
    row = stands(two)
    if row["is_deleted"]:
        path = f"/api/client/sync/conflicts/{told['conflictId']}/resolve"
        of_strategy.server.call("POST", path, {"resolution": "other"}, of_strategy.token)
        row = stands(two)
    assert (row["is_deleted"], row["name"]) == (0, "typed")


def stands(device: Device) -> JSON:
    (row,) = device.pull({"table": "end_user", "lastSync": "2999-01-01T00:00:00Z"})["data"]["end_user"]
    return dict(row)


def test_conflict_of_a_swallowed_edit_is_told_to_listeners(tenant: Tenant, listen: Callable[..., Listener]) -> None:
    listener = listen()
    tenant.device(X_Device_Id="one").create(id="a", name="A")
    tenant.device(X_Device_Id="one").update(id="a", name="typed")
    tenant.device(X_Device_Id="two").push(op("delete", about={"baseVersion": 1}, id="a"))
    note = listener.wait_note("conflict_detected")
    assert note["data"]["fields"]["name"]["server"] == "typed"
