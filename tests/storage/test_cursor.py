"""No device ever misses a change: random pushes and pulls against a model, cursors, times, pages, incarnations.

The seed of a run is printed; ``SEED=… pytest`` repeats it. Faults that were put into a copy of the repository are named
with the tests that failed there.
"""

from __future__ import annotations

import itertools
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from models import connection
from protocol.codec import format_time, parse_cursor, parse_time
from protocol.errors import ResyncRequired
from storage.positions import now_ms
from tenants import Tenants
from tests import inside
from tests.conftest import JSON, Device, Server

YEAR = 365 * 86_400_000
NOW = 1_800_000_000_000
TABLES = ("end_user", "interactions")
Pull = Callable[[JSON], JSON]
Rows = dict[str, dict[str, JSON]]


@dataclass
class Replica:
    """A device that keeps what it pulled, and looks at each answer as it comes.

    ``way``: it goes by the cursor, by the time of the answer, or now and then changes from one to the other.
    """

    pull: Pull
    tables: list[str]
    way: str = "cursor"
    most: int = 1000
    chance: random.Random = field(default_factory=random.Random)
    rows: Rows = field(default_factory=lambda: {name: {} for name in TABLES})
    cursor: str | None = None
    time: str | None = None
    seen: dict[tuple[str, str], int] = field(default_factory=dict)
    has_more: bool = True

    def step(self) -> JSON:
        """Pull once: a page by cursor, everything by time."""
        by_time = self.way == "time" or (self.way == "mixed" and self.time and self.chance.random() < 0.3)
        if by_time:
            self.seen.clear()
            body: JSON = {"lastSyncTimestamp": self.time or "1970-01-01T00:00:00.000Z", "entityTypes": self.tables}
        else:
            limit = self.chance.randint(1, self.most)
            body = {"cursor": self.cursor, "entityTypes": self.tables, "limit": limit}
        answer = self.pull(body)
        assert list(answer["data"]) == self.tables
        if not by_time:
            assert sum(map(len, answer["data"].values())) <= limit
        for table, rows in answer["data"].items():
            if self.cursor is None:
                assert not any(row["is_deleted"] for row in rows), "a first pull had tombstones"
            self._take(table, rows)
        self.cursor, self.time, self.has_more = answer["cursor"], answer["syncTimestamp"], answer["hasMore"]
        if not self.has_more:
            self.seen.clear()
        return answer

    def _take(self, table: str, rows: list[JSON]) -> None:
        times = [parse_time(row["updatedAt"], "updatedAt") for row in rows]
        assert times == sorted(times), "the rows are not in the order of their commits"
        for row in rows:
            key = table, row["id"]
            assert self.seen.get(key, 0) < row["version"], f"{key} came twice within one pull"
            self.seen[key] = row["version"]
            if row["is_deleted"]:
                self.rows[table].pop(row["id"], None)
            else:
                assert row["version"] >= self.rows[table].get(row["id"], row)["version"], "an older row came later"
                self.rows[table][row["id"]] = row

    def catch_up(self) -> Rows:
        while self.step()["hasMore"]:
            pass
        return self.rows


def fresh(pull: Pull) -> Rows:
    """What a new device gets in one pull."""
    data = pull({"lastSyncTimestamp": "1970-01-01T00:00:00Z"})["data"]
    assert not any(row["is_deleted"] for rows in data.values() for row in rows)
    return {name: {row["id"]: row for row in rows} for name, rows in data.items()}


def random_push(chance: random.Random, now: int) -> JSON:
    """Some changes of few rows, of a device whose clock is wrong by up to ten years."""
    operations = []
    for _ in range(chance.choice((1, 1, 1, 2, 5, 12))):
        kind = chance.choice(("create", "update", "update", "delete"))
        data = {"id": f"r{chance.randrange(15)}", "name": chance.choice("ABCD"), "last_updated": str(now)}
        operation: JSON = {"table": chance.choice(TABLES), "operation": kind, "data": data}
        if chance.random() < 0.5:
            operation["timestamp"] = format_time(now + chance.randint(-10 * YEAR, 10 * YEAR))
        if chance.random() < 0.3:
            operation["baseVersion"] = chance.randrange(6)
        operations.append(operation)
    return {"operations": operations}


