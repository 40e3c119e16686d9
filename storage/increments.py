"""What changed in a tenant since a copy of it, written as an increment, and brought into that copy.

Knows: by what each table of a tenant tells what is new in it, and what is gone. Must not know: files, engines, where copies
are kept, when one is made. Code is bound to the tenant that is read, or to the copy that is written.

The log and the synced tables are ordered by the sequence of changes: new is what comes after that of the copy. A removal of
what is too old takes entries out of the midst of them; what is left is told then, as ranges. Receipts, kept answers and
conflicts have times, and the other tables are small, so that they come whole; ``_tables`` changes with the schema alone,
and then there is another copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from models import Bound, connection, synced_tables
from protocol.messages import Position
from storage import schema
from storage.copying import Row, Table, pages, table_of
from storage.dialect import dialect
from storage.positions import POSITION, answers, position
from storage.system_tables import (
    CommitOrder,
    Conflict,
    Device,
    KeptAnswer,
    Logged,
    Receipt,
    SeenRows,
    TableDigest,
)

_AT_ONCE = 200
_MARGIN_MS = 3_600_000
"""By how much a machine's clock may be set back between two copies, without a receipt being missed."""

_WHOLE: Sequence[type[Bound]] = (Device, SeenRows, TableDigest, CommitOrder)
_TIMED: Sequence[tuple[type[Bound], Sequence[str], str]] = (
    (Receipt, ("taken_at",), ""),
    (KeptAnswer, ("answered_at",), ""),
    (Conflict, ("detected_at", "resolved_at"), "state = 'resolved'"),
)
"""By table the times at which a row was made or changed; the last one is that by which it is removed one day."""

_CONDITIONS = {condition for *_, condition in _TIMED}
_LOG = table_of(Logged)


class State(msgspec.Struct, array_like=True, frozen=True):
    """Which state of a tenant a copy has. ``entries`` is the number of entries in its log, ``beside`` a digest of what a
    restore brings back and changes without a change of a row (see ``LOOK``); catalogues of before have none."""

    epoch: str
    sequence: int
    purged_until: int
    clock: int
    fingerprint: int
    entries: int
    beside: str = ""

    def is_at(self, found: Sequence[Sequence[Row]]) -> bool:
        """Tell by what the statements of ``LOOK`` found whether a tenant has nothing that the copy has not."""
        (row,), *beside = found
        here = Position(*row)
        place = self.epoch, self.sequence, self.purged_until
        return place == (here.epoch, here.sequence, here.purged_until) and self.beside == _digest(beside)


def state() -> State:
    """Read the state of the bound tenant, of whatever version."""
    found = _meta()
    place = str(found["epoch"]), int(found["sequence"]), int(found.get("purged_until", 0)), int(found.get("clock", 0))
    beside = _digest(answers(_BESIDE))
    return State(*place, dialect().schema.prepared_for(), int(_one("SELECT count(*) FROM _changes")), beside)


def is_at(before: State) -> bool:
    """Tell whether the bound tenant has nothing that a copy has not."""
    return before.is_at(answers(LOOK))


_BESIDE = (
    "SELECT max(id), max(detected_at), count(resolved_at), max(resolved_at) FROM _conflicts",
    "SELECT id, name FROM _devices WHERE name IS NOT NULL ORDER BY id",
)
LOOK = (POSITION, *_BESIDE)
"""The statements that tell whether a tenant is at the state of a copy. A push that loses in all its fields changes no row,
and leaves a conflict; a decision to keep what there is changes that alone. Not looked at is what has no meaning after a
restore, as how far devices have pulled, or what a repeated request finds out again: receipts and answers of what changed
nothing."""


def _digest(found: Sequence[Sequence[Row]]) -> str:
    rows = [[tuple(row) for row in one] for one in found]
    return hashlib.blake2b(repr(rows).encode(), digest_size=8).hexdigest()


