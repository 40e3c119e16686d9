"""Takes a tenant back to an earlier moment: finds the moment, shows what would change, and makes it a new change.

Knows: in which parts the log is read and rows are written, so that others go on, and that it is recorded. Must not know:
the command line, requests, sockets, engines, how a row is compared or written (``rewind``).

How to use it, from a command or from within a server::

    machine = TimeMachine(engine, tenant_id)
    moment = machine.moment("2026-11-23T14:02", now_ms())   # or the number of a change
    preview = machine.preview(moment)                       # or of some tables, or of some rows of one
    preview.counts                  # {"end_user": {"added": 3, "changed": 1, "gone": 0}, …}, tables that differ alone
    machine.rows(preview, 0, 50)    # [{"table", "id", "kind", "fields": {name: {"now": …, "then": …}}}, …]
    machine.apply(preview, announce=partial(sockets.announce, tenant_id))   # a Rewound

In the server each of these lets others run; none may be called while bound to a database. Outside of it ``announce`` is
left out: a server finds in the record of actions that it is to tell its sockets.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from models import synced_tables
from protocol.codec import format_time, has_zone, parse_time
from protocol.errors import ValidationError
from protocol.messages import Position, PushResult
from server.scheduler import yield_if_due
from storage import operator_actions, rewind
from storage.engine import Engine
from storage.log_links import NotHeld, Touched, last_unknown, rows_known_since, touched_rows
from storage.positions import committed_at, last_until, now_ms, position
from storage.rewind import Differing, Entries, Kind, Written, entries_here

ROWS_AT_ONCE = 10_000
"""Rows that are written in one transaction: so many are seen at once, and pushes wait for them. What is beyond follows in
others."""

_LINKS_AT_ONCE, _ROWS_AT_ONCE, _UNKNOWN_AT_ONCE = 1_000, 32, 5_000
_MOST_DIGITS = 18


class NoMoment(ValueError):
    """A moment to which nobody can go back; as text it says why, and what to do."""


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


class Rewound(NamedTuple):
    """What was done: how many rows were written, as the changes ``first`` to ``last``, and how many were left, since they
    were changed after they had been compared."""

    rows: int
    left: int
    first: int
    last: int


class TimeMachine:
    """One tenant's moments."""

    def __init__(self, engine: Engine, tenant_id: str, by: str | None = None) -> None:
        """``by``: which session of the console acts; None for a command."""
        self._database, self._directory, self._tenant_id = engine.tenant(tenant_id), engine.directory, tenant_id
        self._by = by

    # --- finding a moment ------------------------------------------------------------------------------------------------

    def moment(self, text: str, now: int) -> Moment:
        """Find a moment by the number of a change, or by a time in ISO 8601: the last commit at or before it.

        Raises: NoMoment if it is neither, or to come.
        """
        if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
            return self._database.read(partial(_moment_of_change, int(text)))
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
        return self._database.read(partial(_moment_of_time, at))._replace(is_utc_taken=is_utc_taken)

    def known_since(self, tables: Sequence[str] = (), row_ids: Sequence[str] = ()) -> Moment:
        """Give the first moment from which on each can be told: what was before has been removed."""
        tables = tables or list(synced_tables())
        here = self._database.read(position)
        if row_ids:
            since = self._database.read(lambda: rows_known_since(tables[0], row_ids))
        else:
            since = max(here.purged_until, self._last_unknown(here.sequence, tables))
        return Moment(since, self._database.read(lambda: committed_at(since)))

    def _last_unknown(self, newest: int, tables: Sequence[str]) -> int:
        for until in range(newest, 0, -_UNKNOWN_AT_ONCE):
            after = max(0, until - _UNKNOWN_AT_ONCE)
            if found := self._database.read(partial(last_unknown, after, until, tables)):
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
        preview = Preview(moment, here, list(tables) or list(synced_tables()), list(row_ids))
        try:
            self._compare(preview)
        except NotHeld:
            raise NoMoment(self._not_held(preview)) from None
        return preview

    def _not_held(self, preview: Preview) -> str:
        since = self.known_since(preview.tables, preview.row_ids)
        return (
            f"What was at change {preview.moment.sequence:,} is not all held any more. The earliest moment that is:"
            f" change {since.sequence:,}, {_time_of(since)}."
        )

    def _compare(self, preview: Preview) -> None:
        moment = preview.moment.sequence
        if preview.row_ids:
            pairs = self._database.read(lambda: touched_rows(moment, preview.tables[0], preview.row_ids))
        else:
            if moment < preview.here.purged_until:
                raise NotHeld
            preview.touched = Touched(moment)
            while self._database.read(partial(preview.touched.read, preview.here.sequence, _LINKS_AT_ONCE)):
                yield_if_due()
            pairs = preview.touched.then
        for some in _parts(_in_order(pairs), _ROWS_AT_ONCE):
            preview.rows += self._database.read(partial(rewind.differing, some, preview.tables, preview.entries))
            yield_if_due()

    def rows(self, preview: Preview, first: int, count: int) -> list[dict[str, Any]]:
        """Describe some rows of a preview: table, ID, kind, and by field what it is now and what it was."""
        found = []
        for some in _parts(preview.rows[first : first + count], _ROWS_AT_ONCE):
            found += self._database.read(partial(_described, some, preview.entries))
            yield_if_due()
        return found

    # --- writing ---------------------------------------------------------------------------------------------------------

    def apply(
        self,
        preview: Preview,
        announce: Callable[[PushResult], None] | None = None,
        *,
        takes_all: bool = False,
    ) -> Rewound:
        """Make the rows of a preview again what they were, as a new change; twice is once.

        Up to ``ROWS_AT_ONCE`` rows are one transaction, so that nobody sees a part of them. Rows that were changed after
        the preview are left as they are, since nobody saw what they would lose; with ``takes_all`` they are taken too, so
        that all is exactly as it was. ``announce`` tells the listeners of a commit.
        Raises: NoMoment; Busy, StorageFull.
        """
        if not preview.rows:
            return Rewound(0, 0, 0, 0)
        about = f"to change {preview.moment.sequence}, {_time_of(preview.moment)}"
        self._record("rewind", about)
        done = Rewound(0, 0, 0, 0)
        waiting: Sequence[Differing] = preview.rows
        is_first = True
        while waiting or is_first:
            part = _Part(preview, waiting, takes_all=takes_all and is_first)
            try:
                written = self._database.write(part.write, announce and (lambda one: announce(one.applied)))
            except NotHeld:
                raise NoMoment(self._not_held(preview)) from None
            waiting, is_first = part.rest, False
            done = _added(done, written)
            if written.applied.touched:
                self._record(
                    operator_actions.CHANGED_ROWS, f"changes {written.applied.before.sequence + 1} to {done.last}"
                )
        return done

    def _record(self, action: str, about: str) -> None:
        now = now_ms() // 1000
        self._directory.write(lambda: operator_actions.record(action, self._tenant_id, now, about, self._by))


