"""The devices of a tenant: how far each has pulled, when it was last here, and what may be removed for that.

Knows: the statements on devices and on what is too old, bound to one tenant by the caller; ``Seen`` keeps what requests
tell of devices until it is worth a write. Must not know: Flask, sockets, engines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from models import connection, synced_tables
from protocol.codec import Cursor, decode_stored, encode, format_time
from protocol.errors import NotFound, Problem, ResyncRequired, TenantNotFound
from protocol.messages import Position
from protocol.seen_rows import Evidence
from storage import seen_rows
from storage.positions import committed_at, last_until, position
from storage.seen_rows import Evidences
from storage.system_tables import Conflict, Device, KeptAnswer, Receipt

log = logging.getLogger("syncapp.devices")
DAY_MS = 86_400_000
PURGED_AT_ONCE = 500
"""Entries of the log in a chunk of ``purge``, as long as it is not known what they take."""

_TOMBSTONES_AT_ONCE = 100  # Each takes ten times as long as an entry of the log: its row is in indexes.


class Visit(NamedTuple):
    """A device's visits: the position up to which it says that it has each table it pulled, and when it was here last, with
    which session.

    The positions are of one epoch: after a restore they say nothing.
    """

    positions: Mapping[str, int]
    at: int
    epoch: str = ""
    session: str | None = None


class Seen:
    """Visits of devices that are not stored yet; written together, since a visit alone is no reason to."""

    def __init__(self, write: Callable[[str, Callable[[], None]], None]) -> None:
        """``write``: runs work in a transaction of a tenant."""
        self._write = write
        self.evidences = Evidences()
        self._visits: dict[str, dict[str, Visit]] = {}

    def note(
        self,
        tenant_id: str,
        device_id: str,
        positions: Mapping[str, int],
        now: int,
        epoch: str = "",
        session_id: str | None = None,
    ) -> None:
        """Remember a visit, with the positions of an epoch if it has any; those of other tables stay as they were."""
        visits = self._visits.setdefault(tenant_id, {})
        known = visits.get(device_id, Visit({}, now, epoch))
        before = known.positions if epoch in ("", known.epoch) else {}
        visits[device_id] = Visit({**before, **positions}, now, epoch or known.epoch, session_id or known.session)

    def had_more(self, tenant_id: str, device_id: str, starts: Mapping[str, int], epoch: str) -> bool:
        """Tell whether a device said before that it had more of a table: then this is a copy of it, or an older state."""
        visit = self._visits.get(tenant_id, {}).get(device_id)
        known = dict(visit.positions) if visit and visit.epoch == epoch else {}
        if not known.keys() >= starts.keys():
            known = reached(device_id, starts) | known
        return any(known[table] > since for table, since in starts.items())

    def save(self, tenant_id: str) -> None:
        """Write what is known of one tenant's devices; what can't be written is kept for the next time."""
        visits, found = self._visits.pop(tenant_id, {}), self.evidences.take(tenant_id)
        if not (visits or found):
            return
        try:
            self._write(tenant_id, lambda: _save(visits, found))
        except TenantNotFound:  # An account that was closed meanwhile.
            pass
        except BaseException:
            self._visits[tenant_id] = visits | self._visits.get(tenant_id, {})
            self.evidences.give_back(tenant_id, found)
            raise

    def try_to_save(self, tenant_id: str) -> None:
        """Write the same for a pull, which goes on if the file can't be written now."""
        try:
            self.save(tenant_id)
        except Problem:  # Full or locked: it is kept for the next time.
            pass
        except Exception:
            log.exception("the visit of a device can't be stored", extra={"tenant": tenant_id})

    @property
    def tenants(self) -> list[str]:
        """List the tenants of whose devices something is not written yet."""
        return list({*self._visits, *self.evidences.tenants})


def _save(visits: Mapping[str, Visit], found: Mapping[str, Evidence]) -> None:
    seen_rows.save(found)
    epoch = position().epoch
    for device_id, visit in visits.items():
        _save_visit(device_id, visit.positions if visit.epoch == epoch else {}, visit)


def _save_visit(device_id: str, positions: Mapping[str, int], visit: Visit) -> None:
    """Store a device's positions in tables; one that has any is not expired any more."""
    sql = connection()
    known = sql.execute("SELECT places, expired_at FROM _devices WHERE id = ?", (device_id,)).fetchone()
    if known is None:
        new = "INSERT INTO _devices (id, places, first_seen_at, last_seen_at, session) VALUES (?, ?, ?, ?, ?)"
        sql.execute(new, (device_id, encode(positions).decode(), visit.at, visit.at, visit.session))
        return
    all_positions = encode({**decode_stored(known[0]), **positions}).decode()
    update = "UPDATE _devices SET last_seen_at = ?, places = ?, expired_at = ?, session = ? WHERE id = ?"
    sql.execute(update, (visit.at, all_positions, None if positions else known[1], visit.session, device_id))


def expired_at(device_id: str) -> int | None:
    """Tell when a device was expired that was away for too long, until it pulls from the start."""
    found = connection().execute("SELECT expired_at FROM _devices WHERE id = ?", (device_id,))
    return next((row[0] for row in found), None)


def expired(at: int) -> ResyncRequired:
    """Say to a device that was expired why it has to pull from the start."""
    return ResyncRequired(
        f"This device was away for too long and was expired at {format_time(at)}: what it missed is no longer all held."
        " Pull again from the start, without a cursor or time."
    )


def device_ids() -> list[str]:
    """List the IDs of the devices, the last seen first."""
    return [row[0] for row in connection().execute("SELECT id FROM _devices ORDER BY last_seen_at DESC, id")]


