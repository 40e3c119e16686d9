"""What a bus does whatever its broker is: messages wait in a queue until it has taken them, and it is tried again for ever.

Knows: what waits and what was dropped, when to try again. Must not know: any broker, what messages say.

A greenlet publishes what waits, many messages in one trip: a broker that hangs or restarts is felt by nobody who commits.
What was under way when that failed is sent again.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable

import gevent
from gevent.event import Event

from server.bus.bus import Subscriber
from server.scheduler import yield_if_due

log = logging.getLogger("syncapp.bus")

_MOST_WAITING, _MOST_WAITING_BYTES = 10_000, 16 * 1024 * 1024
_MOST_LOST = 100
"""Tenants of dropped messages that are remembered by name: so many fit into the first line of a message."""
_AT_ONCE = 64
ANSWER_SECONDS = 5.0
SILENCE_SECONDS = 15.0
"""A broker is dead if nothing came for so long: each process gives signs of life, and hears its own."""
_LAST_SECONDS = 1.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0


class Link:
    """One of the two ways to a broker: says once that it is broken and once that it is back, and when to try again."""

    def __init__(self, broker: str, what: str) -> None:
        self._broker, self._what = broker, what
        self._pause = _FIRST_PAUSE_SECONDS
        self._is_broken = self.is_working = False

    def works(self) -> None:
        """Note that it works."""
        self._pause, self.is_working = _FIRST_PAUSE_SECONDS, True
        if self._is_broken:
            self._is_broken = False
            log.warning("%s is back", self._broker, extra={"link": self._what})

    def failed(self, error: Exception) -> None:
        """Note that it does not, and wait before it is tried again."""
        self.is_working = False
        if not self._is_broken:
            self._is_broken = True
            about = {"link": self._what, "error": str(error)[:200]}
            log.warning("%s is not reached, it is tried again", self._broker, extra=about)
        gevent.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)


class QueuedBus(ABC):
    """See ``bus.Bus``. Of a broker it is told how to publish and how to hear."""

    is_shared = True
    broker: str
    """Its name, for people."""
    errors: tuple[type[Exception], ...]
    """What it raises when it does not work."""

    def __init__(self) -> None:
        self._publishing, self._hearing = Link(self.broker, "publish"), Link(self.broker, "subscribe")
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._lost_tenants: set[str] = set()
        self._something = Event()
        self._greenlets: list[gevent.Greenlet] = []

    @abstractmethod
    def _send(self, messages: list[bytes]) -> None:
        """Publish messages; return when the broker has taken them. Raises: ``errors``."""

    @abstractmethod
    def _subscribe(self) -> None:
        """Begin to hear. Raises: ``errors``."""

    @abstractmethod
    def _received(self) -> Iterable[bytes]:
        """Give what is heard, for ever. Raises: ``errors``, also if nothing comes for long."""

    @abstractmethod
    def _unsubscribe(self) -> None:
        """Close what ``_subscribe`` opened, if it is open."""

    @abstractmethod
    def _end(self) -> None:
        """Close what ``_send`` opened, if it is open."""

    # --- see bus.Bus -------------------------------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        """See ``bus.Bus.is_alive``."""
        return self._publishing.is_working and self._hearing.is_working

    def start(self, subscriber: Subscriber) -> None:
        """See ``bus.Bus.start``."""
        self._hear, self._gap, self._lost = subscriber
        self._greenlets = [gevent.spawn(self._publish_all), gevent.spawn(self._listen)]

    def close(self) -> None:
        """See ``bus.Bus.close``. What waits is given a moment: it may tell of pushes that were just answered."""
        end = time.monotonic() + _LAST_SECONDS
        while self._waiting and time.monotonic() < end:
            gevent.sleep(0.01)
        gevent.killall(self._greenlets)
        self._end()
        self._unsubscribe()

    # --- publishing --------------------------------------------------------------------------------------------------

    def publish(self, tenant_id: str, message: bytes) -> None:
        """See ``bus.Bus.publish``."""
        self._something.set()
        if len(self._waiting) >= _MOST_WAITING or self._waiting_bytes + len(message) > _MOST_WAITING_BYTES:
            self._lost_tenants.add(tenant_id)
            return
        self._waiting.append((tenant_id, message))
        self._waiting_bytes += len(message)

    def _publish_all(self) -> None:
        while True:
            self._something.wait()
            self._something.clear()
            while self._waiting or self._lost_tenants:
                try:
                    self._publish_some()
                    self._publishing.works()
                except Exception as error:
                    self._log_unexpected(error)
                    self._end()
                    self._publishing.failed(error)

    def _publish_some(self) -> None:
        """Publish what waits, as much as goes into one trip; it waits until the broker has taken it."""
        some = [message for _, message in list(self._waiting)[:_AT_ONCE]]
        lost: set[str] = set()
        if len(some) < _AT_ONCE:
            lost, self._lost_tenants = self._lost_tenants, lost
        is_any = "" in lost or len(lost) > _MOST_LOST
        try:
            self._send([*some, self._lost(() if is_any else tuple(lost))] if lost else some)
        except BaseException:
            self._lost_tenants |= lost
            raise
        for _ in some:
            self._waiting_bytes -= len(self._waiting.popleft()[1])

    # --- hearing -----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            try:
                self._subscribe()
                self._gap()
                for message in self._received():
                    self._hearing.works()
                    self._pass_on(message)
                    yield_if_due()
            except Exception as error:
                self._log_unexpected(error)
                self._unsubscribe()
                self._hearing.failed(error)

    def _log_unexpected(self, error: Exception) -> None:
        """Log what is no outage: an error that ended this greenlet would end the bus in silence."""
        if not isinstance(error, self.errors):
            log.error("%s gave what the bus did not expect", self.broker, exc_info=error)

    def _pass_on(self, message: bytes) -> None:
        try:
            self._hear(message)
        except Exception:
            log.exception("a message of the bus was not passed on")
