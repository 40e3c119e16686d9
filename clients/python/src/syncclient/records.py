"""Keeps what needs attention: conflicts that the server decided, and edits that it refused.

Knows: how they are stored, reported and decided. Must not know: HTTP, when anything is sent. Functions with a connection
run inside a transaction of the caller's.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from dataclasses import dataclass
from typing import Any

from .checked import checked_row
from .rows import Edit
from .wire import JSON, Row, encode


@dataclass(frozen=True)
class Conflict:
    """Two devices changed the same field; the later edit won, and the other is here.

    ``is_decided``: by a person or a hook, here; or it is of a database that was since restored, and can't be any more.
    ``fields`` maps each field to ``{"base", "client", "server", "winner"}``, where ``client`` is this device's value.
    """

    number: int
    conflict_id: int
    table: str
    row_id: str
    fields: dict[str, dict[str, Any]]
    is_decided: bool


@dataclass(frozen=True)
class Refusal:
    """An edit that the server will not store, and why. It is no longer in the row, only here.

    Or a decision about a conflict (``operation`` is ``decide``), such as one that was decided elsewhere meanwhile.
    """

    number: int
    table: str
    row_id: str
    operation: str
    fields: Row
    edited_at: str
    error: str


@dataclass(frozen=True)
class Decision:
    """What a person or a hook decided about a conflict, and the key by which a retry of telling so is known."""

    number: int
    conflict_id: int
    table: str
    row_id: str
    body: JSON
    key: str


Resolution = str | Row
"""``"keep"``, ``"other"`` (take the values that lost), or the fields to set."""


def note_conflicts(connection: sqlite3.Connection, conflicts: list[JSON]) -> None:
    """Keep conflicts as the server tells them; one that is known already counts once."""
    values = [
        (one["conflictId"], one["detectedAt"], one["table"], one["id"], encode(one["fields"])) for one in conflicts
    ]
    connection.executemany(
        "INSERT OR IGNORE INTO conflicts (conflict_id, detected_at, table_name, row_id, detail) VALUES (?, ?, ?, ?, ?)",
        values,
    )


def note_refusal(connection: sqlite3.Connection, refused: Edit | Decision, error: str) -> None:
    """Keep an edit, or a decision about a conflict, that was refused."""
    if isinstance(refused, Decision):
        operation, fields, timestamp = "decide", refused.body, ""
    else:
        operation, fields, timestamp = refused.operation, refused.fields, refused.timestamp
    connection.execute(
        "INSERT INTO refusals (table_name, row_id, operation, fields, timestamp, error) VALUES (?, ?, ?, ?, ?, ?)",
        (refused.table, refused.row_id, operation, encode(fields), timestamp, error),
    )


def leave_behind(connection: sqlite3.Connection) -> None:
    """Note that the conflicts known so far are of a database that is no more, where nobody can decide them."""
    connection.execute("UPDATE conflicts SET conflict_id = -number WHERE conflict_id > 0")


def last_conflict_id(connection: sqlite3.Connection) -> int:
    """Give the newest conflict of the database that is known here."""
    return int(connection.execute("SELECT max(0, coalesce(max(conflict_id), 0)) FROM conflicts").fetchone()[0])


def conflicts(connection: sqlite3.Connection, where: str = "1") -> list[Conflict]:
    """List conflicts, the oldest first."""
    sql = f"SELECT number, conflict_id, table_name, row_id, detail, {_IS_DECIDED} FROM conflicts"
    return [
        Conflict(number, conflict_id, table, row_id, json.loads(detail), bool(is_decided))
        for number, conflict_id, table, row_id, detail, is_decided in connection.execute(
            f"{sql} WHERE {where} ORDER BY 1"
        )
    ]


_IS_DECIDED = "(is_decided OR decision IS NOT NULL OR conflict_id < 0)"


def refusals(connection: sqlite3.Connection, where: str = "1") -> list[Refusal]:
    """List refused edits, the oldest first."""
    sql = "SELECT number, table_name, row_id, operation, fields, timestamp, error FROM refusals"
    return [
        Refusal(number, table, row_id, operation, json.loads(fields), edited_at, error)
        for number, table, row_id, operation, fields, edited_at, error in connection.execute(
            f"{sql} WHERE {where} ORDER BY 1"
        )
    ]


def mark_told(connection: sqlite3.Connection, record: Conflict | Refusal) -> None:
    """Note that the app was told of a record."""
    table = "conflicts" if isinstance(record, Conflict) else "refusals"
    connection.execute(f"UPDATE {table} SET is_told = 1 WHERE number = ?", (record.number,))


def decide(connection: sqlite3.Connection, number: int, resolution: Resolution) -> None:
    """Decide a conflict; the server is told with the next exchange.

    Raises: ValueError for what is no decision, LookupError if there is no such conflict or it is decided.
    """
    if resolution not in ("keep", "other") and not isinstance(resolution, dict):
        raise ValueError('a conflict is decided by "keep", "other" or the fields to set')
    body = (
        {"resolution": "row", "row": checked_row(resolution)}
        if isinstance(resolution, dict)
        else {"resolution": resolution}
    )
    done = connection.execute(
        "UPDATE conflicts SET decision = ?, decision_key = ? WHERE number = ? AND decision IS NULL AND conflict_id > 0",
        (encode(body), uuid.uuid4().hex, number),
    )
    if done.rowcount == 0:
        raise LookupError(f"there is no open conflict {number}")


def decisions(connection: sqlite3.Connection) -> list[Decision]:
    """List the decisions that the server was not told yet."""
    sql = "SELECT number, conflict_id, table_name, row_id, decision, decision_key FROM conflicts"
    found = connection.execute(f"{sql} WHERE decision IS NOT NULL AND is_decided = 0 AND conflict_id > 0 ORDER BY 1")
    return [
        Decision(number, conflict_id, table, row_id, json.loads(body), key)
        for number, conflict_id, table, row_id, body, key in found
    ]


def mark_decided(connection: sqlite3.Connection, decision: Decision) -> None:
    """Note that the server knows a decision."""
    connection.execute("UPDATE conflicts SET is_decided = 1 WHERE number = ?", (decision.number,))
