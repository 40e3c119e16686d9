"""The note in the main database that an operator has the installation take no changes, and when that began and ended.

Knows: the statements on it, bound by the caller, and that each change is recorded with it. Must not know: what is refused
meanwhile (``server.maintenance``), the command line, engines.
"""

from __future__ import annotations

from typing import NamedTuple

from models import connection
from storage.moving import name_of_installation
from storage.operator_actions import record


class Noted(NamedTuple):
    """Since when, in seconds since 1970, and what clients are told."""

    since: int
    message: str | None


def maintenance() -> Noted | None:
    """Tell since when no changes are taken, and what clients are told; None if they are."""
    noted = "SELECT maintenance_since, maintenance_message FROM installation WHERE maintenance_since IS NOT NULL"
    return next((Noted(*row) for row in connection().execute(noted)), None)


def begin(message: str | None, now: int, by: str | None = None) -> None:
    """Take no changes from now on, or tell clients something else."""
    name_of_installation()  # Makes the row.
    before = maintenance()
    _note(before.since if before else now, message)
    record("maintenance-on", "", now, message, by)


def end(now: int, by: str | None = None) -> bool:
    """Take changes again; False if they were."""
    if is_on := maintenance() is not None:
        _note(None, None)
        record("maintenance-off", "", now, by=by)
    return is_on


def _note(since: int | None, message: str | None) -> None:
    connection().execute("UPDATE installation SET maintenance_since = ?, maintenance_message = ?", (since, message))
