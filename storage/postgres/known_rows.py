"""Rows that were looked up together before the work that asks for them, so that it waits for no answer of its own.

Knows: the statements that look rows up by one column, and those that write rows. Must not know: connections, pushes, rules.

A row that the transaction wrote since, or that a value of one leads to now, is not known any more, and is looked up again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from models import synced_tables
from storage.look_ahead import Wanted
from storage.postgres.look_ups import any_where, rows_where
from storage.postgres.values import array
from storage.push_fast_path import is_there

Row = tuple[Any, ...]
Column = tuple[str, str]

_NAMES = ("id", "Unique_id")
_INSERT = re.compile(r'INSERT INTO "(\w+)" \(([^)]*)\) VALUES \([?, ]*\)$')
_UPDATE = re.compile(r'UPDATE "(\w+)" SET ("\w+" = \?(?:, "\w+" = \?)*) WHERE "_seq" = \?$')
_DELETE = re.compile(r'DELETE FROM "(\w+)" AS e WHERE e\.id = \?$')
_MOST_TEXTS = 5_000


class KnownRows:
    """The rows that a transaction looked up in advance."""

    def __init__(self, ask: Callable[[str, Sequence[Any]], Iterable[Row]]) -> None:
        """``ask``: sends a statement, whose rows are waited for when they are gone through."""
        self._ask = ask
        self._asked: defaultdict[Column, set[str]] = defaultdict(set)
        self._coming: defaultdict[Column, list[Iterable[Row]]] = defaultdict(list)
        self._found: defaultdict[Column, dict[str, list[Row]]] = defaultdict(dict)
        self._changed: defaultdict[Column, set[str]] = defaultdict(set)

    def look_up(self, wanted: Wanted) -> None:
        """Look rows up, without waiting for them."""
        for column, values in wanted.items():
            if new := values - self._asked[column]:
                self._asked[column] |= new
                self._coming[column].append(self._ask(rows_where(*column), (array(new),)))

    def answer(self, sql: str, values: Sequence[Any]) -> list[Row] | None:
        """Give the rows of a statement; None if they are not known."""
        if not self._asked or (asked := _asked_by(sql)) is None:
            return None
        if len(asked.columns) > 1:
            found = self._rows_of_one(asked.table, values)
        else:
            found = self._rows((asked.table, asked.columns[0]), values[0].texts)
        return found if found is None or asked.gives_rows else [(1,)] * bool(found)

    def _rows_of_one(self, table: str, values: Sequence[str | None]) -> list[Row] | None:
        found: list[Row] = []
        for name, value in zip(_NAMES, values, strict=True):
            rows = self._rows((table, name), [value]) if value else []
            if rows is None:
                return None
            found += rows
        return found

    def _rows(self, column: Column, values: Sequence[str]) -> list[Row] | None:
        asked, changed, ids = self._asked[column], self._changed[column], self._changed[column[0], "id"]
        if not asked.issuperset(values) or not changed.isdisjoint(values):
            return None
        found = self._received(column)
        rows = [row for value in values for row in found.get(value, ())]
        return None if ids and any(row[0] in ids for row in rows) else rows

    def _received(self, column: Column) -> dict[str, list[Row]]:
        """Give by value what came of a column, and wait for what is still to come."""
        found = self._found[column]
        for rows in self._coming.pop(column, ()):
            for row in rows:
                found.setdefault(row[-1], []).append(row)
        return found

    def note(self, sql: str, rows: Sequence[Sequence[Any]], table: str | None) -> None:
        """Note what a statement writes; ``table`` is None if it may be any."""
        if not self._asked or (table is not None and table.startswith("_") and table != "_changes"):
            return None
        written = _written_by(sql)
        if written is None:
            return self.forget()
        if written.table is not None:
            for name, place in zip(written.names, written.places, strict=True):
                self._changed[written.table, name].update(values[place] for values in rows)
            return None
        table_at, id_at = written.places
        for name in {values[table_at] for values in rows}:
            self._changed[name, "id"].update(values[id_at] for values in rows)
        return None

    def forget(self) -> None:
        """Know nothing any more."""
        for known in (self._asked, self._coming, self._found):
            known.clear()


class _Asked(NamedTuple):
    """What a statement asks for: rows, or whether there is one; by values of one column, or by one row's names."""

    table: str
    columns: tuple[str, ...]
    gives_rows: bool


@lru_cache(_MOST_TEXTS)
def _asked_by(sql: str) -> _Asked | None:
    """Tell what a statement asks for, if it is a look-up."""
    for table in synced_tables():
        if sql == is_there(table):
            return _Asked(table, _NAMES, gives_rows=False)
        for name in _NAMES:
            if sql == rows_where(table, name):
                return _Asked(table, (name,), gives_rows=True)
            if sql == any_where(table, name):
                return _Asked(table, (name,), gives_rows=False)
    return None


class _Written(NamedTuple):
    """Where among its values a statement has the names of the rows that it writes; without a ``table`` it is the log, which
    names table and row."""

    table: str | None
    names: Sequence[str]
    places: Sequence[int]


@lru_cache(_MOST_TEXTS)
def _written_by(sql: str) -> _Written | None:
    """Tell which rows a statement writes; None if its values do not say it."""
    if found := _DELETE.match(sql):
        return _Written(found[1], ["id"], [0])
    found = _INSERT.match(sql) or _UPDATE.match(sql)
    if found is None:
        return None
    columns = re.findall(r'"(\w+)"', found[2])
    if found[1] == "_changes":
        return _Written(None, (), [columns.index("table_name"), columns.index("row_id")])
    names = [name for name in _NAMES if name in columns]
    return _Written(found[1], names, [columns.index(name) for name in names])
