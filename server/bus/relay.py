"""Passes on what happens in a tenant to the listeners of all processes, of each tenant in the order of its commits.

Knows: which tenants have listeners in this process, and what of them was told. Must not know: sockets, what a packet is,
any broker, storage.

A hint is a notification of the position alone: it has a listener pull what it may have missed. There is one where a commit
does not come in time, and where a look at the positions that are stored finds more than was heard: after each gap of the
bus, when another process is silent, and now and then: who dies may take the notifications of its last commits with it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import gevent
import msgspec

from protocol.errors import Busy
from server.bus.bus import Bus, Subscriber
from server.bus.commit_order import CommitOrder
from server.bus.messages import Header, Process, alive, header_of, message_of, packets_of, process_of

log = logging.getLogger("syncapp.bus")

_WAIT_SECONDS = 0.1
"""How long a commit waits for one before it, which another process has made and not told of yet."""
_LOOK_SECONDS = 30.0
_ALIVE_SECONDS = 5.0
_GONE_SECONDS = 15.0
_LOOKED_AT_ONCE = 200
_REPEAT_SECONDS = 0.5
"""How long after a look for which the database was not there."""
_NAMED_AT_ONCE = 100
"""IDs in one message: its first line is to be short (``bus``)."""


class Outlets(NamedTuple):
    """What a relay asks and calls in this process."""

    has_listeners: Callable[[str], bool]
    """Tells whether a tenant has any here."""
    send: Callable[[str, Sequence[bytes]], None]
    """Sends packets to the listeners of a tenant."""
    hint: Callable[[str, int], bytes]
    """Makes the packet of a hint, of an epoch and a sequence."""
    look: Callable[[Collection[str]], Mapping[str, tuple[str, int]]]
    """Reads epoch and sequence of tenants, as far as they are there."""
    end_sessions: Callable[[Collection[str]], None]
    """Closes the sockets of sessions that have ended."""
    look_at_sessions: Callable[[], None]
    """Closes the sockets of those that have ended as it is stored, whether somebody told or not."""


class Relay:
    """The notifications of one process, in both directions."""

    def __init__(self, bus: Bus, outlets: Outlets, process: Process = Process()) -> None:  # noqa: B008 -- never changed
        self._bus, self._outlets, self._process = bus, outlets, process
        self._name = secrets.token_hex(8)
        self._orders: dict[str, CommitOrder] = {}
        """By tenant that has listeners here, or may have in a moment."""
        self._asked: dict[str, float] = {}
        """When a listener of each of them came last."""
        self._waiting: set[str] = set()
        """Tenants whose wait for a missing commit has an end set."""
        self._others: dict[str, float] = {}
        """When each other process was heard last."""
        self._described: dict[str, Process] = {}
        """What each of them says of itself, once it did."""
        self._to_look_at: set[str] = set()
        self._are_sessions_due = self._is_looking = False

    def start(self) -> None:
        """Begin to hear what other processes tell."""
        self._bus.start(Subscriber(self._hear, self._look_at_all, self._lost))
        gevent.spawn(self._live)

    def close(self) -> None:
        """End."""
        self._bus.close()

    @property
    def processes(self) -> list[Process]:
        """Describe the processes that are alive, this one first."""
        now = time.monotonic()
        alive = [name for name, heard in self._others.items() if now - heard < _GONE_SECONDS]
        return [self._process, *(self._described.get(name, Process()) for name in alive)]

    @property
    def is_alone(self) -> bool:
        """Tell whether nobody else is to be told: it is known that there is no other process."""
        return not self._bus.is_shared or (not self._others and self._bus.is_alive)

    # --- who listens here --------------------------------------------------------------------------------------------

    def expect_listener(self, tenant_id: str) -> None:
        """Note from now on what a tenant is told: a listener comes, whose position is read next."""
        self._orders.setdefault(tenant_id, CommitOrder())
        self._asked[tenant_id] = time.monotonic()

    def missed(self, tenant_id: str, epoch: str, sequence: int) -> list[bytes]:
        """Give what a listener that was just let in must be sent: it was greeted with a position, and others may have been
        told of commits after it meanwhile."""
        self.expect_listener(tenant_id)  # Again: to read that position may have taken so long that this was forgotten.
        order = self._orders[tenant_id]
        if order.last < 0:
            order.expect(epoch, sequence)
        is_behind = order.epoch == epoch and order.last > sequence
        return [self._outlets.hint(order.epoch, order.last)] if is_behind else []

    def _forget_left(self, now: float) -> None:
        """Forget the tenants whose listeners have left."""
        for tenant_id, asked in list(self._asked.items()):
            if now - asked > _GONE_SECONDS and not self._outlets.has_listeners(tenant_id):
                del self._asked[tenant_id], self._orders[tenant_id]

    # --- what happens here -------------------------------------------------------------------------------------------

    def is_wanted(self, tenant_id: str) -> bool:
        """Tell whether anyone may listen to a tenant, here or elsewhere, or is about to."""
        return not self.is_alone or tenant_id in self._orders or self._outlets.has_listeners(tenant_id)

    def commit(self, tenant_id: str, epoch: str, before: int, after: int, packets: Sequence[bytes]) -> None:
        """Tell of a commit of this process."""
        if before == after:  # A conflict alone moves nothing.
            return self.event(tenant_id, packets)
        if self.is_alone:
            return self._send_alone(tenant_id, epoch, after, packets)
        self._take(tenant_id, epoch, before, after, packets)
        header = Header(self._name, "commit", tenant_id, epoch, before, after)
        return self._bus.publish(tenant_id, message_of(header, packets))

    def _send_alone(self, tenant_id: str, epoch: str, after: int, packets: Sequence[bytes]) -> None:
        """Send what a commit of the only process tells: nothing is missing before it."""
        if tenant_id in self._orders:
            self._orders[tenant_id].jump(epoch, after)
        self._outlets.send(tenant_id, packets)

    def event(self, tenant_id: str, packets: Sequence[bytes], *, is_sent_here: bool = False) -> None:
        """Tell of something that is no commit. ``is_sent_here``: the listeners of this process know."""
        if not is_sent_here:
            self._outlets.send(tenant_id, packets)
        if not self.is_alone:
            self._bus.publish(tenant_id, message_of(Header(self._name, "event", tenant_id), packets))

    def sessions_ended(self, session_ids: Iterable[str]) -> None:
        """Tell other processes of sessions that have ended."""
        if not self.is_alone:
            ids = tuple(session_ids)
            for start in range(0, len(ids), _NAMED_AT_ONCE):
                some = ids[start : start + _NAMED_AT_ONCE]
                self._bus.publish("", message_of(Header(self._name, "ended", ids=some)))

    def look(self, tenant_id: str) -> None:
        """Have all processes look for a commit of which it is not known whether it was made."""
        self._look({tenant_id} & self._orders.keys())
        if not self.is_alone:
            self._bus.publish(tenant_id, self._lost([tenant_id]))

    # --- what others tell --------------------------------------------------------------------------------------------

    def _hear(self, message: bytes) -> None:
        try:
            header = header_of(message)
        except msgspec.DecodeError:  # Of a newer version, in a rolling deployment; the next look makes up for it.
            return
        if header.sender == self._name:
            return
        if header.kind == "who":  # It asks, and is none of those that serve.
            self._bus.publish("", alive(self._name, self._process))
            return
        self._note_other(header.sender)
        if header.kind == "alive":
            self._described[header.sender] = process_of(header)
        elif header.kind == "ended":
            self._outlets.end_sessions(header.ids)
        elif header.kind == "lost" and header.ids:
            self._look(set(header.ids) & self._orders.keys())
        elif header.kind == "lost":
            self._look_at_all()
        elif header.tenant_id in self._orders:
            self._pass_on(header, packets_of(message))

    def _note_other(self, name: str) -> None:
        """Note that another process is alive. One that is new was told of nothing while nobody knew it."""
        is_new = name not in self._others
        self._others[name] = time.monotonic()
        if is_new:
            self._bus.publish("", alive(self._name, self._process))
            self._bus.publish("", self._lost(()))

    def _pass_on(self, header: Header, packets: list[bytes]) -> None:
        if header.kind == "commit":
            packets = packets or [self._outlets.hint(header.epoch, header.after)]  # It was too long for the bus.
            self._take(header.tenant_id, header.epoch, header.before, header.after, packets)
        else:
            self._outlets.send(header.tenant_id, packets)

    def _take(self, tenant_id: str, epoch: str, before: int, after: int, packets: Sequence[bytes]) -> None:
        order = self._orders.get(tenant_id)
        if order is None:
            return
        found = order.take(epoch, before, after, packets)
        if found:
            self._outlets.send(tenant_id, found)
        self._wait(tenant_id, order)

    def _wait(self, tenant_id: str, order: CommitOrder) -> None:
        """Give up what is missing if it does not come in time."""
        if order.is_waiting and tenant_id not in self._waiting:
            self._waiting.add(tenant_id)
            gevent.spawn_later(_WAIT_SECONDS, self._give_up, tenant_id, order, order.last)

    def _give_up(self, tenant_id: str, order: CommitOrder, last: int) -> None:
        self._waiting.discard(tenant_id)
        if self._orders.get(tenant_id) is not order or not order.is_waiting:
            return
        if order.last == last:
            self._outlets.send(tenant_id, [self._outlets.hint(order.epoch, order.give_up())])
        else:  # Some came; what is missing now has its own time.
            self._wait(tenant_id, order)

    # --- looking for oneself -----------------------------------------------------------------------------------------

    def _lost(self, tenant_ids: Collection[str]) -> bytes:
        return message_of(Header(self._name, "lost", ids=tuple(tenant_ids)))

    def _live(self) -> None:
        due = time.monotonic() + _LOOK_SECONDS
        while True:
            self._bus.publish("", alive(self._name, self._process))
            gevent.sleep(_ALIVE_SECONDS)
            now = time.monotonic()
            gone = [name for name, heard in self._others.items() if now - heard >= _GONE_SECONDS]
            for name in gone:
                del self._others[name]
                self._described.pop(name, None)
            self._forget_left(now)
            if gone or (now >= due and self._bus.is_shared):
                due = now + _LOOK_SECONDS
                self._look_at_all()

    def _look_at_all(self) -> None:
        self._are_sessions_due = True
        self._look(self._orders)

    def _look(self, tenant_ids: Iterable[str]) -> None:
        """Compare the positions that are stored with what was told; one greenlet does so for all."""
        self._to_look_at |= set(tenant_ids)
        if not self._is_looking and (self._to_look_at or self._are_sessions_due):
            self._is_looking = True
            gevent.spawn(self._look_at_some)

    def _look_at_some(self) -> None:
        """Look at some after the other until all were looked at, however long the database is away."""
        has_failed = False
        try:
            while self._to_look_at or self._are_sessions_due:
                some = [self._to_look_at.pop() for _ in range(min(_LOOKED_AT_ONCE, len(self._to_look_at)))]
                try:
                    self._look_once(some)
                except Busy as error:
                    if not has_failed:
                        log.warning("looking for what other processes did is repeated", extra={"error": str(error)})
                    has_failed = True
                    self._to_look_at |= set(some) & self._orders.keys()
                    gevent.sleep(_REPEAT_SECONDS)
        except Exception:
            log.exception("looking for what other processes did failed")
        finally:
            self._is_looking = False

    def _look_once(self, tenant_ids: Collection[str]) -> None:
        if self._are_sessions_due:
            self._are_sessions_due = False
            self._look_at_sessions()
        if tenant_ids:
            for tenant_id, (epoch, sequence) in self._outlets.look(tenant_ids).items():
                self._compare(tenant_id, epoch, sequence)
        gevent.sleep(0)

    def _look_at_sessions(self) -> None:
        try:
            self._outlets.look_at_sessions()
        except Busy:
            self._are_sessions_due = True
            raise

    def _compare(self, tenant_id: str, epoch: str, sequence: int) -> None:
        order = self._orders.get(tenant_id)
        if order is None:
            return
        if order.expect(epoch, sequence):
            self._outlets.send(tenant_id, [self._outlets.hint(epoch, sequence)])
        self._wait(tenant_id, order)
