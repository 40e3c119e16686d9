"""Which row a change means: by its id, by its ``Unique_id``, or a new one (docs/api.md, rules of a push).

Knows: the rows of a push so far, which ids it gave. Must not know: SQL, Flask, sockets, engines, what becomes
of a change (``merge``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

from protocol.codec import Cursor
from protocol.messages import Change, StoredRow
from storage.merge_base import Key

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


class Identities:
    """The names of the rows of one push; ``current`` gives those as they are now."""

    def __init__(self, current: Mapping[Key, StoredRow], base: Cursor | None, new_id: Callable[[], str]) -> None:
        self._current, self._base, self._new_id = current, base, new_id
        self._by_unique_id: defaultdict[Key, set[str]] = defaultdict(set)
        self._given: dict[Key, str] = {}
        """By stated ids those given instead, for edits of rows that the device has not had from the server."""

    def note(self, table: str, row_id: str, unique_id: str | None, before: str | None = None) -> None:
        """Note that a row has a ``Unique_id``, in the place of the one ``before``."""
        if before:
            self._by_unique_id[table, before].discard(row_id)
        if unique_id:
            self._by_unique_id[table, unique_id].add(row_id)

    def row_id(self, change: Change) -> str:
        """Give the id of the row that a change means; a new one if there is none."""
        assert change.table is not None
        table, stated = change.table.name, change.row_id
        if stated is None:
            return self._found(table, change.unique_id) or self._new_id()
        if change.unique_id is None:
            is_of_this_push = change.base_version == 0 and change.is_base_stated
            return self._given.get((table, stated), stated) if is_of_this_push else stated
        stored = self._current.get((table, stated))
        if not self._is_another(change, stored):
            return stated
        row_id = self._found(table, change.unique_id) or (stated if stored is None else self._new_id())
        self._given[table, stated] = row_id
        return row_id

    def _is_another(self, change: Change, stored: StoredRow | None) -> bool:
        """Tell whether a change that states both its names may mean another row than the one with its id.

        Devices that count up their ids by themselves come to the same ones. So an id tells which row is meant only if the
        row has no other ``Unique_id``, or if the device proves that it knew it: by a base, or with a UUID, which no two
        make. A *create* proves nothing by its UUID: it states that its row is new.
        """
        if change.is_base_stated and change.base_version:
            return False
        if stored is None:
            return True
        unique_id = stored.row["Unique_id"]
        if not unique_id or unique_id == change.unique_id:
            return False
        if self._base and not change.is_base_stated and self._base.sequence >= stored.sequence:
            return False
        return change.kind == "create" or not _UUID.fullmatch(change.row_id or "")

    def _found(self, table: str, unique_id: str | None) -> str | None:
        """Find the row with a ``Unique_id``: a live one before a deleted one, then the one with the least id."""
        found = self._by_unique_id.get((table, unique_id)) if unique_id else None
        return (
            min(found, key=lambda row_id: (self._current[table, row_id].row["is_deleted"], row_id)) if found else None
        )
