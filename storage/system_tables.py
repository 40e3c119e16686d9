"""The server's own tables in a tenant's database; their names start with ``_``.

Knows: their columns. Must not know: what is done with them (see ``push_writer``, ``storage.history``, ``devices``,
``idempotency``), Flask, sockets, engines.
"""

from __future__ import annotations

from typing import Any

from peewee import AutoField, BlobField, BooleanField, IntegerField, TextField

from models import Bound, JsonField
from protocol.codec import format_time


class CommitOrder(Bound):
    """One row: which incarnation of the database this is, its latest sequence and its clock in milliseconds.

    ``purged_until`` is the sequence up to which tombstones may be gone, ``purged_at`` when the last of them was
    committed: who has not pulled that far must pull from the start. ``restored_at`` is when this incarnation
    came from a backup. While ``moved_to`` names an installation, nothing is written here (see ``moving``).
    """

    id = IntegerField(primary_key=True)
    epoch = TextField()
    sequence = IntegerField()
    clock = IntegerField()
    purged_until = IntegerField(default=0)
    purged_at = IntegerField(default=0)
    restored_at = IntegerField(default=0)
    moved_to = TextField(null=True)

    class Meta:
        table_name = "_meta"


class Logged(Bound):
    """One accepted change: what the row was after it (as pulls send it), who made it and when.

    ``previous`` is the sequence of the row's change before this one: the chain is the row's history and the base of
    merges. ``fields`` is NULL for the change that created the row. ``is_named`` tells that the device named itself with
    the push: the row's own ``device_id`` may be another's, sent back as it was pulled. Else ``session`` names its session.
    """

    sequence = IntegerField(primary_key=True, column_name="seq")
    table = TextField(column_name="table_name")
    row_id = TextField()
    version = IntegerField()
    previous = IntegerField(null=True, column_name="previous_seq")
    committed_at = IntegerField()
    edited_at = IntegerField()
    device_id = TextField(null=True)
    fields = JsonField(null=True)
    row = JsonField()
    is_named = BooleanField(default=False)
    session = TextField(null=True)

    class Meta:
        table_name = "_changes"


class Conflict(Bound):
    """An edit that lost against another: both sides of each field, who and when, and whether a person has decided.

    ``fields`` is a JSON object of ``FieldConflict`` by name, ``pushed`` all that the device had sent for the row. Times
    in milliseconds.
    """

    number = AutoField(column_name="id")
    table = TextField(column_name="table_name")
    row_id = TextField()
    state = TextField(default="open", choices=[(word, word) for word in ("open", "resolved")])
    strategy = TextField()
    base_version = IntegerField(null=True)
    version = IntegerField()
    fields = JsonField()
    pushed = JsonField()
    client_device_id = TextField(null=True)
    client_edited_at = IntegerField()
    server_device_id = TextField(null=True)
    server_edited_at = IntegerField()
    detected_at = IntegerField()
    resolution = TextField(null=True)
    resolved_at = IntegerField(null=True)

    class Meta:
        table_name = "_conflicts"


class TableDigest(Bound):
    """How many rows a synced table has that are not deleted, and the hash over them (see ``digest``)."""

    table = TextField(primary_key=True, column_name="table_name")
    count = IntegerField()
    hash = TextField()

    class Meta:
        table_name = "_digests"


class PreparedTable(Bound):
    """A synced table as this file was last prepared for it: its declaration, and whether it is synced no more."""

    name = TextField(primary_key=True, column_name="table_name")
    declaration = JsonField()
    is_retired = BooleanField(default=False)

    class Meta:
        table_name = "_tables"


class Device(Bound):
    """An installation of a customer's app that names itself: how far it has pulled, and when it was last here.

    ``positions`` gives, by table that it pulls, the sequence up to which it said that it has everything; ``session`` is
    the session that it came with last. Times in milliseconds.
    """

    id = TextField(primary_key=True)
    name = TextField(null=True)
    positions = JsonField(default="{}", column_name="places")
    first_seen_at = IntegerField()
    last_seen_at = IntegerField()
    expired_at = IntegerField(null=True)
    session = TextField(null=True)

    class Meta:
        table_name = "_devices"


class SeenRows(Bound):
    """What is known of the rows that a device has seen; see ``protocol.seen_rows.Evidence``."""

    who = TextField(primary_key=True)
    epoch = TextField()
    known = JsonField(default="{}")
    sent = JsonField(default="{}")
    speaker = TextField(null=True)
    is_shared = BooleanField(default=False)
    seen_at = IntegerField()
    first_push = IntegerField(null=True)

    class Meta:
        table_name = "_evidence"


class Receipt(Bound):
    """An operation that was taken, by the name its device gave it: what became of it, and what it was.

    ``mark`` is a digest of the operation, ``result`` the result it was answered with, ``sequence`` that of the change it
    made and ``conflict`` the number of its conflict, if there was one.
    """

    op_id = TextField(primary_key=True)
    mark = TextField()
    result = JsonField()
    sequence = IntegerField(null=True)
    conflict = IntegerField(null=True, column_name="conflict_id")
    taken_at = IntegerField(index=True)

    class Meta:
        table_name = "_receipts"


class KeptAnswer(Bound):
    """The answer to a request with an ``Idempotency-Key``, deflated; ``mark`` is a digest of that request."""

    key = TextField(primary_key=True)
    mark = TextField()
    answer = BlobField()
    answered_at = IntegerField(index=True)

    class Meta:
        table_name = "_answers"


def shown_conflict(conflict: Conflict) -> dict[str, Any]:
    """Write a conflict as clients see it."""
    return {
        "conflictId": conflict.number,
        "table": conflict.table,
        "id": conflict.row_id,
        "state": conflict.state,
        "strategy": conflict.strategy,
        "baseVersion": conflict.base_version,
        "version": conflict.version,
        "fields": conflict.fields,
        "client": {"deviceId": conflict.client_device_id, "editedAt": format_time(conflict.client_edited_at)},
        "server": {"deviceId": conflict.server_device_id, "editedAt": format_time(conflict.server_edited_at)},
        "detectedAt": format_time(conflict.detected_at),
        "resolution": conflict.resolution,
        "resolvedAt": None if conflict.resolved_at is None else format_time(conflict.resolved_at),
    }
