"""Follows rows back through the log of changes: what each had at an earlier change, and since when that is held.

Knows: the statements on the chain that changes of a row make, bound to one tenant by the caller. Must not know: Flask,
sockets, engines, what rows say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from models import connection
from storage.positions import position

LOST = -1
"""Stands for a change that is not held any more."""


class NotHeld(LookupError):
    """What a row was at that moment is not in the log any more."""


class Touched:
    """The rows that were changed after a moment: by the newest change of each, the change that it had at the moment.

    None stands for no row. ``read`` goes on through the log, a part at a time, so that nobody waits for all of it.
    """

    def __init__(self, moment: int) -> None:
        self.moment, self.until = moment, moment
        self.then: dict[int, int | None] = {}

    def read(self, until: int, count: int) -> bool:
        """Follow at most ``count`` more changes up to ``until``, and tell whether there may be more."""
        found = connection().execute(_CHAIN, (self.until, until, count)).fetchall()
        for sequence, previous in found:
            if previous is not None and previous > self.moment:
                self.then[sequence] = self.then.pop(previous, LOST)  # Or purged: nobody knows what was before.
            else:
                self.then[sequence] = previous
        self.until = found[-1][0] if len(found) == count else until
        return len(found) == count


_CHAIN = "SELECT seq, previous_seq FROM _changes WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"


def touched_rows(moment: int, table: str, row_ids: Sequence[str]) -> dict[int, int | None]:
    """Give the same of some rows of a table, by their histories alone."""
    found: dict[int, int | None] = {}
    is_known = moment >= position().purged_until
    for row_id in row_ids:
        newest: int | None = None
        before: int | None = None if is_known else LOST
        for sequence, previous in _links(table, row_id):
            newest = newest or sequence
            before = sequence
            if sequence <= moment:
                break
            before = previous if previous is not None or is_known else LOST
        if newest != before:
            found[newest or LOST] = before
    return found


def newest_of(table: str, row_ids: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Give by ID the newest change of each of some rows that is there."""
    for row_id in row_ids:
        found = connection().execute(f'SELECT e._seq FROM "{table}" AS e WHERE e.id = ?', (row_id,)).fetchone()
        if found is not None:
            yield row_id, int(found[0])


def newest_changes(table: str, after: int, count: int) -> list[tuple[str, int]]:
    """Give the same of the rows of a table, a page at a time, in the order of these changes."""
    page = f'SELECT e.id, e._seq FROM "{table}" AS e WHERE e._seq > ? ORDER BY e._seq LIMIT ?'
    return [(row_id, int(sequence)) for row_id, sequence in connection().execute(page, (after, count)).fetchall()]


def _links(table: str, row_id: str) -> Iterator[tuple[int, int | None]]:
    """Give the changes of a row that are held, from the newest back, each with the one before it."""
    sql = connection()
    found = sql.execute(f'SELECT e._seq FROM "{table}" AS e WHERE e.id = ?', (row_id,)).fetchone()
    while found is not None and (sequence := found[0]) is not None:
        found = sql.execute("SELECT previous_seq FROM _changes WHERE seq = ?", (sequence,)).fetchone()
        if found is not None:
            yield sequence, found[0]


# --- since when all is held ------------------------------------------------------------------------------------------


def last_unknown(after: int, until: int, tables: Sequence[str]) -> int:
    """Give the last change of these tables within a part of the log whose row's change before it is not held; 0 if all are.

    From the last one of the whole log on, or from ``purged_until`` if that is later, each moment can be told.
    """
    known = ", ".join(f"'{name}'" for name in tables)
    lost = (
        f"SELECT max(c.seq) FROM _changes AS c WHERE c.seq > ? AND c.seq <= ? AND c.table_name IN ({known})"
        " AND c.previous_seq IS NOT NULL AND NOT EXISTS (SELECT 1 FROM _changes AS p WHERE p.seq = c.previous_seq)"
    )
    return int(connection().execute(lost, (after, until)).fetchone()[0] or 0)


def rows_known_since(table: str, row_ids: Sequence[str]) -> int:
    """Give the first moment from which on it can be told what each of some rows was."""
    purged_until, since = position().purged_until, 0
    for row_id in row_ids:
        oldest = next(iter(deque(_links(table, row_id), maxlen=1)), None)
        if oldest is None or oldest[1] is None:
            known = purged_until if oldest is None else min(oldest[0], purged_until)
        else:
            known = oldest[0]
        since = max(since, known)
    return since
