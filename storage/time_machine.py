"""Takes a tenant back to an earlier moment: finds the moment, shows what would change, and makes it a new change.

Knows: how many rows are one transaction, and that it is recorded. Must not know: the command line, requests, sockets,
engines, how a moment is found (``moments``), how a row is written (``rewind``).

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
from collections.abc import Callable, Sequence
from typing import NamedTuple

from protocol.messages import PushResult
from server.scheduler import yield_if_due
from storage import operator_actions, rewind
from storage.engine import Database, Engine
from storage.log_links import NotHeld, touched_rows
from storage.moments import Moments, NoMoment, Preview, in_order, parts, time_of
from storage.positions import now_ms, position
from storage.rewind import Differing, Written

ROWS_AT_ONCE = 5_000
"""Rows that are written in one transaction: so many are seen at once, and pushes wait for them. What is beyond follows in
others."""

_LINKS_AT_ONCE, _COMPARED_AT_ONCE = 1_000, 32


class Rewound(NamedTuple):
    """What was done: how many rows were written, as the changes ``first`` to ``last``, and how many were left, since they
    were changed after they had been compared."""

    rows: int
    left: int
    first: int
    last: int


class TimeMachine(Moments):
    """One tenant's moments, and the way back to them."""

    def __init__(
        self, engine: Engine, tenant_id: str, by: str | None = None, past: tuple[Database, str] | None = None
    ) -> None:
        """``by``: which session of the console acts; None for a command. ``past``: a copy of the tenant from before, for
        moments that only that can tell, and its name."""
        database, name = past or (None, "")
        self.of_past = f" of {name}" if name else ""
        """Which copy tells the moments, for the record."""

        super().__init__(engine.tenant(tenant_id), database)
        self._directory, self._tenant_id, self._by = engine.directory, tenant_id, by

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
        moment = preview.moment
        self.record("rewind", f"to change {moment.sequence}{self.of_past}, {time_of(moment)}")
        done = Rewound(0, 0, 0, 0)
        waiting: Sequence[Differing] = preview.rows
        is_first = True
        while waiting or is_first:
            part = _Part(preview, waiting, takes_all=takes_all and is_first)
            try:
                written = self._database.write(part.write, announce and (lambda one: announce(one.applied)))
            except NotHeld:
                raise self.not_held(preview) from None
            waiting, is_first = part.rest, False
            done = _added(done, written)
            if written.applied.touched:
                self.record(operator_actions.REWOUND, f"changes {written.applied.before.sequence + 1} to {done.last}")
        return done

    def record(self, action: str, about: str) -> None:
        """Record what an operator did to this tenant, or saw of it."""
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
            return rewind.differing(in_order(pairs), preview.tables, preview.entries)
        if preview.touched is None:
            return list(self._rows)
        touched = copy.copy(preview.touched)
        touched.then = dict(touched.then)
        while touched.read(newest, _LINKS_AT_ONCE):
            yield_if_due()
        new = [pair for pair in in_order(touched.then) if (pair[0] or 0) > preview.here.sequence]
        rows = [one for one in self._rows if one.now in touched.then]
        for some in parts(new, _COMPARED_AT_ONCE):
            rows += rewind.differing(some, preview.tables, preview.entries)
            yield_if_due()
        return rows


def _added(done: Rewound, written: Written) -> Rewound:
    applied = written.applied
    count, left = len(applied.results), done.left + len(written.left)
    if not count:
        return done._replace(left=left)
    return Rewound(done.rows + count, left, done.first or applied.before.sequence + 1, applied.after.sequence)
