"""Apps that were written against the older API keep working: they speak here as they do, and fail as they do.

The apps are in ``old_apps``. Stories are random: the seed is printed, SEED=… tells the same one again.
Seen to fail on faults put into a copy of the server: ``Unique_id`` not looked up, ``unchanged`` never said, a counted
``version`` taken for a stated one, ``isDeleted`` not read, ``lastSync`` met without a margin or one of the future taken for
now, unknown fields dropped, numbers refused for texts.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

import pytest
import requests

from protocol.codec import format_time
from tenants import Tenants
from tests import inside
from tests.conftest import JSON, Server, Tenant, wait_for
from tests.kit.proxy import Proxy
from tests.old_apps import Habits, OldApp, Typed, random_edit
from tests.old_truth import EACH_WITH_ITS_HABITS, FAULTS, Truth, all_habits, check, key_of, seen, settle

# --- rows, as the app has them ---------------------------------------------------------------------------------------


@all_habits
def test_two_old_devices_create_edit_and_delete_and_end_equal(tenant: Tenant, habits: Habits) -> None:
    first, second = OldApp(tenant, habits), OldApp(tenant, habits)
    asha = first.create(name="Asha", phone=5550100, phoneModel={"brand": "x", "n": [1, None]}, active=1)
    gone = first.create(name="Bela", loyalty_points=7)
    call = first.create("interactions", type="call", title="first", metadata=[1, 2], client_user_id=1, followUpDone=1)
    settle([first, second])
    assert second.shown()[asha]["phone"] == 5550100 and second.shown()[gone]["loyalty_points"] == 7
    assert second.shown("interactions")[call]["metadata"] == [1, 2]
    second.edit(asha, name="Asha R", note="of the second")
    second.delete(gone)
    settle([second, first])
    assert first.shown()[asha] | {"name": "Asha R", "note": "of the second"} == first.shown()[asha]
    assert first.keys() == [asha] and Truth(tenant).conflicts() == []
    check(tenant, [first, second])


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"phone": 5550100}, {"phone": "5550100"}),
        ({"gstNo": 12.5}, {"gstNo": "12.5"}),
        ({"active": True}, {"active": 1}),
        ({"active": 0.0}, {"active": 0}),
        ({"dob": ""}, {"dob": ""}),
        ({"dob": None, "image": None}, {"dob": None, "image": None}),
        ({"phoneModel": '{"brand": "x"}'}, {"phoneModel": '{"brand": "x"}'}),
        ({"phoneModel": {"brand": "x"}}, {"phoneModel": {"brand": "x"}}),
        ({"bankList": "[]", "stateCode": ""}, {"bankList": "[]", "stateCode": ""}),
        ({"loyalty_points": 7, "isVIP": True}, {"loyalty_points": 7, "isVIP": True}),
        ({"lastVisit": "", "deep": {"a": [None]}}, {"lastVisit": "", "deep": {"a": [None]}}),
        ({"sync_status": "pending", "server_synced": False, "version": "3"}, {"sync_status": "synced", "version": 1}),
        ({"createdAt": "2020-01-01 00:00:00", "updatedAt": 5}, {"server_synced": 1}),
        ({"last_updated": "2025-06-29T23:45:26.002123"}, {"last_updated": "2025-06-29T23:45:26.002123"}),
        ({"last_updated": 1751219892000}, {"last_updated": "1751219892000"}),
        ({"is_deleted": False, "isDeleted": False}, {"is_deleted": 0}),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
@pytest.mark.parametrize("form", ["A", "B"])
def test_value_as_apps_write_it_is_kept_and_sending_it_again_changes_nothing(
    tenant: Tenant, form: str, sent: JSON, stored: JSON
) -> None:
    row = {"id": 17, "Unique_id": "of the device", **sent}
    change = {"table": "end_user", "operation": "create", "data": row, "timestamp": "2025-06-29T23:45:26.002123"}
    body = change if form == "A" else {"changes": {"end_user": [row]}}
    device = tenant.device()
    first, again = device.push(body), device.push(body)
    assert {name: first["data"][0][name] for name in stored} == stored
    assert (again["results"][0]["status"], again["cursor"]) == ("unchanged", first["cursor"])
    assert [one["id"] for one in device.rows()] == [first["data"][0]["id"]]


@pytest.mark.parametrize(
    "time", ["2025-06-29T23:45:26.002", "2025-06-29 23:45:26", "2025-06-29T23:45:26.002123Z", None]
)
def test_time_without_a_zone_is_taken_for_utc(tenant: Tenant, time: str | None) -> None:
    change = {"table": "end_user", "operation": "create", "data": {"Unique_id": "u", "name": "A"}, "timestamp": time}
    row = tenant.device().push(change)["data"][0]
    assert time is None or row["last_updated"].startswith("2025-06-29T23:45:26.")
    for since in (time, ""):
        assert tenant.device().pull({"table": "end_user", "lastSync": since})["data"]["end_user"] == [row]


def test_numbers_of_two_devices_mean_two_rows(tenant: Tenant) -> None:
    first, second = OldApp(tenant), OldApp(tenant)
    first.create(name="Asha")
    second.create(name="Bela")
    assert [one["id"] for app in (first, second) for _, one in app.pending()] == [1, 1]
    settle([first, second])
    assert sorted(row["name"] for row in first.shown().values()) == ["Asha", "Bela"]
    check(tenant, [first, second])


def test_row_of_an_app_that_gives_no_unique_id_is_known_by_the_servers_id(tenant: Tenant) -> None:
    row = tenant.device().create(name="of a new app")
    old = OldApp(tenant, Habits(form="B", adopts=True))
    assert old.sync()
    old.edit(row["id"], name="edited by the old one")
    settle([old])
    assert [one["name"] for one in tenant.device().rows()] == ["edited by the old one"]


def test_nothing_is_ever_pending_on_the_server(tenant: Tenant) -> None:
    app = OldApp(tenant)
    app.create(name="sent as pending")
    assert app.sync()
    for body in ({"table": "end_user"}, {"entityTypes": ["end_user", "interactions"]}):
        answer = tenant.device().raw("sync/pull-pending", body).json()
        assert answer["success"] and all(rows == [] for rows in answer["data"].values())


# --- failures --------------------------------------------------------------------------------------------------------


@all_habits
@pytest.mark.parametrize("fault", FAULTS)
def test_everything_sent_again_after_each_failure_makes_no_row_version_or_conflict_twice(
    tenant: Tenant, proxies: Callable[..., Proxy], habits: Habits, fault: str
) -> None:
    proxy = proxies()
    app, other = OldApp(tenant, habits, proxy.url), OldApp(tenant, habits)
    keys = [app.create(name=f"row {number}", phone=number) for number in range(3)]
    for round_ in range(3):
        for number, key in enumerate(keys):
            app.edit(key, note=f"round {round_}")
            app.edit(key, name=f"row {number} {round_}")
        for address in ("/push", "/push", "/pull"):
            proxy.fail(fault, address)
            assert not app.sync()
        assert app.sync()
    assert sorted(row["version"] for row in Truth(tenant).rows("end_user")) == [3, 3, 3]
    app.delete(keys[0])
    proxy.fail(fault, "/push")
    assert not app.sync()
    settle([app, other])
    assert Truth(tenant).conflicts() == []
    assert sorted(row["version"] for row in Truth(tenant).rows("end_user")) == [3, 3, 4]
    check(tenant, [app, other])


@all_habits
def test_all_rows_sent_again_by_an_app_that_lost_its_marks_are_unchanged(tenant: Tenant, habits: Habits) -> None:
    app = OldApp(tenant, habits)
    for number in range(5):
        app.create(name=f"row {number}", phoneModel={"a": number}, active=1)
    app.create("interactions", title="call", date="", followUpDone=0)
    settle([app])
    cursor = tenant.device().pull({"cursor": None})["cursor"]
    statuses = [result["status"] for answer in app.send_all_again() for result in answer["results"]]
    assert statuses == ["unchanged"] * 6
    assert tenant.device().pull({"cursor": None})["cursor"] == cursor


@pytest.mark.parametrize("minutes", [0, 330], ids=["clock right", "clock ahead"])
def test_push_sent_again_is_known_for_one_and_does_not_undo_what_another_device_made_of_it(
    tenant: Tenant, proxies: Callable[..., Proxy], minutes: int
) -> None:
    proxy = proxies()
    habits = Habits(form="B", version="counted", adopts=True, ahead_minutes=minutes)
    first, second = OldApp(tenant, habits, proxy.url), OldApp(tenant, Habits(form="B", version="counted", adopts=True))
    key = first.create(name="made")
    settle([first, second])
    first.edit(key, name="of the first")
    proxy.fail("answer_dropped", "/push")
    assert not first.sync()
    assert second.sync() and second.shown()[key]["name"] == "of the first"
    second.edit(key, name="of the second, who saw the first's")
    assert second.sync()
    assert first.sync()  # Everything again: the server has done it already.
    settle([first, second])
    assert first.shown()[key]["name"] == "of the second, who saw the first's"
    assert Truth(tenant).conflicts() == []
    check(tenant, [first, second])


def test_server_killed_as_a_push_comes_in_costs_an_old_app_nothing(
    start_server: Callable[..., Server], proxies: Callable[..., Proxy]
) -> None:
    server = start_server()
    tenant, proxy = server.register(), proxies(server)
    apps = [OldApp(tenant, habits, proxy.url) for habits in EACH_WITH_ITS_HABITS.values()]
    for number, app in enumerate(apps):
        key = app.create(name=f"typed before the kill {number}")
        proxy.fault_of = killing(server, number % 2 == 0)
        assert not app.sync()
        app.edit(key, note=f"typed while the server was away {number}")
        assert not app.sync()
        proxy.fail("none", "", 0)
        server.start()
        assert app.sync()
    settle(apps)
    assert len(apps[0].keys()) == len(apps) and Truth(tenant).conflicts() == []
    check(tenant, apps)


def killing(server: Server, at_once: bool) -> Callable[[str], str]:
    """Let the next push meet a server that dies: as it comes in, or after it was done and before the answer is heard."""

    def fault_of(address: str) -> str:
        if "/push" not in address or server.process is None or server.process.poll() is not None:
            return "none"
        if at_once:
            server.stop(signal.SIGKILL)
            return "none"
        threading.Thread(target=killed_when_written, args=(server,)).start()
        return "answer_dropped"

    return fault_of


def killed_when_written(server: Server) -> None:
    wait_for(lambda: any(line.get("path") == "/api/client/sync/push" for line in server.log), "the push to be logged")
    server.stop(signal.SIGKILL)


def test_busy_server_is_tried_again_and_all_is_there_once(start_server: Callable[..., Server]) -> None:
    tenant = start_server().register()
    app = OldApp(tenant, EACH_WITH_ITS_HABITS["all at once"])
    app.create(name="typed while another process holds the file")
    with closing(sqlite3.connect(tenant.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not app.sync() and app.pending()
        other.execute("ROLLBACK")
    settle([app])
    check(tenant, [app])
    assert [row["version"] for row in Truth(tenant).rows("end_user")] == [1]


# --- lastSync from the device's own clock ----------------------------------------------------------------------------


MINUTE = 60_000
DAY = 24 * 60 * MINUTE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ahead", "zone"),
    [(-330, ""), (-330, "Z"), (-7, "Z"), (0, "Z"), (4, ""), (4, "Z"), (330, ""), (840, "")],
    ids=lambda value: f"{value} minutes ahead" if isinstance(value, int) else f"zone {value!r}",
)
def test_device_that_pulls_by_its_own_clock_misses_nothing(
    tenants: Tenants,
    new_tenant: Callable[[], str],
    chance: random.Random,
    ahead: int,
    zone: str,
) -> None:
    """Days go by: rows are pushed at any moment, and the device pulls now after seconds, now after hours."""
    tenant_id, now, last_sync = new_tenant(), 1_800_000_000_000, None
    held: dict[str, JSON] = {}
    for number in range(300):
        now += chance.choice((10, 5_000, 10 * MINUTE, 3 * 60 * MINUTE, 20 * 60 * MINUTE))
        kind = chance.choice(("create", "update", "update", "delete"))
        data = {"Unique_id": f"u{chance.randrange(12)}", "name": f"n{number}"}
        inside.push(tenants, tenant_id, {"table": "end_user", "operation": kind, "data": data}, now)
        if chance.random() < 0.4:
            now += chance.choice((0, 1_000, MINUTE))
            answer = inside.pull(tenants, tenant_id, {"table": "end_user", "lastSync": last_sync}, now)
            for row in answer["data"]["end_user"]:
                held.pop(row["id"], None)
                held |= {} if row["is_deleted"] else {row["id"]: row}
            last_sync = format_time(now + ahead * MINUTE).removesuffix("Z") + zone
            assert held == {row["id"]: row for row in inside.rows(tenants, tenant_id)}, f"at {number}"


# --- stories ---------------------------------------------------------------------------------------------------------


@dataclass
class NewDevice:
    """A device of today: a cursor, operations with names, each with the version that its row had."""

    tenant: Tenant
    url: str
    name: str
    cursor: str | None = None
    rows: dict[str, JSON] = field(default_factory=dict)
    outbox: list[JSON] = field(default_factory=list)
    typed: set[Typed] = field(default_factory=set)

    def edit(self, rng: random.Random, number: int) -> None:
        """Change a field of some row, or make one."""
        row = self.rows[rng.choice(sorted(self.rows))] if self.rows and rng.random() < 0.8 else {}
        row_id, version = row.get("id", f"{self.name}-{number}"), row.get("version", 0)
        name, value = rng.choice((("name", f"new {number}"), ("note", f"new n{number}")))
        operation = {"table": "end_user", "operation": "update", "data": {"id": row_id, name: value}}
        self.outbox.append(operation | {"baseVersion": version, "opId": f"{self.name}-{number}"})
        self.typed.add(Typed("end_user", key_of(row) if row else row_id, name, json.dumps(value)))

    def sync(self) -> bool:
        """Send, fetch; False after any failure."""
        return self._push() and self._pull()

    def _push(self) -> bool:
        answer = self._ask("push", {"operations": self.outbox})
        if answer:
            self.outbox = []
        return answer is not None

    def _pull(self) -> bool:
        while answer := self._ask("pull", {"cursor": self.cursor, "entityTypes": ["end_user"], "limit": 7}):
            for row in answer["data"]["end_user"]:
                self.rows.pop(row["id"], None)
                self.rows |= {} if row["is_deleted"] else {row["id"]: row}
            self.cursor = answer["cursor"]
            if not answer["hasMore"]:
                return True
        return False

    def _ask(self, what: str, body: JSON) -> JSON | None:
        headers = {"Authorization": f"Bearer {self.tenant.token}", "X-Device-Id": self.name}
        try:
            answer = requests.post(f"{self.url}/api/client/sync/{what}", json=body, headers=headers, timeout=20)
            told: JSON = answer.json()
        except (requests.RequestException, ValueError):
            return None
        assert answer.ok, answer.text
        return told


@pytest.mark.slow
@pytest.mark.parametrize("pair", [(0, 3), (1, 2), (2, 3), (3, 3)], ids=lambda pair: " and ".join(map(str, pair)))
def test_old_and_new_devices_over_a_bad_network_end_equal_and_lose_nothing(
    tenant: Tenant,
    proxies: Callable[..., Proxy],
    chance: random.Random,
    pair: tuple[int, int],
) -> None:
    networks = [proxies() for _ in range(3)]
    habits = list(EACH_WITH_ITS_HABITS.values())
    apps = [OldApp(tenant, habits[one], network.url) for one, network in zip(pair, networks, strict=False)]
    new = NewDevice(tenant, networks[2].url, "new")
    devices: list[OldApp | NewDevice] = [*apps, new]
    for number in range(60):
        device, network = chance.choice(list(zip(devices, networks, strict=True)))
        if chance.random() < 0.6:
            random_edit(device, chance, number) if isinstance(device, OldApp) else device.edit(chance, number)
        else:
            network.fail(chance.choice(("none", "none", *FAULTS)), "/sync/", chance.choice((1, 2)))
            device.sync()
            network.fail("none", "", 0)
    settle(apps, lambda: wait_for(new.sync, "the new device's sync"))
    check(tenant, apps)
    truth, cursor = Truth(tenant), tenant.device().pull({"cursor": None})["cursor"]
    assert {key_of(row): seen("end_user", row) for row in new.rows.values()} == truth.shown()
    assert truth.missing(new.typed) == []
    for app in apps if apps[0].habits == apps[1].habits else []:  # Others write the same values otherwise.
        app.send_all_again()
    assert tenant.device().pull({"cursor": None})["cursor"] == cursor, "versions grew though nobody typed"
