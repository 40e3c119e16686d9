"""The statements that look rows up by a column: the rows, or whether there is one.

Knows: PostgreSQL's SQL. Must not know: connections, who asks.
"""

from __future__ import annotations

from functools import cache

_WANTED = "FROM unnest(?::text[]) AS wanted(value)"


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
