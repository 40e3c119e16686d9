"""Plain edits of a push: finds the rows that a chunk of edits means, tells whether all are plain, and writes them.

Knows: the statements for it, bound to one tenant by the caller. Must not know: Flask, sockets, engines, new rows
(``push_fast_path``), what becomes of other edits (``push_writer``).

An edit is plain if it means one existing row, by its id or by its ``Unique_id``, that is not deleted and that no other
edit of the push means, and if its device missed no change of it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import UNSET

from protocol.codec import Row, decode_stored, encode
from protocol.messages import StoredRow
from protocol.row_decoder import TypedRow
from storage.merge_base import Key, rows_where
from storage.push_batch import Chunk, Writing
from storage.repeated_creates import is_earlier_state, may_begin_with, note_beginning, telling

AsRead = tuple[str, str, int, int, int, str | None, str]
"""A row's id, its JSON, its version and sequence, when it was edited, by which device, and what it was found by."""


class PlainEdit(NamedTuple):
    """An edit of an existing row: what was sent and found, and what is to be written."""

    typed: TypedRow
    existing: Any
    """The row, which becomes what it is after the edit."""
    as_read: AsRead
    different: Row

    @property
    def names(self) -> list[str]:
        """Give the names of the fields that are to be written."""
        return [self.typed.row_type.names[name] for name in self.different]

    @property
    def before(self) -> StoredRow:
        """Give the row as it was."""
        _, body, version, sequence, edited_at, device_id, _ = self.as_read
        return StoredRow(decode_stored(body), version, sequence, edited_at, device_id)

    @property
    def received(self) -> Row:
        """Give what the device sent of it."""
        return self.typed.row_type.fields_of(self.typed.row)


