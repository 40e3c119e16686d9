"""Makes the notifications that a tenant's devices get: their types, and which ones a push causes.

Knows: the payloads of ``sync_notification`` (docs/api.md, real time). Must not know: sockets, who listens,
SQL, the clock (the time is passed in).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from msgspec import Raw, Struct

from protocol.codec import NO_NULL, format_time, has_null
from protocol.errors import invalid
from protocol.messages import PushResult

NotificationType = Literal["data_available", "sync_complete", "sync_error", "conflict_detected"]
NOTIFICATION_TYPES: tuple[NotificationType, ...] = get_args(NotificationType)

STATUS_TEXTS = {"status": 100, "entityType": 64}
TEST_NOTIFICATION_TEXTS = {"type": 32, "entityType": 64, "entityId": 64, "message": 500}
"""The texts that a client may have sent to others, and their greatest lengths."""

_MAX_IDS = 100
_MAX_CONFLICTS = 10
_MAX_ROW_BYTES = 8_192
_OPERATIONS = {"created": "create", "deleted": "delete"}


class _Payload(Struct, frozen=True, omit_defaults=True, gc=False):
    """The payload of a notification; fields that are None are left out."""

    type: NotificationType
    entityType: str
    message: str
    entityId: str | None = None
    operation: str | None = None
    count: int | None = None
    cursor: str | None = None
    previousCursor: str | None = None
    data: Any = None


class Notification(_Payload, frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """One ``sync_notification``."""

    timestamp: str


def notifications_of(applied: PushResult, now: int) -> list[Notification]:
    """Write what a push changed as a handful of notifications, however many rows it had; ``now`` is in milliseconds."""
    if not applied.touched and not applied.conflicts:
        return []
    common: dict[str, Any] = {"cursor": applied.after.cursor, "previousCursor": applied.before.cursor}
    common["timestamp"] = format_time(now)
    notifications = [_data_available(table, rows, applied, common) for table, rows in applied.touched.items()]
    notifications += _conflicts_detected(applied, common)
    if applied.touched:
        notifications.append(_sync_complete(applied, common))
    return notifications


def _conflicts_detected(applied: PushResult, common: dict[str, Any]) -> list[Notification]:
    """Make one notification a conflict or, if there are many, one a table, so that no listener is flooded."""
    if len(applied.conflicts) <= _MAX_CONFLICTS:
        return [_conflict_detected(one["table"], one["id"], 1, one, common) for one in applied.conflicts]
    ids: dict[str, list[str]] = {}
    for conflict in applied.conflicts:
        ids.setdefault(conflict["table"], []).append(conflict["id"])
    return [
        _conflict_detected(table, None, len(own), {"entityIds": own[:_MAX_IDS]}, common) for table, own in ids.items()
    ]


def _conflict_detected(table: str, row_id: str | None, count: int, data: Any, common: dict[str, Any]) -> Notification:
    text = f"Conflict detected for {table}"
    return Notification("conflict_detected", table, text, row_id, None, count, data=data, **common)


def _data_available(table: str, rows: dict[str, bytes], applied: PushResult, common: dict[str, Any]) -> Notification:
    text = f"New {table} data available for sync"
    statuses = {result["status"] for result in applied.results if result["table"] == table and result["id"] in rows}
    operations = {_OPERATIONS.get(status, "update") for status in statuses - {"unchanged", "rejected"}}
    operation = operations.pop() if len(operations) == 1 else "batch"
    if len(rows) > 1:
        data: Any = {"entityIds": list(rows)[:_MAX_IDS]}
        return Notification("data_available", table, text, None, operation, len(rows), data=data, **common)
    row_id, data = _single_row(rows)
    return Notification("data_available", table, text, row_id, operation, 1, data=data, **common)


def _single_row(rows: dict[str, bytes]) -> tuple[str, Raw | None]:
    """Give the id of the only row that changed, and the row itself if it is small."""
    ((row_id, body),) = rows.items()
    return row_id, Raw(body) if len(body) <= _MAX_ROW_BYTES else None


def _sync_complete(applied: PushResult, common: dict[str, Any]) -> Notification:
    """Report that a push is complete; with the row if there was only one, as apps of the older API expect."""
    tables, count = list(applied.touched), sum(map(len, applied.touched.values()))
    name = tables[0] if len(tables) == 1 else "batch"
    data: Any = None if len(tables) == 1 else {"count": count, "entityTypes": tables}
    row_id, data = _single_row(applied.touched[name]) if count == 1 else (None, data)
    text = f"{name} sync completed successfully"
    return Notification("sync_complete", name, text, row_id, count=count, data=data, **common)


def parse_test_notification(body: object, now: int) -> Notification:
    """Parse a client's request for a test notification.

    Raises: ValidationError.
    """
    texts = parse_texts(body, TEST_NOTIFICATION_TEXTS)
    kind = texts.get("type", "data_available")
    if kind not in NOTIFICATION_TYPES:
        raise invalid("type", "must be one of " + ", ".join(NOTIFICATION_TYPES))
    return Notification(
        kind,
        texts.get("entityType", "test"),
        texts.get("message", "Test notification"),
        texts.get("entityId"),
        timestamp=format_time(now),
    )


def parse_texts(body: object, lengths: dict[str, int]) -> dict[str, str]:
    """Read texts of a body, each within its greatest length; absent ones are left out.

    Raises: ValidationError.
    """
    if not isinstance(body, dict):
        raise invalid("$", "must be an object")
    texts = {}
    for name, max_characters in lengths.items():
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not 1 <= len(value) <= max_characters:
            raise invalid(name, f"must be a text of 1 to {max_characters} characters")
        if has_null(value):
            raise invalid(name, NO_NULL)
        texts[name] = value
    return texts
