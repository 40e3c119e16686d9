"""Files that are closed to make room leave their write-ahead logs: nothing answered is lost, and all logs go in the end.

The faults named below were put into a copy of ``storage/sqlite``; the tests named with them failed there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest
from gevent.event import Event

from operations.file_monitor import FileMonitor
from protocol.errors import StorageFull
from server.disk_threads import disk
from storage.positions import incarnation
from storage.sqlite import left_logs
from storage.sqlite.database import Identity
from storage.sqlite.engine import SQLiteEngine
from storage.sqlite.files import faults_of
from tenants import Tenants
from tests import inside
from tests.conftest import Server, wait_for
from tests.customers import customer
from tests.data_folder import engine_of, folder_of, opened, path_of


@pytest.fixture
def tenants(tmp_path: Path) -> Iterator[Tenants]:
    """A data folder in which one tenant at a time is open."""
    tenants = opened(tmp_path / "data", most_open=1)
    yield tenants
    tenants.close()


def push(tenants: Tenants, tenant_id: str, *names: str) -> None:
    inside.push(tenants, tenant_id, {"changes": {"end_user": [{"id": name, "name": name} for name in names]}})


def names(tenants: Tenants, tenant_id: str) -> list[str]:
    return [row["id"] for row in inside.rows(tenants, tenant_id)]


def wal(tenants: Tenants, tenant_id: str) -> Path:
    return Path(f"{path_of(tenants, tenant_id)}-wal")


def logs(tenants: Tenants) -> list[str]:
    return [path.name for path in folder_of(tenants).tenants.iterdir() if path.suffix != ".db"]


def left(tenants: Tenants) -> left_logs.LeftLogs:
    return engine_of(tenants).files.left_logs


def with_log(tenants: Tenants, new_tenant: Callable[[], str], *words: str) -> str:
    """Make a tenant with these rows, and close it."""
    tenant_id = new_tenant()
    push(tenants, tenant_id, *words)
    push(tenants, new_tenant(), "others")
    assert tenant_id in left(tenants)
    return tenant_id


class PausedDisk:
    """Logs that are not taken in until they may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came, self.gate = Event(), Event()
        monkeypatch.setattr(left_logs, "disk", self)

    def in_thread(self, work: Callable[[], object]) -> object:
        self.came.set()
        self.gate.wait()
        return disk.in_thread(work)


# --- left, and gone on with ------------------------------------------------------------------------------------------