# --- in this process -------------------------------------------------------------------------------------------------


class World:
    """One tenant, its server's clock, and what its log says."""

    def __init__(self, tenants: Tenants, tenant_id: str) -> None:
        self.tenants, self.id, self.now = tenants, tenant_id, NOW

    def push(self, body: JSON) -> Any:
        return inside.push(self.tenants, self.id, body, self.now)

    def pull(self, body: JSON) -> JSON:
        return inside.pull(self.tenants, self.id, body, self.now)

    def sql(self, sql: str, *values: object) -> list[Any]:
        return self.tenants.write(self.id, lambda: connection().execute(sql, values).fetchall())

    def expected(self, since: int, tables: list[str]) -> list[tuple[str, str]]:
        """Table and id of each row whose latest change came after ``since``, in the order of the log."""
        latest: dict[tuple[str, str], int] = {}
        for table, row_id, sequence in self.sql("SELECT table_name, row_id, seq FROM _changes ORDER BY seq"):
            latest[table, row_id] = sequence
        after = sorted((seq, key) for key, seq in latest.items() if seq > since and key[0] in tables)
        return [key for _, key in after]


@pytest.fixture
def world(tenants: Tenants, new_tenant: Callable[[], str]) -> World:
    return World(tenants, new_tenant())


@pytest.mark.slow
def test_random_pushes_and_pulls_leave_every_device_equal_to_the_server(world: World, chance: random.Random) -> None:
    """The server's own clock jumps by years, back too.

    Faults: ``>=`` for ``>`` in ``_WANTED``; each table cut for itself; ``at = now`` for ``max(now, clock + 1)``; the
    time of a cut page without ``- 1``; ``LIMIT 1`` in ``_cut``; ``until`` not kept to: rows came twice or were missing.
    """
    replicas = [
        Replica(world.pull, tables, way, most, chance)
        for way in ("cursor", "time", "mixed")
        for tables in (list(TABLES), ["interactions"], ["interactions", "end_user"])
        for most in (1, 4, 40)
    ]
    for turn in range(1200):
        if turn % 100 == 99:
            world.now = NOW + chance.randint(-5 * YEAR, 5 * YEAR)
        world.now += chance.choice((0, 0, 1, 50, 400_000))
        if chance.random() < 0.4:
            before = world.push(random_push(chance, world.now))
            assert before.after.clock > before.before.clock or before.after == before.before
        replica = chance.choice(replicas)
        place = parse_cursor(replica.cursor) if replica.cursor else None
        way, replica.way = replica.way, chance.choice(("cursor", "time")) if replica.way == "mixed" else replica.way
        answer = replica.step()
        if replica.way == "cursor" and place and not place.first_until:
            given = {(table, row["id"]) for table, rows in answer["data"].items() for row in rows}
            expected = world.expected(place.sequence, replica.tables)
            assert given == set(expected[: len(given)]) and answer["hasMore"] == (len(given) < len(expected))
        replica.way = way
    for number in range(10):
        replicas.append(Replica(world.pull, list(TABLES), "cursor", number + 1, chance))
    whole = fresh(world.pull)
    for replica in replicas:
        replica.catch_up()
        assert {name: replica.rows[name] for name in replica.tables} == {name: whole[name] for name in replica.tables}
        assert replica.step()["data"] == {name: [] for name in replica.tables}, "a pull of nothing new must be empty"


