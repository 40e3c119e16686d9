"""What tenants use is stored by day: added up over processes, kept through failures, removed with its tenant or by age."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from operations import usage_saving
from operations.usage_saving import DAY_SECONDS, UsageSaving
from protocol.errors import OutcomeUnknown, StorageFull
from server.usage import Counts, Usage
from storage import main_database, usage
from storage.engine import Engine
from storage.usage import Used
from tests.storage.engine.installations import Installation

TODAY = 20_786
NewId = Callable[[], str]


class Process:
    """The counts of one process, with a clock."""

    def __init__(self, engine: Engine, name: str = "", keep_days: int = 400) -> None:
        self.usage, self.now = Usage(), TODAY * DAY_SECONDS + 1.0
        self.open_sockets: dict[str, int] = {}
        self.saving = UsageSaving(self.usage, engine.directory, self._note, name, keep_days, lambda: self.now)

    def _note(self) -> None:
        for tenant_id, count in self.open_sockets.items():
            self.usage.of(tenant_id).note_sockets(count)

    def pass_days(self, days: int) -> None:
        """Let days pass, and save as at a midnight."""
        self.now += days * DAY_SECONDS
        self.saving.save()

    def count(self, tenant_id: str, *, sockets: int = 0, **counts: int) -> None:
        more = Counts()
        for name, count in counts.items():
            setattr(more, name, count)
        more.sockets = sockets
        self.usage.of(tenant_id).add(more)


def on(engine: Engine, tenant_id: str, day: int = TODAY) -> Used:
    found = engine.directory.read(lambda: usage.usage_of(tenant_id, [day]))
    return found.get(day, Used(tenant_id))


def test_counts_of_two_processes_survive_a_crash(installation: Installation, new_id: NewId, engine: Engine) -> None:
    tenant_id, other = new_id(), new_id()
    one, two = Process(engine, "one"), Process(engine, "two")
    everything = {name: number for number, name in enumerate(usage.ADDED, 1)}
    one.count(tenant_id, sockets=3, **everything)
    one.saving.save()
    one.count(tenant_id, sockets=2, bytes_out=2**40)
    two.count(tenant_id, sockets=4, requests=10)
    two.count(other, requests=5)
    one.saving.save()
    two.saving.save()
    two.count(other, requests=1)  # The last minute, lost.
    engine.close()
    again = installation.open()
    assert on(again, tenant_id) == Used(tenant_id, 11, 2, 3, 4, 5, 6 + 2**40, 7)
    assert on(again, other) == Used(other, requests=5)
    again.close()


def test_count_comes_to_its_day_and_sockets_to_every_day(engine: Engine, new_id: NewId) -> None:
    process, tenant_id = Process(engine), new_id()
    process.now = (TODAY + 1) * DAY_SECONDS - 10.0
    assert process.saving.seconds_left() == 10.0
    process.count(tenant_id, sockets=5, requests=1)
    process.open_sockets[tenant_id] = 2
    process.now += 11
    process.saving.save()
    process.count(tenant_id, requests=2)
    assert process.saving.seconds_left() == 60.0
    process.saving.save()
    assert on(engine, tenant_id) == Used(tenant_id, requests=1, most_sockets=5)
    assert on(engine, tenant_id, TODAY + 1) == Used(tenant_id, requests=2, most_sockets=2)


def test_what_can_not_be_stored_is_stored_later(engine: Engine, new_id: NewId, monkeypatch: pytest.MonkeyPatch) -> None:
    process, ids = Process(engine), [new_id() for _ in range(5)]
    monkeypatch.setattr(usage_saving, "_TENANTS_AT_ONCE", 2)
    write, failures = engine.directory.write, iter([None, StorageFull(), StorageFull()])

    def failing(work: Callable[[], Any]) -> Any:
        if problem := next(failures, None):
            raise problem
        return write(work)

    monkeypatch.setattr(engine.directory, "write", failing)
    for _ in range(2):
        for one in ids:
            process.count(one, requests=1)
        with pytest.raises(StorageFull):
            process.saving.save()
    process.now += DAY_SECONDS
    process.count(ids[0], requests=1)
    process.saving.save()
    process.saving.save()
    assert [on(engine, one).requests for one in ids] == [3, 2, 2, 2, 2]


def test_what_may_be_stored_is_not_stored_twice(engine: Engine, new_id: NewId, monkeypatch: pytest.MonkeyPatch) -> None:
    process, tenant_id, write = Process(engine), new_id(), engine.directory.write

    def unanswered(work: Callable[[], Any]) -> Any:
        write(work)
        raise OutcomeUnknown

    process.count(tenant_id, requests=1)
    with monkeypatch.context() as patch:
        patch.setattr(engine.directory, "write", unanswered)
        process.saving.save()
    process.saving.save()
    assert on(engine, tenant_id).requests == 1


def test_busiest_of_a_day_come_first(engine: Engine, new_id: NewId) -> None:
    process, ids = Process(engine), [new_id() for _ in range(3)]
    for number, one in enumerate(ids):
        process.count(one, requests=number, bytes_in=-number)
    process.saving.save()
    read = engine.directory.read
    assert [one.tenant_id for one in read(lambda: usage.busiest(TODAY, 2))] == [ids[2], ids[1]]
    assert read(lambda: usage.busiest(TODAY, 1, "bytes_in"))[0].tenant_id == ids[0]
    addresses = {ids[0]: f"{ids[0]}@example.com", ids[2]: f"{ids[2]}@example.com"}
    assert read(lambda: main_database.emails_of([ids[2], "gone", ids[0]])) == addresses
    assert {one.tenant_id for one in read(lambda: list(usage.usage_on(TODAY)))} == set(ids)
    assert read(lambda: usage.busiest(TODAY + 1, 9)) == read(lambda: usage.busiest(TODAY - 1, 9)) == []
    with pytest.raises(ValueError, match="1; DROP"):
        read(lambda: usage.busiest(TODAY, 1, "1; DROP"))


def test_removed_tenant_leaves_nothing_and_gets_nothing(engine: Engine, new_id: NewId) -> None:
    process, gone, other = Process(engine), new_id(), new_id()
    for _ in range(3):
        process.count(gone, requests=1)
        process.count(other, requests=1)
        process.saving.save()
        process.pass_days(3)
    engine.directory.write(lambda: main_database.remove_customer(gone))
    process.count(gone, requests=1)
    process.count(str(uuid.uuid4()), requests=1)
    process.saving.save()
    days = range(TODAY - 1, TODAY + 20)
    assert engine.directory.read(lambda: usage.usage_of(gone, days)) == {}
    assert len(engine.directory.read(lambda: usage.usage_of(other, days))) == 3


def test_what_is_too_old_is_removed(engine: Engine, new_id: NewId, monkeypatch: pytest.MonkeyPatch) -> None:
    process, ids = Process(engine, keep_days=2), [new_id() for _ in range(3)]
    monkeypatch.setattr(usage, "_REMOVED_AT_ONCE", 2)
    process.saving.forget_old()
    for _ in range(5):
        for one in ids:
            process.count(one, requests=1)
        process.saving.save()
        process.pass_days(1)
    process.pass_days(-1)
    process.saving.forget_old()
    gevent.sleep(0)
    for one in ids:
        found = engine.directory.read(lambda: usage.usage_of(one, range(TODAY, TODAY + 9)))
        assert list(found) == [TODAY + 2, TODAY + 3, TODAY + 4]
