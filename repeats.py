"""Creates that come once more, late: told by what their row was when it was made, or later.

Knows: the statements that walk a row's history back for it, bound to one tenant by the caller; what rows began as, which
never changes. Must not know: Flask, sockets, engines, what becomes of a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bases import holds
from models import connection
from wire import Row, decode_stored, encode

_HELD_BYTES = 8 * 1024 * 1024
_BYTES_BESIDE = 300
_TELLING = frozenset({str, int, float})
"""Types whose values are always written in the same way; null may be said of a field that a row does not have."""

_PAST = (
    "WITH RECURSIVE past(seq, previous) AS (SELECT c.seq, c.previous_seq FROM _changes AS c WHERE c.seq = ?1"
    " UNION ALL SELECT c.seq, c.previous_seq FROM past JOIN _changes AS c ON c.seq = past.previous)"
)
_STATES = (
    f"{_PAST} SELECT c.row, c.session, c.device_id, c.fields IS NULL FROM past JOIN _changes AS c USING (seq)"
    " WHERE c.seq < ?1 AND (?3 OR c.fields IS NULL) AND (?2 IS NULL OR instr(c.row, ?2))"
)
_FIRST = f"{_PAST} SELECT c.row FROM past JOIN _changes AS c USING (seq) WHERE c.fields IS NULL"


def is_said_before(sequence: int, says: Row, is_any: bool, session: str | None, device_id: str | None) -> bool:
    """Tell whether a create is a late repeat: an earlier state of the row has what it says, at its own time of the edit.

    ``is_any``: it may repeat any change of the row, not only the first. Without a time, only the row's first state tells,
    and only if the same session or device made it.
    """
    time = says.get("last_updated")
    for row, made_in, made_by, is_first in connection().execute(_STATES, (sequence, time, is_any and time is not None)):
        is_own = made_by == device_id if device_id else session is not None and made_in == session
        if (time is not None or (is_first and is_own)) and holds(decode_stored(row), says):
            return True
    return False


Life = tuple[str, str, str, str]
"""A row from when it was made: the incarnation of the database, its table, its id, and that time."""


class _Beginnings(dict[Life, bytes]):
    """What rows were at first, as JSON, nothing if that is not held; so that edits need not walk back to it each time."""

    _left_bytes = _HELD_BYTES

    def keep(self, life: Life, row: bytes) -> None:
        """Keep one, and forget all others rather than hold too many."""
        self._left_bytes -= len(row) + _BYTES_BESIDE
        if self._left_bytes < 0:
            self.clear()
            self._left_bytes = _HELD_BYTES - len(row) - _BYTES_BESIDE
        self[life] = row


_beginnings = _Beginnings()


def note_beginning(life: Life, row: str) -> None:
    """Note what a row is that nobody has edited yet, but is about to."""
    _beginnings.keep(life, row.encode())


def may_begin_with(life: Life, sequence: int, said: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    """Tell whether a row may have been made with these values. No is certain; by one of them, for nearly all tell it.

    ``names``: those of the fields, by what they are called in ``said``.
    """
    row = _beginnings.get(life)
    if row is None:
        row = next((str(found[0]).encode() for found in connection().execute(_FIRST, (sequence,))), b"")
        _beginnings.keep(life, row)
    for name, value in said.items():
        if type(value) in _TELLING:
            return encode({names[name]: value})[1:-1] in row
    return True
