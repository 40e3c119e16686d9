"""What a tenant has, as lines of JSON: for its owner to take away, and for whoever has to hand it out.

Knows: the statements that read all of it, row by row, bound to one tenant by the caller. Must not know: files, archives,
engines, whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from models import connection, synced_tables
from protocol.codec import encode, format_time
from storage.devices import device_ids, devices
from storage.system_tables import Conflict, Logged, shown_conflict

_DEVICES_AT_ONCE = 100


def parts() -> dict[str, Callable[[], Iterator[bytes]]]:
    """Give by the name of each part what gives its lines."""
    tables = {f"rows/{name}.jsonl": _rows_of(name) for name in synced_tables()}
    return tables | {"history.jsonl": _history, "conflicts.jsonl": _conflicts, "devices.jsonl": _devices}


def _rows_of(table: str) -> Callable[[], Iterator[bytes]]:
    sql = f'SELECT c.row FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq ORDER BY e._seq'

    def rows() -> Iterator[bytes]:
        """Give the rows as pulls send them; deleted ones have ``is_deleted`` 1."""
        return (row.encode() for (row,) in connection().execute(sql))

    return rows


def _history() -> Iterator[bytes]:
    """Give each change that is held, in the order of commits, with the row as it was after it."""
    for entry in Logged.select().order_by(Logged.sequence).iterator():
        about = {"sequence": entry.sequence, "table": entry.table, "id": entry.row_id, "version": entry.version}
        about |= {"committedAt": format_time(entry.committed_at), "editedAt": format_time(entry.edited_at)}
        yield encode(about | {"deviceId": entry.device_id, "fields": entry.fields, "row": entry.row})


def _conflicts() -> Iterator[bytes]:
    for conflict in Conflict.select().order_by(Conflict.number).iterator():
        yield encode(shown_conflict(conflict))


def _devices() -> Iterator[bytes]:
    ids = device_ids()
    for first in range(0, len(ids), _DEVICES_AT_ONCE):
        yield from map(encode, devices(ids[first : first + _DEVICES_AT_ONCE]))
