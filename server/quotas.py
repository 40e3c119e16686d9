"""What a tenant and a socket may use: so much a time, and so much at once.

Knows: quotas, windows, what is under way, the words in which clients are told (``RateLimit`` headers). Must not know:
requests, sockets, tables. Whoever is over a budget is refused before anything is done.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from limits import parse

from protocol.errors import Busy, RateLimited
from server.scheduler import Scheduler
from settings import Settings

_KEPT_AT_LEAST = 1_024


class Standing(NamedTuple):
    """How somebody stands with one budget: what is left of the quota, and in how many seconds all of it is back."""

    name: str
    quota: int
    window_seconds: int
    remaining: int
    reset_seconds: int


def rate_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """Write the headers that tell clients how they stand.

    Source: draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4: lists of structured fields.
    """
    return {"RateLimit-Policy": _policy(standings), "RateLimit": _state(standings)}


def _policy(standings: Iterable[Standing]) -> str:
    return ", ".join([f'"{name}";q={quota};w={window}' for name, quota, window, _, _ in standings])


def _state(standings: Iterable[Standing]) -> str:
    return ", ".join([_item(name, remaining, reset) for name, _, _, remaining, reset in standings])


def _item(name: str, remaining: int, reset_seconds: int) -> str:
    return f'"{name}";r={remaining};t={reset_seconds}'


class Budget:
    """A quota in a window, for each of many: all of it may be used at once, and it comes back evenly.

    It keeps one time for each: when all that was used will have come back. Who has all of it is not kept at all.
    Source: the generic cell rate algorithm, ITU-T I.371 annex A, "virtual scheduling".
    """

    def __init__(self, name: str, rate: str) -> None:
        limit = parse(rate)
        self.name, self.quota, self.window_seconds = name, limit.amount, limit.get_expiry()
        self._unit_seconds = self.window_seconds / self.quota
        self._whole_at: dict[str, float] = {}
        self._swept_at_size = _KEPT_AT_LEAST

    def spend(self, who: str, amount: int, now: float) -> float:
        """Spend, or leave all as it is and give the seconds until so much can be spent; 0 says that it was."""
        whole_at = max(self._whole_at.get(who, 0.0), now) + amount * self._unit_seconds
        missing_seconds = whole_at - now - self.window_seconds
        if missing_seconds > 1e-6:  # Rounding alone does not make the last of a quota too much.
            return missing_seconds
        self._whole_at[who] = whole_at
        if len(self._whole_at) > self._swept_at_size:
            self._sweep(now)
        return 0.0

    def check(self, who: str, amount: int, now: float) -> None:
        """Spend.

        Raises: RateLimited, with the seconds to wait.
        """
        missing_seconds = self.spend(who, amount, now)
        if missing_seconds:
            wait = math.ceil(missing_seconds)
            raise RateLimited(
                f"Too many {self.name}: {self.quota:,} in {self.window_seconds} s are the most. Try again in {wait} s.",
                retry_after_seconds=wait,
            )

    def standing(self, who: str, now: float) -> Standing:
        """Tell how somebody stands."""
        return Standing(self.name, self.quota, self.window_seconds, *self._left(who, now))

    def state(self, who: str, now: float) -> str:
        """Write the same as an item of the header ``RateLimit``."""
        return _item(self.name, *self._left(who, now))

    def _left(self, who: str, now: float) -> tuple[int, int]:
        """Give what is left, and in how many seconds all of it is back."""
        used_seconds = self._whole_at.get(who, 0.0) - now
        if used_seconds <= 0:
            return self.quota, 0
        remaining = self.quota - math.ceil(used_seconds / self._unit_seconds - 1e-6)
        return max(remaining, 0), math.ceil(used_seconds)

    def _sweep(self, now: float) -> None:
        """Forget who has all of it back; done when the number has doubled, so that it costs each a constant."""
        self._whole_at = {who: whole_at for who, whole_at in self._whole_at.items() if whole_at > now}
        self._swept_at_size = max(_KEPT_AT_LEAST, 2 * len(self._whole_at))

    def __len__(self) -> int:
        return len(self._whole_at)


class Visit:
    """A request or an event of a tenant while it is under way; ``leave`` ends it."""

    __slots__ = ("_budgets", "_held_bytes", "_size_bytes", "_tenant_id")

    def __init__(self, budgets: Budgets, tenant_id: str, size_bytes: int, held_bytes: int) -> None:
        self._budgets, self._tenant_id = budgets, tenant_id
        self._size_bytes, self._held_bytes = size_bytes, held_bytes

    def settle(self, total_bytes: int) -> None:
        """Account for a body that is larger than it announced: it was compressed, or came in chunks.

        Raises: RateLimited.
        """
        self._budgets.hold(self._tenant_id, total_bytes - self._held_bytes)
        self._held_bytes = total_bytes
        if total_bytes > self._size_bytes:
            self._budgets.spend_bytes(self._tenant_id, total_bytes - self._size_bytes)

    def exclusive(self) -> AbstractContextManager[None]:
        """Wait until no other large work of the tenant goes on, if its own is large."""
        return self._budgets.scheduler.exclusive(self._tenant_id, self._held_bytes)

    def leave(self) -> None:
        """Say that it is over."""
        self._budgets.leave(self._tenant_id, self._held_bytes)


class Budgets:
    """All budgets of a server."""

    def __init__(self, settings: Settings, scheduler: Scheduler, clock: Callable[[], float] = time.monotonic) -> None:
        self.scheduler, self._clock = scheduler, clock
        self._requests = Budget("requests", settings.tenant_requests)
        self._bytes = Budget("bytes", settings.tenant_bytes)
        self._rows = Budget("rows", settings.tenant_rows)
        self._shown = (self._requests, self._bytes, self._rows)
        self._policy = _policy([budget.standing("", 0.0) for budget in self._shown])
        self._events = Budget("events", settings.socket_events)
        self._refused_events = Budget("refused events", settings.socket_events)
        self._event_bytes = Budget("event bytes", settings.socket_bytes)
        self._most, self._most_held_bytes = settings.max_tenant_requests, settings.max_tenant_body_bytes
        self._under_way: Counter[str] = Counter()
        self._held: Counter[str] = Counter()

    # --- a tenant's --------------------------------------------------------------------------------------------------

    def enter(self, tenant_id: str, size_bytes: int, held_bytes: int | None = None) -> Visit:
        """Let a tenant's request or event in, once it is scheduled; the caller must ``leave`` the visit.

        ``size_bytes`` are spent at once. ``held_bytes``: how much memory its body may take, if that is another number.
        Raises: Busy if too much of the tenant is under way, RateLimited if it has used up a budget.
        """
        held = size_bytes if held_bytes is None else held_bytes
        if self.is_full(tenant_id) or self._held[tenant_id] + held > self._most_held_bytes:
            raise Busy("Too many requests of this tenant are under way. Try again soon.")
        self._under_way[tenant_id] += 1
        self.hold(tenant_id, held)
        visit = Visit(self, tenant_id, size_bytes, held)
        try:
            self.scheduler.wait_turn(tenant_id)
            self._requests.check(tenant_id, 1, self._clock())
            self.spend_bytes(tenant_id, size_bytes)
        except BaseException:
            visit.leave()
            raise
        return visit

    def is_full(self, tenant_id: str) -> bool:
        """Tell whether as much of a tenant is under way as may be."""
        return self._under_way[tenant_id] >= self._most

    def is_alone(self, tenant_id: str) -> bool:
        """Tell whether no more than one request or event of a tenant is under way."""
        return self._under_way[tenant_id] <= 1

    def spend_bytes(self, tenant_id: str, count: int) -> None:
        """Spend bytes of bodies.

        Raises: RateLimited.
        """
        if count:
            self._bytes.check(tenant_id, count, self._clock())

    def spend_rows(self, tenant_id: str, count: int) -> None:
        """Spend rows of a push.

        Raises: RateLimited.
        """
        self._rows.check(tenant_id, count, self._clock())

    def hold(self, tenant_id: str, more_bytes: int) -> None:
        """Count memory that bodies of a tenant take; less than none gives it back."""
        self._held[tenant_id] += more_bytes

    def leave(self, tenant_id: str, held_bytes: int) -> None:
        """Count a visit as over."""
        self._under_way[tenant_id] -= 1
        self._held[tenant_id] -= held_bytes
        if not self._under_way[tenant_id]:
            del self._under_way[tenant_id], self._held[tenant_id]

    def headers(self, tenant_id: str) -> dict[str, str]:
        """Write the headers that tell a tenant how it stands."""
        now = self._clock()
        return {
            "RateLimit-Policy": self._policy,
            "RateLimit": ", ".join([budget.state(tenant_id, now) for budget in self._shown]),
        }

    # --- a socket's --------------------------------------------------------------------------------------------------

    def check_event(self, socket_id: str) -> None:
        """Spend one event of a socket.

        Raises: RateLimited.
        """
        self._events.check(socket_id, 1, self._clock())

    def is_flood(self, socket_id: str) -> bool:
        """Count an event that was refused; tell whether the socket went on until a whole quota of them was."""
        return self._refused_events.spend(socket_id, 1, self._clock()) > 0

    def pause_seconds(self, socket_id: str, size_bytes: int) -> float:
        """Spend bytes of a socket, and tell for how long it must not be read first."""
        pause = self._event_bytes.spend(socket_id, size_bytes, self._clock())
        if pause:
            self._event_bytes.spend(socket_id, size_bytes, self._clock() + pause)
        return pause
