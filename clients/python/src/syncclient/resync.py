"""Pulls everything again without losing what only this device has.

Knows: what becomes then of rows that the server has not, or has otherwise. Must not know: HTTP, how a page is pulled. A
table starts anew with no place and a new generation, over the rows that it holds; when the last page is in, the rows of
earlier generations are those that the server has no more. All of it is written in the transactions of the pages, so that
it goes on where a crash left it.

The incarnation in the new cursor tells why. The same as before: deletions that this device missed are purged, or the digest
did not fit; what the server has not is deleted. Another: the server came back from a backup that may be older than this
device. What the device holds is then worth as much as what the server has, and goes back with the time when it was made.
Source: docs/clients.md, "410".
"""

from __future__ import annotations

import sqlite3

from . import rows
from .rows import EARLIER, SEEN
from .wire import SERVER_FIELDS, Row, content_of, format_time, parse_time


def take_back(connection: sqlite3.Connection, table: str, row: Row, generation: int) -> None:
    """Queue what this device holds otherwise than a restored server gives it, before that is stored over it."""
    row_id = row["id"]
    held = rows.held(connection, table, row_id)
    if held is None or rows.generation_of(connection, table, row_id) == generation or _is_same(held, row):
        return
    grew_out = row["updatedAt"] < held["updatedAt"] and row["version"] < held["version"]
    base = row["version"] if grew_out else None
    if content_of(held) == content_of(row):
        rows.rebase(connection, table, row_id, held["version"], row["version"], base)
        return
    rows.rebase(connection, table, row_id, held["version"], SEEN, base)
    _give_back(connection, table, held, SEEN if base is None else base)


def end(connection: sqlite3.Connection, table: str, generation: int, is_restored: bool) -> list[str]:
    """See to the rows that the server has no more, after the last page; give which."""
    gone = rows.of_earlier_generations(connection, table, generation)
    for row_id in gone:
        held = rows.held(connection, table, row_id)
        assert held is not None
        goes_on = rows.has_edits(connection, table, row_id) and rows.visible(connection, table, row_id) is not None
        rows.forget(connection, table, row_id)
        if is_restored:
            rows.rebase(connection, table, row_id, held["version"], EARLIER if held["is_deleted"] else SEEN, None)
        if not held["is_deleted"] and (is_restored or goes_on):
            _give_back(connection, table, held, SEEN if is_restored else held["version"])
    return gone


def _give_back(connection: sqlite3.Connection, table: str, held: Row, base_version: int) -> None:
    """Queue a whole row as it is held; an update, since a create would bring back what was deleted later."""
    fields = {name: value for name, value in held.items() if name not in SERVER_FIELDS}
    rows.queue(connection, table, held["id"], "update", fields, _edited_at(held), base_version, is_edit=False)


def _edited_at(held: Row) -> str:
    """Say when a row was edited: as its device said, but not after the server had it."""
    committed_ms = parse_time(held["updatedAt"]) or 0
    edited_ms = parse_time(held.get("last_updated"))
    return format_time(committed_ms if edited_ms is None else min(edited_ms, committed_ms))


def _is_same(held: Row, row: Row) -> bool:
    return bool(held["version"] == row["version"] and held["updatedAt"] == row["updatedAt"])
