"""SQLite's dialect: what ``storage.dialect.Dialect`` asks of an engine, in SQLite's words.

Knows: SQLite's SQL, the tables that every tenant has. Must not know: connections' life, files, rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from models import connection
from protocol.codec import encode
from storage.sqlite import row_edits, schema_changes

schema, rows = schema_changes, row_edits
look_ahead = None

_LARGEST_PAGE_BYTES = 65_536
"""Source: sqlite.org/fileformat.html §1.3.2."""


def contains(text: str, part: str) -> str:
    """Say that a text has another in it."""
    return f"instr({text}, {part}) > 0"


def has_null(text: str) -> str:
    """Say that a text has U+0000 in it."""
    return f"instr({text}, char(0)) > 0"


def is_among(column: str) -> str:
    """Say that a column of text has one of the values of a list."""
    return f"{column} IN (SELECT value FROM json_each(?))"


def listed(values: Iterable[str]) -> str:
    """Make a parameter of a list of texts."""
    return encode(list(values)).decode()


def joined(query: str) -> str:
    """Have SQLite join rows: as bytes they leave in half the time that a list of texts takes.

    It takes them as the inner query gives them, which is in order: that has a LIMIT, and so is run by itself. An order
    stated for the aggregate would have them sorted again, at twice the time.
    """
    return f"SELECT max(seq), count(*), CAST(group_concat(row, ',') AS BLOB) FROM ({query})"


@cache
def rows_where(table: str, column: str) -> str:
    """Select the rows of a synced table by a column of text; with CROSS JOIN, SQLite starts from the list."""
    return (
        "SELECT e.id, c.row, c.version, c.seq, c.edited_at, c.device_id, wanted.value FROM json_each(?) AS wanted"
        f' CROSS JOIN "{table}" AS e ON e."{column}" = wanted.value CROSS JOIN _changes AS c ON c.seq = e._seq'
    )


@cache
def any_where(table: str, column: str) -> str:
    """Select one row of 1 if there is such a row."""
    return f'SELECT 1 FROM json_each(?) AS wanted CROSS JOIN "{table}" AS e ON e."{column}" = wanted.value LIMIT 1'


def spare_bytes(most_bytes: int) -> int:
    """Give how much the file may grow at the least; free pages are filled again first."""
    sql = connection()
    pages: int = sql.pragma("page_count")
    if pages * _LARGEST_PAGE_BYTES <= most_bytes:  # Nearly always, and each further question costs 2 µs.
        return most_bytes - pages * _LARGEST_PAGE_BYTES
    page_bytes: int = sql.pragma("page_size")
    if pages * page_bytes <= most_bytes:
        return most_bytes - pages * page_bytes
    free: int = sql.pragma("freelist_count")
    return min(0, most_bytes - (pages - free) * page_bytes)
