"""The record of backup runs in the main database: which came to an end, what they kept, why one failed.

Knows: the statements on this record, bound by the caller to the directory. Must not know: how a backup is made, where
it is, when the next one is due, engines. Times in seconds since 1970.
"""

from __future__ import annotations

from typing import Any, Literal

from peewee import IntegerField, TextField, fn

from models import Bound

State = Literal["running", "good", "incomplete", "failed", "interrupted"]
"""``incomplete``: it was made, but of some customers it has an older state, or none. ``interrupted``: it was killed."""

_KEPT = 1_000


class BackupRun(Bound):
    """One run of the backups that look after themselves. Times in seconds since 1970.

    ``name`` is that of the backup, once it is made; ``stored_bytes`` is what was written for it.
    """

    number = IntegerField(primary_key=True)
    place = TextField()
    started_at = IntegerField()
    ended_at = IntegerField(null=True)
    state = TextField()
    name = TextField(null=True)
    tenants = IntegerField(default=0)
    changed = IntegerField(default=0)
    stored_bytes = IntegerField(default=0)
    error = TextField(null=True)

    class Meta:
        table_name = "backup_runs"


def latest() -> BackupRun | None:
    """Give the run that was begun last, which may still be running."""
    found = runs(1)
    return found[0] if found else None


def latest_good(place: str | None = None) -> BackupRun | None:
    """Give the last run that ended well, of all or of those into one place."""
    good = _newest_first().where(BackupRun.state == "good")
    found: BackupRun | None = (good if place is None else good.where(BackupRun.place == place)).first()
    return found


def latest_made(place: str) -> BackupRun | None:
    """Give the last run that made a backup in a place, complete or not."""
    made = _newest_first().where(BackupRun.state.in_(["good", "incomplete"]), BackupRun.place == place)
    found: BackupRun | None = made.first()
    return found


def runs(limit: int) -> list[BackupRun]:
    """List the runs, the newest first."""
    return list(_newest_first().limit(limit))


def begin(place: str, now: int) -> int:
    """Note that a run begins, and give its number. Whoever begins one knows that no other is at work."""
    _end_lost(now)
    number = int(BackupRun.select(fn.COALESCE(fn.MAX(BackupRun.number), 0)).scalar()) + 1
    BackupRun.create(number=number, place=place, started_at=now, state="running")
    BackupRun.delete().where(BackupRun.number <= number - _KEPT).execute()
    return number


def finish(number: int, state: State, now: int, error: str | None = None, **counts: int | str) -> None:
    """Note how a run ended. ``counts``: ``name``, ``tenants``, ``changed``, ``stored_bytes``, as far as it came."""
    BackupRun.update(state=state, ended_at=now, error=error, **counts).where(BackupRun.number == number).execute()


def note_lost(number: int, now: int) -> None:
    """Note that a run ended without a word."""
    is_lost = (BackupRun.number == number) & (BackupRun.state == "running")
    BackupRun.update(state="interrupted", ended_at=now).where(is_lost).execute()


def _end_lost(now: int) -> None:
    BackupRun.update(state="interrupted", ended_at=now).where(BackupRun.state == "running").execute()


def _newest_first() -> Any:
    return BackupRun.select().order_by(BackupRun.number.desc())
