"""Parses the bodies of pulls (docs/api.md), without I/O.

Knows: the three forms of a pull, how a body names tables. Must not know: stored rows, how a pull is answered, Flask,
peewee, sockets, files, the clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from protocol.codec import Row, has_zone, parse_cursor, parse_time, whole_number
from protocol.errors import invalid
from protocol.messages import Limits, Pull, Table

DEFAULT_PAGE_ROWS = 1000
_MUST_NAME = "must name synced tables: "


def parse_pull(body: object, tables: Mapping[str, Table], limits: Limits) -> Pull:
    """Parse a pull in any of its three forms.

    Raises: ValidationError.
    """
    if not isinstance(body, dict):
        raise invalid("$", "must be an object")
    (names, unknown), digest = parse_tables(body, tables), _flag(body, "digest")
    if "cursor" in body:
        since = None if body["cursor"] is None else parse_cursor(body["cursor"])
        limit, with_deleted = _limit(body.get("limit"), limits.pull_rows), _flag(body, "deleted")
        return Pull(names, since, limit, digest, unknown_tables=unknown, with_deleted=with_deleted)
    since_time, is_local = _parse_since(body)
    return Pull(names, since_time, None, digest, is_local, unknown)


def _parse_since(body: Row) -> tuple[int | None, bool]:
    """Read the time from which a pull asks, None for a first pull, and whether it may be a device's local time."""
    path = "lastSync" if "table" in body else "lastSyncTimestamp"
    text = body.get(path)
    since_time = None if text in (None, "") else parse_time(text, path)
    if since_time is None or since_time <= 0:
        return None, False
    return since_time, not has_zone(str(text))


def parse_tables(body: object, tables: Mapping[str, Table]) -> tuple[list[str], list[str]]:
    """Read which tables a body names with ``table`` or ``entityTypes``: all of them if it names none.

    Gives those that are synced and those that are not: an unknown table does not fail the others.
    Raises: ValidationError if none is synced, or if the body is no object.
    """
    if not isinstance(body, dict):
        raise invalid("$", "must be an object")
    if "table" in body and "entityTypes" in body:
        raise invalid("table", 'must not stand beside "entityTypes"')
    path = "table" if "table" in body else "entityTypes"
    names = [body["table"]] if "table" in body else body.get("entityTypes")
    if names is None:
        return list(tables), []
    if not isinstance(names, list) or not names:
        raise invalid(path, "must be a list of at least one table")
    known = [name for name in names if isinstance(name, str) and name in tables]
    unknown = [name for name in names if isinstance(name, str) and name not in tables and 0 < len(name) <= 64]
    if not known or len(known) + len(unknown) < len(names):
        raise invalid(path, _MUST_NAME + ", ".join(tables))
    return list(dict.fromkeys(known)), list(dict.fromkeys(unknown))


def parse_pending(body: object, tables: Mapping[str, Table]) -> tuple[list[str], list[str]]:
    """Parse a request for pending rows: which tables, and an optional cursor.

    Raises: ValidationError.
    """
    named = parse_tables(body, tables)
    if isinstance(body, dict) and body.get("cursor") is not None:
        parse_cursor(body["cursor"])
    return named


def parse_table(name: object, tables: Collection[str], path: str = "table") -> str:
    """Read the name of a synced table.

    Raises: ValidationError, which lists the tables there are.
    """
    if not isinstance(name, str) or name not in tables:
        raise invalid(path, _MUST_NAME + ", ".join(tables))
    return name


def _flag(body: Row, name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise invalid(name, "must be true or false")
    return value


def _limit(value: object, max_rows: int) -> int:
    if value is None:
        return min(DEFAULT_PAGE_ROWS, max_rows)
    rows = whole_number(value)
    if rows is None or not 1 <= rows <= max_rows:
        raise invalid("limit", f"must be a whole number from 1 to {max_rows}")
    return rows
