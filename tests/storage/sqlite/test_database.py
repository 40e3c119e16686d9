"""Group commit, locks, full disks and kill -9: an answered write is on disk, and a failed one is nowhere.

The faults named below were put into a copy of ``storage/sqlite/database.py``; the tests named with them failed there.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import gevent
import pytest
import requests
from gevent.monkey import get_original

from models import connection
from protocol.errors import Busy, StorageFull
from server import disk_threads
from storage.sqlite import database
from storage.sqlite.database import SQLiteDatabase
from tenants import Tenants
from tests import inside
from tests.conftest import Server
from tests.data_folder import path_of
from tests.inside import caught, together
from tests.storage.sqlite.words import insert, prepare, words

native_ident: Callable[[], int] = get_original("_thread", "get_ident")

HOLD_LOCK = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
db.execute("ROLLBACK")
"""


@pytest.fixture
def commits(store: SQLiteDatabase) -> list[float]:
    """When this store committed something, as SQLite's own hook tells."""
    times: list[float] = []

    def hook() -> bool:
        times.append(time.monotonic())
        return False

    store._writer.conn.set_commit_hook(hook)
    return times


@pytest.fixture
def hold_lock(store: SQLiteDatabase) -> Iterator[Callable[[float], None]]:
    """Let another process hold the file's write lock for some seconds."""
    processes: list[subprocess.Popen[bytes]] = []

    def hold(seconds: float) -> None:
        command = [sys.executable, "-c", HOLD_LOCK, str(store.path), str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"locked\n"

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


# --- where it waits for the disk ------------------------------------------------------------------------------------


class Timed:
    """A clock, and a disk on which each commit takes as long as is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.took_seconds = 1000.0, 0.0
        self.disk = disk_threads.Disk()
        self.in_loop: list[bool] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self._loop = native_ident()

    def _work(self) -> None:
        self.in_loop.append(native_ident() == self._loop)
        self.now += self.took_seconds

    def commit(self) -> bool:
        """Commit, and tell whether the event loop waited for it."""
        self.disk.at_once(self._work)
        return self.in_loop[-1]


def test_disk_that_is_slow_holds_up_the_loop_for_a_hundredth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: ``_slow_until`` never set: each of the slow commits was made in the loop."""
    timed = Timed(monkeypatch)
    assert [timed.commit() for _ in range(3)] == [True] * 3
    timed.took_seconds = 0.05
    began, held_up_seconds = timed.now, 0.0
    while timed.now < began + 60:
        if timed.commit():
            held_up_seconds += timed.took_seconds
    assert 0 < held_up_seconds <= 0.015 * 60
    timed.took_seconds = 0.0
    timed.now += 6
    assert timed.commit(), "a disk that is fast again"


def test_large_commit_does_not_hold_up_the_loop(store: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noting(where: str) -> Callable[[Callable[[], object]], object]:
        return lambda work: work() if done.append(where) is None else None  # type: ignore[func-returns-value]

    for where in ("at_once", "in_thread"):
        monkeypatch.setattr(disk_threads.disk, where, noting(where))
    store.write(lambda: [insert(f"w{n}") for n in range(100)])
    store.write(lambda: [insert(f"w{n}") for n in range(101)])
    assert done == ["at_once", "in_thread"]


def test_checkpoint_comes_after_the_answer(store: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: no checkpoint of ours: the write-ahead log grew to 200 pages, since SQLite's own is replaced by ours."""
    monkeypatch.setattr(database, "_CHECKPOINT_PAGES", 20)
    for number in range(100):
        store.write(lambda: insert(f"w{number}"))
    store.wait()
    assert store._wal_pages < 20 and Path(f"{store.path}-wal").stat().st_size < 30 * 4200


# --- group commit ----------------------------------------------------------------------------------------------------


def test_one_write_alone_is_one_commit(store: SQLiteDatabase, commits: list[float]) -> None:
    store.write(lambda: insert("alone"))
    assert len(commits) == 1


def test_write_of_nothing_waits_for_no_disk(store: SQLiteDatabase, commits: list[float]) -> None:
    """Fault: always COMMIT: the hook was called."""
    assert store.write(lambda: 5) == 5
    assert commits == []


def test_push_that_changes_nothing_waits_for_no_disk(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    tenant_id, body = new_tenant(), {"changes": {"end_user": [{"id": "a", "name": "A"}]}}
    inside.push(tenants, tenant_id, body)
    wal = Path(f"{path_of(tenants, tenant_id)}-wal")
    before = wal.read_bytes()
    assert inside.push(tenants, tenant_id, body).results[0]["status"] == "unchanged"
    assert wal.read_bytes() == before


# --- when it can't be done -------------------------------------------------------------------------------------------


def test_lock_of_another_process_is_waited_for_while_the_loop_runs(
    store: SQLiteDatabase, hold_lock: Callable[[float], None]
) -> None:
    """Fault: ``set_busy_timeout(5000)``: the ticker stood still for as long as the lock was held."""
    hold_lock(0.6)
    ticks: list[float] = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.01)

    ticker = gevent.spawn(tick)
    began = time.monotonic()
    assert store.write(lambda: insert("a")) == 1
    took = time.monotonic() - began
    ticker.kill()
    assert took > 0.3
    assert len(ticks) >= 5, "the loop went on meanwhile"


def test_lock_held_for_too_long_is_busy_and_the_next_write_works(
    store: SQLiteDatabase, hold_lock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_SECONDS", 0.1)
    hold_lock(0.8)
    found = together(lambda: store.write(lambda: insert("a")), lambda: store.write(lambda: insert("b")))
    assert [type(result) for result in found] == [Busy, Busy]
    assert store.read(words) == []
    gevent.sleep(1.0)
    store.write(lambda: insert("c"))
    assert store.read(words) == ["c"]


def test_file_of_an_older_schema_that_is_locked_is_busy(
    store: SQLiteDatabase, hold_lock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_SECONDS", 0.1)
    hold_lock(0.5)
    with pytest.raises(Busy):
        SQLiteDatabase.open(store.path, prepare, 2)


def test_full_disk_is_storage_full_and_later_writes_work(store: SQLiteDatabase) -> None:
    pages = store.write(lambda: connection().pragma("page_count"))
    store.write(lambda: connection().pragma("max_page_count", pages + 3))
    with pytest.raises(StorageFull):
        store.write(lambda: [insert("x" * 2000) for _ in range(100)])
    assert store.read(words) == []
    store.write(lambda: connection().pragma("max_page_count", 1_000_000))
    store.write(lambda: [insert("x" * 2000) for _ in range(100)])
    assert len(store.read(words)) == 100


def test_full_disk_tells_all_of_a_group_the_truth(store: SQLiteDatabase) -> None:
    """Whoever is answered is stored, and whoever is told of a full disk is not."""
    pages = store.write(lambda: connection().pragma("page_count"))
    store.write(lambda: connection().pragma("max_page_count", pages + 6))
    found = together(*[lambda n=n: store.write(lambda: insert(f"w{n}" + "x" * 1500)) for n in range(40)])
    stored = {word.rstrip("x") for word in store.read(words)}
    assert {f"w{n}" for n, result in enumerate(found) if isinstance(result, int)} == stored
    assert {type(result) for result in found} <= {int, StorageFull} and StorageFull in map(type, found)


def test_full_disk_under_peewee_is_storage_full_too(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    tenant_id = new_tenant()
    pages = tenants.write(tenant_id, lambda: connection().pragma("page_count"))
    tenants.write(tenant_id, lambda: connection().pragma("max_page_count", pages + 2))
    big = {"changes": {"end_user": [{"id": f"r{n}", "note": "x" * 4000} for n in range(200)]}}
    with pytest.raises(StorageFull):
        inside.push(tenants, tenant_id, big)
    tenants.write(tenant_id, lambda: connection().pragma("max_page_count", 1_000_000))
    assert len(inside.push(tenants, tenant_id, big).results) == 200


def test_preparing_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        prepare()
        insert("half")
        raise ValueError

    with pytest.raises(ValueError):
        SQLiteDatabase.open(tmp_path / "a.db", fail, 1)
    store = SQLiteDatabase.open(tmp_path / "a.db", prepare, 1)
    assert store.read(words) == []
    store.close()


def test_failure_within_a_half_read_statement_leaves_the_connection_free(store: SQLiteDatabase) -> None:
    """Fault: ``clear_frames`` left out: as long as the failure lived, the reader saw nothing that came later."""

    def fail() -> None:
        rows = connection().execute("SELECT word FROM t")
        raise ValueError(next(rows))

    store.write(lambda: [insert("one"), insert("two")])
    kept = [caught(lambda: store.read(fail)), caught(lambda: store.write(fail))]
    with closing(apsw.Connection(str(store.path))) as other:  # sqlite3, another copy of SQLite here, drops our locks.
        other.execute("INSERT INTO t (word) VALUES ('three')")
    store.write(lambda: insert("four"))
    assert store.read(words) == ["one", "two", "three", "four"] and len(kept) == 2


# --- connections -----------------------------------------------------------------------------------------------------


def test_files_are_in_wal_mode_with_full_synchronisation_and_for_the_owner_only(store: SQLiteDatabase) -> None:
    """Fault: ``synchronous`` set to normal."""

    def pragmas() -> list[Any]:
        return [connection().pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys")]

    assert store.write(pragmas) == ["wal", 2, 1]
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert Path(f"{store.path}-wal").stat().st_mode & 0o777 == 0o600


def test_wait_ends_when_the_last_write_is_on_disk(store: SQLiteDatabase) -> None:
    for n in range(10):
        gevent.spawn(store.write, lambda n=n: (insert(f"w{n}"), gevent.sleep(0.005)))
    gevent.sleep(0)
    store.wait()
    assert len(store.read(words)) == 10


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_answered_push_outlives_kill_9(start_server: Callable[..., Server]) -> None:
    """Fault: answered before COMMIT, which comes 50 ms later: rows that had been answered were missing."""
    server = start_server()
    tenant = server.register()
    answered: set[str] = set()
    for turn in range(10):
        stop = threading.Event()

        def pushes(name: str, stop: threading.Event = stop) -> None:
            device = tenant.device()
            for number in itertools.count():
                try:
                    body = {"changes": {"end_user": [{"id": f"{name}-{number}-{part}"} for part in range(3)]}}
                    answered.update(row["id"] for row in device.push(body)["data"])
                except (requests.RequestException, AssertionError):
                    return
                if stop.is_set():
                    return

        threads = [threading.Thread(target=pushes, args=(f"{turn}-{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.05, 0.3))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        server.start()
        stored = {row["id"] for row in tenant.device().rows()}
        assert answered <= stored
        assert all(sum(f"{row.rsplit('-', 1)[0]}-{part}" in stored for part in range(3)) == 3 for row in stored)
    assert len(answered) > 100
