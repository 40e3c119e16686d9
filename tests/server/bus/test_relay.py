"""Relays of several processes: each passes on to its listeners what any of them commits, in order, or a hint to pull."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence

import gevent
import pytest

from protocol.errors import Busy
from server.bus import messages
from server.bus import relay as relay_module
from server.bus.bus import NoBus, Subscriber
from server.bus.messages import Header, alive, message_of
from server.bus.relay import Outlets, Relay
from tests.conftest import wait_for

ONE = "tenant"
UNNAMED = messages.Process()


class Broker:
    """Carries messages between buses in this process, when it is told to."""

    def __init__(self) -> None:
        self.buses: list[FakeBus] = []
        self.held: list[bytes] = []
        self.is_holding = False

    def deliver(self, *which: int) -> None:
        """Deliver what is held, in this order."""
        held, self.held = self.held, []
        for index in which or range(len(held)):
            self.carry(held[index])

    def carry(self, message: bytes) -> None:
        for bus in self.buses:
            bus.hear(message)


class FakeBus:
    """A bus on a ``Broker``."""

    is_shared, is_alive, broker = True, False, "fake"

    def __init__(self, broker: Broker) -> None:
        self._carrier = broker

    def publish(self, tenant_id: str, message: bytes) -> None:
        if b'"alive"' in message:
            return
        if self._carrier.is_holding:
            self._carrier.held.append(message)
        else:
            self._carrier.carry(message)

    def start(self, subscriber: Subscriber) -> None:
        self.hear, self.gap, self.lost = subscriber
        self._carrier.buses.append(self)

    def close(self) -> None:
        self._carrier.buses.remove(self)


class Process:
    """A relay, the tenants that have listeners there, and what these were sent."""

    def __init__(self, bus: FakeBus | NoBus, stored: dict[str, tuple[str, int]]) -> None:
        self.bus, self._stored = bus, stored
        self.listened: set[str] = set()
        self.sent: list[str] = []
        self.ended: list[str] = []
        self.looks = self.looks_at_sessions = 0
        ending = self.ended.extend, self._look_at_sessions
        outlets = Outlets(self.listened.__contains__, self._send, self._hint, self._look, *ending)
        self.relay = Relay(bus, outlets)
        self.relay.start()

    def _send(self, tenant_id: str, packets: Sequence[bytes]) -> None:
        self.sent += [packet.decode() for packet in packets]

    def _hint(self, epoch: str, sequence: int) -> bytes:
        return f"pull {epoch}-{sequence}".encode()

    def _look(self, tenant_ids: Collection[str]) -> Mapping[str, tuple[str, int]]:
        self.looks += 1
        return {tenant_id: self._stored[tenant_id] for tenant_id in tenant_ids if tenant_id in self._stored}

    def _look_at_sessions(self) -> None:
        self.looks_at_sessions += 1

    def join(self, tenant_id: str = ONE) -> list[bytes]:
        """Let a listener in, as ``sockets`` does, and give what it must be sent."""
        self.relay.expect_listener(tenant_id)
        position = self._stored.get(tenant_id, ("e", 0))
        self.listened.add(tenant_id)
        return self.relay.missed(tenant_id, *position)

    def commit(self, after: int, before: int | None = None, epoch: str = "e") -> None:
        before = after - 1 if before is None else before
        self._stored[ONE] = epoch, after
        self.relay.commit(ONE, epoch, before, after, [b"%d" % after])


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def stored() -> dict[str, tuple[str, int]]:
    """Epoch and sequence of each tenant, as all processes read them."""
    return {}


@pytest.fixture
def start(broker: Broker, stored: dict[str, tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Process]:
    """Start processes; a commit that is missing is given up in a moment."""
    monkeypatch.setattr(relay_module, "_WAIT_SECONDS", 0.05)
    return lambda: Process(FakeBus(broker), stored)


def test_commit_of_one_process_is_told_to_the_listeners_of_all_once(start: Callable[[], Process]) -> None:
    here, there, without = start(), start(), start()
    here.join(), there.join()
    here.commit(1)
    there.commit(2)
    assert here.sent == there.sent == ["1", "2"] and without.sent == []


def test_commits_that_cross_on_their_way_are_told_in_order_everywhere(
    start: Callable[[], Process], broker: Broker
) -> None:
    """The second was committed here before the first was heard of. Fault: told as they come: 2 before 1."""
    here, there, third = start(), start(), start()
    for process in (here, there, third):
        process.join()
    broker.is_holding = True
    there.commit(1)
    here.commit(2)
    assert here.sent == []
    broker.deliver(1, 0)
    assert here.sent == there.sent == third.sent == ["1", "2"]


def test_listener_whose_position_is_read_for_long_is_let_in_and_told(start: Callable[[], Process]) -> None:
    """A disk may stand still meanwhile. Fault: forgotten, since nobody listened yet: ``KeyError``, and nothing was told."""
    here, there = start(), start()
    here.relay.expect_listener(ONE)
    here.relay._forget_left(time.monotonic() + 60)
    here.listened.add(ONE)
    assert here.relay.missed(ONE, "e", 0) == []
    there.commit(1)
    assert here.sent == ["1"]


def test_commit_that_never_comes_becomes_a_hint(start: Callable[[], Process], broker: Broker) -> None:
    here, there = start(), start()
    here.join()
    broker.is_holding = True
    there.commit(1)
    there.commit(2)
    there.commit(3)
    broker.deliver(1, 2)
    wait_for(lambda: here.sent, "a hint")
    broker.is_holding = False
    there.commit(4)
    assert here.sent == ["pull e-3", "4"]


def test_commit_whose_packets_were_too_long_for_the_bus_becomes_a_hint_in_its_place(
    start: Callable[[], Process], broker: Broker
) -> None:
    here, there = start(), start()
    here.join()
    broker.is_holding = True
    for number in (1, 2, 3):
        there.commit(number)
    broker.held[1] = broker.held[1].partition(b"\n")[0]
    broker.deliver()
    assert here.sent == ["1", "pull e-2", "3"]


def test_wait_begins_anew_when_some_of_the_missing_came(start: Callable[[], Process], broker: Broker) -> None:
    here, there = start(), start()
    here.join()
    broker.is_holding = True
    for number in (1, 2, 3, 4):
        there.commit(number)
    broker.deliver(1, 3, 0)
    assert here.sent == ["1", "2"]
    wait_for(lambda: len(here.sent) > 2, "a hint")
    assert here.sent == ["1", "2", "pull e-4"]


def test_gap_of_the_bus_has_the_stored_positions_looked_at(start: Callable[[], Process], broker: Broker) -> None:
    """Fault: ``gap`` ignored: a listener hears of the missed commit with the next one only."""
    here, there = start(), start()
    here.join()
    broker.is_holding = True
    there.commit(1)
    there.commit(2)
    broker.held.clear()
    broker.buses[0].gap()
    wait_for(lambda: here.sent, "a hint")
    assert here.sent == ["pull e-2"] and there.looks == 0


def test_gap_in_which_nothing_was_missed_tells_nothing(start: Callable[[], Process], broker: Broker) -> None:
    here, there = start(), start()
    here.join()
    there.commit(1)
    broker.buses[0].gap()
    wait_for(lambda: here.looks, "a look")
    there.commit(2)
    assert here.sent == ["1", "2"]


def test_messages_that_their_publisher_dropped_have_others_look(start: Callable[[], Process], broker: Broker) -> None:
    here, there, without = start(), start(), start()
    here.join()
    broker.is_holding = True
    there.commit(1)
    broker.held = [broker.buses[1].lost(["other", ONE])]
    broker.deliver()
    wait_for(lambda: here.sent, "a hint")
    broker.held = [broker.buses[1].lost([])]
    broker.deliver()
    wait_for(lambda: here.looks == 2, "a look at any")
    assert here.sent == ["pull e-1"] and without.looks == 0
    assert without.looks_at_sessions == 1, "it may have been of sessions that ended"


def test_commit_of_a_process_that_died_before_it_told_is_found(
    start: Callable[[], Process], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "_ALIVE_SECONDS", 0.02)
    monkeypatch.setattr(relay_module, "_LOOK_SECONDS", 0.05)
    here, there = start(), start()
    here.join()
    broker.is_holding = True
    there.commit(1)
    wait_for(lambda: here.sent, "a hint")
    assert here.sent == ["pull e-1"]
    wait_for(lambda: here.looks_at_sessions > 2, "looks now and then")


def test_sessions_are_looked_at_where_nothing_may_have_been_heard_of_their_end(
    start: Callable[[], Process], broker: Broker
) -> None:
    here, without = start(), start()
    here.join()
    for bus in broker.buses:
        bus.gap()
    wait_for(lambda: here.looks_at_sessions and without.looks_at_sessions, "a look")


def test_process_that_is_silent_has_others_look(
    start: Callable[[], Process], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "_ALIVE_SECONDS", 0.02)
    monkeypatch.setattr(relay_module, "_GONE_SECONDS", 0.1)
    here, there = start(), start()
    here.join()
    there.commit(1)
    broker.is_holding = True
    there.commit(2)
    wait_for(lambda: len(here.sent) == 2, "a hint")
    assert here.sent == ["1", "pull e-2"]


def test_new_epoch_that_a_look_finds_is_told_at_once(
    start: Callable[[], Process], broker: Broker, stored: dict[str, tuple[str, int]]
) -> None:
    here = start()
    stored[ONE] = "e", 7
    here.join()
    stored[ONE] = "restored", 3
    broker.buses[0].gap()
    wait_for(lambda: here.sent, "a hint")
    assert here.sent == ["pull restored-3"]


def test_look_that_fails_is_logged_and_the_next_one_works(
    start: Callable[[], Process], broker: Broker, stored: dict[str, tuple[str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    here = start()
    stored[ONE] = "e", 0
    here.join()
    stored[ONE] = "e", None  # type: ignore[assignment]
    broker.buses[0].gap()
    wait_for(lambda: "looking for what" in caplog.text, "the failure")
    stored[ONE] = "e", 1
    broker.buses[0].gap()
    wait_for(lambda: here.sent, "a hint")


def test_look_while_the_database_is_away_is_one_line_of_the_log(
    start: Callable[[], Process], broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: a traceback each 30 s."""
    here = start()
    here.join()
    monkeypatch.setattr(here.relay, "_outlets", here.relay._outlets._replace(look_at_sessions=_away))
    broker.buses[0].gap()
    wait_for(lambda: caplog.records, "a line")
    (said,) = caplog.records
    assert said.levelname == "WARNING" and said.exc_info is None


