"""A tenant as it was at an earlier change: what differs now, and how that becomes a new change.

Knows: the statements that read and write a row as it was, bound to one tenant by the caller. Must not know: Flask, sockets,
engines, how rows are followed back (``log_links``), how long a transaction may be, who asked (``time_machine``).

What is compared and written is what devices write of a row. A row comes back with the very fields that it had, in the
columns that its table has now. Only ``last_updated`` is the time of the rewind, as with every edit: apps that compare it
take the row. Nothing is taken out of the log or the conflicts, and devices pull the change like any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from models import SyncedTable, connection, synced_tables
from protocol.codec import Row, decode_stored, encode, format_time
from protocol.messages import EDIT_FIELDS, SERVER_FIELDS, Push, PushResult, StoredRow, changed_fields, same
from storage.log_links import LOST, NotHeld
from storage.merge_base import rows_where
from storage.positions import position
from storage.push_batch import INSERT_LOGGED, Writing, insert_row
from storage.row_migration import UNFIT

OPERATOR = "operator"
"""What the log has as the device of a change that an operator made."""

Kind = Literal["added", "changed", "gone"]
_WRITTEN_AT_ONCE = 48
_NOT_COMPARED = SERVER_FIELDS | EDIT_FIELDS


class Differing(NamedTuple):
    """A row that is not as it was: its newest change and the one that it had then, by their sequences.

    ``kind``: it comes back (``added``), has other fields (``changed``), or was not there (``gone``).
    """

    table: str
    id: str
    kind: Kind
    now: int | None
    then: int | None


class Body(NamedTuple):
    """What the log holds of a change: which row it made, and what that was, as JSON."""

    table: str
    id: str
    row: str


Entries = Callable[[Sequence[int]], Mapping[int, Body]]
"""Reads changes by their sequences; those that are not held are left out."""


def entries_here(sequences: Sequence[int]) -> Mapping[int, Body]:
    """Read changes of the bound database. All are asked for before one is read: each answer may take a trip."""
    sql = connection()
    asked = [(one, sql.execute(_BODY, (one,))) for one in dict.fromkeys(sequences) if one != LOST]
    return {one: Body(*row) for one, rows in asked for row in rows}


_BODY = "SELECT table_name, row_id, row FROM _changes WHERE seq = ?"


def differing(
    pairs: Sequence[tuple[int | None, int | None]], tables: Sequence[str], entries: Entries = entries_here
) -> list[Differing]:
    """Give of some rows, as ``log_links.Touched`` has them, those of ``tables`` that are not as they were.

    ``entries`` reads the changes of then, which may be in another database. Raises: NotHeld.
    """
    found = []
    held = entries_here([now for now, _ in pairs if now])
    past = entries([then for _, then in pairs if then])
    for now, then in pairs:
        was, entry = past.get(then or 0), held.get(now or 0)
        about = entry or was
        if about is None and then == LOST:
            raise NotHeld
        if about is None or about.table not in tables:  # A table that is not synced now, or that was not asked for.
            continue
        if then is not None and was is None:
            raise NotHeld
        kind = _kind_of(about.table, entry, was)
        if kind is not None:
            found.append(Differing(about.table, about.id, kind, now, then))
    return found


def _kind_of(table: str, now: Body | None, then: Body | None) -> Kind | None:
    is_here, was_there = _is_live(now), _is_live(then)
    if not (is_here and was_there):
        return "gone" if is_here else "added" if was_there else None
    return "changed" if differences(table, now, then) else None


def _is_live(entry: Body | None) -> bool:
    return entry is not None and not decode_stored(entry.row)["is_deleted"]


def differences(table: str, now: Body | None, then: Body | None) -> dict[str, dict[str, Any]]:
    """Give by field what a row has ``now`` and what it had ``then``, where they differ; a field that it has not is left
    out of that side, and is another than one that is null: a row comes back with the very fields that it had."""
    here = decode_stored(now.row) if now else {}
    there = fitted(decode_stored(then.row), synced_tables()[table]) if then else {}
    names = [name for name in {**there, **here} if name not in _NOT_COMPARED]
    sides = {"now": here, "then": there}
    return {
        name: {side: row[name] for side, row in sides.items() if name in row}
        for name in names
        if not (name in here and name in there and same(here[name], there[name]))
    }


def fitted(row: Row, table: SyncedTable) -> Row:
    """Give a row of an earlier time as its table takes it now, by the rules of a migration: a new column has its default,
    and what a column can't take is put aside."""
    result, aside = dict(row), {}
    unchecked = table.rules.unchecked_types
    for name, column in table.rules.columns.items():
        value = row.get(name)
        if type(value) in unchecked.get(name, ()):
            continue
        try:
            result[name] = value if value is None else column.check(value)
        except ValueError:
            aside[name] = value
        if name not in row or name in aside or (value is None and name in table.rules.required):
            result[name] = column.default
    if aside:
        before = row.get(UNFIT)
        result[UNFIT] = {**(before if isinstance(before, dict) else {}), **aside}
    return result


