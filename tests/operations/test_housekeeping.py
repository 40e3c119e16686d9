"""What the server does by itself ends with the server: quietly, before the files are closed that it works with.

Fault: it went on for as long as the process did, met a closed ``main.db`` and logged that it would try again.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

import assembly
from operations import housekeeping, usage_saving
from operations.file_monitor import FileMonitor
from operations.housekeeping import Housekeeping
from operations.usage_saving import UsageSaving
from server import memory
from server.usage import Usage
from settings import Settings
from storage.devices import Seen
from storage.usage import usage_of
from tenants import Tenants
from tests.conftest import wait_for
from tests.data_folder import engine_of, opened
from tests.declaring import provision

SHORT_SECONDS = 0.001
CUSTOMERS = 25
USAGE = Usage()


@pytest.fixture(autouse=True)
def hardly_any_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each kind of work done again and again, so that the end comes in the midst of it."""
    for name in ("_SAVE_SECONDS", "_COMMANDS_SECONDS", "_MONITOR_SECONDS", "_PAUSE_SECONDS"):
        monkeypatch.setattr(housekeeping, name, SHORT_SECONDS)


def housekeeping_of(tenants: Tenants, tell: Callable[[str], None] = lambda _: None) -> Housekeeping:
    monitor, seen = FileMonitor(engine_of(tenants)), Seen(tenants.write)
    usage = UsageSaving(USAGE, tenants.directory, lambda: None, "", 400)
    return Housekeeping(Settings(purge_seconds=0), tenants, monitor, seen, usage, tell, lambda: None, lambda _: None)


def test_end_of_the_server_in_the_midst_of_its_own_work_is_quiet(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tenants = opened(tmp_path)
    for _ in range(CUSTOMERS):
        provision(tenants, str(uuid.uuid4()))
    tenants.close()
    app = assembly.build(Settings(data_dir=tmp_path, purge_seconds=0))
    gevent.sleep(SHORT_SECONDS)  # Now it works, and the rest of the customers is to come.
    app.extensions["lifecycle"].end()
    gevent.sleep(20 * SHORT_SECONDS)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_process_that_does_not_get_the_lease_purges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: each process purged. One that has it renews it, and ends where another took it."""
    tenants = opened(tmp_path)
    for _ in range(3):
        provision(tenants, str(uuid.uuid4()))
    leases = iter([False, True, True, False])
    monkeypatch.setattr(tenants.engine, "lease", lambda *_: next(leases))
    housekeeping, purged = housekeeping_of(tenants), list[str]()
    monkeypatch.setattr(housekeeping, "purge", purged.append)
    housekeeping._purge_all()
    assert purged == []
    housekeeping._purge_all()
    assert len(purged) == 2
    tenants.close()


@pytest.mark.parametrize("work", ["maintain", "renewed", "read", "write"])
def test_no_kind_of_work_goes_on_after_the_end(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    new_tenant()
    owner = tenants if work in ("read", "write") else tenants.engine
    calls, do = list[object](), getattr(owner, work)

    def noted(*given: Any) -> Any:
        calls.append(given)
        return do(*given)

    monkeypatch.setattr(owner, work, noted)
    housekeeping = housekeeping_of(tenants)
    housekeeping.start()
    wait_for(lambda: calls, work)
    housekeeping.end()
    calls.clear()
    gevent.sleep(20 * SHORT_SECONDS)
    assert calls == []


def test_end_waits_for_the_work_that_is_under_way(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, going_on, done = Event(), Event(), list[str]()

    def tell(tenant_id: str) -> None:
        begun.set()
        going_on.wait()
        done.append(tenant_id)

    tenant_id = new_tenant()
    monkeypatch.setattr(tenants.engine, "renewed", lambda: [tenant_id])
    housekeeping = housekeeping_of(tenants, tell)
    housekeeping.start()
    begun.wait()
    ending = gevent.spawn(housekeeping.end)
    gevent.sleep(20 * SHORT_SECONDS)
    assert not ending.ready() and done == []
    going_on.set()
    ending.get()
    assert done == [tenant_id]


def test_usage_is_stored_while_the_server_runs(
    tenants: Tenants, new_tenant: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_saving, "_EVERY_SECONDS", SHORT_SECONDS)
    working, tenant_id = housekeeping_of(tenants), new_tenant()
    working.start()
    USAGE.of(tenant_id).requests += 1
    today = usage_saving.day_of(time.time())
    wait_for(lambda: tenants.directory.read(lambda: usage_of(tenant_id, [today, today + 1])), "the stored count")
    working.end()


@pytest.mark.parametrize(("share", "is_given"), [(0.1, True), (0.5, False)])
def test_memory_is_given_back_when_the_server_is_quiet(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch, share: float, is_given: bool
) -> None:
    rounds, given = list[float](), list[bool]()

    def used_seconds() -> float:
        rounds.append(time.monotonic() * share)
        return rounds[-1]

    monkeypatch.setattr(time, "process_time", used_seconds)
    monkeypatch.setattr(memory, "give_back", lambda: given.append(True))
    working = housekeeping_of(tenants)
    working.start()
    wait_for(lambda: len(rounds) > 5, "some rounds")
    working.end()
    assert bool(given) is is_given
