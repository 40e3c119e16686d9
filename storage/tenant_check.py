"""Whether what a tenant's database holds fits together: its position, its log, its rows and their digests.

Knows: the statements on that, and on what is compared with an earlier copy, bound to one tenant by the caller. Must not
know: whose it is, engines, files and what is wrong with them below their tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from models import connection, synced_tables
from protocol.codec import Row, decode_stored
from storage import digest
from storage.dialect import dialect
from storage.positions import incarnation
from storage.system_tables import Logged, TableDigest

_NAME = re.compile(r"\w+", re.ASCII)


def faults() -> list[str]:
    """List what is wrong with the tenant this code is bound to, also if an older version wrote it."""
    return list(_faults())


def _faults() -> Iterator[str]:
    _, sequence = incarnation()
    if not dialect().schema.columns(Logged._meta.table_name):
        yield "it has no log of changes"
        return
    (newest,) = connection().execute("SELECT coalesce(max(seq), 0) FROM _changes").fetchone()
    if newest > sequence:
        yield f"its log goes to change {newest:,}, and its position is {sequence:,}"
    if dialect().schema.columns(TableDigest._meta.table_name):
        stored = connection().execute("SELECT table_name, count, hash FROM _digests ORDER BY table_name").fetchall()
        for table, count, text in stored:
            yield from _of_table(table, (count, text))


def _of_table(table: str, stored: tuple[int, str]) -> Iterator[str]:
    if not _NAME.fullmatch(table) or not dialect().schema.columns(table):
        yield f"{table!a}: there is a digest of it and no table"
        return
    if digest.of_rows(table) != stored:
        yield f"{table}: its rows do not give the digest that is stored with them"
    (apart,) = connection().execute(_WITHOUT_CHANGE.format(table)).fetchone()
    if apart:
        yield f"{table}: {apart:,} rows have no change in the log"


_WITHOUT_CHANGE = (
    'SELECT count(*) FROM "{}" AS e'
    " WHERE NOT EXISTS (SELECT 1 FROM _changes AS c WHERE c.seq = e._seq AND c.row_id = e.id)"
)


# --- what it holds ---------------------------------------------------------------------------------------------------


def synced_here() -> list[str]:
    """List the synced tables that this database has; one of an older version may lack some."""
    return [name for name in synced_tables() if dialect().schema.columns(name)]


def count_rows(table: str) -> int:
    """Count the rows of a table, 0 if there is none."""
    if not dialect().schema.columns(table):
        return 0
    (count,) = connection().execute(f'SELECT count(*) FROM "{table}"').fetchone()
    return int(count)


def rows_after(table: str, row_id: str, count: int) -> dict[str, Row]:
    """Read the next rows of a table in the order of their IDs, tombstones too, as devices get them."""
    sql = (
        f'SELECT e.id, c.row FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq'
        " WHERE e.id > ? ORDER BY e.id LIMIT ?"
    )
    return {found: decode_stored(row) for found, row in connection().execute(sql, (row_id, count))}
