"""A digest of each table, kept with every change, by which a device knows that it equals the server.

Knows: how rows make a digest, and its statements, bound to one tenant by the caller. Must not know: Flask, sockets,
engines. The count and the exclusive or of one 64-bit number a row that is not deleted: the first eight bytes of SHA-256
over ``id:version``. So it does not depend on any order, and one change costs one row's work, however large the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from models import SyncedTable, connection, synced_tables
from protocol.messages import StoredRow
from storage.system_tables import TableDigest


def number_of(row_id: str, version: int) -> int:
    """Give the number that one row adds to its table's digest."""
    return int.from_bytes(hashlib.sha256(f"{row_id}:{version}".encode()).digest()[:8], "big")


def add_missing(tables: Iterable[SyncedTable]) -> None:
    """Compute the digest of each table that has none yet."""
    known = {found.table for found in TableDigest.select(TableDigest.table)}
    for table in tables:
        if table.name not in known:
            count, text = of_rows(table.name)
            TableDigest.create(table=table.name, count=count, hash=text)


def of_rows(table: str) -> tuple[int, str]:
    """Compute a table's digest from its rows: their number and their hash."""
    rows = connection().execute(f'SELECT e.id, e.version FROM "{table}" AS e WHERE e.is_deleted = 0')
    count = whole = 0
    for row_id, version in rows:
        count, whole = count + 1, whole ^ number_of(row_id, version)
    return count, text_of(whole)


def of_no_rows() -> list[tuple[str, str]]:
    """Give the names of all synced tables, and the hash of an empty one."""
    return [(name, text_of(0)) for name in synced_tables()]


class Difference:
    """What a push changes of one table's digest."""

    __slots__ = ("count", "whole")

    def __init__(self) -> None:
        self.count = self.whole = 0

    def add(self, row_ids: Sequence[str]) -> None:
        """Count rows that are new and not deleted."""
        self.count += len(row_ids)
        for row_id in row_ids:
            self.whole ^= number_of(row_id, 1)

    def change(self, row_id: str, before: int, after: int) -> None:
        """Count that a row which is not deleted has another version."""
        self.whole ^= number_of(row_id, before) ^ number_of(row_id, after)

    def replace(self, before: StoredRow | None, after: StoredRow) -> None:
        """Put a row as it is now in the place of what it was."""
        for sign, stored in ((-1, before), (1, after)):
            if stored is not None and not stored.row["is_deleted"]:
                self.count += sign
                self.whole ^= number_of(stored.row["id"], stored.version)


def change(table: str, difference: Difference) -> None:
    """Bring a table's digest up to date, in the transaction of the change."""
    count, text = next(iter(connection().execute(READ, (table,))))
    whole = text_of(int(text, 16) ^ difference.whole)
    connection().execute(CHANGE, (count + difference.count, whole, table))


READ = "SELECT count, hash FROM _digests WHERE table_name = ?"
CHANGE = "UPDATE _digests SET count = ?, hash = ? WHERE table_name = ?"


def text_of(whole: int) -> str:
    """Write a digest's hash."""
    return f"{whole:016x}"
