"""PostgreSQL's dialect: what ``storage.dialect.Dialect`` asks of an engine, in PostgreSQL's words.

Knows: PostgreSQL's SQL, the tables that every tenant has. Must not know: connections' life, rules.
"""

from __future__ import annotations

from collections.abc import Iterable

from models import connection
from storage.look_ahead import Wanted
from storage.postgres import look_ups, row_edits, schema_changes, sizes
from storage.postgres.values import array

schema, rows, spare_bytes = schema_changes, row_edits, sizes.spare_bytes
rows_where, any_where = look_ups.rows_where, look_ups.any_where


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


def look_ahead(wanted: Wanted) -> None:
    """Have rows looked up that will be asked for."""
    connection().look_ahead(wanted)
