"""Limits how often a password or a registration may be tried.

Knows: moving windows, and the ``RateLimit`` headers that describe them. Must not know: passwords, accounts, endpoints.
"""

from __future__ import annotations

import math
import time

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from protocol.errors import RateLimited
from server.quotas import RemainingQuota, rate_headers


class Attempts:
    """Counts attempts in a moving window. The counts are kept in memory: a restart resets them."""

    def __init__(self, rates: str, purpose: str) -> None:
        self._rates, self._purpose = parse_many(rates), purpose
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def count(self, key: str) -> None:
        """Count one attempt of ``key``, an address or an account.

        Raises: RateLimited, with the seconds to wait.
        """
        for rate in self._rates:
            if not self._limiter.hit(rate, self._purpose, key):
                reset = self._limiter.get_window_stats(rate, self._purpose, key).reset_time
                raise RateLimited(retry_after_seconds=max(1, int(reset - time.time()) + 1))

    def headers(self, key: str) -> dict[str, str]:
        """Write the headers that say how many attempts ``key`` has left."""
        return rate_headers([self._remaining(rate, key) for rate in self._rates])

    def _remaining(self, rate: RateLimitItem, key: str) -> RemainingQuota:
        stats = self._limiter.get_window_stats(rate, self._purpose, key)
        name = f"{self._purpose} per {rate.GRANULARITY.name}"
        reset_seconds = max(0, math.ceil(stats.reset_time - time.time()))
        return RemainingQuota(name, rate.amount, rate.get_expiry(), stats.remaining, reset_seconds)
