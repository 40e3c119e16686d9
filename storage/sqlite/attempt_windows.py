"""How often something was tried lately, in the memory of the one process that has the files.

Knows: moving windows. Must not know: what is tried, who tries.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_KEPT_AT_LEAST = 1_024


class AttemptWindows:
    """Counts attempts (see ``storage.engine.AttemptCounts``). A clock that is set changes no window."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[str, tuple[int, deque[float]]] = {}
        """Of each key the length of its window in seconds, and when it was tried within that."""
        self._swept_at_size = _KEPT_AT_LEAST

    def acquire_entry(self, key: str, limit: int, expiry: int) -> bool:
        """See ``storage.engine.AttemptCounts``."""
        now = self._clock()
        times = self._within(key, expiry, now)
        if len(times) >= limit:
            return False
        times.append(now)
        self._windows[key] = expiry, times
        if len(self._windows) > self._swept_at_size:
            self._sweep(now)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """See ``storage.engine.AttemptCounts``."""
        now = self._clock()
        times = self._within(key, expiry, now)
        return time.time() - (now - times[0] if times else 0.0), len(times)

    def _within(self, key: str, expiry: int, now: float) -> deque[float]:
        """Give the times of a key that are within its window, oldest first; earlier ones are forgotten."""
        _, times = self._windows.get(key, (expiry, deque()))
        while times and times[0] <= now - expiry:
            times.popleft()
        return times

    def _sweep(self, now: float) -> None:
        """Drop keys whose window is over; done whenever the number of keys has doubled, so amortized it is O(1)."""
        over = [key for key, (expiry, times) in self._windows.items() if not times or times[-1] <= now - expiry]
        for key in over:
            del self._windows[key]
        self._swept_at_size = max(_KEPT_AT_LEAST, 2 * len(self._windows))

    def __len__(self) -> int:
        return len(self._windows)
