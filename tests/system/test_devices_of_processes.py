"""A device that speaks to one process after the other: what it has seen is known at each.

It counts versions by itself, so that only what the server knows of it tells an edit from the repeat of an old value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import postgres
from tests.conftest import JSON, Device, Server, Tenant, wait_for

pytestmark = [pytest.mark.server, pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING)]

Doors = tuple[Tenant, Tenant]


@pytest.fixture(params=["one process", "two processes"])
def doors(request: pytest.FixtureRequest, start_server: Callable[..., Server], tmp_path: Path) -> Iterator[Doors]:
    """A tenant at the process where its device speaks first, and at the one where it speaks then."""
    env = {"DATABASE_URL": postgres.server().address(postgres.server().new_database())}
    one = start_server("one", PROCESS_NAME="one", **env)
    tenant = one.register()
    if request.param == "one process":
        yield tenant, tenant
        return
    two = start_server("two", PROCESS_NAME="two", **env)
    wait_for(
        lambda: all(server.call("GET", "/health").json()["processes"]["count"] == 2 for server in (one, two)), "both"
    )
    yield tenant, replace(tenant, server=two)


def edit(device: Device, held: JSON, **fields: object) -> JSON:
    """Push a row as an app does that counts versions by itself."""
    data = held | fields | {"version": held["version"] + 1}
    return device.push({"table": "end_user", "operation": "update", "data": data})


def pulled(device: Device, cursor: str | None) -> tuple[JSON, str]:
    """Pull what is new, and give row r with the cursor."""
    answer = device.pull({"cursor": cursor})
    return {row["id"]: row for row in answer["data"]["end_user"]}.get("r", {}), answer["cursor"]


def final(tenant: Tenant) -> JSON:
    return {row["id"]: row for row in tenant.device().rows()}["r"]


def test_value_of_before_that_is_put_back_is_no_repeat_where_the_other_process_sent_the_new_one(doors: Doors) -> None:
    """Fault: what the other process learned was never read: the edit was answered as unchanged, and lost."""
    there, here = doors
    first, second = here.device(X_Device_Id="d1"), here.device(X_Device_Id="d2")
    first.create(id="r", name="0", note="open")
    row, _ = pulled(second, None)
    cursor = edit(second, row, name="warm")["cursor"]
    pulled(second, cursor)
    row, _ = pulled(first, None)
    edit(first, row, note="done")
    elsewhere = there.device(X_Device_Id="d2")
    row, cursor = pulled(elsewhere, cursor)
    assert row["note"] == "done"
    pulled(elsewhere, cursor)  # Which says that it has it.
    assert edit(second, row, note="open")["results"][0]["status"] == "updated"
    assert final(here)["note"] == "open"


def test_edit_over_anothers_that_the_device_pulled_at_the_other_process_is_no_conflict(doors: Doors) -> None:
    there, here = doors
    first, second = here.device(X_Device_Id="d1"), here.device(X_Device_Id="d2")
    first.create(id="r", note="0")
    row, cursor = pulled(second, None)
    for turn in range(3):
        edit(first, row, note=f"first {turn}")
        row, cursor = pulled(there.device(X_Device_Id="d2"), cursor)
        pulled(there.device(X_Device_Id="d2"), cursor)
        answer = edit(second, row, note=f"second {turn}")
        assert answer["conflicts"] == [] and final(here)["note"] == f"second {turn}"
        row, cursor = pulled(second, cursor)


def test_two_devices_of_one_session_at_a_process_each_are_known_to_be_two(doors: Doors) -> None:
    """Fault: each process knew of one, and took what that had pulled for seen by the other: a lost edit."""
    there, here = doors
    other = here.device(X_Device_Id="other")
    other.create(id="r", note="x", name="n")
    held, _ = pulled(here.device(), None)
    here.device().create(id="s2", device_id="d2")
    there.device().create(id="s1", device_id="d1")
    other.update(id="r", note="y")
    _, cursor = pulled(here.device(), None)  # d1 has it now, and says so.
    pulled(here.device(), cursor)
    assert edit(here.device(), held, name="by d2", device_id="d2")["conflicts"]
    assert (final(here)["note"], final(here)["name"]) == ("y", "by d2")
