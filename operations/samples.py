"""Samples of what a running server does: of the last hour and of the last day, for the charts of the console.

Knows: what is sampled, how often, how much is kept. Must not know: who looks at it. It reads the counters that
``server.metrics`` has in any case, in a greenlet of its own; a day of samples takes less than 0.2 MiB. Each process has its
own. That greenlet times the event loop, too.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from array import array
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gevent

from server.metrics import LAG_SECONDS, PUSHES, REFUSALS, REQUESTS

log = logging.getLogger("syncapp.metrics")

_LAG_EVERY_SECONDS = 0.5
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_FEWEST = 12
"""Samples that tell how a disk fills: an hour of the day's."""

NAMES = ("requests", "pushes", "refusals", "failures", "sockets", "processor", "lag", "memory", "disk")
"""Rates a second, but ``sockets``, ``processor`` as a share of a core, the worst ``lag`` in seconds, and the bytes of
``memory`` that the process takes and those that are free on the ``disk``. What can't be measured is NaN."""


class Series:
    """The samples of one time span: one every ``every_seconds``, at most ``most`` of them."""

    def __init__(self, every_seconds: float, most: int) -> None:
        self.every_seconds = every_seconds
        self._rows: deque[array[float]] = deque(maxlen=most)
        self._due, self._worst_lag = 0.0, 0.0
        self._before: tuple[float, _Counted] | None = None

    def note_lag(self, seconds: float) -> None:
        """Note by how much the event loop was late."""
        self._worst_lag = max(self._worst_lag, seconds)

    def take_if_due(self, now: float, measure: Callable[[], _Counted]) -> None:
        """Take a sample when it is time; the first look only begins the counting."""
        if now < self._due:
            return
        counted, before = measure(), self._before
        self._due, self._before = now + self.every_seconds, (now, counted)
        if before is not None:
            seconds = max(now - before[0], 1e-3)
            self._rows.append(array("d", [time.time(), *_since(before[1], counted, seconds, self._worst_lag)]))
        self._worst_lag = 0.0

    def columns(self) -> dict[str, list[float | None]]:
        """Give the samples by name, the oldest first; ``at`` are seconds since 1970."""
        columns = zip(*self._rows, strict=True) if self._rows else ([] for _ in ("at", *NAMES))
        return {
            name: [None if math.isnan(value) else value for value in column]
            for name, column in zip(("at", *NAMES), columns, strict=True)
        }


class _Counted(NamedTuple):
    requests: int
    pushes: int
    refusals: int
    failures: int
    processor_seconds: float
    sockets: int
    memory_bytes: float
    disk_bytes: float


def _since(before: _Counted, now: _Counted, seconds: float, lag: float) -> list[float]:
    rates = [(after - then) / seconds for after, then in zip(now[:5], before[:5], strict=True)]
    return [*rates[:4], now.sockets, rates[4], lag, now.memory_bytes, now.disk_bytes]


class Samples:
    """What is kept of one process."""

    def __init__(self, folder: Path | None, sockets: Callable[[], int]) -> None:
        """``folder`` is on the disk of the data, None if that is elsewhere; ``sockets`` counts those that listen."""
        self._folder, self._sockets = folder, sockets
        self.hour, self.day = Series(10, 360), Series(300, 288)

    def start(self, is_over: Callable[[], bool]) -> None:
        """Take samples until the server ends."""
        gevent.spawn(self._run, is_over)

    def _run(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            due = time.perf_counter() + _LAG_EVERY_SECONDS
            gevent.sleep(_LAG_EVERY_SECONDS)
            lag = max(0.0, time.perf_counter() - due)
            LAG_SECONDS.observe(lag)
            try:
                self.take(time.monotonic(), lag)
            except Exception:
                log.exception("a sample can't be taken")

    def take(self, now: float, lag: float) -> None:
        """Note the lag, and take the samples that are due."""
        for series in (self.hour, self.day):
            series.note_lag(lag)
            series.take_if_due(now, self.measure)

    def measure(self) -> _Counted:
        """Read what is counted now."""
        failures = sum(count for (_, status), count in REQUESTS.items() if int(status) >= 500)
        return _Counted(
            requests=sum(REQUESTS.values()),
            pushes=PUSHES[()],
            refusals=sum(REFUSALS.values()),
            failures=failures,
            processor_seconds=time.process_time(),
            sockets=self._sockets(),
            memory_bytes=memory_bytes() or math.nan,
            disk_bytes=shutil.disk_usage(self._folder).free if self._folder else math.nan,
        )


def memory_bytes() -> int | None:
    """Give the memory that this process takes (proc(5), statm: resident), None where that can't be asked."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def full_in_seconds(columns: dict[str, list[Any]]) -> float | None:
    """Tell in how long the disk is full, if it goes on filling as in these samples; None if it does not fill, or they are
    too few to tell.

    The slope is that of the least squares, so that one large file that came or went does not decide.
    """
    points = [(at, free) for at, free in zip(columns["at"], columns["disk"], strict=True) if free is not None]
    if len(points) < _FEWEST:
        return None
    mean_at, mean_free = (sum(column) / len(points) for column in zip(*points, strict=True))
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    slope = sum((at - mean_at) * (free - mean_free) for at, free in points) / spread if spread else 0.0
    return points[-1][1] / -slope if slope < 0 else None
