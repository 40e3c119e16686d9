"""How it stands with the backups: when the last good one was made, whether something is wrong, when the next one is due.

Knows: what counts as overdue, when a failed run is tried again. Must not know: how a backup is made, who asks.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from protocol.codec import format_time
from storage import backup_runs
from storage.backup_runs import BackupRun

RETRY_SECONDS = 900
_OVERDUE_AFTER = 2
"""Times BACKUP_EVERY after which one is overdue."""

State = Literal["ok", "failed", "incomplete", "overdue", "none"]


class Status(NamedTuple):
    """``state`` is the worst that applies; ``none`` if no run came to an end yet. Times in seconds since 1970."""

    state: State
    good_at: int | None
    due_at: int
    age_seconds: float
    """Since the last good backup was begun, or since ``since`` if there is none."""

    last: BackupRun | None

    def shown(self) -> dict[str, Any]:
        """Write it as ``/health`` shows it, with nothing that strangers should not know."""
        good = None if self.good_at is None else format_time(self.good_at * 1000)
        return {"state": self.state, "lastGood": good, "nextDue": format_time(self.due_at * 1000)}


def read(place: str, every_seconds: int, since: int, now: int) -> Status:
    """Read how it stands, bound to the directory. What was kept in another place before does not count.

    ``since``: when the server began, which had no time before.
    """
    newest, good = [run for run in backup_runs.runs(2) if run.place == place], backup_runs.latest_good(place)
    ended = next((run for run in newest if run.state != "running"), None)
    good_at = good.started_at if good else None
    age_seconds = max(0, now - (good_at if good_at is not None else since))
    due_at = _due_at(newest[0] if newest else None, every_seconds, now)
    return Status(_state(ended, age_seconds, every_seconds), good_at, due_at, age_seconds, ended)


def _state(ended: BackupRun | None, age_seconds: float, every_seconds: int) -> State:
    if every_seconds and age_seconds > _OVERDUE_AFTER * every_seconds:
        return "overdue"
    if ended is None:
        return "none"
    return "ok" if ended.state == "good" else "incomplete" if ended.state == "incomplete" else "failed"


def _due_at(newest: BackupRun | None, every_seconds: int, now: int) -> int:
    if newest is None:
        return now
    if newest.state in ("failed", "interrupted"):
        return int((newest.ended_at or newest.started_at) + min(every_seconds, RETRY_SECONDS))
    return int(newest.started_at + every_seconds)
