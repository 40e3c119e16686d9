"""Keeps the newest lines of the log in memory, for who looks at a running server from within.

Knows: how much is kept, and how lines are found again. Must not know: who reads them, what is logged. Each process keeps
its own. A line is parsed when somebody reads it.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from gevent.monkey import get_original

from server.log_format import Line, Lines

_MOST_LINES, _MOST_BYTES = 1_000, 512 * 1024
_MOST_WARNINGS, _MOST_WARNING_BYTES = 200, 256 * 1024
"""Warnings and errors are kept for longer: a busy server writes a thousand lines in a second."""

_OWN_FIELDS = ("time", "level", "logger", "message", "request_id", "tenant")


class Entry(NamedTuple):
    """One line of the log. ``fields`` has what it says beyond the others, with an exception's traceback.

    All texts may be from outside: whoever shows them escapes them.
    """

    number: int
    time: str
    level: str
    logger: str
    message: str
    request_id: str | None
    tenant: str | None
    fields: dict[str, Any]


_Kept = tuple[int, int, str]
"""A number, a level, a line; no class of its own, which would take longer to make."""


class _Newest(deque[_Kept]):
    """The newest lines, within a number and a size in bytes."""

    def __init__(self, most_lines: int, most_bytes: int) -> None:
        super().__init__()
        self._most_lines, self._most_bytes, self._size_bytes = most_lines, most_bytes, 0

    def add(self, lines: Sequence[_Kept]) -> None:
        """Add lines and drop the oldest beyond what is kept; the newest stays whatever its size."""
        size = self._size_bytes
        for line in lines:
            self.append(line)
            size += len(line[2])
        while (size > self._most_bytes or len(self) > self._most_lines) and len(self) > 1:
            size -= len(self.popleft()[2])
        self._size_bytes = size


class RecentLog(Lines):
    """A handler of ``logging`` whose lines can be read again, each under a number that grows by one."""

    def __init__(self, most_lines: int = _MOST_LINES, most_bytes: int = _MOST_BYTES) -> None:
        super().__init__()
        self.newest = 0
        """The number of the newest line, 0 before the first."""
        self._all = _Newest(most_lines, most_bytes)
        self._warnings = _Newest(_MOST_WARNINGS, _MOST_WARNING_BYTES)
        self._one_at_a_time = get_original("_thread", "RLock")()  # Real threads log too, and nothing here switches.

    def take(self, lines: Sequence[Line]) -> None:
        """Keep lines."""
        with self._one_at_a_time:
            kept = [(number, level, text) for number, (level, text) in enumerate(lines, self.newest + 1)]
            self.newest += len(kept)
            self._all.add(kept)
            if max(lines, key=itemgetter(0))[0] >= logging.WARNING:
                self._warnings.add([one for one in kept if one[1] >= logging.WARNING])

    def since(
        self, number: int = 0, *, level: str = "info", tenant: str | None = None, request_id: str | None = None
    ) -> list[Entry]:
        """List the lines after a number, the oldest first: of a level and above, of one tenant, of one request.

        Who follows asks again with what ``newest`` was before. A number that is not reached yet is that of an earlier
        process, and counts as 0. Raises: ValueError if there is no such level.
        """
        least = level_named(level)
        after = number if number <= self.newest else 0
        found = (_entry(kept) for kept in self._after(after) if kept[1] >= least)
        return [one for one in found if tenant in (None, one.tenant) and request_id in (None, one.request_id)]

    def _after(self, number: int) -> Iterator[_Kept]:
        with self._one_at_a_time:
            kept, warnings = list(self._all), list(self._warnings)
        oldest = kept[0][0] if kept else 0
        yield from (one for one in warnings if number < one[0] < oldest)
        yield from (one for one in kept if one[0] > number)


def level_named(name: str) -> int:
    """Give a level's number.

    Raises: ValueError if there is no such level.
    """
    try:
        return logging.getLevelNamesMapping()[name.upper()]
    except KeyError:
        raise ValueError("must be debug, info, warning, error or critical") from None


def _entry(kept: _Kept) -> Entry:
    number, _, text = kept
    line = json.loads(text)
    time, level, logger, message, request_id, tenant = (line.pop(name, None) for name in _OWN_FIELDS)
    return Entry(number, time, level, logger, message, request_id, tenant, line)


RECENT = RecentLog()
"""Of this process."""