def _meta() -> dict[str, Any]:
    names = dialect().schema.columns("_meta")
    listed = ", ".join(f'"{name}"' for name in names)
    row = connection().execute(f"SELECT {listed} FROM _meta").fetchone()
    return dict(zip(names, row, strict=True))


def can_follow(before: State) -> bool:
    """Tell whether what changed in the bound tenant since a copy can be told as an increment."""
    if not dialect().schema.prepared_for() == before.fingerprint == schema.tenant_fingerprint():
        return False
    here = position()
    return here.epoch == before.epoch and here.sequence >= before.sequence


def counts() -> dict[str, int]:
    """Count the rows of each table of the bound tenant, and the conflicts that nobody decided."""
    names = [str(model._meta.table_name) for model in schema.tenant_models()]
    there = [name for name in names if dialect().schema.columns(name)]
    found = {name: int(_one(f'SELECT count(*) FROM "{name}"')) for name in there}
    return found | {OPEN_CONFLICTS: int(_one("SELECT count(*) FROM _conflicts WHERE state = 'open'"))}


OPEN_CONFLICTS = "_conflicts (open)"
"""Else a decision that an increment lacks would not be seen: the clock by which it is found may have been set back."""


def _one(sql: str, values: Sequence[Any] = ()) -> Any:
    return connection().execute(sql, values).fetchone()[0]


# --- out -------------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One step of bringing an increment into a copy: what to do, in which table, with what."""

    what: str
    table: str
    columns: Sequence[str]
    rows: Sequence[Any]


def steps_since(before: State) -> Iterator[Step]:
    """Give what changed in the bound tenant since a copy, in the order in which it is brought into it.

    The tenant must be read in one transaction.
    """
    if int(_one("SELECT count(*) FROM _changes WHERE seq <= ?", (before.sequence,))) != before.entries:
        yield from _left_until(before.sequence)
    yield from _added(_LOG, f'"{_LOG.key}" > ?', (before.sequence,))
    for synced in synced_tables().values():
        table = table_of(synced.model)
        since = (f'"{table.key}" > ?', (before.sequence,))
        yield from _gone(table, "id", *since)
        yield from _added(table, *since)
    for model, times, removed in _TIMED:
        yield from _timed(model, times, removed, before.clock - _MARGIN_MS)
    for model in _WHOLE:
        yield Step("empty", table_of(model).name, (), ())
        yield from _added(table_of(model))


def _left_until(sequence: int) -> Iterator[Step]:
    """Tell which entries of the log up to a sequence are left, as ranges: the first and the last of each."""
    found = (row[0] for row in pages(connection(), _LOG, [_LOG.key], (f'"{_LOG.key}" <= ?', sequence)))
    for part in _parts(_ranges(found)):
        yield Step("keep", _LOG.name, (_LOG.key,), part)
    yield Step("keep-end", _LOG.name, (_LOG.key,), [sequence])


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for number in numbers:
        if first is not None and last is not None and number != last + 1:
            yield first, last
            first = number
        first, last = number if first is None else first, number
    if first is not None and last is not None:
        yield first, last


def _timed(model: type[Bound], times: Sequence[str], removed: str, since: int) -> Iterator[Step]:
    table, oldest = table_of(model), times[-1]
    found = _one(f'SELECT min("{oldest}") FROM "{table.name}"{removed and f" WHERE {removed}"}')
    yield Step("before", table.name, (oldest, removed), [found])
    where, values = " OR ".join(f'"{name}" >= ?' for name in times), [since] * len(times)
    yield from _gone(table, table.key, where, values)
    yield from _added(table, where, values)


def _gone(table: Table, column: str, where: str, values: Sequence[Any]) -> Iterator[Step]:
    """Tell which rows of a copy make room for others."""
    for part in _parts(row[-1] for row in _read(table, [table.key, column], where, values)):
        yield Step("delete", table.name, (column,), part)


def _added(table: Table, where: str = "", values: Sequence[Any] = ()) -> Iterator[Step]:
    for part in _parts(_read(table, table.columns, where, values)):
        yield Step("insert", table.name, table.columns, part)


