"""The fast path of a push: writes rows that are all new, or all edits that missed nothing, as they were decoded.

Knows: the statements that find out which they are and write them, bound to one tenant by the caller. Must not know:
Flask, sockets, engines.

A chunk of rows takes it if all are new, or if all are edits of existing rows, each named once by its id, by a device that
missed no change of them. Any other row sends its whole chunk over the general path (``push_writer``). Where both paths
could write a row, they make the same of it; ``tests/storage/test_push_fast_path.py`` compares them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from functools import cache
from typing import Any, NamedTuple

from msgspec import UNSET

from models import connection
from protocol.codec import Row, decode_stored, encode
from protocol.messages import StoredRow
from protocol.row_decoder import TypedRow
from protocol.row_types import RowType
from storage.dialect import dialect
from storage.merge_base import Key, rows_where
from storage.push_batch import INSERT_LOGGED, Writing, insert_row
from storage.repeated_creates import is_earlier_state, may_begin_with, note_beginning, telling


class Edited(NamedTuple):
    """What the fast path did to an existing row: what the general path must know if it handles the row in the same push."""

    typed: TypedRow
    found: tuple[Any, ...]
    names: Sequence[str]
    """Fields that were written."""

    @property
    def before(self) -> StoredRow:
        """Give the row as it was."""
        body, *about = self.found
        return StoredRow(decode_stored(body), *about)

    @property
    def received(self) -> Row:
        """Give what the device sent of it."""
        return self.typed.row_type.fields_of(self.typed.row)


_Found = tuple[Any, dict[str, Any], tuple[Any, ...]]
"""An existing row, what an edit has otherwise, and the row as it was read."""


class FastPath:
    """Takes the chunks of one push that it can."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self.edited: dict[Key, Edited] = {}

    def takes(self, some: Sequence[TypedRow], handled: Container[Key]) -> bool:
        """Write rows, and tell whether it could; else nothing was done. ``handled``: rows of the general path."""
        if self._takes(some, handled):
            return True
        for decoder in {one.decoder for one in some}:
            decoder.misses += 1
        return all(one.decode_as_expected() for one in some) and self._takes(some, handled)

    def _takes(self, some: Sequence[TypedRow], handled: Container[Key]) -> bool:
        if all(one.is_new for one in some):
            return self._create(some)
        return not any(one.is_new for one in some) and self._edit(some, handled)

    def _create(self, some: Sequence[TypedRow]) -> bool:
        """Write rows of which none exists, and none is named twice."""
        if _any_exists(some):
            return _expect(some, new=False)
        writing = self._writing
        time, at, is_named, session = writing.time, writing.at, writing.is_named, writing.session
        pushed_by = writing.push.device_id
        chunk = _Chunk()
        for one in some:
            table, row_id = one.row_type.table, one.row_id or writing.new_row_id()
            body = one.complete(row_id, time)
            if len(body) > writing.row_bytes:
                writing.is_too_large(one.change(), body)
                continue
            writing.sequence = sequence = writing.sequence + 1
            about = 1, None, at, one.edited_at, pushed_by or one.row.device_id, None, body.decode(), is_named, session
            writing.note_row_device_id(one.row.device_id, None)
            chunk.log.append((sequence, table, row_id, *about))
            chunk.rows[one.row_type].append(one.row_type.stored(one.row, sequence))
            writing.differences[table].add(row_id, 1)
            writing.note(table, row_id, "created", 1, body)
        chunk.write()
        return True

    def _edit(self, some: Sequence[TypedRow], handled: Container[Key]) -> bool:
        """Write edits of existing rows, each named once by its id in this push, none deleted, none by a device that
        missed a change of it."""
        found = self._found(some, handled)
        if found is None:
            return False
        chunk = _Chunk()
        for one, plain in zip(some, found, strict=True):
            self._edit_one(one, plain, chunk)
        chunk.write()
        return True

    def _found(self, some: Sequence[TypedRow], handled: Container[Key]) -> list[_Found] | None:
        """Find the existing rows; None if one of them is not plain."""
        keys = [(one.table.name, one.row_id) for one in some]
        if len(set(keys)) < len(keys) or any(key in handled or key in self.edited or not key[1] for key in keys):
            return None
        rows = {}
        for table in {table for table, _ in keys}:
            for row_id, *about in rows_where(table, "id", [key[1] for key in keys if key[0] == table]):
                rows[table, row_id] = tuple(about)
        if not rows:
            _expect(some, new=True)
        found = []
        for key, one in zip(keys, some, strict=True):
            about = rows.get(key)
            plain = about and self._plain(one, about)
            if not plain:
                return None
            found.append(plain)
        return found

    def _plain(self, one: TypedRow, as_read: tuple[Any, ...]) -> _Found | None:
        """Decode an existing row, unless there is more to it."""
        body, version, sequence, *_ = as_read
        base_version = one.base_version
        if one.decoder.kind == "create" or not self._is_known(one, base_version, version, sequence):
            return None
        existing = one.decode_existing(body)
        if existing is None or existing.is_deleted:
            return None
        if one.row.Unique_id and existing.Unique_id and one.row.Unique_id != existing.Unique_id:
            return None
        different = one.row_type.difference(one.row, existing)
        if base_version is not None and not self._writing.push.evidence.is_of(one.row.device_id, existing.device_id):
            return None
        is_plain = not different or not self._is_late_repeat(one, existing, as_read, different)
        return (existing, different, as_read) if is_plain else None

    def _is_known(self, one: TypedRow, base_version: int | None, version: int, sequence: int) -> bool:
        """Tell whether an edit's device knew its row as it was before this push, or states nothing of it."""
        push, before = self._writing.push, self._writing.before
        if sequence > before.sequence:
            return False
        if base_version is None:
            return not push.base or push.base.sequence >= sequence
        position, _ = push.evidence.positions(one.row_type.table, before.epoch)
        return position >= sequence and (not base_version or base_version >= version)

    def _is_late_repeat(self, one: TypedRow, existing: Any, as_read: tuple[Any, ...], different: Row) -> bool:
        """Tell whether an edit whose base is not stated may be a create that was taken before: the general path knows."""
        push, (_, version, sequence, *_) = self._writing.push, as_read
        if one.decoder.kind != "upsert" or push.base:
            return False
        life = self._writing.before.epoch, one.row_type.table, existing.id, existing.createdAt
        tells = telling(different, one.row_type.names)
        if version == 1:
            note_beginning(life, {name: getattr(existing, name) for name in tells})
            return False
        if not may_begin_with(life, sequence, tells):
            return False
        sent = one.row_type.fields_of(one.row)
        return is_earlier_state(sequence, sent, is_any=False, session=push.evidence.session, device_id=push.device_id)

    def _edit_one(self, one: TypedRow, plain: _Found, chunk: _Chunk) -> None:
        """Write one edit; the existing row becomes what it is now."""
        existing, different, found = plain
        writing, row_type, (was, version, sequence, edited_at, _) = self._writing, one.row_type, found
        table, row_id = one.table.name, one.row_id
        assert row_id is not None
        names = [row_type.names[name] for name in different]
        body = one.merge(existing, different, writing.time, edited_at) if different else was.encode()
        if different and len(body) > writing.row_bytes:
            writing.is_too_large(one.change(), body)
            return
        self.edited[table, row_id] = Edited(one, found, names)
        if different:
            writing.sequence += 1
            device = writing.push.device_id or (None if one.row.device_id is UNSET else one.row.device_id)
            about = version + 1, sequence, writing.at, one.edited_at, device, encode(names).decode(), body.decode()
            chunk.log.append((writing.sequence, table, row_id, *about, writing.is_named, writing.session))
            if "device_id" in different:
                writing.note_row_device_id(different["device_id"], None)
            chunk.rows[row_type].append(row_type.stored(existing, writing.sequence))
            chunk.older[table].append((sequence,))
            writing.differences[table].change(row_id, version, version + 1)
        writing.note(table, row_id, "updated" if different else "unchanged", version + bool(different), body)