class PlainEdits:
    """Writes the chunks of one push that have nothing but plain edits."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self.made: dict[Key, PlainEdit] = {}
        """What was done to rows: what the general path must know if it handles one of them in the same push."""

    def take(self, some: Sequence[TypedRow], handled: Container[Key]) -> bool:
        """Write rows, and tell whether it could; else nothing was done. ``handled``: rows of the general path."""
        found: dict[Key, PlainEdit] = {}
        for table, own in by_table(some):
            rows = _existing(table, own)
            if not any(rows):
                expect(own, new=True)
            position, _ = self._writing.push.evidence.positions(table, self._writing.before.epoch)
            for one, row in zip(own, rows, strict=True):
                key = table, row[0] if row else ""
                if not row or key in found or key in handled or key in self.made:
                    return False
                plain = self._plain(one, row, position)
                if plain is None:
                    return False
                found[key] = plain
        self._write(found)
        return True

    def _plain(self, one: TypedRow, as_read: AsRead, position: int) -> PlainEdit | None:
        """Compare an edit with its row; None if there is more to it."""
        base_version, body = one.base_version, as_read[1]
        if one.decoder.kind == "create" or not self._is_known(one, as_read, base_version, position):
            return None
        existing = one.decode_existing(body)
        if existing is None or existing.is_deleted:
            return None
        row = one.row
        if row.Unique_id and existing.Unique_id and row.Unique_id != existing.Unique_id:
            return None
        if base_version is not None and not self._writing.push.evidence.is_of(row.device_id, existing.device_id):
            return None
        different = one.difference(existing)
        if different is None:
            return None
        plain = PlainEdit(one, existing, as_read, different)
        return None if different and self._is_late_repeat(plain) else plain

    def _is_known(self, one: TypedRow, as_read: AsRead, base_version: int | None, position: int) -> bool:
        """Tell whether an edit's device knew its row as it was before this push, or states nothing of it."""
        push, before, (_, _, version, sequence, edited_at, *_) = self._writing.push, self._writing.before, as_read
        if sequence > before.sequence:
            return False
        is_own = False
        if position < sequence:
            is_own = push.evidence.has_made(sequence, before.epoch)
            self._writing.applied.has_seen_all &= is_own
        if base_version is None:
            return not push.base or push.base.sequence >= sequence
        if is_own:  # What is no later may be an earlier edit sent again.
            return base_version >= version and one.edited_at > edited_at
        return position >= sequence and (not base_version or base_version >= version)

    def _is_late_repeat(self, plain: PlainEdit) -> bool:
        """Tell whether an edit whose base is not stated may be a create that was taken before: the general path knows."""
        push, one, existing, (_, _, version, sequence, *_) = (
            self._writing.push,
            plain.typed,
            plain.existing,
            plain.as_read,
        )
        if one.decoder.kind != "upsert" or push.base or (one.base_version and one.row.last_updated is UNSET):
            return False
        life = self._writing.before.epoch, one.row_type.table, existing.id, existing.createdAt
        tells = telling(plain.different, one.row_type.names)
        if version == 1:
            note_beginning(life, {name: getattr(existing, name) for name in tells})
            return False
        if not may_begin_with(life, sequence, tells):
            return False
        session, device_id = push.evidence.session, push.device_id
        return is_earlier_state(sequence, plain.received, is_any=False, session=session, device_id=device_id)

    def _write(self, edits: Mapping[Key, PlainEdit]) -> None:
        chunk = Chunk()
        for key, plain in edits.items():
            if not plain.different:
                _, body, version, *_ = plain.as_read
                self._writing.note(*key, "unchanged", version, body.encode())
            elif not self._edit(key, plain, chunk):
                continue
            self.made[key] = plain
        chunk.write()

    def _edit(self, key: Key, plain: PlainEdit, chunk: Chunk) -> bool:
        """Make one edit, unless the row would become too large."""
        writing, one, (_, _, version, before, edited_at, *_) = self._writing, plain.typed, plain.as_read
        body = one.merge(plain.existing, plain.different, writing.time, edited_at)
        if len(body) > writing.row_bytes:
            writing.is_too_large(one.change(), body)
            return False
        (table, row_id), stated = key, one.row.device_id
        writing.sequence = sequence = writing.sequence + 1
        device = writing.push.device_id or (None if stated is UNSET else stated)
        about = version + 1, before, writing.at, one.edited_at, device, encode(plain.names).decode(), body.decode()
        chunk.log.append((sequence, table, row_id, *about, writing.is_named, writing.session))
        if "device_id" in plain.different:
            writing.note_row_device_id(stated, None)
        chunk.edit(table, before, sequence, one.row_type.edited(plain.existing, plain.different))
        writing.differences[table].change(row_id, version, version + 1)
        writing.note(table, row_id, "updated", version + 1, body)
        return True


def expect(some: Iterable[TypedRow], *, new: bool) -> None:
    """Note what more rows of the same push probably are, since these are not what they were read as."""
    for one in some:
        one.decoder.expects_new = new


def by_table(some: Iterable[TypedRow]) -> Iterator[tuple[str, list[TypedRow]]]:
    """Give rows of a push, which come one table after the other, by the name of their table."""
    for decoder, own in groupby(some, attrgetter("decoder")):
        yield decoder.table.name, list(own)


def _existing(table: str, some: Sequence[TypedRow]) -> list[AsRead | None]:
    """Read the row that each edit means, by its id or, without one, its ``Unique_id``; None if it may be any other."""
    names = [one.row.Unique_id for one in some if not one.row_id]
    if names and any_twice([one.row.Unique_id for one in some if one.row.Unique_id]):
        return [None for _ in some]
    by_id = _rows_by_value(table, "id", [one.row_id for one in some if one.row_id])
    by_name = _rows_by_value(table, "Unique_id", [name for name in names if name])
    return [by_id.get(one.row_id) if one.row_id else by_name.get(one.row.Unique_id or "") for one in some]


def _rows_by_value(table: str, column: str, values: Sequence[str]) -> Mapping[str, AsRead]:
    """Read rows by a column, by its values; none if several have the same."""
    if not values:
        return {}
    found = list(rows_where(table, column, values))
    rows = {row[-1]: row for row in found}
    return rows if len(rows) == len(found) else {}


def any_twice(values: Sequence[str]) -> bool:
    """Tell whether a value comes again."""
    return len(set(values)) < len(values)
