"""A tenant's position in its commit order, and how times and cursors map to such positions.

Knows: the statements on ``_meta`` and on the clock of the log, bound to one tenant by the caller. Must not know: pushes,
pulls, Flask, sockets, engines.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from models import connection
from protocol.codec import Cursor
from protocol.messages import Position


def now_ms() -> int:
    """Give the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def incarnation() -> tuple[str, int]:
    """Read the epoch and the sequence alone, which files of every version have."""
    epoch, sequence = next(iter(connection().execute("SELECT epoch, sequence FROM _meta")))
    return str(epoch), int(sequence)


def position() -> Position:
    """Read the current position."""
    found = connection().execute(POSITION).fetchone()
    if found is None:
        raise LookupError("the database has no _meta row")
    return Position(*found)


def move(sequence: int, clock: int) -> None:
    """Note the last change of a commit, in its transaction."""
    connection().execute(MOVE, (sequence, clock))


def answers(statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    """Give by statement the rows that it finds."""
    return [connection().execute(statement).fetchall() for statement in statements]


POSITION = "SELECT epoch, sequence, clock, purged_until, purged_at, restored_at FROM _meta"
MOVE = "UPDATE _meta SET sequence = ?, clock = ?"


def position_and_digests() -> tuple[Position, dict[str, dict[str, Any]]]:
    """Read the current position and each table's digest there: of one moment, as all that one read sees."""
    found = connection().execute("SELECT table_name, count, hash FROM _digests")
    return position(), {table: {"count": count, "hash": digest} for table, count, digest in found}


def missed(cursor: Cursor | None) -> tuple[Position, int | None]:
    """Tell the current position, and how many changes came after ``cursor``.

    Without a cursor all count; None means that the cursor is of another incarnation.
    """
    here = position()
    if cursor is None:
        return here, here.sequence
    foreign = cursor.epoch != here.epoch or cursor.sequence > here.sequence
    return here, None if foreign else here.sequence - cursor.sequence


def begin_epoch(now: int) -> None:
    """Begin another commit order on the rows there are: no cursor of before fits it, no device's position, no time.

    What was restored is written again, also if it had moved away when it was copied.
    """
    at = max(position().clock + 1, now)
    begun = "UPDATE _meta SET epoch = ?, clock = ?, restored_at = ?, moved_to = NULL"
    connection().execute(begun, (secrets.token_hex(6), at, at))
    connection().execute("UPDATE _devices SET places = '{}'")


def last_until(time: int, newest: int) -> int:
    """Find the last change committed at ``time`` or before, by bisection: the log's clock rises with its sequence."""
    low, high = 0, newest
    while low < high:
        middle = (low + high + 1) // 2
        if committed_at(middle) <= time:
            low = middle
        else:
            high = middle - 1
    return low


_KEPT_TIMES = 10_000
_times_until: dict[tuple[str, int], int] = {}


def note_commit(here: Position) -> None:
    """Note the time of a commit that was made: its device will ask for it with its next push."""
    if len(_times_until) >= _KEPT_TIMES:
        _times_until.clear()
    _times_until[here.epoch, here.sequence] = here.clock


def time_until(epoch: str, sequence: int, newest: int) -> int:
    """Give a time from which on a pull misses nothing that comes after ``sequence``: that of its commit, if it ends one.

    It stays so, for commits come in order: it is looked up once, since devices that never pull ask with each push.
    """
    time = _times_until.get((epoch, sequence))
    if time is None:
        sql = "SELECT committed_at FROM _changes WHERE seq > ? ORDER BY seq LIMIT 1"
        found = connection().execute(sql, (sequence,)).fetchone()
        following, time = found[0] if found else newest + 1, committed_at(sequence)
        if not time or time >= following:
            time = max(1, following - 1)
        if found:
            _times_until[epoch, sequence] = time
    return int(time)


def committed_at(sequence: int) -> int:
    """Give the time of the newest change still held at ``sequence`` or before it, 0 if there is none."""
    sql = "SELECT committed_at FROM _changes WHERE seq <= ? ORDER BY seq DESC LIMIT 1"
    return next((int(row[0]) for row in connection().execute(sql, (sequence,))), 0)
