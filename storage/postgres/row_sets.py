"""Many rows of one INSERT as one statement with one parameter: their JSON, of which PostgreSQL makes rows again.

Knows: how an INSERT of parameters is written, what JSON says exactly. Must not know: connections, tables' meaning.

A statement a row costs this process three times as much, most of it for parameters of which each is written by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from types import NoneType
from typing import Any

from peewee import Model

from models import synced_tables
from protocol.codec import encode
from storage.postgres.column_types import type_of
from storage.system_tables import Logged

_LEAST_ROWS = 4
_INSERT = re.compile(r'INSERT INTO "(\w+)" \(([^)]*)\) VALUES \([?, ]*\)$')
_EXACT = {str, int, float, NoneType}
"""Types that PostgreSQL reads from JSON as it reads them from a parameter's text. ``true`` is no number to it."""


def in_one(sql: str, rows: Sequence[Sequence[Any]], table: str | None) -> tuple[bytes, str] | None:
    """Give the statement that inserts all the rows into a table, and its parameter; None if they go one by one.

    JSON says U+0000 in words that PostgreSQL refuses: such a text is left to who says so clearly.
    """
    if len(rows) < _LEAST_ROWS or table is None:
        return None
    model = Logged if table == "_changes" else getattr(synced_tables().get(table), "model", None)
    text = None if model is None else _of_set(sql, model)
    if text is None or not _are_exact(rows):
        return None
    given = encode(rows).decode()
    return None if "\\u0000" in given else (text, given)


def _are_exact(rows: Sequence[Sequence[Any]]) -> bool:
    types: set[type] = set()
    for row in rows:
        types.update(map(type, row))
    return types <= _EXACT


@lru_cache(1_000)
def _of_set(sql: str, model: type[Model]) -> bytes | None:
    """Write the statement; None if it is no INSERT of parameters alone."""
    found = _INSERT.match(sql)
    if found is None:
        return None
    names = re.findall(r'"(\w+)"', found[2])
    values = (f"(given->>{place})::{type_of(model._meta.columns[name])}" for place, name in enumerate(names))
    chosen = f"SELECT {', '.join(values)} FROM jsonb_array_elements($1::jsonb) AS given"
    return f'INSERT INTO "{found[1]}" ({found[2]}) {chosen}'.encode()
