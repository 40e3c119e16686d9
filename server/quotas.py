"""Rate limits of tenants and sockets.

Knows: quotas, windows, the ``RateLimit`` headers, what a request holds of all limits. Must not know: requests, sockets,
tables, who waits for whom (``admission``). What is over a quota is refused before any work is done for it.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

from protocol.errors import RateLimited
from server.admission import Admission
from server.scheduler import Scheduler
from server.usage import Usage
from setting_values import rate_of
from settings import Settings

OWN = ("tenant_requests", "tenant_bytes", "tenant_rows", "tenant_stored_bytes", "max_tenant_sockets")
"""The settings in whose place a tenant may have quotas of its own."""

_KEPT_AT_LEAST = 1_024
log = logging.getLogger("syncapp.quotas")


class RemainingQuota(NamedTuple):
    """What is left of one quota, and in how many seconds all of it is available again."""

    name: str
    limit: int
    window_seconds: int
    remaining: int
    reset_seconds: int


def rate_headers(remaining_quotas: Sequence[RemainingQuota]) -> dict[str, str]:
    """Write the headers that tell clients their remaining quotas.

    Source: draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4: lists of structured fields.
    """
    return {"RateLimit-Policy": _policy(remaining_quotas), "RateLimit": _state(remaining_quotas)}


def _policy(remaining_quotas: Iterable[RemainingQuota]) -> str:
    return ", ".join([f'"{name}";q={limit};w={window}' for name, limit, window, _, _ in remaining_quotas])


def _state(remaining_quotas: Iterable[RemainingQuota]) -> str:
    return ", ".join([_item(name, remaining, reset) for name, _, _, remaining, reset in remaining_quotas])


def _item(name: str, remaining: int, reset_seconds: int) -> str:
    return f'"{name}";r={remaining};t={reset_seconds}'


class Quota:
    """A rate limit, counted for each key: all of it may be used in one burst, and it refills evenly.

    Per key it stores one time: when the quota will be full again. Keys whose quota is full are not stored.
    Source: the generic cell rate algorithm, ITU-T I.371 annex A, "virtual scheduling".
    """

    def __init__(self, name: str, rate: str) -> None:
        parsed = rate_of(rate)
        self.name, self.limit, self.window_seconds = name, parsed.amount, parsed.seconds
        self._unit_seconds = self.window_seconds / self.limit
        self._full_at: dict[str, float] = {}
        self._swept_at_size = _KEPT_AT_LEAST

    def spend(self, key: str, amount: int, now: float) -> float:
        """Spend ``amount`` and return 0, or spend nothing and return the seconds until so much is available."""
        full_at = max(self._full_at.get(key, 0.0), now) + amount * self._unit_seconds
        missing_seconds = full_at - now - self.window_seconds
        if missing_seconds > 1e-6:  # A rounding error must not refuse the last unit of a quota.
            return missing_seconds
        self._full_at[key] = full_at
        if len(self._full_at) > self._swept_at_size:
            self._sweep(now)
        return 0.0

    def check(self, key: str, amount: int, now: float) -> None:
        """Spend.

        Raises: RateLimited, with the seconds to wait.
        """
        missing_seconds = self.spend(key, amount, now)
        if missing_seconds:
            wait = math.ceil(missing_seconds)
            raise RateLimited(
                f"Too many {self.name}: {self.limit:,} in {self.window_seconds} s are the most. Try again in {wait} s.",
                retry_after_seconds=wait,
            )

    def remaining(self, key: str, now: float) -> RemainingQuota:
        """Return what is left for a key."""
        return RemainingQuota(self.name, self.limit, self.window_seconds, *self._left(key, now))

    def state(self, key: str, now: float) -> str:
        """Return the same as an item of the header ``RateLimit``."""
        return _item(self.name, *self._left(key, now))

    def _left(self, key: str, now: float) -> tuple[int, int]:
        """Return what is left, and in how many seconds all of it is available again."""
        used_seconds = self._full_at.get(key, 0.0) - now
        if used_seconds <= 0:
            return self.limit, 0
        remaining = self.limit - math.ceil(used_seconds / self._unit_seconds - 1e-6)
        return max(remaining, 0), math.ceil(used_seconds)

    def _sweep(self, now: float) -> None:
        """Drop keys whose quota is full again; done whenever the number of keys has doubled, so amortized it is O(1)."""
        self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        self._swept_at_size = max(_KEPT_AT_LEAST, 2 * len(self._full_at))

    def __len__(self) -> int:
        return len(self._full_at)


class Reservation:
    """What an in-flight request or event of a tenant holds of its quotas, until ``release``."""

    __slots__ = ("_held_bytes", "_quotas", "_size_bytes", "_tenant_id")

    def __init__(self, quotas: Quotas, tenant_id: str, size_bytes: int, held_bytes: int) -> None:
        self._quotas, self._tenant_id = quotas, tenant_id
        self._size_bytes, self._held_bytes = size_bytes, held_bytes

    def adjust(self, total_bytes: int) -> None:
        """Account for a body that is larger than it announced: it was compressed, or came in chunks.

        Raises: RateLimited.
        """
        self._quotas.admission.hold(self._tenant_id, total_bytes - self._held_bytes)
        self._held_bytes = total_bytes
        if total_bytes > self._size_bytes:
            self._quotas.spend_bytes(self._tenant_id, total_bytes - self._size_bytes)

    def exclusive(self) -> AbstractContextManager[None]:
        """Wait until no other large request of the tenant is processed, if this one is large."""
        return self._quotas.scheduler.exclusive(self._tenant_id, self._held_bytes)

    def release(self) -> None:
        """Give back what is held: the request has ended."""
        self._quotas.admission.leave(self._tenant_id, self._held_bytes)


class TenantQuotas:
    """The quotas of one tenant, or of all that have none of their own; ``settings`` are those that hold for it."""

    __slots__ = ("bytes", "policy", "requests", "rows", "settings", "shown")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.requests = Quota("requests", settings.tenant_requests)
        self.bytes = Quota("bytes", settings.tenant_bytes)
        self.rows = Quota("rows", settings.tenant_rows)
        self.shown = (self.requests, self.bytes, self.rows)
        self.policy = _policy([quota.remaining("", 0.0) for quota in self.shown])


def with_own(settings: Settings, own: Mapping[str, Any] | None) -> Settings:
    """Give the settings that hold for a tenant with quotas of its own, by the names of settings."""
    return replace(settings, **{name: own[name] for name in OWN if name in own}) if own else settings


class Quotas:
    """All quotas of a server, and what tenants use of it."""

    def __init__(self, settings: Settings, scheduler: Scheduler, clock: Callable[[], float] = time.monotonic) -> None:
        self.scheduler, self._clock, self._settings = scheduler, clock, settings
        self.admission = Admission(settings, scheduler)
        self.usage = Usage()
        self._of_all = TenantQuotas(settings)
        self._own: dict[str, tuple[str, TenantQuotas]] = {}
        """Of tenants that have their own and whose sessions were looked up: as they are stored, and what they are."""
        self._events = Quota("events", settings.socket_events)
        self._refused_events = Quota("refused events", settings.socket_events)
        self._event_bytes = Quota("event bytes", settings.socket_bytes)

    # --- a tenant's --------------------------------------------------------------------------------------------------

    def of(self, tenant_id: str) -> TenantQuotas:
        """Give what holds for a tenant."""
        return self._own[tenant_id][1] if tenant_id in self._own else self._of_all

    def note_own(self, tenant_id: str, stored: str | None) -> None:
        """Note the quotas that the operator gave a tenant, as JSON; None if it has none of its own. New ones begin full."""
        if stored is None:
            self._own.pop(tenant_id, None)
        elif tenant_id not in self._own or self._own[tenant_id][0] != stored:
            self._own[tenant_id] = stored, self._made(tenant_id, stored)

    def _made(self, tenant_id: str, stored: str) -> TenantQuotas:
        try:
            return TenantQuotas(with_own(self._settings, json.loads(stored)))
        except Exception:  # Written by hand: its owner must not be shut out by it.
            log.exception("the quotas of tenant %s can't be read; it has those of all", tenant_id)
            return self._of_all

    def reserve(self, tenant_id: str, size_bytes: int, held_bytes: int | None = None) -> Reservation:
        """Admit a request or event of a tenant, when its turn has come; the caller must ``release`` the reservation.

        ``size_bytes`` are spent at once. ``held_bytes``: how much memory its body may take, if that differs.
        Raises: Busy if too much of the tenant is in flight, RateLimited if it has used up a quota.
        """
        held = size_bytes if held_bytes is None else held_bytes
        self.admission.enter(tenant_id, held)
        reservation = Reservation(self, tenant_id, size_bytes, held)
        try:
            self.of(tenant_id).requests.check(tenant_id, 1, self._clock())
            self.spend_bytes(tenant_id, size_bytes)
        except BaseException:
            reservation.release()
            raise
        return reservation

    def spend_bytes(self, tenant_id: str, count: int) -> None:
        """Spend bytes of bodies.

        Raises: RateLimited.
        """
        if count:
            self.of(tenant_id).bytes.check(tenant_id, count, self._clock())

    def spend_rows(self, tenant_id: str, count: int) -> None:
        """Spend rows of a push.

        Raises: RateLimited.
        """
        self.of(tenant_id).rows.check(tenant_id, count, self._clock())

    def headers(self, tenant_id: str) -> dict[str, str]:
        """Write the headers that tell a tenant its remaining quotas."""
        now, its = self._clock(), self.of(tenant_id)
        return {
            "RateLimit-Policy": its.policy,
            "RateLimit": ", ".join([quota.state(tenant_id, now) for quota in its.shown]),
        }

    def remaining(self, tenant_id: str) -> list[RemainingQuota]:
        """Give the same for people."""
        now = self._clock()
        return [quota.remaining(tenant_id, now) for quota in self.of(tenant_id).shown]

    # --- a socket's --------------------------------------------------------------------------------------------------

    def check_event(self, socket_id: str) -> None:
        """Spend one event of a socket.

        Raises: RateLimited.
        """
        self._events.check(socket_id, 1, self._clock())

    def is_flood(self, socket_id: str) -> bool:
        """Count a refused event; tell whether a whole quota of refused events is used up too."""
        return self._refused_events.spend(socket_id, 1, self._clock()) > 0

    def pause_seconds(self, socket_id: str, size_bytes: int) -> float:
        """Spend bytes of a socket; return for how long it must not be read."""
        pause = self._event_bytes.spend(socket_id, size_bytes, self._clock())
        if pause:
            self._event_bytes.spend(socket_id, size_bytes, self._clock() + pause)
        return pause
