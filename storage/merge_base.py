"""What a push builds on: the existing rows that it means, and what its device missed of them.

Knows: the statements that look rows up and walk the log back, bound to one tenant by the caller. Must not know: Flask,
sockets, engines, what becomes of a change (``merge``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from typing import Any, NamedTuple

from models import connection
from protocol.codec import Row, decode_stored
from protocol.messages import SERVER_FIELDS, Change, MissedEdits, StoredRow, same
from storage.dialect import dialect

Key = tuple[str, str]
"""A row: its table and its id."""


def look_up(
    changes: Sequence[Change], results: Sequence[Mapping[str, Any]], current: Mapping[Key, StoredRow]
) -> dict[Key, StoredRow]:
    """Read the rows that changes and their earlier results may mean, by id and ``Unique_id``, unless in ``current``."""
    rows: dict[Key, StoredRow] = {}
    for name in {change.table.name for change in changes if change.table}:
        own = [change for change in changes if change.table and change.table.name == name and not change.problems]
        by_id = {change.row_id for change in own if change.row_id}
        by_id |= {result["id"] for result in results if result["table"] == name}
        rows |= _read(name, "id", {row_id for row_id in by_id if (name, row_id) not in current})
        other = {
            change.row_id for change in own if change.row_id and change.unique_id and _is_other(change, rows, current)
        }
        by_unique_id = {change.unique_id for change in own if not change.row_id or change.row_id in other} - {None}
        rows |= _read(name, "Unique_id", by_unique_id)
    return rows


def _read(table: str, column: str, wanted: Collection[Any]) -> dict[Key, StoredRow]:
    found = rows_where(table, column, wanted) if wanted else ()
    return {(table, row_id): StoredRow(decode_stored(body), *about) for row_id, body, *about, _ in found}


def _is_other(change: Change, rows: Mapping[Key, StoredRow], current: Mapping[Key, StoredRow]) -> bool:
    """Tell whether the row under a change's id has another ``Unique_id`` than the change states, or there is none."""
    key: Any = change.table.name if change.table else None, change.row_id
    stored = rows.get(key) or current.get(key)
    return stored is None or stored.row["Unique_id"] != change.unique_id


def rows_where(table: str, column: str, values: Collection[Any]) -> Any:
    """Read rows by a column: id, JSON, version, sequence, when edited, by which device, the value."""
    words = dialect()
    return connection().execute(words.rows_where(table, column), (words.listed(values),))


class Entry(NamedTuple):
    """What the log holds of one change, with ``fields`` and ``row`` as JSON; see ``Logged``."""

    sequence: int
    version: int
    previous: int | None
    edited_at: int
    device_id: str | None
    is_named: bool
    session: str | None
    fields: str | None
    row: str


_ENTRY = (
    "SELECT seq, version, previous_seq, edited_at, device_id, is_named, session, fields, row"
    " FROM _changes WHERE seq = ?"
)


def entry_at(sequence: int) -> Entry | None:
    """Read one change; in plain SQL, since a base from long ago is a thousand of them away."""
    for row in connection().execute(_ENTRY, (sequence,)):
        return Entry(*row)
    return None


class Own(NamedTuple):
    """What a device itself did to a row: what was ``received`` of it earlier in this push, the fields that this push has
    ``written`` to it, which changes in the log were the device's, and what is ``sent`` now."""

    received: Row
    written: Collection[str]
    is_own: Callable[[Entry], bool]
    sent: Row

    def is_same_edit(self, entry: Entry) -> bool:
        """Tell whether a change is this very one, whose answer was lost: it made the row what the device sends, at the
        time of the device's own clock, which no other edit has."""
        time = self.sent.get("last_updated")
        if time is None or time not in entry.row:  # Most are not, and need not be read.
            return False
        return self.is_in(decode_stored(entry.row))

    def is_in(self, row: Row) -> bool:
        """Tell whether a row is what the device sends, with the same time of the edit."""
        is_timed = self.sent.get("last_updated") is not None
        return is_timed and holds(row, self.sent)


def holds(row: Row, fields: Row) -> bool:
    """Tell whether a row has these values."""
    return all(same(row.get(name), value) for name, value in fields.items())


def since_version(known: StoredRow, version: int, own: Own) -> MissedEdits | None:
    """Tell what a device that knew ``version`` of a row missed, None if all changes since were its own."""
    return _since(known, lambda entry: entry.version <= version or own.is_same_edit(entry), own)


def since_sequence(known: StoredRow, sequence: int, own: Own) -> MissedEdits | None:
    """Tell the same of a device that knew all changes up to ``sequence``."""
    return _since(known, lambda entry: entry.sequence <= sequence, own)


def since_counted(known: StoredRow, version: int, positions: tuple[int, int], own: Own) -> MissedEdits | None:
    """Tell the same of a device that counts versions by itself, so that ``version`` proves nothing: see ``_Counted``."""
    return _Counted(known, own, version, *positions).back(own.is_same_edit)


def since_elsewhere(known: StoredRow, own: Own) -> MissedEdits | None:
    """Tell what a device missed that knew the row in another database, which a restore replaced.

    If the row's history has what the device says, it grew out of that, and the device missed what came after. Else both
    may have changed any field, each at its latest edit in the history; a row that was edited was wanted then, which is
    what a deletion has to be later than.
    """
    since = _since(known, own.is_same_edit, own)
    if since is None or since.base is None or own.is_in(since.base):
        return since
    changed = dict(since.changed)
    if "is_deleted" not in own.written:
        changed["is_deleted"] = max(changed.values())
    return MissedEdits(changed, None)


