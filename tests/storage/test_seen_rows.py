"""Devices that only count versions, or only know times: what the server knows that they have seen (docs/api.md).

Each phone here has a session of its own, or says its name in one of the ways there are. Seen to fail on faults: a counted
version taken for a base as before; a place that was only sent taken for known; a shared session not found out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol.messages import Position, Pull, PushResult
from protocol.seen_rows import NOBODY, Evidence
from storage import devices, pull_reader, seen_rows
from storage.devices import DAY_MS, Seen
from tenants import Tenants
from tests import inside
from tests.conftest import JSON, Device, Listener, Server, Tenant

KINDS = ("session", "header", "row", "row in one session")
PUSHES = ("A", "B", "C", "event")


class Phone:
    """A phone of the older API: keeps whole rows, counts their versions by itself, syncs when it is told to."""

    def __init__(self, tenant: Tenant, name: str, kind: str = "session") -> None:
        self.tenant, self.name, self.kind = tenant, name, kind
        self.token = tenant.token if kind in ("header", "row in one session") else log_in(tenant)
        self.rows: dict[str, JSON] = {}
        self.last_sync: str | None = None
        self.form = "B"
        self.answer: JSON = {}

    def call(self, what: str, body: JSON) -> JSON:
        headers = {"X_Device_Id": self.name} if self.kind == "header" else {}
        device = Device(replace(self.tenant, token=self.token), headers)
        answer = device.raw(f"sync/{what}", body)
        assert answer.status_code == 200, answer.text
        told: JSON = answer.json()
        return told

    def pull(self) -> None:
        """Fetch what is new, and take it."""
        answer = self.call("pull", {"lastSyncTimestamp": self.last_sync})
        self.rows |= {row["id"]: row for row in answer["data"]["end_user"]}
        self.last_sync = answer["syncTimestamp"]

    def push(self, row_id: str, edits: int = 1, version: int | None = None, **values: Any) -> str:
        """Type into a row so many times, and send the whole of it; give what became of it."""
        row = self.rows.get(row_id, {"id": row_id, "version": 0})
        row |= values | {"version": version or row["version"] + edits}
        row |= {"device_id": self.name} if self.kind.startswith("row") else {}
        row.pop("last_updated", None)
        self.rows[row_id] = row
        one = {"table": "end_user", "operation": "update", "data": row}
        bodies: dict[str, JSON] = {"A": one, "B": {"changes": {"end_user": [row]}}, "C": {"operations": [one]}}
        self.answer = self.call("push", bodies[self.form])
        return str(self.answer["results"][0]["status"])


def log_in(tenant: Tenant) -> str:
    """Begin a session of its own."""
    answer = tenant.server.call("POST", "/api/customers/login", {"email": tenant.email, "password": tenant.password})
    token: str = answer.json()["data"]["token"]
    return token


def logged(tenant: Tenant, state: str = "open") -> list[JSON]:
    answer = tenant.server.call("GET", f"/api/client/sync/conflicts?state={state}", token=tenant.token)
    found: list[JSON] = answer.json()["data"]
    return found


def stands(tenant: Tenant, row_id: str = "a") -> JSON:
    rows = tenant.device().pull({"table": "end_user", "lastSync": "2999-01-01T00:00:00Z"})["data"]["end_user"]
    (row,) = [row for row in rows if row["id"] == row_id]
    return dict(row)


@pytest.fixture
def two(tenant: Tenant, request: pytest.FixtureRequest) -> tuple[Phone, Phone]:
    """Two phones that hold row ``a``, which the second made; both have said so."""
    return two_phones(tenant, getattr(request, "param", "session"))


def two_phones(tenant: Tenant, kind: str) -> tuple[Phone, Phone]:
    first, second = Phone(tenant, "one", kind), Phone(tenant, "two", kind)
    second.push("a", name="A", note="n", phone="1")
    for _ in range(2):
        for phone in (first, second):
            phone.pull()
    return first, second


each_kind = pytest.mark.parametrize("two", KINDS, indirect=True)
own_kinds = pytest.mark.parametrize("two", KINDS[:3], indirect=True)
each_form = pytest.mark.parametrize("form", ["A", "B", "C"])


# --- edits that another phone did not see ----------------------------------------------------------------------------


@each_kind
@each_form
@pytest.mark.parametrize("edits", [1, 2, 7])
def test_edits_of_a_phone_that_did_not_see_anothers_keep_both_sides_however_many_they_are(
    tenant: Tenant, two: tuple[Phone, Phone], form: str, edits: int
) -> None:
    first, second = two
    second.push("a", name="theirs", phone="2")
    first.form = form
    assert first.push("a", edits, name="mine", note="m") == "conflict"
    (told,) = first.answer["conflicts"]
    assert told["fields"]["name"] == {"base": "A", "client": "mine", "server": "theirs", "winner": "client"}
    assert logged(tenant) == [told] and (len(told["fields"]) == 1 or first.kind == "row in one session")
    row = stands(tenant)
    assert (row["name"], row["note"], row["phone"]) == ("mine", "m", "2")


@each_kind
@pytest.mark.parametrize("version", [1, 3, 99])
def test_row_that_another_phone_deleted_does_not_come_back(
    tenant: Tenant, two: tuple[Phone, Phone], version: int
) -> None:
    first, second = two
    second.push("a", is_deleted=1)
    assert first.push("a", version=version, note="typed for hours") == "conflict"
    assert stands(tenant)["is_deleted"] == 1
    (told,) = first.answer["conflicts"]
    assert told["fields"]["note"] | {"client": "typed for hours", "winner": "server"} == told["fields"]["note"]


def test_phone_that_was_sent_nothing_has_seen_nothing(tenant: Tenant, two: tuple[Phone, Phone]) -> None:
    new = Phone(tenant, "new")
    assert new.push("a", version=50, name="mine") == "conflict"
    assert new.answer["conflicts"][0]["fields"]["name"]["server"] == "A"


def test_event_follows_the_same_rule(tenant: Tenant, two: tuple[Phone, Phone], listen: Callable[..., Listener]) -> None:
    two[1].push("a", name="theirs")
    listener = listen(deviceId="tablet")
    row = {"id": "a", "version": 9, "name": "mine"}
    answer = listener.call("sync_push", {"changes": {"end_user": [row]}})
    assert answer["results"][0]["status"] == "conflict"
    listener.call("sync_pull", {"cursor": answer["cursor"]})
    two[1].push("b", name="B")
    cursor = listener.call("sync_pull", {"cursor": answer["cursor"]})["cursor"]
    listener.call("sync_pull", {"cursor": cursor})
    answer = listener.call("sync_push", {"changes": {"end_user": [{"id": "b", "version": 2, "name": "mine"}]}})
    assert answer["results"][0]["status"] == "updated"


# --- edits that it saw -----------------------------------------------------------------------------------------------


@own_kinds
@each_form
@pytest.mark.parametrize("version", [None, 1, 2, 40])
def test_edit_of_a_phone_that_saw_anothers_is_none_whatever_version_it_sends(
    tenant: Tenant, two: tuple[Phone, Phone], form: str, version: int | None
) -> None:
    """The pull was answered, and nobody knows yet that the answer came: what is replaced stays in the log, as decided.

    Fault: versions sent back unchanged, or always 1, taken for a base of one less: ``conflict``.
    """
    first, second = two
    second.push("a", name="theirs")
    first.pull()
    first.form = form
    assert first.push("a", version=version, name="mine") == "updated"
    assert (first.answer["conflicts"], logged(tenant), stands(tenant)["name"]) == ([], [], "mine")
    (kept,) = logged(tenant, "resolved")
    assert (kept["fields"]["name"]["server"], kept["resolution"]) == ("theirs", "keep")


@own_kinds
def test_edit_of_a_phone_that_said_that_it_saw_anothers_leaves_no_trace(
    tenant: Tenant, two: tuple[Phone, Phone]
) -> None:
    first, second = two
    second.push("a", name="theirs")
    for _ in range(2):
        first.pull()
    assert first.push("a", name="mine") == "updated" and logged(tenant, "all") == []


@each_kind
@pytest.mark.parametrize("version", [None, 1, 2])
def test_phones_own_changes_are_no_conflict_with_itself(
    tenant: Tenant, two: tuple[Phone, Phone], version: int | None
) -> None:
    """Others change other rows meanwhile, and it never pulls: its place does not move, but the log knows its changes."""
    first, second = two
    first.push("mine", name="0")
    for number in range(1, 5):
        second.push("a", name=f"theirs {number}")
        assert first.push("mine", version=version, name=str(number)) == "updated"
    assert logged(tenant, "all") == [] and stands(tenant, "mine")["name"] == "4"


def test_phone_whose_pull_got_lost_overwrites_nothing_silently(tenant: Tenant, two: tuple[Phone, Phone]) -> None:
    """It asked, and the answer never came. Fault: what was sent taken for seen: both values of the other were gone."""
    first, second = two
    second.push("a", name="theirs", note="theirs")
    first.call("pull", {"lastSyncTimestamp": first.last_sync})
    first.push("a", 2, name="mine")
    sides = [sides for one in logged(tenant, "all") for sides in one["fields"].values()]
    assert "theirs" in [side["server"] for side in sides]
    assert (stands(tenant)["name"], stands(tenant)["note"]) == ("mine", "theirs")


def test_phone_that_pulls_first_overwrites_nothing_silently(tenant: Tenant, two: tuple[Phone, Phone]) -> None:
    """Its row was edited before, so that it does not take what it pulls."""
    first, second = two
    second.push("a", name="theirs", note="theirs")
    first.last_sync = first.call("pull", {"lastSyncTimestamp": first.last_sync})["syncTimestamp"]
    first.push("a", 2, name="mine")
    sides = [sides for one in logged(tenant, "all") for sides in one["fields"].values()]
    assert "theirs" in [side["server"] for side in sides] and stands(tenant)["note"] == "theirs"


# --- what the server keeps of it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_evidence_outlives_a_stop_and_what_a_crash_takes_of_it_errs_to_the_careful_side(
    start_server: Callable[..., Server], how: str
) -> None:
    server = start_server()
    tenant = server.register()
    first, second = two_phones(tenant, "session")
    second.push("a", name="theirs")
    for _ in range(2):
        first.pull()
    getattr(server, how)()
    server.start()
    assert first.push("a", name="mine") in (["updated"] if how == "stop" else ["updated", "conflict"])
    assert how == "stop" or "theirs" in json.dumps(logged(tenant, "all")) or first.answer["conflicts"] == []


def test_what_is_known_is_of_one_incarnation_of_the_database(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    """After a restore, places are of a past that is no more."""
    tenant_id = new_tenant()
    row = {"id": "a", "name": "A", "version": 1}
    inside.push(tenants, tenant_id, {"changes": {"end_user": [row]}})
    known = inside.seen_all(tenants, tenant_id)
    edit: JSON = {"changes": {"end_user": [{"id": "a", "name": "B", "version": 9}]}}
    elsewhere = inside.push(tenants, tenant_id, edit, evidence=known._replace(epoch="000000000000"))
    assert elsewhere.results[0]["status"] == "conflict"
    edit["changes"]["end_user"][0]["name"] = "C"
    here = inside.push(tenants, tenant_id, edit, evidence=inside.seen_all(tenants, tenant_id))
    assert here.results[0]["status"] == "updated"


@pytest.mark.parametrize(
    ("evidence", "stated", "held", "is_of"),
    [
        (NOBODY, "one", None, True),
        (Evidence("it", "s", row_device_id="one"), "one", None, True),
        (Evidence("it", "s", row_device_id="one"), None, "two", True),
        (Evidence("it", "s", row_device_id="one"), "two", "two", True),
        (Evidence("it", "s", row_device_id="one"), "two", "one", False),
        (Evidence("it", None, row_device_id="one"), "two", "one", True),
    ],
)
def test_row_that_is_sent_back_as_it_was_pulled_speaks_for_nobody(
    evidence: Evidence, stated: str | None, held: str | None, is_of: bool
) -> None:
    assert evidence.is_of(stated, held) is is_of


def test_evidence_is_found_again_and_that_of_devices_long_gone_is_forgotten(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    tenant_id, now = new_tenant(), 1_800_000_000_000
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "a"}]}}, now)
    seen = Seen(tenants.write)
    page = tenants.read(tenant_id, lambda: pull_reader.page_of(Pull(["end_user"], None, 9), now, 0))
    seen.evidences.pulled(tenant_id, seen.evidences.find(tenant_id, None, "s", tenants.read), page, now)
    seen.save(tenant_id)

    def found() -> Evidence:
        return Seen(tenants.write).evidences.find(tenant_id, None, "s", tenants.read)

    assert (found().sent, found().epoch) == ({"end_user": 1}, page.epoch)
    for days, is_there in ((29, True), (31, False)):
        tenants.write(tenant_id, lambda days=days: devices.expire(now + days * DAY_MS, 30 * DAY_MS))  # type: ignore[misc]
        assert bool(found().sent) is is_there


def test_what_a_pull_showed_is_kept_though_a_first_push_was_stored_before_it(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    """Visits are saved every few seconds, a device's first push at once. Fault: the later of both counted alone."""
    tenant_id, now = new_tenant(), 1_800_000_000_000
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": "a"}]}}, now)
    seen = Seen(tenants.write)
    evidence = seen.evidences.find(tenant_id, "phone", "s", tenants.read)
    page = tenants.read(tenant_id, lambda: pull_reader.page_of(Pull(["end_user"], None, 9), now, 0))
    seen.evidences.pulled(tenant_id, evidence, page, now)
    after = PushResult(Position(page.epoch, 1, now), Position(page.epoch, 2, now + 9))
    tenants.write(tenant_id, lambda: seen_rows.note_first_push(evidence, after, now + 9))
    seen.save(tenant_id)
    found = Seen(tenants.write).evidences.find(tenant_id, "phone", "s", tenants.read)
    assert (found.sent, found.first_push, found.seen_at) == ({"end_user": 1}, 1, now + 9)
