"""The fast path of a push: writes rows that are all new, or all plain edits (``plain_edits``), as they were decoded.

Knows: the statements that tell whether rows are new, bound to one tenant by the caller. Must not know: Flask, sockets,
engines.

Any other row sends its whole chunk over the general path (``push_writer``). Where both paths could write a row, they make
the same of it; ``tests/storage/test_push_fast_path.py`` compares them.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

from models import connection
from protocol.row_decoder import TypedRow
from storage.dialect import dialect
from storage.merge_base import Key
from storage.plain_edits import PlainEdit, PlainEdits, any_twice, by_table, expect
from storage.push_batch import Chunk, Writing

_ALL_TYPED = {TypedRow}
_IS_NEW = attrgetter("is_new")


class FastPath:
    """Takes the chunks of one push that it can."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._edits = PlainEdits(writing)

    @property
    def edited(self) -> Mapping[Key, PlainEdit]:
        """Give what was done to rows that were there before."""
        return self._edits.made

    def takes(self, some: Sequence[Any], handled: Container[Key]) -> bool:
        """Write rows, and tell whether it could; else nothing was done. ``handled``: rows of the general path."""
        if set(map(type, some)) != _ALL_TYPED:
            return False
        if self._takes(some, handled):
            return True
        for decoder in {one.decoder for one in some}:
            decoder.misses += 1
        return all(one.decode_as_expected() for one in some) and self._takes(some, handled)

    def _takes(self, some: Sequence[TypedRow], handled: Container[Key]) -> bool:
        are_new = set(map(_IS_NEW, some))
        if len(are_new) > 1:
            return False
        return self._create(some) if True in are_new else self._edits.take(some, handled)

    def _create(self, some: Sequence[TypedRow]) -> bool:
        """Write rows of which none exists, and none is named twice."""
        if _any_exists(some):
            expect(some, new=False)
            return False
        writing, chunk = self._writing, Chunk()
        time, at, is_named, session = writing.time, writing.at, writing.is_named, writing.session
        pushed_by, row_device_ids = writing.push.device_id, set()
        for one in some:
            row, row_type, row_id = one.row, one.row_type, one.row_id or writing.new_row_id()
            body = one.complete(row_id, time)
            if len(body) > writing.row_bytes:
                writing.is_too_large(one.change(), body)
                continue
            writing.sequence = sequence = writing.sequence + 1
            about = 1, None, at, one.edited_at, pushed_by or row.device_id, None, body.decode(), is_named, session
            chunk.log.append((sequence, row_type.table, row_id, *about))
            chunk.rows[row_type].append(row_type.stored(row, sequence))
            writing.note(row_type.table, row_id, "created", 1, body)
            row_device_ids.add(row.device_id)
        for row_type, rows in chunk.rows.items():
            writing.differences[row_type.table].add([row[0] for row in rows])
        for device in row_device_ids:
            writing.note_row_device_id(device, None)
        chunk.write()
        return True


def _any_exists(new: Sequence[TypedRow]) -> bool:
    """Tell whether one of these rows is there already, by its id or its ``Unique_id``, or named twice."""
    if len(new) == 1:
        (one,) = new
        names = one.row_id, one.row.Unique_id or None
        return connection().execute(is_there(one.row_type.table), names).fetchone() is not None
    return any(_any_named_twice_or_there(table, own) for table, own in by_table(new))


def _any_named_twice_or_there(table: str, new: Sequence[TypedRow]) -> bool:
    ids = [one.row_id for one in new if one.row_id]
    names = [one.row.Unique_id for one in new if one.row.Unique_id]
    if any_twice(ids) or any_twice(names):
        return True
    return _exists(table, "id", ids) or _exists(table, "Unique_id", names)


@cache
def is_there(table: str) -> str:
    """Select one row of 1 if there is a row with an id or a ``Unique_id``."""
    return (
        f'SELECT 1 FROM "{table}" AS e WHERE e.id = ? UNION ALL SELECT 1 FROM "{table}" AS e WHERE e."Unique_id" = ?'
        " LIMIT 1"
    )


def _exists(table: str, column: str, wanted: list[str]) -> bool:
    if not wanted:
        return False
    words = dialect()
    return connection().execute(words.any_where(table, column), (words.listed(wanted),)).fetchone() is not None