def _away() -> None:
    raise Busy


def test_listener_is_sent_a_hint_if_others_were_told_while_it_was_let_in(
    start: Callable[[], Process], stored: dict[str, tuple[str, int]]
) -> None:
    """Fault: nothing noted before the position is read: the listener would not know of 5."""
    here, there = start(), start()
    stored[ONE] = "e", 4
    here.relay.expect_listener(ONE)
    position = stored[ONE]
    there.commit(5)  # After it was read, before the listener is in the room.
    here.listened.add(ONE)
    assert here.relay.missed(ONE, *position) == [b"pull e-5"]
    there.commit(6)
    assert here.sent[-1] == "6" and here.join() == []


def test_tenant_whose_listeners_left_is_forgotten(
    start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "_ALIVE_SECONDS", 0.02)
    monkeypatch.setattr(relay_module, "_GONE_SECONDS", 0.05)
    here, there = start(), start()
    here.join(), here.join("stays")
    here.listened.remove(ONE)
    wait_for(lambda: ONE not in here.relay._orders, "forgetting")
    there.commit(1)
    assert here.sent == [] and here.relay._orders.keys() == {"stays"}


def test_conflict_without_a_change_is_told_beside_the_order(start: Callable[[], Process]) -> None:
    here, there = start(), start()
    here.join(), there.join()
    here.commit(1)
    here.commit(1, before=1)
    assert here.sent == there.sent == ["1", "1"]