def test_versions_rise_by_one_and_times_from_commit_to_commit(world: World, chance: random.Random) -> None:
    """Fault: ``at = now`` for ``max(now, clock + 1)``: two commits had one time."""
    times = []
    for turn in range(300):
        world.now += chance.choice((0, 0, 0, 1, -1, -YEAR, YEAR // 2))
        applied = world.push(random_push(chance, world.now))
        if applied.touched:
            times.append(applied.after.clock)
            rows = world.sql("SELECT DISTINCT committed_at FROM _changes WHERE seq > ?", applied.before.sequence)
            assert rows == [(applied.after.clock,)], turn
    assert times == sorted(set(times))
    versions: dict[tuple[str, str], int] = {}
    for sequence, (table, row_id, version) in enumerate(
        world.sql("SELECT table_name, row_id, version FROM _changes ORDER BY seq")
    ):
        assert version == versions.get((table, row_id), 0) + 1, sequence
        versions[table, row_id] = version


def test_commits_of_one_millisecond_are_told_apart_by_time(world: World) -> None:
    """Fault: ``at = now``: the second row was missing."""
    first = world.push({"changes": {"end_user": [{"id": "a"}]}})
    world.push({"changes": {"end_user": [{"id": "b"}]}})
    answer = world.pull({"table": "end_user", "lastSync": format_time(first.after.clock)})
    assert [row["id"] for row in answer["data"]["end_user"]] == ["b"]


@pytest.mark.parametrize("ahead", [1, 999, 60_000, YEAR, 50 * YEAR])
def test_time_in_the_future_gets_everything(world: World, ahead: int) -> None:
    """Fault: without the look at the future: nothing came, for years."""
    world.push({"changes": {"end_user": [{"id": "a"}, {"id": "b"}]}})
    world.push({"changes": {"end_user": [{"id": "b", "is_deleted": 1}]}})
    world.now += 5
    answer = world.pull({"table": "end_user", "lastSync": format_time(world.now + ahead)})
    assert [row["id"] for row in answer["data"]["end_user"]] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("behind", [0, 1, 1000, 60_000, 3_600_000, YEAR])
def test_device_that_goes_by_its_own_clock_which_is_behind_misses_nothing(
    world: World, chance: random.Random, behind: int
) -> None:
    replica = Replica(world.pull, list(TABLES), "time", chance=chance)
    for _ in range(150):
        world.now += chance.choice((1, 1, 7, 300, 90_000))
        world.push(random_push(chance, world.now))
        if chance.random() < 0.3:
            replica.step()
            replica.time = format_time(world.now - behind)
    world.now += 1
    replica.step()
    assert replica.rows == fresh(world.pull)


def test_own_clock_ahead_within_the_margin_misses_nothing(world: World) -> None:
    world.push({"changes": {"end_user": [{"id": "a"}]}})
    pulled_at = world.now + 1
    for number in range(20):
        world.now += 15_000
        world.push({"changes": {"end_user": [{"id": f"later-{number}"}]}})
    world.now += 10 * 60_000
    answer = world.pull({"table": "end_user", "lastSync": format_time(pulled_at + inside.SKEW_MS - 17)})
    assert len(answer["data"]["end_user"]) >= 20


@pytest.mark.parametrize(("limit", "pages"), [(1, [1] * 7), (3, [3, 3, 1]), (6, [6, 1]), (7, [7]), (8, [7])])
def test_pages_hold_the_limit_and_the_last_says_so(world: World, limit: int, pages: list[int]) -> None:
    """Fault: ``LIMIT 1`` in ``_cut`` (is there a row at the limit?): a last, empty page."""
    rows = [{"id": f"r{number}"} for number in range(4)]
    world.push({"changes": {"interactions": rows, "end_user": rows[:3]}})
    found: list[int] = []
    answer: JSON = {"cursor": None, "hasMore": True}
    while answer["hasMore"]:
        answer = world.pull({"cursor": answer["cursor"], "limit": limit})
        found.append(sum(map(len, answer["data"].values())))
    assert found == pages


def test_pages_go_through_the_tables_in_the_order_of_commits(world: World) -> None:
    """Fault: each table cut for itself: rows of the other table before the cut were missing."""
    for number in range(6):
        world.push({"changes": {TABLES[number % 2]: [{"id": f"r{number}"}]}})
    cursor, pages = None, []
    for _ in range(3):
        answer = world.pull({"cursor": cursor, "limit": 2})
        pages.append({name: [row["id"] for row in rows] for name, rows in answer["data"].items()})
        cursor = answer["cursor"]
    assert pages == [{"end_user": [f"r{n}"], "interactions": [f"r{n + 1}"]} for n in (0, 2, 4)]


@pytest.mark.parametrize("commits", [1, 6])
def test_time_of_a_page_that_was_cut_is_safe_as_the_next_time(world: World, commits: int) -> None:
    """Also where the cut is within a commit. Fault: ``- 1`` left out of ``page_of``: the rest of the commit was missing."""
    for number in range(commits):
        world.push({"changes": {"end_user": [{"id": f"r{number}-{part}"} for part in range(6 // commits)]}})
    page = world.pull({"cursor": None, "limit": 4})
    rest = world.pull({"table": "end_user", "lastSync": page["syncTimestamp"]})
    got = [row["id"] for answer in (page, rest) for row in answer["data"]["end_user"]]
    assert page["hasMore"] and len(set(got)) == 6


def test_first_pull_over_pages_has_tombstones_only_of_what_it_gave(world: World) -> None:
    """Fault: ``first_until`` not in the cursor: old tombstones came with the second page."""
    rows = [{"id": f"r{number}"} for number in range(6)]
    world.push({"changes": {"end_user": rows}})
    world.push({"changes": {"end_user": [{"id": "r5", "is_deleted": 1}]}})
    first = world.pull({"cursor": None, "limit": 2})
    world.push({"changes": {"end_user": [{"id": "r0", "is_deleted": 1}, {"id": "r1", "name": "new"}]}})
    rest = world.pull({"cursor": first["cursor"], "limit": 100})
    assert [row["id"] for row in first["data"]["end_user"]] == ["r0", "r1"]
    assert [(row["id"], row["is_deleted"]) for row in rest["data"]["end_user"]] == [
        ("r2", 0), ("r3", 0), ("r4", 0), ("r0", 1), ("r1", 0),
    ]  # fmt: skip


def test_cursor_of_another_incarnation_or_beyond_its_end_is_refused(world: World) -> None:
    """Fault: the epoch not compared: an empty answer."""
    cursor = world.push({"changes": {"end_user": [{"id": "a"}]}}).after.cursor
    epoch, _ = cursor.split("-")
    assert world.pull({"cursor": cursor})["data"]["end_user"] == []
    for foreign in (f"{epoch}-2", f"{epoch}-999999999999999999", "0123456789ab-1", "0123456789ab-0"):
        with pytest.raises(ResyncRequired):
            world.pull({"cursor": foreign})
    world.sql("UPDATE _meta SET epoch = '0123456789ab'")
    with pytest.raises(ResyncRequired):
        world.pull({"cursor": cursor})
    assert len(world.pull({"cursor": None})["data"]["end_user"]) == 1


# --- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pushing(device: Device, chance: random.Random) -> Iterator[Callable[[], None]]:
    """Push from four threads until the call, or the test, ends it."""
    stop, failed = threading.Event(), []

    def push(seed: int) -> None:
        own = random.Random(seed)
        try:
            while not stop.is_set():
                device.tenant.device().push(random_push(own, now_ms()))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=push, args=(chance.randrange(10**9),)) for _ in range(4)]

    def end() -> None:
        stop.set()
        for thread in threads:
            thread.join()
        assert failed == []

    for thread in threads:
        thread.start()
    yield end
    end()


@pytest.mark.slow
def test_devices_that_pull_while_others_push_miss_nothing(
    device: Device, pushing: Callable[[], None], chance: random.Random
) -> None:
    """By pages, by time and both, while pushes go on. Fault: ``>=`` for ``>``; each table cut for itself."""
    replicas = [
        Replica(device.tenant.device().pull, list(tables), way, most, random.Random(chance.random()))
        for way in ("cursor", "time", "mixed")
        for tables in (TABLES, TABLES[:1])
        for most in (2, 30)
    ]
    for _ in range(10):
        for replica in replicas:
            replica.step()
    pushing()
    whole = fresh(device.pull)
    assert sum(map(len, whole.values())) > 5
    for replica in replicas:
        replica.catch_up()
        assert {name: replica.rows[name] for name in replica.tables} == {name: whole[name] for name in replica.tables}


def test_long_paged_pull_amid_pushes_ends_equal_to_the_server(
    device: Device, pushing: Callable[[], None], chance: random.Random
) -> None:
    device.push({"changes": {"end_user": [{"id": f"r{n}", "note": "x" * 200} for n in range(600)]}})
    replica = Replica(device.pull, list(TABLES), "cursor", 40, chance)
    for _ in range(40):
        replica.step()
    pushing()
    assert replica.catch_up() == fresh(device.pull)


def test_answer_that_is_streamed_amid_pushes_has_each_row_once(device: Device, pushing: Callable[[], None]) -> None:
    device.push({"changes": {"end_user": [{"id": f"r{n}", "note": "x" * 500} for n in range(2000)]}})
    replica = Replica(device.pull, list(TABLES), "time")
    for _ in range(5):
        replica.time = replica.cursor = None
        replica.rows = {name: {} for name in TABLES}
        replica.step()
        assert len(replica.rows["end_user"]) > 1900
    pushing()
    replica.step()
    assert replica.rows == fresh(device.pull)


@pytest.mark.slow
def test_restored_or_new_file_refuses_the_cursors_of_the_old_one(start_server: Callable[..., Server]) -> None:
    """Fault: the epoch not compared: an empty answer. Fault: the sequence not compared: the same."""
    server = start_server()
    tenant = server.register()
    device, other = tenant.device(), server.register()
    other.device().push({"changes": {"end_user": [{"id": f"r{number}"} for number in range(9)]}})
    old = device.push({"changes": {"end_user": [{"id": "a"}]}})["cursor"]
    assert server.stop() == 0
    copy = shutil.copy(tenant.path, server.data / "copy.db")
    server.start()
    new = device.push({"changes": {"end_user": [{"id": "b"}]}})["cursor"]
    assert server.stop() == 0
    shutil.copy(copy, tenant.path)
    server.start()
    beyond = device.pull_raw({"cursor": new})
    assert (beyond.status_code, beyond.json()["code"]) == (410, "resync_required")
    assert [row["id"] for row in device.pull({"cursor": None})["data"]["end_user"]] == ["a"]
    assert server.stop() == 0
    shutil.copy(other.path, tenant.path)  # It has more commits than the old one had.
    server.start()
    replaced = device.pull_raw({"cursor": old})
    assert (replaced.status_code, replaced.json()["code"]) == (410, "resync_required")


def test_pulls_of_both_dialects_name_one_place(device: Device) -> None:
    for number in range(3):
        device.create(id=f"r{number}")
    answers = [
        device.pull(body)
        for body in (
            {"cursor": None},
            {"table": "end_user", "lastSync": "1970-01-01T00:00:00Z"},
            {"cursor": None, "limit": 3},
        )
    ]
    for one, two in itertools.pairwise(answers):
        assert [one[name] for name in ("cursor", "syncTimestamp", "hasMore")] == [
            two[name] for name in ("cursor", "syncTimestamp", "hasMore")
        ]
        assert one["data"]["end_user"] == two["data"]["end_user"]
