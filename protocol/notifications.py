"""What the devices of a tenant are told: the types of notification, and what a push makes of them.

Knows: the payloads of ``sync_notification`` (docs/api.md, real time). Must not know: sockets, who listens,
SQL, the clock (the time is passed in).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from msgspec import Raw, Struct

from protocol.codec import format_time
from protocol.errors import invalid
from protocol.messages import Applied

NoteType = Literal["data_available", "sync_complete", "sync_error", "conflict_detected"]
NOTE_TYPES: tuple[NoteType, ...] = get_args(NoteType)

STATUS_TEXTS = {"status": 100, "entityType": 64}
TEST_NOTE_TEXTS = {"type": 32, "entityType": 64, "entityId": 64, "message": 500}
"""The texts that clients have sent to others, and their lengths."""

_MOST_IDS = 100
_MOST_CONFLICTS = 10
_MOST_ROW_BYTES = 8_192
_OPERATIONS = {"created": "create", "deleted": "delete"}


class _Told(Struct, frozen=True, omit_defaults=True, gc=False):
    """What a notification tells; what is None is left out."""

    type: NoteType
    entityType: str
    message: str
    entityId: str | None = None
    operation: str | None = None
    count: int | None = None
    cursor: str | None = None
    previousCursor: str | None = None
    data: Any = None


class Notification(_Told, frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """One ``sync_notification``."""

    timestamp: str


def notifications_of(applied: Applied, now: int) -> list[Notification]:
    """Write what a push changed as a handful of notifications, however many rows it had; ``now`` is in milliseconds."""
    if not applied.touched and not applied.conflicts:
        return []
    place: dict[str, Any] = {"cursor": applied.after.cursor, "previousCursor": applied.before.cursor}
    place["timestamp"] = format_time(now)
    notes = [_data_available(table, rows, applied, place) for table, rows in applied.touched.items()]
    notes += _conflicts_detected(applied, place)
    if applied.touched:
        notes.append(_sync_complete(applied, place))
    return notes


def _conflicts_detected(applied: Applied, place: dict[str, Any]) -> list[Notification]:
    """Tell of each conflict, or when they are many of each table's together, so that no listener is flooded."""
    if len(applied.conflicts) <= _MOST_CONFLICTS:
        return [_conflict_detected(found["table"], found["id"], 1, found, place) for found in applied.conflicts]
    ids: dict[str, list[str]] = {}
    for found in applied.conflicts:
        ids.setdefault(found["table"], []).append(found["id"])
    return [
        _conflict_detected(table, None, len(own), {"entityIds": own[:_MOST_IDS]}, place) for table, own in ids.items()
    ]


def _conflict_detected(table: str, row_id: str | None, count: int, data: Any, place: dict[str, Any]) -> Notification:
    text = f"Conflict detected for {table}"
    return Notification("conflict_detected", table, text, row_id, None, count, data=data, **place)


def _data_available(table: str, rows: dict[str, bytes], applied: Applied, place: dict[str, Any]) -> Notification:
    text = f"New {table} data available for sync"
    statuses = {result["status"] for result in applied.results if result["table"] == table and result["id"] in rows}
    operations = {_OPERATIONS.get(status, "update") for status in statuses - {"unchanged", "rejected"}}
    operation = operations.pop() if len(operations) == 1 else "batch"
    if len(rows) > 1:
        data: Any = {"entityIds": list(rows)[:_MOST_IDS]}
        return Notification("data_available", table, text, None, operation, len(rows), data=data, **place)
    row_id, data = _only(rows)
    return Notification("data_available", table, text, row_id, operation, 1, data=data, **place)


def _only(rows: dict[str, bytes]) -> tuple[str, Raw | None]:
    """Give the id of the one row that changed, and the row itself if it is small."""
    ((row_id, body),) = rows.items()
    return row_id, Raw(body) if len(body) <= _MOST_ROW_BYTES else None


def _sync_complete(applied: Applied, place: dict[str, Any]) -> Notification:
    """Say that a push is complete; of a single row with the row, as apps of the older API show it."""
    tables, count = list(applied.touched), sum(map(len, applied.touched.values()))
    name = tables[0] if len(tables) == 1 else "batch"
    data: Any = None if len(tables) == 1 else {"count": count, "entityTypes": tables}
    row_id, data = _only(applied.touched[name]) if count == 1 else (None, data)
    text = f"{name} sync completed successfully"
    return Notification("sync_complete", name, text, row_id, count=count, data=data, **place)


def asked_for(body: object, now: int) -> Notification:
    """Read the notification that a client asks for, to test its listeners, from a request's body.

    Raises: ValidationError.
    """
    said = checked_texts(body, TEST_NOTE_TEXTS)
    kind = said.get("type", "data_available")
    if kind not in NOTE_TYPES:
        raise invalid("type", "must be one of " + ", ".join(NOTE_TYPES))
    return Notification(
        kind,
        said.get("entityType", "test"),
        said.get("message", "Test notification"),
        said.get("entityId"),
        timestamp=format_time(now),
    )


def checked_texts(body: object, lengths: dict[str, int]) -> dict[str, str]:
    """Take the named texts out of a body, each within its length; what is absent is left out.

    Raises: ValidationError.
    """
    if not isinstance(body, dict):
        raise invalid("$", "must be an object")
    said = {}
    for name, most in lengths.items():
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not 1 <= len(value) <= most:
            raise invalid(name, f"must be a text of 1 to {most} characters")
        said[name] = value
    return said