class _Part:
    """What one transaction writes; ``rest`` is what is left to others."""

    def __init__(self, preview: Preview, rows: Sequence[Differing], *, takes_all: bool) -> None:
        self._preview, self._rows, self._takes_all = preview, rows, takes_all
        self.rest: Sequence[Differing] = ()

    def write(self) -> Written:
        """Write the first rows, in the transaction of the caller."""
        here = position()
        if here.epoch != self._preview.here.epoch:
            raise NoMoment("The tenant was restored meanwhile: look again what would change.")
        rows = self._up_to_date(here.sequence) if self._takes_all else self._rows
        self.rest = rows[ROWS_AT_ONCE:]
        return rewind.write(rows[:ROWS_AT_ONCE], now_ms(), yield_if_due, self._preview.entries)

    def _up_to_date(self, newest: int) -> list[Differing]:
        """Compare again what was changed since the preview."""
        preview = self._preview
        if preview.row_ids:
            pairs = touched_rows(preview.moment.sequence, preview.tables[0], preview.row_ids)
            return rewind.differing(_in_order(pairs), preview.tables, preview.entries)
        if preview.touched is None:
            return list(self._rows)
        touched = copy.copy(preview.touched)
        touched.then = dict(touched.then)
        while touched.read(newest, _LINKS_AT_ONCE):
            yield_if_due()
        new = [pair for pair in _in_order(touched.then) if (pair[0] or 0) > preview.here.sequence]
        rows = [one for one in self._rows if one.now in touched.then]
        for some in _parts(new, _ROWS_AT_ONCE):
            rows += rewind.differing(some, preview.tables, preview.entries)
            yield_if_due()
        return rows


def _added(done: Rewound, written: Written) -> Rewound:
    applied = written.applied
    count, left = len(applied.results), done.left + len(written.left)
    if not count:
        return done._replace(left=left)
    return Rewound(done.rows + count, left, done.first or applied.before.sequence + 1, applied.after.sequence)


def _moment_of_change(sequence: int) -> Moment:
    here = position()
    if sequence > here.sequence:
        raise NoMoment(f"There is no change {sequence:,} yet: the newest is {here.sequence:,}.")
    return Moment(sequence, committed_at(sequence))


def _moment_of_time(at: int) -> Moment:
    here = position()
    if at < here.purged_at:
        raise NoMoment(
            f"What was at {format_time(at)} is not all held any more: rows that had been deleted until"
            f" {format_time(here.purged_at)} were removed. The earliest moment that may be is change"
            f" {here.purged_until:,} of that time."
        )
    sequence = last_until(at, here.sequence)
    committed = committed_at(sequence)
    was_restored = committed < at < here.restored_at and sequence == last_until(here.restored_at - 1, here.sequence)
    return Moment(sequence, committed, restored_at=here.restored_at if was_restored else None)


def _time_of(moment: Moment) -> str:
    return format_time(moment.at) if moment.at else "before the first change"


def _in_order(pairs: dict[int, int | None]) -> list[tuple[int | None, int | None]]:
    """Put rows into the order that they had then, those that were not there last: the same each time."""
    return sorted(pairs.items(), key=lambda pair: (pair[1] is None, pair[1] or 0, pair[0]))


def _parts(rows: Sequence[Any], count: int) -> Iterator[Any]:
    return (rows[first : first + count] for first in range(0, len(rows), count))


def _described(rows: Sequence[Differing], entries: Entries) -> list[dict[str, Any]]:
    now = entries_here([one.now for one in rows if one.now])
    then = entries([one.then for one in rows if one.then])
    found = []
    for one in rows:
        fields = rewind.differences(one.table, now.get(one.now or 0), then.get(one.then or 0))
        found.append({"table": one.table, "id": one.id, "kind": one.kind, "fields": fields})
    return found
