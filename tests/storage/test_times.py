"""Apps that know only times (``lastSync``): a restore, a purge and the time of their own push cost them nothing.

Seen to fail before: nothing came after a restore, 410 for ever after a purge, others' rows skipped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from protocol.messages import PushResult
from storage import positions
from tenants import Tenants
from tests import inside
from tests.conftest import JSON, Run, Tenant
from tests.storage.test_seen_rows import Phone

T0 = 1_800_000_000_000


def pulled(phone: Phone, since: str | None) -> tuple[dict[str, JSON], JSON]:
    answer = phone.call("pull", {"table": "end_user", "lastSync": since})
    return {row["id"]: row for row in answer["data"]["end_user"]}, answer


@pytest.mark.parametrize("clock", ["the server's", "own", "own, without a zone", "ahead"])
def test_app_that_knows_only_times_gets_everything_after_a_restore(
    tenant: Tenant, operate: Run, tmp_path: Path, clock: str
) -> None:
    phone, other = Phone(tenant, "one"), Phone(tenant, "two")
    for name in ("old", "edited", "deleted"):
        other.push(name, name="before the backup")
    other.push("deleted", is_deleted=1)
    operate("backup", "--to", tmp_path, "--tenant", tenant.id)
    other.push("edited", name="after the backup")
    rows, answer = pulled(phone, None)
    now = datetime.now(UTC) + timedelta(seconds=2 * (clock == "ahead"))
    own = now.replace(tzinfo=None).isoformat() if "zone" in clock else now.isoformat()
    since = answer["syncTimestamp"] if "server" in clock else own
    (made,) = tmp_path.glob("syncapp-*")
    operate("restore", "--yes", made, "--tenant", tenant.id)
    rows, answer = pulled(phone, since)
    assert answer["complete"] is True
    assert {name: (row["name"], row["is_deleted"]) for name, row in rows.items()} == {
        "old": ("before the backup", 0),
        "edited": ("before the backup", 0),
        "deleted": ("before the backup", 1),
    }
    rows, answer = pulled(phone, answer["syncTimestamp"])
    assert rows == {} and "complete" not in answer
    other.push("new", name="later")
    assert pulled(phone, answer["syncTimestamp"])[0].keys() == {"new"}


def test_expired_device_that_knows_only_times_gets_everything_and_is_live_again(tenant: Tenant) -> None:
    phone = Phone(tenant, "phone", "header")
    phone.push("a", name="A")
    phone.pull()
    tenant.server.call("GET", "/api/client/devices", token=tenant.token)
    with closing(sqlite3.connect(tenant.path)) as file, file:
        file.execute("UPDATE _devices SET expired_at = 1")
    rows, answer = pulled(phone, phone.last_sync)
    assert answer["complete"] is True and rows.keys() == {"a"}
    assert "complete" not in pulled(phone, answer["syncTimestamp"])[1]


# --- the time of a push ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["session", "header", "row in one session"])
def test_time_of_a_push_skips_nothing_whoever_adopts_it(tenant: Tenant, kind: str) -> None:
    """The app takes it for its next ``lastSync``, as the older documentation shows."""
    phone, other = Phone(tenant, "one", kind), Phone(tenant, "two", kind)
    held: dict[str, JSON] = {}
    since = None
    for number in range(6):
        other.push(f"theirs-{number}", name="x")
        if number % 2:
            other.push("theirs-0", name=str(number))
        held |= pulled(phone, since)[0]
        other.push(f"between-{number}", name="y")
        phone.push(f"mine-{number}", name="z")
        held[f"mine-{number}"] = phone.answer["data"][0]
        since = phone.answer["syncTimestamp"]
    held |= pulled(phone, since)[0]
    assert held == pulled(phone, None)[0]


def test_time_of_a_push_is_its_own_if_nothing_of_others_lay_between(tenant: Tenant) -> None:
    phone, other = Phone(tenant, "one"), Phone(tenant, "two")
    phone.push("a", name="A")
    assert phone.answer["syncTimestamp"] == phone.answer["data"][0]["updatedAt"]
    phone.push("a", name="B")
    assert phone.answer["syncTimestamp"] == phone.answer["data"][0]["updatedAt"]
    other.push("b", name="B")
    phone.push("a", name="C")
    at = phone.answer["syncTimestamp"]
    assert at < other.answer["data"][0]["updatedAt"]
    assert pulled(phone, at)[0].keys() >= {"a", "b"}
    assert other.answer["syncTimestamp"] < phone.answer["data"][0]["createdAt"], "it never pulled: all is to come"


@pytest.mark.parametrize("gap_ms", [1, 2, 1000])
def test_time_until_a_position_is_never_that_of_a_commit_that_goes_on_behind_it(
    tenants: Tenants, new_tenant: Callable[[], str], gap_ms: int
) -> None:
    tenant_id = new_tenant()
    for number in range(3):
        rows = [{"id": f"{number}-{row}"} for row in range(2)]
        inside.push(tenants, tenant_id, {"changes": {"end_user": rows}}, T0 + number * gap_ms)
    epoch, _, clock, *_ = tenants.read(tenant_id, positions.position)
    for place in [*range(7), *range(7)]:  # The second time it is known.
        time = tenants.read(tenant_id, lambda place=place: positions.time_until(epoch, place, clock))  # type: ignore[misc]
        assert tenants.read(tenant_id, lambda time=time: positions.last_until(time, 6)) <= place  # type: ignore[misc]
    assert clock == tenants.read(tenant_id, lambda: positions.time_until(epoch, 6, clock))


def test_time_of_a_push_that_came_to_nothing_is_not_that_of_the_one_in_its_place(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    """Fault: a time was noted before its commit was made. The next one, of the same millisecond, goes on behind it."""
    tenant_id = new_tenant()
    with pytest.raises(RuntimeError):
        inside.push(tenants, tenant_id, rows("a"), T0, around=fail_after)
    inside.push(tenants, tenant_id, rows("a", "b"), T0)
    time = tenants.read(tenant_id, lambda: positions.time_until(positions.position().epoch, 1, T0))
    assert time < T0, "a pull from then on would not have the second row"


def fail_after(write: Callable[[], PushResult]) -> PushResult:
    write()
    raise RuntimeError("no room")


def rows(*ids: str) -> JSON:
    return {"changes": {"end_user": [{"id": row_id} for row_id in ids]}}