def _read(table: Table, columns: Sequence[str], where: str, values: Sequence[Any]) -> Iterator[Row]:
    """Read rows in the order of their keys, a page at a time."""
    names, key = ", ".join(f'"{name}"' for name in columns), f'"{table.key}"'
    page: list[Row] = []
    while True:
        parts = ([f"({where})"] if where else []) + ([f"{key} > ?"] if page else [])
        bounds = f" WHERE {' AND '.join(parts)}" if parts else ""
        sql = f'SELECT {names} FROM "{table.name}"{bounds} ORDER BY {key} LIMIT {_AT_ONCE}'
        page = connection().execute(sql, [*values, *([page[-1][0]] if page else [])]).fetchall()
        yield from page
        if len(page) < _AT_ONCE:
            return


def _parts(found: Iterable[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    for one in found:
        part.append(one)
        if len(part) == _AT_ONCE:
            yield part
            part = []
    if part:
        yield part


# --- in --------------------------------------------------------------------------------------------------------------


class BadStep(ValueError):
    """A step that no increment of ours has: somebody else wrote it."""


def bring(steps: Iterable[Step]) -> None:
    """Bring an increment into the bound copy, in the transaction of the caller.

    Raises: BadStep.
    """
    kept: list[tuple[int, int]] = []
    for step in steps:
        _must_be_ours(step)
        if step.what == "keep":
            kept += [(first, last) for first, last in step.rows]
        elif step.what == "keep-end":
            _remove_others(kept, int(step.rows[0]))
        else:
            _DO[step.what](step)


def _must_be_ours(step: Step) -> None:
    """Refuse what would become SQL of its own: who may write where backups are kept may not run statements here.

    Names stand between double quotes in the statements, and the condition of ``before`` is one of ours, word for word.
    """
    names = [step.table, *step.columns]
    if step.what == "before" and len(names) == 3 and names.pop() not in _CONDITIONS:
        raise BadStep("an increment has a condition that none of ours has")
    if step.what not in ("keep", "keep-end", *_DO) or any('"' in name for name in names):
        raise BadStep("an increment has a step that none of ours has")


def _remove_others(kept: Sequence[tuple[int, int]], until: int) -> None:
    """Remove what is not left of the log up to a sequence, and of deleted rows whose last entry it was."""
    ranges, gone = iter([*kept, (until + 1, until + 1)]), list[tuple[int]]()
    first, last = next(ranges)
    for (number,) in pages(connection(), _LOG, [_LOG.key], (f'"{_LOG.key}" <= ?', until)):
        while number > last:
            first, last = next(ranges)
        if number < first:
            gone.append((number,))
    connection().executemany(f'DELETE FROM "{_LOG.name}" WHERE "{_LOG.key}" = ?', gone)
    for name in synced_tables():
        if dialect().schema.columns(name):
            connection().executemany(f'DELETE FROM "{name}" WHERE "_seq" = ?', gone)


def _insert(step: Step) -> None:
    names, places = ", ".join(f'"{name}"' for name in step.columns), ", ".join("?" * len(step.columns))
    connection().executemany(
        f'INSERT INTO "{step.table}" ({names}) VALUES ({places})', [tuple(row) for row in step.rows]
    )


def _delete(step: Step) -> None:
    sql = f'DELETE FROM "{step.table}" WHERE "{step.columns[0]}" = ?'
    connection().executemany(sql, [(value,) for value in step.rows])


def _empty(step: Step) -> None:
    connection().execute(f'DELETE FROM "{step.table}"')


def _before(step: Step) -> None:
    """Remove what is older than the oldest that is left; all of it, if none is."""
    (column, removed), (oldest,) = step.columns, step.rows
    bounds = [removed] if removed else []
    bounds += [] if oldest is None else [f'"{column}" < ?']
    where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
    connection().execute(f'DELETE FROM "{step.table}"{where}', () if oldest is None else (oldest,))


_DO: dict[str, Callable[[Step], None]] = {"insert": _insert, "delete": _delete, "empty": _empty, "before": _before}