def _all_changed(stored: StoredRow, settled: Collection[str]) -> dict[str, int]:
    """Tell what a device missed of a row whose history is not held: others may have changed any field."""
    return {name: stored.edited_at for name in _written(stored.row) if name not in settled}


def _written(row: Row) -> Row:
    """Give of a row what devices write."""
    return {name: value for name, value in row.items() if name not in SERVER_FIELDS}


def _since(known: StoredRow, is_base: Callable[[Entry], bool], own: Own) -> MissedEdits | None:
    return _Walk(known, own).back(is_base)


class _Walk:
    """A row's history back to what a device knew, by which it collects what others changed and the device itself.

    What the device changed after another did is settled between them.
    """

    def __init__(self, known: StoredRow, own: Own) -> None:
        self._known, self._own = known, own
        self._changed: dict[str, int] = {}
        self._settled, self._received = set(own.written), dict(own.received)

    def back(self, is_base: Callable[[Entry], bool]) -> MissedEdits | None:
        """Walk until a change that the device knew, and tell what came after."""
        sequence: int | None = self._known.sequence
        base: Row | None = {}
        while sequence is not None:
            entry = entry_at(sequence)
            if entry is None:  # Purged: each field may have been changed, at the latest then.
                base = None
                self._note_purged(sequence)
                break
            if is_base(entry):
                base = decode_stored(entry.row)
                break
            self._take(entry)
            sequence = entry.previous
        return self._since(None if base is None else base | self._received)

    def _since(self, base: Row | None) -> MissedEdits | None:
        return MissedEdits(self._changed, base) if self._changed else None

    def _note_purged(self, sequence: int) -> None:
        """Note that nobody knows what was changed up to there."""
        self._changed = _all_changed(self._known, self._settled) | self._changed

    def _take(self, entry: Entry) -> None:
        is_own = self._own.is_own(entry)
        row = _written(decode_stored(entry.row)) if entry.fields is None or is_own else {}
        names = row if entry.fields is None else json.loads(entry.fields)
        if is_own:
            self._settled |= set(names)
            self._received = {name: row.get(name) for name in names} | self._received
        else:
            self._note(entry, names)

    def _note(self, entry: Entry, names: Collection[str]) -> None:
        """Note what another changed."""
        _note_times(self._changed, entry, names, self._settled)


def _note_times(times: dict[str, int], entry: Entry, names: Collection[str], settled: Container[str]) -> None:
    times |= {name: max(entry.edited_at, times.get(name, 0)) for name in names if name not in settled}


class _Counted(_Walk):
    """The same of a device that counts versions by itself, or sends them back, or always the same.

    It is known to have changes up to ``position`` and was sent those up to ``sent``. Its own number can only speak against
    that: a version above it is of a row that the device did not have. 1 says nothing, since some always send it. What the
    device has perhaps seen is told apart; of what it may not have seen, the values before are kept: whoever sends whole
    rows repeats them.
    """

    def __init__(self, known: StoredRow, own: Own, version: int, position: int, sent: int) -> None:
        super().__init__(known, own)
        self._version, self._position, self._sent = version, position, sent
        self._perhaps: dict[str, int] = {}
        self._before: dict[str, list[Any]] = {}
        self._later: Collection[str] = ()
        """Fields that another changed just after the change that is looked at."""
        self._own_times: dict[str, int] = {}
        self._repeated: Row | None = None

    def back(self, is_same_edit: Callable[[Entry], bool]) -> MissedEdits | None:
        """Walk until the device's change whose answer was lost, or one that by its number and its position it knew."""
        return super().back(lambda entry: self._is_base(entry, is_same_edit))

    def _is_base(self, entry: Entry, is_same_edit: Callable[[Entry], bool]) -> bool:
        if self._later:
            row = decode_stored(entry.row)
            for name in self._later:
                self._before.setdefault(name, []).append(row.get(name))
            self._later = ()
        if entry.sequence <= self._position and (not self._version or entry.version <= self._version):
            return True
        self._repeated = decode_stored(entry.row) if is_same_edit(entry) else None
        return self._repeated is not None

    def _take(self, entry: Entry) -> None:
        super()._take(entry)
        if self._own.is_own(entry):
            _note_times(self._own_times, entry, json.loads(entry.fields or "[]"), self._own.written)

    def _note(self, entry: Entry, names: Collection[str]) -> None:
        is_denied = 0 < self._version < entry.version - 1
        is_missed = is_denied or entry.sequence > self._sent
        _note_times(self._changed if is_missed else self._perhaps, entry, names, self._settled)
        if is_missed or entry.sequence > self._position:
            self._later = names

    def _note_purged(self, sequence: int) -> None:
        if sequence > self._sent:
            super()._note_purged(sequence)

    def _since(self, base: Row | None) -> MissedEdits | None:
        since = MissedEdits(self._changed, base, self._perhaps, self._before)
        if self._repeated is not None:  # What it did itself after that came later, too.
            since = since.whole._replace(base=self._repeated)
            since = since._replace(changed={**self._own_times, **since.changed})
        return since if since.changed or since.perhaps else None