# --- writing ---------------------------------------------------------------------------------------------------------


class Written(NamedTuple):
    """What a rewind wrote in one transaction: ``applied`` is for the listeners, as of a push. Rows in ``left`` were changed
    since they were compared, to something else than they were then, and stay as they are."""

    applied: PushResult
    left: list[Differing]


def write(rows: Sequence[Differing], now: int, pause: Callable[[], None], entries: Entries = entries_here) -> Written:
    """Make rows again what they were, as one change of the operator's, in the transaction of the caller.

    ``now`` is in milliseconds. ``pause`` is called between chunks. ``entries``: see ``differing``.
    Raises: NotHeld.
    """
    before = position()
    push = Push(iter(()), len(rows), set())
    writing, left = Writing(push, 0, before, max(now, before.clock + 1)), list[Differing]()
    for first in range(0, len(rows), _WRITTEN_AT_ONCE):
        left += _write(writing, rows[first : first + _WRITTEN_AT_ONCE], entries)
        pause()
    writing.applied.may_delete = True
    return Written(writing.finish(), left)


def _write(writing: Writing, rows: Sequence[Differing], entries: Entries) -> list[Differing]:
    """Write some rows, and give those that are left."""
    current, past = _current(rows), entries([row.then for row in rows if row.then])
    left, log = list[Differing](), list[tuple[Any, ...]]()
    stored: defaultdict[str, list[StoredRow]] = defaultdict(list)
    for one in rows:
        here = current.get((one.table, one.id))
        if (here.sequence if here else None) != one.now:
            if not _is_back(one, here, past):
                left.append(one)
            continue
        after = _made(writing, one, here, past)
        body = encode(after.row)
        stored[one.table].append(after)
        log.append(_logged(writing, one, here, after, body))
        writing.differences[one.table].replace(here, after)
        status = "created" if here is None else "deleted" if after.row["is_deleted"] else "updated"
        writing.note(one.table, one.id, status, after.version, body)
    _store(stored, log)
    return left


def _current(rows: Sequence[Differing]) -> dict[tuple[str, str], StoredRow]:
    found = {}
    for name in {one.table for one in rows}:
        own = [one.id for one in rows if one.table == name]
        for row_id, body, version, sequence, edited_at, device_id, _ in rows_where(name, "id", own):
            found[name, row_id] = StoredRow(decode_stored(body), version, sequence, edited_at, device_id)
    return found


def _is_back(one: Differing, here: StoredRow | None, past: Mapping[int, Body]) -> bool:
    """Tell whether somebody made a row what it was then, as another rewind that ran at once."""
    now = Body(one.table, one.id, encode(here.row).decode()) if here else None
    then = None if one.then is None else past.get(one.then)
    return (then is None) is (one.then is None) and _kind_of(one.table, now, then) is None


def _made(writing: Writing, one: Differing, here: StoredRow | None, past: Mapping[int, Body]) -> StoredRow:
    """Give a row as it is after the rewind, under the next sequence."""
    if one.then is None:
        assert here is not None
        row = {**here.row, "is_deleted": 1}
    elif one.then in past:
        row = fitted(decode_stored(past[one.then].row), synced_tables()[one.table])
    else:
        raise NotHeld
    writing.sequence += 1
    version = here.version + 1 if here else 1
    edited_at = max(writing.at, here.edited_at if here else 0)
    about = {"id": one.id, "sync_status": "synced", "version": version, "server_synced": 1}
    row |= about | {"updatedAt": writing.time, "last_updated": format_time(edited_at)}
    return StoredRow(row, version, writing.sequence, edited_at, OPERATOR)


def _logged(writing: Writing, one: Differing, here: StoredRow | None, after: StoredRow, body: bytes) -> tuple[Any, ...]:
    """Give the entry of the log; it names the fields that were changed, so that edits of others are merged with it."""
    fields = None if here is None else encode(changed_fields(here.row, after.row)).decode()
    about = after.version, here.sequence if here else None, writing.at, after.edited_at, OPERATOR, fields
    return after.sequence, one.table, one.id, *about, body.decode(), 0, None


def _store(stored: Mapping[str, Sequence[StoredRow]], log: Sequence[tuple[Any, ...]]) -> None:
    sql = connection()
    sql.executemany(INSERT_LOGGED, log)
    for name, rows in stored.items():
        table = synced_tables()[name]
        sql.executemany(f'DELETE FROM "{name}" AS e WHERE e.id = ?', [(one.row["id"],) for one in rows])
        sql.executemany(insert_row(name, table.columns), [values_of(table, one) for one in rows])


def values_of(table: SyncedTable, one: StoredRow) -> tuple[Any, ...]:
    """Give the values of a row's columns; U+0000, which older versions took, stays in the row's JSON alone."""
    row = one.row
    nulls = [name for name, value in row.items() if type(value) is str and "\0" in value]
    if nulls:
        row = row | {name: row[name].replace("\0", "\N{REPLACEMENT CHARACTER}") for name in nulls}
    return table.stored(row, one.sequence)
