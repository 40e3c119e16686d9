"""Decodes the rows of a push straight into checked values, for the fast path (``push_fast_path``).

Knows: which type a row probably has (``row_types``), and when to give up guessing. Must not know: stored rows, Flask,
peewee, sockets, files, the clock. A row that does not fit its type takes the general path (``push_parser``, ``merge``),
which knows more forms and says what is wrong. Both paths make the same row of what both take:
``tests/storage/test_push_fast_path.py`` and ``tests/storage/test_fast_path_of_declared.py`` hold them to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from cachetools import LRUCache
from msgspec import UNSET, Raw

from protocol.codec import decode_stored, encode, format_time, whole_number
from protocol.messages import Change, Kind, Table
from protocol.row_types import NULL, SET_BY_SERVER, RowType, as_stored, row_type_of

_CONTAINERS = frozenset({dict, list})
_MAX_UNKNOWN_FIELDS = 32
_LEARN_AFTER_ROWS = 16
_MAX_MISSES = 3

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)

_latest: dict[Table, RowType] = {}
_rows_seen: LRUCache[tuple[Table, tuple[str, ...]], int] = LRUCache(256)
"""How many rows with these unknown fields were read."""


class RowDecoder:
    """Decodes the rows of one table in one push as what they probably are: new rows, or edits of existing ones.

    ``parse`` gives the row at an index as a change, for the general path.
    """

    __slots__ = ("expects_new", "kind", "misses", "parse", "row_type", "table")

    def __init__(self, table: Table, parse: Callable[[int], Change], kind: Kind = "upsert") -> None:
        self.table, self.parse, self.kind, self.expects_new = table, parse, kind, kind != "update"
        self.row_type = _latest.get(table) or row_type_of(table)
        self.misses = 0

    def decode(self, raw: Raw) -> Any:
        """Decode a row; None if it does not fit its type."""
        row_type = self.row_type
        if self.misses >= _MAX_MISSES:
            return None
        try:
            row = (row_type.decode_new if self.expects_new else row_type.decode_edit)(raw)
            _normalise(row, row_type, self.expects_new)
            if row_type.checked or row_type.required:
                _check(row, row_type)
        except _UNREADABLE:
            return None
        return row

    def learn(self, names: Iterable[str]) -> None:
        """Note the fields of a row that took the general path: rows like it may follow, and then get a type too."""
        unknown = tuple(name for name in names if name not in self.table.columns and name not in SET_BY_SERVER)
        if len(unknown) > _MAX_UNKNOWN_FIELDS or set(unknown) <= set(self.row_type.unknown):
            return
        if any(name.startswith("_") for name in unknown):  # Our own columns begin so.
            return
        count = _rows_seen[self.table, unknown] = _rows_seen.get((self.table, unknown), 0) + 1
        if count >= _LEARN_AFTER_ROWS:
            with contextlib.suppress(ValueError):  # msgspec takes no quotes and the like in a name.
                self.row_type = _latest[self.table] = row_type_of(self.table, unknown)


def _normalise(row: Any, row_type: RowType, is_new: bool) -> None:
    """Bring the values of a decoded row into the form in which they are stored. JSON of any shape becomes bytes; an edit's
    is bytes already, which are looked at if they differ from those of the existing row (``RowType.difference``).

    Raises: ValueError for what may be nested too deeply.
    """
    if row.is_deleted is None:
        row.is_deleted = 0
    if bool in map(type, row_type.flags_of(row)):
        for name in row_type.flags:
            if type(value := getattr(row, name)) is bool:
                setattr(row, name, int(value))
    if is_new:
        for name, value in zip(row_type.json_attributes, row_type.json_of(row)):  # noqa: B905 - checking costs as much.
            if type(value) in _CONTAINERS:
                setattr(row, name, as_stored(value))


def _check(row: Any, row_type: RowType) -> None:
    """Raises: ValueError for what a row's type alone can't refuse."""
    for name, check in row_type.checked:
        if type(value := getattr(row, name)) is str:
            check(value)
    if any(getattr(row, name) in (None, NULL) for name in row_type.required):
        raise ValueError("required")


class TypedRow(msgspec.Struct, gc=False):
    """A decoded row of a push: the one at an index of its list."""

    decoder: RowDecoder
    row_type: RowType
    raw: Raw
    row: Any
    is_new: bool
    row_id: str | None
    edited_at: int
    index: int

    @property
    def table(self) -> Table:
        """Give the row's table."""
        return self.decoder.table

    def change(self) -> Change:
        """Parse the same row for the general path."""
        return self.decoder.parse(self.index)

    def decode_as_expected(self) -> bool:
        """Decode the row again if its decoder expects something else by now; tell whether that gave another row."""
        if self.is_new is self.decoder.expects_new:
            return False
        decoder = self.decoder
        self.row_type, self.is_new, self.row = decoder.row_type, decoder.expects_new, decoder.decode(self.raw)
        return self.row is not None

    @property
    def base_version(self) -> int | None:
        """Give the version that the edit was based on, if its device counts versions by itself."""
        version = whole_number(self.row.version)
        return version - 1 if version is not None and version > 0 and self.decoder.kind != "create" else None

    def complete(self, row_id: str, time: str) -> bytes:
        """Set what the server sets in a new row, and give its JSON."""
        row = self.row
        row.id, row.sync_status, row.version, row.server_synced = row_id, "synced", 1, 1
        row.createdAt = row.updatedAt = time
        if row.last_updated is UNSET:
            row.last_updated = format_time(self.edited_at)
        return encode(row)

    def decode_existing(self, body: str) -> Any:
        """Decode the existing row, as it was stored; None if it does not fit the type."""
        try:
            return self.row_type.decode_existing(body)
        except msgspec.MsgspecError:
            self.decoder.learn(decode_stored(body))
            return None

    def difference(self, existing: Any) -> dict[str, Any] | None:
        """Give what the edit has otherwise than the existing row; None if not all of it can be read."""
        try:
            return self.row_type.difference(self.row, existing)
        except _UNREADABLE:
            return None

    def merge(self, existing: Any, different: Mapping[str, Any], time: str, edited_at: int) -> bytes:
        """Write what is different into the existing row, and give its JSON; ``edited_at``: when that was edited."""
        for name, value in different.items():
            setattr(existing, name, value)
        existing.version += 1
        existing.updatedAt = time
        if self.row.last_updated is UNSET:
            existing.last_updated = format_time(max(self.edited_at, edited_at))
        return encode(existing)
