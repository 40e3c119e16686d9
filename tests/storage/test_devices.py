"""Devices that name themselves, digests by which they know that they are right, and what is removed for neither."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from models import connection, synced_tables
from protocol.codec import format_time
from protocol.errors import NotFound, ResyncRequired
from protocol.messages import Limits, Pull, PushResult
from protocol.pull_parser import parse_pull
from protocol.push_parser import parse_push
from storage import devices, history, idempotency, pull_reader, push_writer
from storage.devices import DAY_MS
from tenants import Tenants
from tests.conftest import JSON, Device, Listener, Server, Tenant
from tests.inside import SKEW_MS

T0 = 1_800_000_000_000
TABLES = {name: table.rules for name, table in synced_tables().items()}
LIMITS = Limits(10_000, 10_000, 65_536, 64)


def digest_of(rows: Iterable[JSON]) -> JSON:
    """What a client computes: see docs/api.md."""
    live = [row for row in rows if not row["is_deleted"]]
    whole = 0
    for row in live:
        whole ^= int.from_bytes(hashlib.sha256(f"{row['id']}:{row['version']}".encode()).digest()[:8], "big")
    return {"count": len(live), "hash": f"{whole:016x}"}


def listed(tenant: Tenant) -> dict[str, JSON]:
    answer = tenant.server.call("GET", "/api/client/devices", token=tenant.token)
    assert answer.status_code == 200
    return {device["deviceId"]: device for device in answer.json()["data"]}


# --- devices over HTTP -----------------------------------------------------------------------------------------------


def test_device_is_known_by_its_cursor_and_when_it_was_seen(tenant: Tenant) -> None:
    phone = tenant.device(X_Device_Id="phone")
    phone.catch_up()
    tenant.device().create(id="a")
    (known,) = listed(tenant).values()
    assert (known["deviceId"], known["name"], known["behind"], known["expired"]) == ("phone", None, 1, False)
    phone.catch_up()
    phone.catch_up()
    known = listed(tenant)["phone"]
    assert (known["cursor"], known["behind"]) == (phone.cursor, 0)
    assert known["firstSeen"] <= known["lastSeen"]


def test_socket_and_push_make_a_device_known_as_well(tenant: Tenant, listen: Callable[..., Listener]) -> None:
    listener = listen(deviceId="tablet")
    listener.call("sync_pull", {"cursor": None})
    tenant.device(X_Device_Id="till").create(id="a")
    assert listed(tenant).keys() == {"tablet", "till"}


@pytest.mark.parametrize("is_event", [False, True])
def test_device_that_says_less_than_before_is_told_so(
    tenant: Tenant, listen: Callable[..., Listener], is_event: bool
) -> None:
    """A copy of its storage, or an older state of it, goes by its name: its edits would pass for having seen all."""
    listener = listen(deviceId="phone")

    def pull(cursor: str | None, device_id: str = "phone") -> JSON:
        body = {"cursor": cursor, "limit": 2}
        if is_event and device_id == "phone":
            return dict(listener.call("sync_pull", body))
        return dict(tenant.device(X_Device_Id=device_id).pull(body))

    def went_back(cursor: str | None, *device: str) -> bool:
        return "wentBack" in pull(cursor, *device)

    first = pull(None)["cursor"]
    for row_id in "abcde":
        tenant.device().create(id=row_id)
    second = pull(first)
    third = pull(second["cursor"])
    assert "wentBack" not in second and "wentBack" not in third
    assert not went_back(second["cursor"]), "the answer may have been lost"
    assert not went_back(first, "tablet") and not went_back(None), "another device, or one that starts anew"
    assert not went_back(third["cursor"])
    assert went_back(second["cursor"])
    assert went_back(second["cursor"]), "that answer may have been lost too"
    listed(tenant)  # Which brings to the file what is known.
    assert not went_back(third["cursor"]) and went_back(first)


def test_device_is_renamed_and_forgotten(tenant: Tenant, other_tenant: Tenant) -> None:
    tenant.device(X_Device_Id="phone").catch_up()
    path, call = "/api/client/devices/phone", tenant.server.call
    assert call("PATCH", path, {"name": "Asha's phone"}, other_tenant.token).status_code == 404
    assert call("PATCH", path, {"name": 5}, tenant.token).status_code == 400
    assert call("PATCH", path, {"name": "Asha's phone"}, tenant.token).json()["data"]["name"] == "Asha's phone"
    assert listed(tenant)["phone"]["name"] == "Asha's phone"
    assert call("DELETE", path, token=other_tenant.token).status_code == 404
    assert call("DELETE", path, token=tenant.token).status_code == 200
    assert listed(tenant) == {} and call("DELETE", path, token=tenant.token).status_code == 404


def test_pull_pending_gives_a_device_what_it_has_not_pulled(tenant: Tenant, device: Device) -> None:
    phone = tenant.device(X_Device_Id="phone")
    device.create(id="a")
    phone.catch_up()
    device.create(id="b")
    device.delete(id="a")
    phone.pull({"cursor": phone.cursor, "limit": 1})
    pending = phone.raw("sync/pull-pending", {"entityTypes": ["end_user"]}).json()
    assert [(row["id"], row["is_deleted"]) for row in pending["data"]["end_user"]] == [("b", 0), ("a", 1)]


def test_pull_pending_of_a_device_that_never_pulled_has_tombstones_lists_it_and_goes_on_from_its_cursor(
    tenant: Tenant, device: Device
) -> None:
    """It may hold the row that another deleted, since it pushed it. Fault: a first pull, again each time."""
    till = tenant.device(X_Device_Id="till")
    till.create(id="a")
    device.delete(id="a")
    device.create(id="b")
    first = till.raw("sync/pull-pending", {"table": "end_user"}).json()
    assert [(row["id"], row["is_deleted"]) for row in first["data"]["end_user"]] == [("a", 1), ("b", 0)]
    assert listed(tenant)["till"]["tables"] == ["end_user"]
    device.create(id="c")
    later = till.raw("sync/pull-pending", {"table": "end_user", "cursor": first["cursor"]}).json()
    assert [row["id"] for row in later["data"]["end_user"]] == ["c"]
    again = till.raw("sync/pull-pending", {"table": "end_user"}).json()
    assert [row["id"] for row in again["data"]["end_user"]] == ["c"], "known from the cursor that it sent"


def test_pull_pending_after_a_removed_deletion_gives_all_there_is(old: Old) -> None:
    old.push({"id": "a"}, {"id": "b"})
    old.pull({"cursor": old.pull({"cursor": None}).cursor}, "phone")
    old.push({"id": "a", "is_deleted": 1}, {"id": "c"})
    old.now += 40 * DAY_MS
    old.push({"id": "d"})
    old.purge()
    places = old.read(lambda: devices.reached("phone", ["end_user"]))
    page: pull_reader.Page = old.read(lambda: pull_reader.pending_page(places, Pull(list(places), None, 99)))
    assert places == {"end_user": 2} and page.is_complete
    assert old.read(lambda: pull_reader.rows_of(page, "end_user", page.since, 99)).count == 3


def test_device_that_pulls_some_tables_is_behind_in_the_others(tenant: Tenant, device: Device) -> None:
    phone = tenant.device(X_Device_Id="phone")
    device.create("interactions", id="i")
    device.create(id="u")
    cursor = phone.pull({"cursor": None, "entityTypes": ["end_user"]})["cursor"]
    phone.pull({"cursor": cursor, "entityTypes": ["end_user"]})
    pending = phone.raw("sync/pull-pending", {"entityTypes": ["end_user", "interactions"]}).json()["data"]
    assert ([row["id"] for row in pending["interactions"]], pending["end_user"]) == (["i"], [])
    assert phone.raw("sync/pull-pending", {"table": "end_user"}).json()["data"] == {"end_user": []}
    assert listed(tenant)["phone"]["tables"] == ["end_user", "interactions"]


def test_expired_device_is_told_why_and_starts_anew(tenant: Tenant) -> None:
    phone = tenant.device(X_Device_Id="phone")
    tenant.device().create(id="a")
    phone.catch_up()
    phone.catch_up()
    listed(tenant)
    with closing(sqlite3.connect(tenant.path)) as file, file:
        file.execute("UPDATE _devices SET expired_at = ?", (T0,))
    refused = phone.pull_raw({"cursor": phone.cursor})
    assert (refused.status_code, refused.json()["code"]) == (410, "resync_required")
    assert f"expired at {format_time(T0)}" in refused.json()["error"]
    phone.cursor = None
    assert len(phone.catch_up()["end_user"]) == 1
    phone.catch_up()
    assert not listed(tenant)["phone"]["expired"]


@pytest.mark.parametrize("device_id", ["", "x" * 65, "a b", "<b>", "../x"])
def test_device_id_that_is_none_is_refused(tenant: Tenant, device_id: str) -> None:
    answer = tenant.device(X_Device_Id=device_id).pull_raw({"cursor": None})
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")


def test_devices_outlive_the_server(start_server: Callable[..., Server]) -> None:
    server = start_server()
    tenant = server.register()
    tenant.device(X_Device_Id="phone").catch_up()
    assert server.stop() == 0
    server.start()
    assert "phone" in listed(tenant)


# --- digests ---------------------------------------------------------------------------------------------------------


def test_digest_equals_what_a_device_computes_from_its_rows(tenant: Tenant, device: Device) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(40):
        table, row_id = rng.choice(["end_user", "interactions"]), f"r{rng.randrange(12)}"
        rng.choice([device.create, device.update, device.delete])(table, id=row_id, note=str(rng.random()))
    answer = device.pull({"cursor": None, "digest": True})
    assert answer["digest"] == {table: digest_of(rows) for table, rows in answer["data"].items()}
    by_time = device.pull({"table": "interactions", "digest": True})
    assert by_time["digest"] == {"interactions": answer["digest"]["interactions"]}


def test_digest_comes_with_the_last_page_only_and_only_if_asked_for(device: Device) -> None:
    device.push({"changes": {"end_user": [{"id": "a"}, {"id": "b"}]}})
    first = device.pull({"cursor": None, "limit": 1, "digest": True})
    last = device.pull({"cursor": first["cursor"], "limit": 1, "digest": True})
    assert ("digest" in first, "digest" in last) == (False, True)
    assert "digest" not in device.pull({"cursor": None})
    assert device.pull_raw({"cursor": None, "digest": 1}).status_code == 400


# --- what is removed -------------------------------------------------------------------------------------------------


class Old:
    """One tenant in this process, whose clock the test sets."""

    def __init__(self, tenants: Tenants, tenant_id: str) -> None:
        self.tenants, self.id, self.now = tenants, tenant_id, T0

    def push(self, *rows: JSON) -> PushResult:
        self.now += 1000
        push = parse_push({"changes": {"end_user": list(rows)}}, TABLES, LIMITS, self.now)
        return self.tenants.write(self.id, lambda: push_writer.apply(push, 65_536, self.now, lambda: None))

    def pull(self, body: JSON, device_id: str | None = None) -> pull_reader.Page:
        pull = parse_pull(body, TABLES, LIMITS)
        page: pull_reader.Page = self.read(lambda: pull_reader.page_of(pull, self.now, SKEW_MS))
        if device_id:
            seen = devices.Seen(self.tenants.write)
            seen.note(self.id, device_id, dict.fromkeys(page.tables, page.since), self.now, page.cursor.split("-")[0])
            seen.save(self.id)
        return page

    def read(self, query: Callable[[], Any]) -> Any:
        return self.tenants.read(self.id, query)

    def purge(self, history_days: int = 10, idle_days: int = 30) -> None:
        self.tenants.write(self.id, lambda: devices.expire(self.now, idle_days * DAY_MS))
        until = self.read(lambda: devices.purge_limit(self.now, history_days * DAY_MS))
        after: int | None = 0
        while after is not None:
            start = after
            after = self.tenants.write(self.id, lambda: devices.purge(start, until))

    def versions(self, row_id: str) -> list[int]:
        entries, _ = self.read(lambda: history.history("end_user", row_id, None, 99))
        return [entry["version"] for entry in entries]


@pytest.fixture
def old(tenants: Tenants, new_tenant: Callable[[], str]) -> Old:
    return Old(tenants, new_tenant())


def test_old_versions_and_tombstones_go_and_current_rows_stay(old: Old) -> None:
    for number in range(3):
        old.push({"id": "a", "name": str(number)}, {"id": "b", "name": str(number)})
    old.push({"id": "b", "is_deleted": 1})
    old.now += 20 * DAY_MS
    old.push({"id": "a", "name": "new"})
    old.purge()
    assert old.versions("a") == [4, 3], "what it was within the retention, until that edit"
    with pytest.raises(NotFound):
        old.versions("b")
    assert old.read(lambda: pull_reader.rows_of(old.pull({"cursor": None}), "end_user", 0, 99)).count == 1


def test_first_pull_with_deleted_rows_goes_on_after_a_purge_and_has_what_is_kept(old: Old) -> None:
    """Fault: tombstones wanted from the start: the second page was before a removed deletion, and refused."""
    old.push({"id": "a"}, {"id": "b"}, {"id": "c"})
    old.push({"id": "b", "is_deleted": 1})
    old.now += 20 * DAY_MS
    old.purge()
    old.push({"id": "c", "is_deleted": 1})
    found, cursor, more = [], None, True
    while more:
        page = old.pull({"cursor": cursor, "limit": 1, "deleted": True, "entityTypes": ["end_user"]})
        rows = old.read(partial(pull_reader.rows_of, page, "end_user", page.since, 9)).rows()
        found += [(row["id"], row["is_deleted"]) for row in rows]
        cursor, more = page.cursor, page.has_more
    assert found == [("a", 0), ("c", 1)]


def test_chunk_of_many_deletions_ends_early_and_the_rest_follows(old: Old) -> None:
    """Fault: a chunk of the log held up others for as long as all its deletions took, ten times as long as old versions."""
    ids = [str(number) for number in range(250)]
    for deleted in (0, 1):
        old.push(*({"id": row_id, "is_deleted": deleted} for row_id in ids))
    old.now += 20 * DAY_MS
    old.push({"id": "new"})
    until = old.read(lambda: devices.purge_limit(old.now, 10 * DAY_MS))
    ends = [0]
    while (end := old.tenants.write(old.id, lambda: devices.purge(ends[-1], until, 400))) is not None:
        ends.append(end)
    assert ends == [0, 350, 450, 500]
    assert old.read(lambda: pull_reader.rows_of(old.pull({"cursor": None}), "end_user", 0, 99)).count == 1


def test_history_younger_than_the_retention_stays_whole(old: Old) -> None:
    for number in range(5):
        old.push({"id": "a", "name": str(number)})
    old.now += 5 * DAY_MS
    old.purge()
    assert old.versions("a") == [5, 4, 3, 2, 1]


def test_nothing_is_removed_that_a_live_device_still_needs(old: Old) -> None:
    old.push({"id": "a"}, {"id": "b"})
    cursor = old.pull({"cursor": None}).cursor
    old.pull({"cursor": cursor}, "slow phone")
    old.push({"id": "a", "is_deleted": 1})
    old.now += 20 * DAY_MS
    old.purge()
    assert old.read(lambda: pull_reader.rows_of(old.pull({"cursor": cursor}), "end_user", 2, 99)).count == 1


def test_device_that_only_pushes_holds_up_nothing(old: Old) -> None:
    old.push({"id": "a"})
    old.push({"id": "a", "name": "later"})
    seen = devices.Seen(old.tenants.write)
    seen.note(old.id, "till", {}, old.now)
    seen.save(old.id)
    old.now += 20 * DAY_MS
    old.purge()
    assert old.versions("a") == [2]


def test_idle_device_is_expired_and_then_holds_up_nothing(old: Old) -> None:
    old.push({"id": "a"}, {"id": "b"})
    cursor = old.pull({"cursor": None}).cursor
    old.pull({"cursor": cursor}, "lost phone")
    old.push({"id": "a", "is_deleted": 1})
    old.now += 40 * DAY_MS
    old.push({"id": "c"})
    old.purge()
    assert old.read(lambda: devices.expired_at("lost phone")) == old.now
    with pytest.raises(ResyncRequired, match="Deletions"):
        old.pull({"cursor": cursor})


def test_pull_from_before_a_removed_deletion_is_refused_by_cursor_and_by_time_given_all(old: Old) -> None:
    old.push({"id": "a"}, {"id": "b"})
    page = old.pull({"cursor": None})
    old.push({"id": "a", "is_deleted": 1})
    after = old.pull({"cursor": page.cursor})
    old.now += 20 * DAY_MS
    old.push({"id": "c"})
    old.purge()
    with pytest.raises(ResyncRequired):
        old.pull({"cursor": page.cursor})
    by_time = old.pull({"table": "end_user", "lastSync": page.sync_timestamp})
    assert (by_time.since, by_time.tombstones_after, by_time.is_complete) == (0, 0, True)
    fresh: list[JSON] = [{"cursor": after.cursor}, {"table": "end_user", "lastSync": after.sync_timestamp}]
    assert [old.pull(body).is_complete for body in [*fresh, {"cursor": None}]] == [False] * 3


def test_time_of_a_devices_own_clock_within_the_margin_of_a_removed_deletion_is_given_all(old: Old) -> None:
    """Such a device may hold the row. Fault: the margin not counted: it kept the deleted row, untold."""
    old.push({"id": "z"})
    first = old.now
    old.push({"id": "a"}, {"id": "b"})
    old.push({"id": "a", "is_deleted": 1})
    old.now += 20 * DAY_MS
    old.push({"id": "c"})
    old.purge()
    for own in (first - SKEW_MS // 2, first + SKEW_MS // 2):
        page = old.pull({"table": "end_user", "lastSync": format_time(own)})
        assert (page.since, page.is_complete) == (0, True)
    page = old.pull({"table": "end_user", "lastSync": format_time(first + 2 * SKEW_MS)})
    assert (page.since > 0, page.is_complete) == (True, False)


def test_removed_versions_without_a_deletion_cost_no_device_its_cursor(old: Old) -> None:
    cursor = old.pull({"cursor": None}).cursor
    for number in range(5):
        old.push({"id": "a", "name": str(number)})
    old.now += 20 * DAY_MS
    old.purge()
    assert old.pull({"cursor": cursor}).since == 0


def test_removal_works_in_chunks_over_a_long_log(old: Old) -> None:
    for number in range(6):
        old.push(*[{"id": f"r{index}", "name": str(number)} for index in range(300)])
    old.now += 20 * DAY_MS
    old.purge()
    assert old.read(lambda: connection().execute("SELECT count(*) FROM _changes").fetchall()) == [(300,)]
    assert old.read(lambda: pull_reader.rows_of(old.pull({"cursor": None}), "end_user", 0, 999)).count == 300


def test_merge_against_a_removed_base_still_keeps_both_sides(old: Old) -> None:
    for number in range(4):
        old.push({"id": "a", "name": str(number), "note": "n"})
    old.now += 20 * DAY_MS
    old.push({"id": "a", "name": "server"})
    old.purge()
    applied = old.push({"id": "a", "name": "device", "version": 2})
    assert [conflict["fields"]["name"]["server"] for conflict in applied.conflicts] == ["server"]


def test_receipts_and_resolved_conflicts_go_with_their_age(old: Old) -> None:
    operation = {"table": "end_user", "operation": "create", "data": {"id": "a"}, "opId": "op"}
    push = parse_push({"operations": [operation]}, TABLES, LIMITS, old.now)
    old.tenants.write(old.id, lambda: push_writer.apply(push, 65_536, old.now, lambda: None))
    old.tenants.write(old.id, lambda: devices.forget_receipts(old.now - 1))
    assert old.read(lambda: idempotency.taken(["op"])).keys() == {"op"}
    old.tenants.write(old.id, lambda: devices.forget_receipts(old.now))
    assert old.read(lambda: idempotency.taken(["op"])) == {}
