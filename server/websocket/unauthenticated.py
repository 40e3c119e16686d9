"""Sockets that have not authenticated: how many there may be, and which of them makes room for the next.

A device sends its token as soon as its handshake is answered, so a crowd that comes back is among them for a moment only.
Who had the time to and did not makes room, and before them who was refused. Knows: Engine.IO IDs, since when each is here.
Must not know: tokens, tenants, Socket.IO.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import gevent
from gevent.lock import Semaphore

from protocol.errors import Busy, Problem
from server.scheduler import yield_if_due

_GRACE_SECONDS = 3.0
"""How long each may take to authenticate, even if others wait for its place."""

_TRY_SECONDS = 0.02


class UnauthenticatedSockets:
    """The unauthenticated sockets, in the order in which they make room: as they came, after those that were refused."""

    def __init__(self, most: int, most_waiting: int, close: Callable[[str, Problem], None]) -> None:
        """At most ``most`` are here, and ``most_waiting`` wait for a place.

        ``close`` closes the socket of an Engine.IO ID, tells it why, and removes it from here.
        """
        self._most, self._most_waiting, self._close = most, most_waiting, close
        self._times: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By Engine.IO ID, from when it makes room and until when it may stay, on the monotonic clock."""
        self._waiting = 0
        self._is_stopping = False
        self._first = Semaphore(1)
        """Held by the one who is the next to get a place; the others wait for it in their order."""

    def __len__(self) -> int:
        return len(self._times)

    def add(self, engine_id: str, seconds: float) -> None:
        """Add one that may stay for so long, as the last."""
        now = time.monotonic()
        self._times[engine_id] = now + _GRACE_SECONDS, now + seconds
        self._times.move_to_end(engine_id)

    def refuse(self, engine_id: str, seconds: float) -> None:
        """Let one stay for so long that was told to leave, and is the first to make room."""
        now = time.monotonic()
        self._times[engine_id] = now, now + seconds
        self._times.move_to_end(engine_id, last=False)

    def discard(self, engine_id: str) -> None:
        """Remove one that has authenticated or is gone."""
        self._times.pop(engine_id, None)

    def late(self) -> list[str]:
        """List those whose time is over."""
        now = time.monotonic()
        return [engine_id for engine_id, (_, until) in self._times.items() if until <= now]

    def make_room(self) -> None:
        """Return when there is room for one more; who has been here longest is closed for it, after its time of grace.

        Who waits already comes first. Raises: Busy if as many wait as may, or the server stops.
        """
        if not self._waiting and len(self._times) < self._most and not self._is_stopping:
            return
        if self._waiting >= self._most_waiting:
            raise Busy("Too many sockets are connecting. Try again soon.")
        self._waiting += 1
        try:
            with self._first:
                while not self._has_room():
                    gevent.sleep(_TRY_SECONDS)
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        """Make no more room: the server stops, and who waits would hold that up."""
        self._is_stopping = True

    def _has_room(self) -> bool:
        """Tell whether there is room, if need be by closing those whose time of grace is over."""
        if self._is_stopping:
            raise Busy("The server is stopping. Try again soon.")
        while len(self._times) >= self._most:  # By more than one, if many have left their tenant at once.
            first, (makes_room_at, _) = next(iter(self._times.items()))
            if time.monotonic() < makes_room_at:
                return False
            self._close(first, Busy("Too many sockets are connecting, and this one sent no token yet. Try again soon."))
            yield_if_due()
        return True
