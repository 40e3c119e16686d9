"""Keeps the cursor of each table, and which tables must be pulled from the start.

Knows: cursors, and which part of one names the database. Must not know: HTTP, rows. Functions with a connection run inside
a transaction of the caller's. A table that an app no longer syncs keeps its cursor, and continues from there if it is
wanted again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from .replica import get_meta, set_meta


def epoch_of(cursor: str) -> str:
    """Give the part of a cursor that names the incarnation of its database; the rest is the server's own."""
    return cursor.partition("-")[0]


def want(connection: sqlite3.Connection, tables: Sequence[str] | None) -> None:
    """Note which tables the app syncs, None for all; those that are new to the replica have no place yet."""
    places = get_meta(connection, "places")
    set_meta(connection, tables=tables, places=dict.fromkeys(tables or ()) | places)


def wanted(connection: sqlite3.Connection) -> dict[str, str | None]:
    """Give the places of the tables that the app syncs, as far as they are known."""
    places, tables = get_meta(connection, "places"), get_meta(connection, "tables")
    return {table: place for table, place in places.items() if tables is None or table in tables}


def groups(connection: sqlite3.Connection) -> list[list[str]]:
    """Give the tables that the app syncs, those with the same place together."""
    found: dict[str | None, list[str]] = {}
    for table, place in wanted(connection).items():
        found.setdefault(place, []).append(table)
    return list(found.values())


def place_of(connection: sqlite3.Connection, tables: Iterable[str]) -> str | None:
    """Give the place of tables that have the same one, None for the start."""
    places = get_meta(connection, "places")
    return next((places[table] for table in tables), None)


def shared(connection: sqlite3.Connection) -> str | None:
    """Give the place of the replica: that of all tables, None if they have none or different ones."""
    places = set(wanted(connection).values())
    return places.pop() if len(places) == 1 else None


def latest(connection: sqlite3.Connection) -> str | None:
    """Give a place that names the database which the replica was pulled from."""
    return next((place for place in wanted(connection).values() if place), None)


def move(connection: sqlite3.Connection, tables: Iterable[str], place: str | None) -> None:
    """Note how far some tables are."""
    set_meta(connection, places=get_meta(connection, "places") | dict.fromkeys(tables, place))


def start_anew(connection: sqlite3.Connection, tables: Iterable[str]) -> None:
    """Let tables start from the start, over the rows that are held: a new generation each.

    Which databases their rows are of is kept until they are through, however often they start.
    """
    places, left = get_meta(connection, "places"), get_meta(connection, "left")
    generations = get_meta(connection, "generations")
    for table in tables:
        place = places.get(table)
        left[table] = sorted({*left.get(table, []), *([epoch_of(place)] if place else [])})
        generations[table] = generations.get(table, 0) + 1
        places[table] = None
    set_meta(connection, places=places, left=left, generations=generations)


def generation_of(connection: sqlite3.Connection, table: str) -> int:
    """Give how often a table has started anew."""
    return int(get_meta(connection, "generations").get(table, 0))


def starting(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Give the tables that are starting anew, each with the incarnations that its rows may be of."""
    left: dict[str, list[str]] = get_meta(connection, "left")
    return left


def is_through(connection: sqlite3.Connection, table: str) -> None:
    """Note that a table that started anew has everything."""
    set_meta(connection, left={other: of for other, of in starting(connection).items() if other != table})
