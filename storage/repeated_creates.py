"""Creates that come once more, late: known by what their row was when it was made, or later.

Knows: the statements that walk a row's history back for it, bound to one tenant by the caller; what rows began as, which
never changes. Must not know: Flask, sockets, engines, what becomes of a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from models import connection
from protocol.codec import Row, decode_stored
from storage.dialect import Dialect, dialect
from storage.merge_base import holds

_MOST_ROWS = 20_000
_MOST_CHARACTERS = 200
_TELLING = frozenset({str, int, float})

_PAST = (
    "WITH RECURSIVE past(seq) AS (SELECT c.previous_seq FROM _changes AS c WHERE c.seq = ?"
    " UNION ALL SELECT c.previous_seq FROM past JOIN _changes AS c ON c.seq = past.seq)"
    " SELECT {columns} FROM past JOIN _changes AS c ON c.seq = past.seq WHERE {condition}"
)
"""What a row was before one of its changes. No bound on ``c.seq`` beside: SQLite would read the log from its start."""

_EDITED = "SELECT 1 FROM _changes AS c WHERE c.seq = ? AND c.fields IS NOT NULL AND c.{column} = ?"
_FIRST = _PAST.format(columns="c.row", condition="c.fields IS NULL")


@cache
def _states(words: Dialect, is_timed: bool, is_any: bool) -> str:
    conditions = [*([] if is_any else ["c.fields IS NULL"]), *([words.contains("c.row", "?")] if is_timed else [])]
    return _PAST.format(columns="c.row, c.session, c.device_id, c.fields IS NULL", condition=" AND ".join(conditions))


def is_earlier_state(sequence: int, fields: Row, is_any: bool, session: str | None, device_id: str | None) -> bool:
    """Tell whether a create is a late repeat: an earlier state of the row has its values, at its own time of the edit.

    ``is_any``: it may repeat any change of the row, not only the first. Without a time, only the row's first state tells,
    and only if the same session or device made it and has not edited it since: who has puts values back.
    """
    time = fields.get("last_updated")
    times = [] if time is None else [time]
    sql = _states(dialect(), bool(times), is_any and bool(times))
    for row, made_in, made_by, is_first in connection().execute(sql, (sequence, *times)):
        is_own = made_by == device_id if device_id else session is not None and made_in == session
        if (time is not None or (is_first and is_own)) and holds(decode_stored(row), fields):
            return time is not None or not _has_edited(sequence, session, device_id)
    return False


def _has_edited(sequence: int, session: str | None, device_id: str | None) -> bool:
    """Tell whether a device made one of a row's changes up to this one, other than the first."""
    column, own = ("device_id", device_id) if device_id else ("session", session)
    sql = connection()
    if sql.execute(_EDITED.format(column=column), (sequence, own)).fetchone():
        return True
    past = _PAST.format(columns="1", condition=f"c.fields IS NOT NULL AND c.{column} = ?")
    return sql.execute(f"{past} LIMIT 1", (sequence, own)).fetchone() is not None


Life = tuple[str, str, str, str]
"""A row from when it was made: the incarnation of the database, its table, its id, and that time."""


_begun: dict[Life, Row] = {}
"""What rows had at first in the fields that were edited since; so that edits need not walk back to it each time."""


def note_beginning(life: Life, values: Row) -> None:
    """Note what a row has that nobody has edited yet, in the fields that are edited now."""
    if len(_begun) >= _MOST_ROWS:
        _begun.clear()
    _begun[life] = {
        name: value for name, value in values.items() if type(value) is not str or len(value) <= _MOST_CHARACTERS
    }


def telling(different: Row, names: Mapping[str, str]) -> Row:
    """Choose of what an edit has otherwise than its row what is enough to tell it from what the row was: plain values of
    columns. ``names``: those of the fields, by what they are called in ``different``."""
    return {name: value for name, value in different.items() if type(value) in _TELLING and names[name] == name}


def may_begin_with(life: Life, sequence: int, values: Row) -> bool:
    """Tell whether a row may have been made with these values: no is certain."""
    begun = _begun.get(life, {})
    if _differs(begun, values):
        return False
    if values.keys() <= begun.keys():
        return True
    found = connection().execute(_FIRST, (sequence,)).fetchone()
    if found is None:
        return False
    first = decode_stored(found[0])
    begun = {name: first.get(name) for name in values}
    note_beginning(life, begun)
    return not _differs(begun, values)


def _differs(begun: Row, values: Row) -> bool:
    return any(name in begun and begun[name] != value for name, value in values.items())
