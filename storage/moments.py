"""The moments of a tenant: found by a change's number or a time, and compared with what is now.

Knows: in which parts the log is read, so that others go on; that a moment may be told by another database, a copy from
before. Must not know: the command line, requests, sockets, engines, how a row is compared (``rewind``), what becomes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from models import synced_tables
from protocol.codec import format_time, has_zone, parse_time
from protocol.errors import ValidationError
from protocol.messages import Position
from server.scheduler import yield_if_due
from storage import rewind
from storage.engine import Database
from storage.log_links import (
    LOST,
    NotHeld,
    Touched,
    last_unknown,
    newest_changes,
    newest_of,
    rows_known_since,
    touched_rows,
)
from storage.positions import committed_at, last_until, position
from storage.rewind import Differing, Entries, Kind, entries_here

_LINKS_AT_ONCE, ROWS_AT_ONCE, _UNKNOWN_AT_ONCE = 1_000, 32, 5_000
_MOST_DIGITS = 18
Pairs = list[tuple[int | None, int | None]]
"""Rows by their newest change and the one of the moment; None: no row."""


class NoMoment(ValueError):
    """A moment to which nobody can go back; as text it says why, and what to do. ``is_removed``: it was one."""

    def __init__(self, sentence: str, *, is_removed: bool = False) -> None:
        super().__init__(sentence)
        self.is_removed = is_removed


class Moment(NamedTuple):
    """A position in the tenant's commit order. ``at`` is the time of its commit in milliseconds, 0 before the first.

    ``is_utc_taken``: it was given as a time without a zone. ``restored_at``: data that was replaced by a restore then may
    have been another at that time.
    """

    sequence: int
    at: int
    is_utc_taken: bool = False
    restored_at: int | None = None


@dataclass
class Preview:
    """What differs between now and a moment: the rows, in the order in which they are written."""

    moment: Moment
    here: Position
    tables: Sequence[str]
    row_ids: Sequence[str] = ()
    rows: list[Differing] = field(default_factory=list)
    touched: Touched | None = None
    entries: Entries = entries_here

    @property
    def counts(self) -> dict[str, dict[Kind, int]]:
        """Count the rows by table and kind."""
        found = Counter((row.table, row.kind) for row in self.rows)
        kinds: tuple[Kind, ...] = ("added", "changed", "gone")
        names = dict.fromkeys(row.table for row in self.rows)
        return {name: {kind: found[name, kind] for kind in kinds} for name in names}


class Moments:
    """The moments of one tenant's database, or of ``past``, a copy of it from before."""

    def __init__(self, database: Database, past: Database | None = None) -> None:
        self._database, self._past, self._has_copy = database, past or database, past is not None
        self._entries = partial(_entries_of, past) if past else entries_here

    # --- finding a moment ------------------------------------------------------------------------------------------------

    def moment(self, text: str, now: int) -> Moment:
        """Find a moment by the number of a change, or by a time in ISO 8601: the last commit at or before it.

        Raises: NoMoment if it is neither, or to come.
        """
        if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
            return self._past.read(partial(_moment_of_change, int(text)))
        try:
            at = parse_time(text, "to")
        except ValidationError:
            raise NoMoment(
                "A moment is the number of a change, or a time in ISO 8601 such as 2026-11-23T14:02:00+05:30."
            ) from None
        is_utc_taken = not has_zone(text)
        if at > now:
            zone = " Without a zone a time is UTC." if is_utc_taken else ""
            raise NoMoment(f"{format_time(at)} is still to come.{zone}")
        return self._past.read(partial(_moment_of_time, at, self._has_copy))._replace(is_utc_taken=is_utc_taken)

    def end(self) -> Moment:
        """Give the newest moment: of a copy, when it was made."""
        sequence = self._past.read(position).sequence
        return Moment(sequence, self._past.read(lambda: committed_at(sequence)))

    def known_since(self, tables: Sequence[str] = (), row_ids: Sequence[str] = ()) -> Moment:
        """Give the first moment from which on each can be told: what was before has been removed."""
        tables = tables or list(synced_tables())
        here = self._past.read(position)
        if row_ids:
            since = self._past.read(lambda: rows_known_since(tables[0], row_ids))
        else:
            since = max(here.purged_until, self._last_unknown(here.sequence, tables))
        return Moment(since, self._past.read(lambda: committed_at(since)))

    def _last_unknown(self, newest: int, tables: Sequence[str]) -> int:
        for until in range(newest, 0, -_UNKNOWN_AT_ONCE):
            after = max(0, until - _UNKNOWN_AT_ONCE)
            if found := self._past.read(partial(last_unknown, after, until, tables)):
                return found
            yield_if_due()
        return 0

    # --- comparing -------------------------------------------------------------------------------------------------------

    def preview(self, moment: Moment, tables: Sequence[str] = (), row_ids: Sequence[str] = ()) -> Preview:
        """Compare what is with what was: all tables, some, or some rows of one.

        Raises: NoMoment if the log does not hold all of that, or names no such table.
        """
        if unknown := set(tables) - synced_tables().keys():
            raise NoMoment(f"{sorted(unknown)[0]!r} is no synced table: name one of {', '.join(synced_tables())}.")
        if row_ids and len(tables) != 1:
            raise NoMoment("Rows are of one table: name it.")
        here = self._database.read(position)
        names = list(tables) or list(synced_tables())
        preview = Preview(moment, here, names, list(row_ids), entries=self._entries)
        try:
            self._compare(preview)
        except NotHeld:
            raise self.not_held(preview) from None
        return preview

    def not_held(self, preview: Preview) -> NoMoment:
        """Say that the moment of a preview is not held any more, and which is the earliest that is."""
        since = self.known_since(preview.tables, preview.row_ids)
        what = f"What was at change {preview.moment.sequence:,} is not all held any more."
        earliest = f"The earliest moment that is: change {since.sequence:,}, {time_of(since)}."
        return NoMoment(f"{what} {earliest}", is_removed=True)

    def _compare(self, preview: Preview) -> None:
        moment, tables = preview.moment.sequence, preview.tables
        if self._has_copy:
            pairs = self._pairs_of_copy(preview)
        elif preview.row_ids:
            pairs = in_order(self._database.read(lambda: touched_rows(moment, tables[0], preview.row_ids)))
        else:
            preview.touched = self._touched(moment, preview.here.sequence)
            pairs = in_order(preview.touched.then)
        for some in parts(pairs, ROWS_AT_ONCE):
            preview.rows += self._database.read(partial(rewind.differing, some, tables, preview.entries))
            yield_if_due()

    def _touched(self, moment: int, until: int) -> Touched:
        if moment < self._past.read(position).purged_until:
            raise NotHeld
        touched = Touched(moment)
        while self._past.read(partial(touched.read, until, _LINKS_AT_ONCE)):
            yield_if_due()
        return touched

    def _pairs_of_copy(self, preview: Preview) -> Pairs:
        """Find the rows of now and of then by their IDs, since the sequences of another database say nothing here."""
        pairs: Pairs = []
        if preview.row_ids:
            return self._named_rows_of_copy(preview.moment.sequence, preview.tables[0], preview.row_ids)
        changed = self._touched(preview.moment.sequence, self._past.read(position).sequence).then
        for table in preview.tables:
            now = dict(_all_rows(self._database, table))
            for row_id, newest in _all_rows(self._past, table):
                if (then := changed.get(newest, newest)) is not None:
                    pairs.append((now.pop(row_id, None), then))
            pairs += [(sequence, None) for sequence in now.values()]
        return pairs

    def _named_rows_of_copy(self, moment: int, table: str, row_ids: Sequence[str]) -> Pairs:
        changed = self._past.read(lambda: touched_rows(moment, table, row_ids))
        if LOST in changed:
            raise NotHeld
        there, here = (one.read(lambda: dict(newest_of(table, row_ids))) for one in (self._past, self._database))
        then = {row_id: changed.get(newest, newest) for row_id, newest in there.items()}
        return [(here.get(row_id), then.get(row_id)) for row_id in row_ids]

    def rows(self, preview: Preview, first: int, count: int) -> list[dict[str, Any]]:
        """Describe some rows of a preview: table, ID, kind, and by field what it is now and what it was; a row that comes
        back or goes has one of both."""
        found = []
        for some in parts(preview.rows[first : first + count], ROWS_AT_ONCE):
            found += self._database.read(partial(_described, some, preview.entries))
            yield_if_due()
        return found