def devices(ids: Sequence[str]) -> list[dict[str, Any]]:
    """Describe some devices, in the order of their IDs; those that are there."""
    here, found = position(), {device.id: device for device in Device.select().where(Device.id.in_(ids))}
    return [_shown(found[one], here) for one in ids if one in found]


def by_session() -> dict[str, list[str]]:
    """Say by session which devices came with it last, by their names or else IDs, the last seen first."""
    found: dict[str, list[str]] = {}
    sql = "SELECT session, id, name FROM _devices WHERE session IS NOT NULL ORDER BY last_seen_at DESC, id"
    for session, device_id, name in connection().execute(sql):
        found.setdefault(session, []).append(f"{name} ({device_id})" if name else device_id)
    return found


def reached(device_id: str, tables: Iterable[str]) -> dict[str, int]:
    """Give by table the position up to which a device has everything of it, 0 for what it never pulled."""
    found = Device.get_or_none(Device.id == device_id)
    return {table: found.positions.get(table, 0) if found else 0 for table in tables}


def rename(device_id: str, name: str) -> dict[str, Any]:
    """Give a device a name for people.

    Raises: NotFound.
    """
    if not Device.update(name=name).where(Device.id == device_id).execute():
        raise NotFound("There is no such device.")
    return _shown(Device.get_by_id(device_id), position())


def forget(device_id: str) -> None:
    """Forget a device, so that nothing is held for it any more; if it comes back it is a new one.

    Raises: NotFound.
    """
    if not Device.delete().where(Device.id == device_id).execute():
        raise NotFound("There is no such device.")


def _shown(device: Device, here: Position) -> dict[str, Any]:
    sequence = min(device.positions.values(), default=0)
    return {
        "deviceId": device.id,
        "name": device.name,
        "cursor": str(Cursor(here.epoch, sequence)),
        "behind": here.sequence - sequence,
        "tables": list(device.positions),
        "firstSeen": format_time(device.first_seen_at),
        "lastSeen": format_time(device.last_seen_at),
        "expired": device.expired_at is not None,
        "sessionId": device.session,
    }


# --- what is too old -------------------------------------------------------------------------------------------------


def expire(now: int, idle_ms: int) -> None:
    """Expire the devices that have been away for too long."""
    idle = Device.expired_at.is_null() & (Device.last_seen_at <= now - idle_ms)
    Device.update(expired_at=now).where(idle).execute()
    seen_rows.forget(now - idle_ms)


def purge_limit(now: int, history_ms: int) -> int:
    """Find the sequence up to which may be removed what is no longer current: old enough, and pulled by every device."""
    here = position()
    old = last_until(now - history_ms, here.sequence)
    devices = connection().execute("SELECT places FROM _devices WHERE expired_at IS NULL")
    return min([old, *(int(position) for (positions,) in devices for position in decode_stored(positions).values())])


def purge(after: int, until: int, count: int = PURGED_AT_ONCE) -> int | None:
    """Look through ``count`` entries of the log after ``after`` and remove what they replaced; give where it ended.

    None when nothing is left up to ``until``. From the oldest on, so that no history has a part missing in its middle. A
    change goes once the next one of its row is that old: so each moment after ``until`` can be told (``rewind``). Of
    deleted rows the row itself goes too, and ``purged_until`` tells who may miss that it ever was.
    """
    ends = connection().execute(
        "SELECT max(seq) FROM (SELECT seq FROM _changes WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?) AS chunk",
        (after, until, count),
    )
    end = next(iter(ends))[0]
    if end is None:
        return None
    for name in synced_tables():
        end = _end_of_tombstones(name, after, end)
    within = (after, end)
    known = ", ".join(f"'{name}'" for name in synced_tables())  # A table that is not synced now may be again.
    connection().execute(f"{PURGE_REPLACED} AND n.table_name IN ({known}))", within)
    for name in synced_tables():
        deleted = f'"{name}" AS e WHERE e.is_deleted = 1 AND e._seq > ? AND e._seq <= ?'
        newest = next(iter(connection().execute(f"SELECT max(e._seq) FROM {deleted}", within)))[0]
        if newest is not None:
            here = position()
            purged = max(here.purged_until, newest), max(here.purged_at, committed_at(newest))
            connection().execute(f"DELETE FROM _changes AS c WHERE c.seq IN (SELECT e._seq FROM {deleted})", within)
            connection().execute(f"DELETE FROM {deleted}", within)
            connection().execute("UPDATE _meta SET purged_until = ?, purged_at = ?", purged)
    return int(end)


PURGE_REPLACED = (
    "DELETE FROM _changes AS c WHERE c.seq IN (SELECT n.previous_seq FROM _changes AS n WHERE n.seq > ? AND n.seq <= ?"
)


def _end_of_tombstones(table: str, after: int, end: int) -> int:
    """Give where a chunk up to ``end`` has as many tombstones of a table as it may; else ``end``."""
    found = connection().execute(
        f'SELECT e._seq FROM "{table}" AS e WHERE e.is_deleted = 1 AND e._seq > ? AND e._seq <= ?'
        " ORDER BY e._seq LIMIT 1 OFFSET ?",
        (after, end, _TOMBSTONES_AT_ONCE - 1),
    )
    return next((int(row[0]) for row in found), end)


def forget_receipts(before: int) -> None:
    """Remove receipts, kept answers and resolved conflicts of before ``before``."""
    Receipt.delete().where(Receipt.taken_at <= before).execute()
    KeptAnswer.delete().where(KeptAnswer.answered_at <= before).execute()
    Conflict.delete().where((Conflict.state == "resolved") & (Conflict.resolved_at <= before)).execute()