def test_closing_to_make_room_writes_nothing_into_the_file(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    """Fault: ``close`` in place of ``leave``: the file was another."""
    tenant_id = new_tenant()
    before = path_of(tenants, tenant_id).read_bytes()
    push(tenants, tenant_id, "a")
    push(tenants, new_tenant(), "b")
    assert path_of(tenants, tenant_id).read_bytes() == before and wal(tenants, tenant_id).stat().st_size


def test_file_whose_log_is_in_it_leaves_none(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    """Fault: left whatever was in it: a log of no bytes beside each tenant that is only read."""
    ids = [new_tenant(), new_tenant()]
    for tenant_id in ids:
        assert names(tenants, tenant_id) == []
    assert len(left(tenants)) == 0 and len(logs(tenants)) == 2, "that of the open one"


def test_log_is_gone_on_with_as_often_as_its_file_is_opened(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    """Fault: a log that was there at the opening counted as none: the second read took it in at its end."""
    ids = [new_tenant() for _ in range(3)]
    for turn in range(4):
        for tenant_id in ids:
            push(tenants, tenant_id, f"r{turn}")
        for tenant_id in ids:
            assert names(tenants, tenant_id) == [f"r{one}" for one in range(turn + 1)]
    assert [tenant_id in left(tenants) for tenant_id in ids] == [True, True, False]


def test_read_in_parts_goes_on_though_its_tenant_is_closed_between_them(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: logs removed with the closing: rows were missing."""
    tenant_id, other = new_tenant(), new_tenant()
    push(tenants, tenant_id, *(f"r{number:02}" for number in range(50)))
    closed, add = list[str](), left(tenants).add

    def spy(one: str, path: Path, file: Identity, size_bytes: int) -> None:
        closed.append(one)
        add(one, path, file, size_bytes)

    monkeypatch.setattr(left(tenants), "add", spy)
    between = SimpleNamespace(sleep=lambda _: tenants.read(other, incarnation))
    monkeypatch.setattr(inside, "gevent", between)
    assert names(tenants, tenant_id) == [f"r{number:02}" for number in range(50)]
    assert closed.count(tenant_id) > 5


@pytest.mark.slow
def test_answered_push_to_a_tenant_that_was_closed_survives_kill_9(start_server: Callable[..., Server]) -> None:
    """Fault: logs removed with the closing: the first push was gone."""
    server = start_server(OPEN_TENANTS="1")
    ones = [server.register() for _ in range(3)]
    for turn in range(2):
        for one in ones:
            one.device().create(id=f"r{turn}", name="answered")
    assert all(Path(f"{one.path}-wal").exists() for one in ones)
    server.kill()
    server.start()
    for one in ones:
        assert {row["id"] for row in one.device().rows()} == {"r0", "r1"}
    assert server.stop() == 0
    assert [faults_of(one.path) for one in ones] == [[], [], []]


# --- taken in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["quiet", "large"])
def test_log_is_taken_in_and_removed_when_its_tenant_is_quiet_or_it_is_large(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Fault: no ``tidy``: it stayed."""
    monkeypatch.setattr(left_logs, "_LARGE_BYTES" if why == "large" else "_QUIET_SECONDS", 0)
    tenant_id = new_tenant()
    push(tenants, tenant_id, "a", "b")
    names(tenants, new_tenant())
    if why == "quiet":
        engine_of(tenants).maintain()
    wait_for(lambda: not wal(tenants, tenant_id).exists(), "the log to go")
    assert tenant_id not in left(tenants) and names(tenants, tenant_id) == ["a", "b"]


def test_log_of_a_tenant_that_was_busy_a_moment_ago_stays(tenants: Tenants, new_tenant: Callable[[], str]) -> None:
    tenant_id = with_log(tenants, new_tenant, "a")
    engine_of(tenants).maintain()
    gevent.sleep(0.05)
    assert tenant_id in left(tenants) and wal(tenants, tenant_id).exists()


@pytest.mark.parametrize("bound", ["number", "bytes"])
def test_logs_that_are_left_are_bounded(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """Fault: ``is_full`` always false: nine. Fault: never many: four stayed."""
    size_bytes = wal(tenants, with_log(tenants, new_tenant, "a")).stat().st_size
    left(tenants).take_all_in()
    monkeypatch.setattr(
        left_logs, "_MOST" if bound == "number" else "_MOST_BYTES", 4 * (bound == "number" or size_bytes)
    )
    paused, ids = PausedDisk(monkeypatch), [new_tenant() for _ in range(10)]
    for tenant_id in ids:
        push(tenants, tenant_id, "a")
    assert 4 <= sum(wal(tenants, tenant_id).exists() for tenant_id in ids) <= 6
    paused.gate.set()
    wait_for(lambda: len(left(tenants)) <= 2, "the oldest to be taken in")
    assert all(names(tenants, tenant_id) == ["a"] for tenant_id in ids)


def test_end_leaves_no_log(tenants: Tenants, new_tenant: Callable[[], str], tmp_path: Path) -> None:
    """Fault: no ``take_all_in``."""
    ids = [new_tenant() for _ in range(20)]
    for tenant_id in ids:
        push(tenants, tenant_id, "a")
    assert len(left(tenants)) == 19
    tenants.close()
    assert logs(tenants) == []
    again = opened(tmp_path / "data")
    assert all(names(again, tenant_id) == ["a"] for tenant_id in ids)
    again.close()


def test_log_that_can_not_be_taken_in_stays_and_is_tried_again(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: forgotten when it failed: it stayed for ever."""
    tenant_id = with_log(tenants, new_tenant, "a")
    with monkeypatch.context() as full:
        full.setattr(left_logs, "take_log_in", lambda _: (_ for _ in ()).throw(StorageFull()))
        left(tenants).take_in(tenant_id)
    assert tenant_id in left(tenants) and names(tenants, tenant_id) == ["a"]
    push(tenants, new_tenant(), "b")
    left(tenants).take_in(tenant_id)
    assert not wal(tenants, tenant_id).exists() and names(tenants, tenant_id) == ["a"]


def test_log_that_can_not_be_put_aside_stays_and_the_others_are_taken_in_at_the_end(
    tenants: Tenants, new_tenant: Callable[[], str], tmp_path: Path
) -> None:
    """Fault: what failed before the log's turn ended the end of the server: main.db stayed open, and the folder locked."""
    ids = [with_log(tenants, new_tenant, "a") for _ in range(3)]
    path_of(tenants, ids[0]).rename(tmp_path / "away.db")
    folder_of(tenants).replaced.touch()  # No folder can be made there.
    tenants.close()
    assert [wal(tenants, tenant_id).exists() for tenant_id in ids] == [True, False, False]
    opened(tmp_path / "data").close()


def test_tenant_that_comes_back_while_its_log_is_taken_in_waits_for_that(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: no ``wait_for`` before the opening: it was open, and the log about to be taken in under it."""
    tenant_id = with_log(tenants, new_tenant, "a")
    paused = PausedDisk(monkeypatch)
    taking = gevent.spawn(left(tenants).take_in, tenant_id)
    paused.came.wait()
    using = [gevent.spawn(push, tenants, tenant_id, "b"), gevent.spawn(names, tenants, tenant_id)]
    gevent.sleep(0.05)
    assert not any(one.ready() for one in using) and tenant_id not in engine_of(tenants).files
    paused.gate.set()
    gevent.joinall([taking, *using], raise_error=True)
    assert names(tenants, tenant_id) == ["a", "b"]


def test_tenants_that_come_and_go_while_logs_are_taken_in_lose_nothing(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_logs, "_LARGE_BYTES", 0)
    ids = [new_tenant() for _ in range(4)]

    def use(number: int) -> None:
        for turn in range(15):
            tenant_id = ids[(number + turn) % len(ids)]
            push(tenants, tenant_id, f"{number}-{turn}")
            assert f"{number}-{turn}" in names(tenants, tenant_id)

    gevent.joinall([gevent.spawn(use, number) for number in range(4)], raise_error=True)
    assert sum(len(names(tenants, tenant_id)) for tenant_id in ids) == 4 * 15
    tenants.close()
    assert logs(tenants) == [] and [faults_of(path_of(tenants, one)) for one in ids] == [[]] * 4


# --- others who look at files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_under_way", [False, True])
def test_closing_an_account_leaves_no_file_of_it(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch, is_under_way: bool
) -> None:
    """Fault: a closing that does not wait for who takes the log in: that one met no file."""
    ones = [customer(f"{number}@example.com") for number in range(2)]
    for one in ones:
        tenants.provision(one)
        push(tenants, one.id, "a")
    paused = PausedDisk(monkeypatch)
    working = [gevent.spawn(left(tenants).take_in, ones[0].id)] if is_under_way else []
    gevent.sleep(0)
    working.append(gevent.spawn(tenants.close_account, ones[0].id))
    paused.came.wait()
    paused.gate.set()
    gevent.joinall(working, raise_error=True)
    engine_of(tenants).files.close_all()
    assert [path.name for path in folder_of(tenants).tenants.iterdir()] == [path_of(tenants, ones[1].id).name]
    assert len(left(tenants)) == 0


def test_copy_and_restore_of_a_closed_tenant_have_what_is_in_its_log(
    tenants: Tenants, new_tenant: Callable[[], str], tmp_path: Path
) -> None:
    """Fault: the file alone copied: none of the rows was in it."""
    tenant_id, copy = with_log(tenants, new_tenant, "a"), tmp_path / "copy.db"
    command = SQLiteEngine(tmp_path / "data", is_server=False)
    command.copy_to(tenant_id, copy)
    command.close()
    push(tenants, tenant_id, "b")
    push(tenants, new_tenant(), "c")
    assert tenant_id in left(tenants)
    engine_of(tenants).restore_from(tenant_id, copy)
    assert names(tenants, tenant_id) == ["a"]
    (kept,) = folder_of(tenants).replaced.iterdir()
    engine_of(tenants).restore_from(tenant_id, kept)
    assert names(tenants, tenant_id) == ["a", "b"]


@pytest.mark.parametrize("by", ["a request", "the log's turn", "a restore"])
def test_log_of_a_file_that_was_replaced_by_hand_while_closed_is_kept_and_not_mixed_into_the_other(
    tenants: Tenants, new_tenant: Callable[[], str], tmp_path: Path, by: str
) -> None:
    """Fault: no look at which file is there: the last rows were read into the other file."""
    tenant_id, copy, other = new_tenant(), tmp_path / "copy.db", new_tenant()
    push(tenants, tenant_id, "then")
    engine_of(tenants).copy_to(tenant_id, copy)
    push(tenants, tenant_id, *(f"r{number}" for number in range(20)))
    epoch = tenants.read(tenant_id, incarnation)[0]
    push(tenants, other, "others")
    path_of(tenants, tenant_id).rename(tmp_path / "away.db")
    if by == "a restore":
        engine_of(tenants).restore_from(tenant_id, copy)
    else:
        shutil.copy(copy, path_of(tenants, tenant_id))
    if by == "the log's turn":
        left(tenants).take_in(tenant_id)
    assert names(tenants, tenant_id) == ["then"]
    assert tenants.read(tenant_id, incarnation)[0] != epoch, "devices were ahead of it"
    (kept,) = folder_of(tenants).replaced.glob("*-wal")
    os.replace(kept, tmp_path / "away.db-wal")
    engine_of(tenants).restore_from(tenant_id, tmp_path / "away.db")
    assert len(names(tenants, tenant_id)) == 21


def test_monitor_does_not_take_in_the_log_of_a_closed_tenant_and_misses_its_file(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    """Fault: files with logs are read like others: the first look removed the log."""
    tenant_id, monitor = with_log(tenants, new_tenant, "a"), FileMonitor(engine_of(tenants))
    monitor.look_over(lambda: None)
    assert wal(tenants, tenant_id).exists() and monitor.faults == {}
    away = path_of(tenants, tenant_id).rename(folder_of(tenants).path / "away.db")
    monitor.look_over(lambda: None)
    assert monitor.faults == {tenant_id: "its file is missing"}
    away.rename(path_of(tenants, tenant_id))
    monitor.look_over(lambda: None)
    assert monitor.faults == {} and names(tenants, tenant_id) == ["a"]


def test_monitor_finds_a_damaged_file_whose_log_can_not_be_taken_in(
    tenants: Tenants, new_tenant: Callable[[], str]
) -> None:
    """Fault: passed over as long as its log is left: nobody heard of it but the log, once a minute."""
    tenant_id, monitor = with_log(tenants, new_tenant, "a"), FileMonitor(engine_of(tenants))
    with path_of(tenants, tenant_id).open("r+b") as file:
        file.write(b"\xff" * path_of(tenants, tenant_id).stat().st_size)
    left(tenants).take_in(tenant_id)
    assert tenant_id in left(tenants)
    monitor.look_over(lambda: None)
    assert monitor.faults[tenant_id].startswith("its file can't be read")
