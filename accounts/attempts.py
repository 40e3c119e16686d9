"""Limits how often a password or a registration may be tried.

Knows: moving windows, and the ``RateLimit`` headers that describe them. Must not know: passwords, accounts, endpoints,
where attempts are counted.
"""

from __future__ import annotations

import hashlib
import math
import time

from cachetools import LRUCache

from protocol.errors import RateLimited
from server.quotas import RemainingQuota, rate_headers
from setting_values import Rate, rates_of
from storage.engine import AttemptCounts

_MOST_REFUSED = 10_000
_Windows = list[tuple[Rate, int, float]]
"""Of each rate how many attempts are left, and when all are again, in seconds of ``time.monotonic``."""


class Attempts:
    """Counts attempts in moving windows. Those that are refused do not count, and cost no look at the counts."""

    def __init__(self, rates: str, purpose: str, counts: AttemptCounts) -> None:
        self._rates, self._purpose, self._counts = rates_of(rates), purpose, counts
        self._refused: LRUCache[str, tuple[float, _Windows]] = LRUCache(_MOST_REFUSED)
        """By key, until when it is refused, and what its windows were."""

    def count(self, key: str) -> None:
        """Count one attempt of ``key``, an address or an account.

        Raises: RateLimited, with the seconds to wait; Busy.
        """
        self._check_refused(key)
        for rate in self._rates:
            if not self._counts.acquire_entry(self._name(rate, key), rate.amount, rate.seconds):
                windows = self._windows(key)
                until = next(reset for one, _, reset in windows if one is rate)
                self._refused[key] = until, windows
                self._check_refused(key)
                raise RateLimited(retry_after_seconds=1)

    def _check_refused(self, key: str) -> None:
        until = self._refused.get(key, (0.0, []))[0]
        if until > (now := time.monotonic()):
            raise RateLimited(retry_after_seconds=max(1, int(until - now) + 1))

    def headers(self, key: str) -> dict[str, str]:
        """Write the headers that say how many attempts ``key`` has left."""
        until, windows = self._refused.get(key, (0.0, []))
        if until <= time.monotonic():
            windows = self._windows(key)
        return rate_headers([self._remaining(*window) for window in windows])

    def _windows(self, key: str) -> _Windows:
        return [(rate, *self._window(rate, key)) for rate in self._rates]

    def _window(self, rate: Rate, key: str) -> tuple[int, float]:
        oldest, count = self._counts.get_moving_window(self._name(rate, key), rate.amount, rate.seconds)
        return rate.amount - count, time.monotonic() + min(oldest + rate.seconds - time.time(), rate.seconds)

    def _remaining(self, rate: Rate, left: int, reset: float) -> RemainingQuota:
        name = f"{self._purpose} per {rate.unit}"
        reset_seconds = max(0, math.ceil(reset - time.monotonic()))
        return RemainingQuota(name, rate.amount, rate.seconds, max(0, left), reset_seconds)

    def _name(self, rate: Rate, key: str) -> str:
        """Name a window, as versions before do. Addresses are kept nowhere as they are."""
        hashed = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=16).hexdigest()
        return f"LIMITER/{self._purpose}/{hashed}/{rate.amount}/{rate.units}/{rate.unit}"
