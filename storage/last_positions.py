"""The last known positions of tenants, in the main database: a tenant's database that is behind its own went back.

Knows: the table and the statements on it, bound by the caller. Must not know: when a position is noted, what is done about
a database that went back (``rollback_detection``), which engine or file.
"""

from __future__ import annotations

from collections.abc import Mapping

from peewee import IntegerField, TextField

from models import Bound, connection


class LastPosition(Bound):
    """A tenant's position when it was noted last: a database that is behind it went back (see
    ``rollback_detection``)."""

    tenant_id = TextField(primary_key=True)
    epoch = TextField(index=True)
    sequence = IntegerField()

    class Meta:
        table_name = "last_places"


def note_positions(positions: Mapping[str, tuple[str, int]]) -> None:
    """Note the positions of tenants, by ID their epoch and sequence; of those that are no more, nothing."""
    sql = (
        "INSERT INTO last_places (tenant_id, epoch, sequence) SELECT c.id, ?, ? FROM customers AS c WHERE c.id = ?"
        " ON CONFLICT (tenant_id) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence"
    )
    connection().executemany(sql, [(*position, one) for one, position in positions.items()])


def last_position(tenant_id: str) -> tuple[str, int] | None:
    """Give a tenant's position when it was noted last: its epoch and its sequence."""
    found = connection().execute("SELECT epoch, sequence FROM last_places WHERE tenant_id = ?", (tenant_id,))
    return next(((str(epoch), int(sequence)) for epoch, sequence in found), None)


def owner_of(epoch: str) -> str | None:
    """Tell whose file is of an epoch."""
    found = connection().execute("SELECT tenant_id FROM last_places WHERE epoch = ?", (epoch,))
    return next((str(row[0]) for row in found), None)
