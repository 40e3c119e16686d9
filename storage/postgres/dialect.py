"""PostgreSQL's dialect: what ``storage.dialect.Dialect`` asks of an engine, in PostgreSQL's words.

Knows: PostgreSQL's SQL, the tables that every tenant has. Must not know: connections' life, rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from storage.postgres import row_edits, schema_changes, sizes
from storage.postgres.values import array

schema, rows, spare_bytes = schema_changes, row_edits, sizes.spare_bytes

_WANTED = "FROM unnest(?::text[]) AS wanted(value)"


def contains(text: str, part: str) -> str:
    """Say that a text has another in it."""
    return f"strpos({text}, {part}) > 0"


def has_null(text: str) -> str:  # noqa: ARG001
    """Say that a text has U+0000 in it: here none has."""
    return "1 = 0"


def is_among(column: str) -> str:
    """Say that a column of text has one of the values of a list."""
    return f"{column} = ANY (?::text[])"


def listed(values: Iterable[str]) -> str:
    """Make a parameter of a list of texts."""
    return array(values)


def joined(query: str) -> str:
    """Have PostgreSQL join rows, in the order in which the inner query gives them."""
    return f"SELECT max(seq), count(*), convert_to(string_agg(row, ','), 'UTF8') FROM ({query}) AS part"


@cache
def rows_where(table: str, column: str) -> str:
    """Select the rows of a synced table by a column of text. OFFSET 0 keeps the look-ups as they are written, one a value:
    joined as a whole, they were a reading of the log from its start (ARCHITECTURE.md, trap 31)."""
    return (
        f"SELECT e.id, c.row, c.version, c.seq, c.edited_at, c.device_id, wanted.value {_WANTED}"
        f' CROSS JOIN LATERAL (SELECT t.id, t._seq FROM "{table}" AS t WHERE t."{column}" = wanted.value OFFSET 0) AS e'
        " CROSS JOIN LATERAL (SELECT l.row, l.version, l.seq, l.edited_at, l.device_id FROM _changes AS l"
        " WHERE l.seq = e._seq OFFSET 0) AS c"
    )


@cache
def any_where(table: str, column: str) -> str:
    """Select one row of 1 if there is such a row."""
    return (
        f"SELECT 1 {_WANTED} CROSS JOIN LATERAL"
        f' (SELECT 1 FROM "{table}" AS t WHERE t."{column}" = wanted.value LIMIT 1) AS found LIMIT 1'
    )
