"""What the listeners of tenants are told: those of this process, and by the bus those of all others.

Knows: which notifications a push causes, how an event becomes a packet. Must not know: who listens, tokens, SQL, brokers,
the clock (it is passed in).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from protocol.codec import Cursor, format_time
from protocol.messages import Position, PushResult
from protocol.notifications import Notification, notifications_of
from server.bus.bus import Bus
from server.bus.messages import Process
from server.bus.relay import Outlets, Relay
from server.websocket.broadcast import Broadcaster, packet_of

EVENT = "sync_notification"


class Announcements:
    """The notifications of all tenants."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        bus: Bus,
        has_listeners: Callable[[str], bool],
        look: Callable[[Collection[str]], Mapping[str, Position]],
        end_sessions: Callable[[Iterable[str]], None],
        look_at_sessions: Callable[[], None],
        now_ms: Callable[[], int],
        process: Process,
    ) -> None:
        """``look`` reads the positions of tenants; ``end_sessions`` closes the sockets of sessions that ended elsewhere,
        ``look_at_sessions`` those of sessions that ended unheard."""
        self._broadcaster, self._now_ms = broadcaster, now_ms
        outlets = Outlets(
            has_listeners,
            broadcaster.send_packets,
            self._hint,
            lambda tenant_ids: {name: (here.epoch, here.sequence) for name, here in look(tenant_ids).items()},
            end_sessions,
            look_at_sessions,
        )
        self._bus, self._relay = bus, Relay(bus, outlets, process)
        self.start, self.close, self.sessions_ended = self._relay.start, self._relay.close, self._relay.sessions_ended
        self.expect_listener, self.look = self._relay.expect_listener, self._relay.look

    def processes(self) -> dict[str, Any] | None:
        """Describe the processes that tell each other, for people and programs; None if there can be no other."""
        if not self._bus.is_shared:
            return None
        found = self._relay.processes
        names, versions = (sorted({one for one in column if one}) for column in zip(*found, strict=True))
        about = {"count": len(found), "names": names, "versions": versions}
        return about | {"over": self._bus.broker, "connected": self._bus.is_alive}

    def is_alone(self) -> bool:
        """Tell whether it is known that no other process serves the same tenants."""
        return self._relay.is_alone

    def greeted(self, engine_id: str, tenant_id: str, here: Position) -> None:
        """Tell a socket that joined its room after its greeting was read what the room was told between."""
        for packet in self._relay.missed(tenant_id, here.epoch, here.sequence):
            self._broadcaster.answer(engine_id, packet[1:], tenant_id)

    def notify(self, tenant_id: str, notification: Notification) -> None:
        """Send a notification that is about no commit to every socket of a tenant."""
        self._relay.event(tenant_id, [packet_of(EVENT, notification)])

    def announce(self, tenant_id: str, applied: PushResult) -> None:
        """Notify a tenant of a push that is on disk: each table once, each conflict, and that it is complete."""
        if not self._relay.is_wanted(tenant_id):
            return
        packets = [packet_of(EVENT, one) for one in notifications_of(applied, self._now_ms())]
        if packets:
            before, after = applied.before, applied.after
            self._relay.commit(tenant_id, after.epoch, before.sequence, after.sequence, packets)

    def announce_restored(self, tenant_id: str, here: Position) -> None:
        """Notify the devices of this process that their cursors are invalid; each process finds a restore by itself."""
        text = "The data was restored from a backup: pull again from the start"
        self._broadcaster.send_packets(tenant_id, [self._news(here.cursor, text)])

    def relay(self, tenant_id: str, event: str, payload: object) -> None:
        """Send an event to the sockets of other processes; those of this one have it."""
        self._relay.event(tenant_id, [packet_of(event, payload)], is_sent_here=True)

    def _hint(self, epoch: str, sequence: int) -> bytes:
        return self._news(str(Cursor(epoch, sequence)), "New data available for sync")

    def _news(self, cursor: str, text: str) -> bytes:
        now = format_time(self._now_ms())
        return packet_of(EVENT, Notification("data_available", "batch", text, cursor=cursor, timestamp=now))
