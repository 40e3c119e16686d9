"""Turns errors of SQLite and of the system into ours, where somebody can do something about them.

Knows: the errors of the engine and of the system, and what a full disk looks like to both. Must not know: files,
transactions, whose request it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import apsw

from protocol.errors import Busy, Problem, StorageFull
from server.disk_space import NO_ROOM, room

EngineError = apsw.Error
"""What the engine itself raises, of a file that it can't use."""


@contextlib.contextmanager
def as_problems() -> Iterator[None]:
    """Say what the engine raises as one of our errors, where somebody can do something about it."""
    try:
        yield
    except Exception as error:
        problem = problem_of(error)
        if problem is error:
            raise
        raise problem from error


def _is_for_want_of_room(error: BaseException | None) -> bool:
    """Tell of the engine's errors, and of the system's, whether a full disk caused them.

    A write-ahead log that is opened needs an index in shared memory beside it: SQLite says SHMSIZE if there is no room for
    it, and CANTOPEN if there is none for one more file (sqlite.org/rescode.html).
    """
    if isinstance(error, apsw.IOError):
        return bool(getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE)
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return isinstance(error, apsw.FullError)


def problem_of(error: Exception) -> Exception:
    """Say an engine's error as one of ours, where a client can do something about it."""
    if isinstance(error, Problem):
        return error
    cause = error if isinstance(error, apsw.Error | OSError) else error.__cause__
    if _is_for_want_of_room(cause):
        room.note_full()
        return StorageFull()
    if isinstance(cause, apsw.BusyError | apsw.LockedError):
        return Busy()
    return error


def reason_of(error: Exception) -> str:
    """Say for a person why something failed: of the system's errors the words and the path, not the number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)
