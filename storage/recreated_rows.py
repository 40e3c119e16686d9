"""A create of a row that was deleted: a new one, a late repeat of an old one, or one that did not know of the deletion.

Knows: what in the row's history tells them apart, bound to one tenant by the caller. Must not know: Flask, sockets,
engines, what becomes of each (``merge``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from protocol.codec import Cursor, Row, decode, decode_stored
from protocol.messages import Change, StoredRow, same
from storage.merge_base import Entry, Key, entry_at


class _Life(NamedTuple):
    """What the history of a deleted row says: when that was, and what the row was each time it had been made."""

    deleted_at: int
    beginnings: list[Row]


class Revivals:
    """The deleted rows of one push; ``known`` gives rows as they were before it, ``current`` as they are now."""

    def __init__(
        self, known: Mapping[Key, StoredRow | None], current: Mapping[Key, StoredRow], base: Cursor | None
    ) -> None:
        self._known, self._current, self._base = known, current, base
        self._lives: dict[Key, _Life] = {}

    def is_repeat(self, change: Change, key: Key) -> bool:
        """Tell whether a create has what an earlier one of the row had, and nothing speaks for a new one.

        Its time speaks for a new one, unless it is the row's own: an older app states the time at which it sends.
        """
        known = self._deleted_before(change, key)
        if known is None or change.op_id is not None or self._knows(change, key, known):
            return False
        life = self._life(key, known)
        is_now = change.is_timed and change.fields.get("last_updated") is None and change.edited_at > life.deleted_at
        return not is_now and any(_matches(change, row) for row in life.beginnings)

    def is_late(self, change: Change, key: Key) -> bool:
        """Tell whether a create was made without knowing of the deletion, and before it."""
        known = self._deleted_before(change, key)
        if known is None or self._knows(change, key, known) or not change.is_timed:
            return False
        is_named = change.op_id is not None and change.base_version is None
        return not is_named and change.edited_at <= self._life(key, known).deleted_at

    def _deleted_before(self, change: Change, key: Key) -> StoredRow | None:
        """Give the tombstone of a create's row, unless this push made it: then the create comes after it."""
        current, known = self._current.get(key), self._known.get(key)
        if change.kind != "create" or current is None or known is None:
            return None
        return known if current.row["is_deleted"] and known.row["is_deleted"] else None

    def _knows(self, change: Change, key: Key, known: StoredRow) -> bool:
        """Tell whether a create states a base that has the deletion."""
        if self._base is not None and self._base.sequence >= known.sequence:
            return True
        version = change.base_version
        return version is not None and known.version <= version <= self._current[key].version

    def _life(self, key: Key, known: StoredRow) -> _Life:
        if key not in self._lives:
            self._lives[key] = _life_of(known)
        return self._lives[key]


def _life_of(known: StoredRow) -> _Life:
    """Walk a deleted row's history back. Of what was purged, the oldest row that is held counts as the beginning."""
    deleted_at: int | None = None
    beginnings: list[Row] = []
    entry, oldest = entry_at(known.sequence), None
    while entry is not None:
        oldest = entry
        if entry.fields is None or "is_deleted" in decode(entry.fields.encode()):
            row = decode_stored(entry.row)
            if row["is_deleted"] and deleted_at is None:
                deleted_at = entry.edited_at
            if not row["is_deleted"]:
                beginnings.append(row)
        entry = None if entry.previous is None else entry_at(entry.previous)
    if oldest is not None and oldest.fields is not None:
        beginnings.append(_live(oldest))
    return _Life(known.edited_at if deleted_at is None else deleted_at, beginnings)


def _live(entry: Entry) -> Row:
    return decode_stored(entry.row) | {"is_deleted": 0}


def _matches(change: Change, row: Row) -> bool:
    return all(same(row.get(name), value) for name, value in change.fields.items())