def _expect(some: Sequence[TypedRow], *, new: bool) -> bool:
    """Note what more rows of the same push probably are, since these are not what they were read as."""
    for one in some:
        one.decoder.expects_new = new
    return False


class _Chunk:
    """The rows of one chunk, as they are written: into the log and, by table and columns, in the place of older ones."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.rows: defaultdict[RowType, list[tuple[Any, ...]]] = defaultdict(list)
        self.older: defaultdict[str, list[tuple[int]]] = defaultdict(list)
        """By table, the sequences of those that go."""

    def write(self) -> None:
        """Write them."""
        sql = connection()
        sql.executemany(INSERT_LOGGED, self.log)
        for table, older in self.older.items():
            sql.executemany(f'DELETE FROM "{table}" AS e WHERE e._seq = ?', older)
        for row_type, rows in self.rows.items():
            sql.executemany(insert_row(row_type.table, row_type.columns), rows)


def _any_exists(new: Sequence[TypedRow]) -> bool:
    """Tell whether one of these rows is there already, by its id or its ``Unique_id``, or named twice."""
    if len(new) == 1:
        (one,) = new
        found = connection().execute(_is_there(one.row_type.table), (one.row_id, one.row.Unique_id or None))
        return found.fetchone() is not None
    wanted: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for one in new:
        if one.row_id:
            wanted[one.table.name, "id"].append(one.row_id)
        if one.row.Unique_id:
            wanted[one.table.name, "Unique_id"].append(one.row.Unique_id)
    return any(len(set(own)) < len(own) or _exists(table, column, own) for (table, column), own in wanted.items())


@cache
def _is_there(table: str) -> str:
    return (
        f'SELECT 1 FROM "{table}" AS e WHERE e.id = ? UNION ALL SELECT 1 FROM "{table}" AS e WHERE e."Unique_id" = ?'
        " LIMIT 1"
    )


def _exists(table: str, column: str, wanted: list[str]) -> bool:
    words = dialect()
    return connection().execute(words.any_where(table, column), (words.listed(wanted),)).fetchone() is not None