def test_events_reach_all_and_those_that_were_sent_here_others_only(start: Callable[[], Process]) -> None:
    here, there = start(), start()
    here.join(), there.join()
    here.relay.event(ONE, [b"test"])
    here.relay.event(ONE, [b"status"], is_sent_here=True)
    assert (here.sent, there.sent) == (["test"], ["test", "status"])


def test_ended_sessions_are_told_to_others(start: Callable[[], Process]) -> None:
    here, there = start(), start()
    here.relay.sessions_ended(["a", "b"])
    assert (here.ended, there.ended) == ([], ["a", "b"])


def test_line_that_names_ended_sessions_stays_short(start: Callable[[], Process], broker: Broker) -> None:
    """Fault: all in one: PostgreSQL would carry nothing of it."""
    here, there = start(), start()
    ended = [str(uuid.uuid4()) for _ in range(500)]
    broker.is_holding = True
    here.relay.sessions_ended(ended)
    assert max(map(len, broker.held)) < 7_000
    broker.deliver()
    assert there.ended == ended


def test_message_of_a_newer_version_is_ignored(start: Callable[[], Process], broker: Broker) -> None:
    here = start()
    here.join()
    broker.carry(b'["someone","unheard of","tenant"]\n42[]')
    assert here.sent == []


def test_processes_that_are_alive_are_known_by_name_and_version(
    start: Callable[[], Process], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = start()
    for name in ("a", "b", "a"):
        broker.carry(alive(name, messages.Process(name.upper(), "1.2")))
    broker.carry(message_of(Header("of before", "alive")))
    assert here.relay.processes == [UNNAMED, messages.Process("A", "1.2"), messages.Process("B", "1.2"), UNNAMED]
    monkeypatch.setattr(relay_module, "_GONE_SECONDS", 0)
    assert here.relay.processes == [UNNAMED]


def test_process_tells_nobody_until_another_comes_and_then_what_that_missed(
    start: Callable[[], Process], broker: Broker, stored: dict[str, tuple[str, int]]
) -> None:
    """Fault: another is not told to look: the commit of before it was known is lost to it."""
    here, there = start(), start()
    assert isinstance(here.bus, FakeBus)
    here.bus.is_alive, broker.is_holding = True, True
    there.join()
    here.commit(1)
    assert not here.relay.is_wanted(ONE) and broker.held == [], "nobody is known"
    here.bus.hear(message_of(Header("there", "alive")))
    assert here.relay.is_wanted(ONE)
    broker.deliver()
    wait_for(lambda: there.sent == ["pull e-1"], "the hint")
    here.commit(2)
    broker.deliver()
    assert there.sent == ["pull e-1", "2"]


def test_process_without_others_tells_its_own_listeners_as_it_commits(stored: dict[str, tuple[str, int]]) -> None:
    alone = Process(NoBus(), stored)
    assert not alone.relay.is_wanted(ONE)
    assert alone.join() == [] and alone.relay.is_wanted(ONE)
    alone.commit(1)
    alone.commit(3)
    alone.relay.event(ONE, [b"test"])
    alone.relay.event(ONE, [b"status"], is_sent_here=True)
    alone.relay.sessions_ended(["a"])
    gevent.sleep(0)
    assert alone.sent == ["1", "3", "test"] and alone.relay.processes == [UNNAMED]


def test_look_that_fails_is_repeated_and_said_once(
    start: Callable[[], Process],
    stored: dict[str, tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As while the database restarts. Fault: left to the next look, 30 s later, with a traceback in the log."""
    monkeypatch.setattr(relay_module, "_REPEAT_SECONDS", 0.01)
    process, is_away = start(), True
    process.join()
    look = process.relay._outlets.look

    def look_if_there(tenant_ids: Collection[str]) -> Mapping[str, tuple[str, int]]:
        found = look(tenant_ids)
        if is_away:
            raise Busy
        return found

    process.relay._outlets = process.relay._outlets._replace(look=look_if_there)
    stored[ONE] = "e", 3
    process.relay._look_at_all()
    wait_for(lambda: process.looks > 3, "several looks")
    is_away = False
    wait_for(lambda: process.sent == ["pull e-3"], "a hint")
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("WARNING", None)]
