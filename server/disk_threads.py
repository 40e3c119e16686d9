"""Runs what waits for the disk: in a thread pool, or in the event loop while the disk is fast.

Knows: threads, how long the disk took. Must not know: what is written, SQLite.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar, cast

from gevent.threadpool import ThreadPool

T = TypeVar("T")
_COMMIT_THREADS = 8
_FAST_SECONDS = 0.002


class Disk:
    """Runs blocking disk work. ``at_once`` blocks the event loop for at most a hundredth of the time."""

    def __init__(self) -> None:
        self._threads = ThreadPool(_COMMIT_THREADS)
        self._slow_until = 0.0

    def in_thread(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread, so that the event loop goes on meanwhile."""
        done, error = self._threads.apply(_outcome_of, (work,))
        if error is not None:
            raise error  # Raised here, since the pool would print it as well.
        return cast(T, done)

    def at_once(self, work: Callable[[], object]) -> None:
        """Run ``work`` in the event loop, which saves two thread switches; after a slow one, threads do so for a hundred
        times as long as that took."""
        began = time.monotonic()
        if began < self._slow_until:
            self.in_thread(work)
            return
        work()
        took_seconds = time.monotonic() - began
        if took_seconds > _FAST_SECONDS:
            self._slow_until = began + 100 * took_seconds


def _outcome_of(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


disk = Disk()