def _moment_of_change(sequence: int) -> Moment:
    here = position()
    if sequence > here.sequence:
        raise NoMoment(f"There is no change {sequence:,} yet: the newest is {here.sequence:,}.")
    return Moment(sequence, committed_at(sequence))


def _moment_of_time(at: int, is_copy: bool) -> Moment:
    here = position()
    if is_copy and at > here.clock:
        raise NoMoment(f"This copy ends at {format_time(here.clock)}: what was later is in a later one, or here.")
    if here.purged_at > 0 and at < here.purged_at:
        raise NoMoment(
            f"What was at {format_time(at)} is not all held any more: rows that had been deleted until"
            f" {format_time(here.purged_at)} were removed. The earliest moment that may be is change"
            f" {here.purged_until:,} of that time.",
            is_removed=True,
        )
    sequence = last_until(at, here.sequence)
    committed = committed_at(sequence)
    was_restored = committed < at < here.restored_at and sequence == last_until(here.restored_at - 1, here.sequence)
    return Moment(sequence, committed, restored_at=here.restored_at if was_restored else None)


def time_of(moment: Moment) -> str:
    """Write the time of a moment."""
    return format_time(moment.at) if moment.at else "before the first change"


def in_order(pairs: Mapping[int, int | None]) -> Pairs:
    """Put rows into the order that they had then, those that were not there last: the same each time."""
    return sorted(pairs.items(), key=lambda pair: (pair[1] is None, pair[1] or 0, pair[0]))


def parts(rows: Sequence[Any], count: int) -> Iterator[Any]:
    """Give rows in parts."""
    return (rows[first : first + count] for first in range(0, len(rows), count))


def _described(rows: Sequence[Differing], entries: Entries) -> list[dict[str, Any]]:
    now = entries_here([one.now for one in rows if one.now])
    then = entries([one.then for one in rows if one.then])
    found = []
    for one in rows:
        here = (
            now.get(one.now or 0) if one.kind != "added" else None
        )  # Of a deletion: the row as it comes back is wanted.
        fields = rewind.differences(one.table, here, then.get(one.then or 0))
        found.append({"table": one.table, "id": one.id, "kind": one.kind, "fields": fields})
    return found


def _entries_of(past: Database, sequences: Sequence[int]) -> Mapping[int, rewind.Body]:
    """Read changes of another database, also while bound to this one."""
    return past.read(lambda: entries_here(sequences))


def _all_rows(database: Database, table: str) -> Iterator[tuple[str, int]]:
    after = 0
    while some := database.read(partial(newest_changes, table, after, _LINKS_AT_ONCE)):
        yield from some
        after = some[-1][1]
        yield_if_due()
