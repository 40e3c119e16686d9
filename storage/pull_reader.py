"""How a pull reads: which changes its answer holds, and their rows.

Knows: the statements that read synced tables in commit order, bound to one tenant by the caller. Must not know:
Flask, sockets, engines, whose request this is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from models import connection
from protocol.codec import Cursor, Row, decode_rows, decode_stored, encode, format_time
from protocol.errors import ResyncRequired
from protocol.messages import Position, Pull
from protocol.seen_rows import Evidence
from storage.dialect import Dialect, dialect
from storage.positions import committed_at, last_until, position, position_and_digests


class Page(NamedTuple):
    """What a pull's answer holds: of each table the changes after its start up to ``until``, and what it says of itself."""

    starts: Mapping[str, int]
    until: int
    tombstones_after: int
    """Tombstones up to this sequence are of rows that the device never had."""
    cursor: str
    sync_timestamp: str
    has_more: bool
    epoch: str
    claimed: int
    """Up to where the device may have said that it has everything; its time may reach further than the pull starts."""
    is_complete: bool = False
    """The device asked for what came after a time, and is given all there is."""
    digest: dict[str, dict[str, Any]] | None = None
    unknown_tables: Sequence[str] = ()
    asked_by: str | None = None
    """Whose own tombstones are not wanted."""
    went_back: bool = False
    """The device said before that it had more than what it starts from now."""

    @property
    def tables(self) -> Sequence[str]:
        """List the tables asked for."""
        return list(self.starts)

    @property
    def since(self) -> int:
        """Give the sequence after which the first of its tables starts."""
        return min(self.starts.values(), default=0)


class _Start(NamedTuple):
    """Where a pull starts: the sequence, up to where its tombstones are not wanted, and as in ``Page``."""

    since: int
    first_until: int
    claimed: int
    is_complete: bool = False


def page_of(pull: Pull, now: int, skew_ms: int, *, is_expired: bool = False, pushed: Evidence | None = None) -> Page:
    """Plan a pull's answer; what ``first_rows`` leaves is read afterwards in chunks, and each row is as it is then.

    A row that changes while the answer is under way moves beyond ``until`` and comes with the next pull: see
    ``has_moved_on``. ``is_expired``:
    what the device has is not known, so that its time counts for nothing. ``pushed``: what its pushes
    tell of it. An app that knows only times may ignore what they were answered, and learns here what others deleted since.
    Raises: ResyncRequired for a cursor of another incarnation.
    """
    here, digests = position_and_digests() if pull.digest else (position(), {})
    start = _start(pull, here, now, skew_ms)
    if is_expired and isinstance(pull.since, int):
        start = _Start(0, 0, 0, is_complete=True)
    if pull.since is not None or pull.limit is not None or pushed is None or pushed.first_push is None:
        return _page(dict.fromkeys(pull.tables, start.since), start, here, pull, digests)
    start = _Start(0, pushed.first_push, 0)
    page = _page(dict.fromkeys(pull.tables, 0), start, here, pull, digests)
    return page._replace(asked_by=pushed.name) if pushed.may_have_deleted else page


def pending_page(positions: Mapping[str, int], pull: Pull, *, is_expired: bool = False) -> Page:
    """Plan the answer that gives a device what it has not pulled, of each table from where it is known to be, with every
    tombstone; all that there is if deletions since then are no longer held."""
    here = position()
    starts = {name: 0 if is_expired or since < here.purged_until else since for name, since in positions.items()}
    start = _Start(min(starts.values(), default=0), 0, here.sequence, is_complete=starts != positions)
    return _page(starts, start, here, pull, {})


def _page(
    starts: Mapping[str, int], start: _Start, here: Position, pull: Pull, digests: dict[str, dict[str, Any]]
) -> Page:
    cut = None
    if starts and pull.limit and here.sequence - start.since > pull.limit:  # Else there can't be as many rows.
        cut = _cut(starts, here.sequence, start.first_until, pull.limit)
    until = here.sequence if cut is None else cut
    cursor = Cursor(here.epoch, until, start.first_until)
    clock = here.clock if cut is None else committed_at(cut) - 1  # The commit at the cut may go on behind it.
    wanted = {name: digests[name] for name in starts} if pull.digest and cut is None else None
    about = str(cursor), format_time(clock), cut is not None, here.epoch, start.claimed, start.is_complete, wanted
    return Page(starts, until, start.first_until, *about, pull.unknown_tables)


def _start(pull: Pull, here: Position, now: int, skew_ms: int) -> _Start:
    """Find the sequence a pull starts after, and up to where its tombstones are not wanted."""
    if pull.since is None:  # Tombstones up to where they were purged are no longer whole.
        return _Start(0, here.purged_until if pull.with_deleted else here.sequence, 0)
    if isinstance(pull.since, int):
        return _start_at(pull.since, here, now, skew_ms + _FURTHEST_ZONE_MS * pull.is_local)
    if pull.since.epoch != here.epoch or pull.since.sequence > here.sequence:
        raise ResyncRequired
    if max(pull.since.sequence, pull.since.first_until) < here.purged_until:
        raise ResyncRequired(_PURGED)
    return _Start(pull.since.sequence, pull.since.first_until, pull.since.sequence)


_PURGED = "Deletions since then are no longer all held. Pull again from the start, without a cursor or time."


_FURTHEST_ZONE_MS = 14 * 3_600_000
"""How far ahead of UTC a local time may be."""


def _start_at(time: int, here: Position, now: int, skew_ms: int) -> _Start:
    """Find the last change of the commit that a device's ``lastSync`` names.

    A time that this server gave is the exact time of a commit. Any other comes from a device's own clock: it is taken
    with a margin, and if it lies in the future it tells nothing, so that everything is sent rather than a change missed.
    So it is for a time of before a restore or a removed deletion: apps that know only times take no other answer.
    """
    if time > max(now, here.clock):
        return _Start(0, 0, here.sequence, is_complete=True)
    sequence, floor = last_until(time, here.sequence), max(here.purged_at, here.restored_at)
    is_exact = time in (here.purged_at, here.restored_at) or (sequence and committed_at(sequence) == time)
    margin_ms = 0 if is_exact else skew_ms
    if time - margin_ms < floor:
        return _Start(0, 0, sequence, is_complete=True)
    return _Start(last_until(time - margin_ms, here.sequence) if margin_ms else sequence, 0, sequence)


_WANTED = "e._seq > ? AND e._seq <= ? AND (e.is_deleted = 0 OR e._seq > ?{tombstone})"
"""Rows of a table ``e``. A name of ours beside a declared table is always qualified: its columns may have the same."""


def _by_another(words: Dialect) -> str:
    """Choose the tombstones that the device that asks did not make itself; an edit of a deleted row may have come after."""
    deletes = "coalesce({contains}, {change}.fields IS NULL)"
    of_c, of_d = (deletes.format(contains=words.contains(f"{one}.fields", _DELETED), change=one) for one in "cd")
    return (
        " AND EXISTS ("
        "WITH RECURSIVE past(previous, made_by, deletes) AS ("
        f"SELECT c.previous_seq, coalesce(c.session, c.device_id), {of_c} UNION ALL"
        f" SELECT d.previous_seq, coalesce(d.session, d.device_id), {of_d}"
        " FROM past JOIN _changes AS d ON d.seq = past.previous WHERE NOT past.deletes)"
        " SELECT 1 FROM past WHERE past.deletes AND past.made_by IS DISTINCT FROM ?)"
    )


_DELETED = "'\"is_deleted\"'"


def _cut(starts: Mapping[str, int], until: int, tombstones_after: int, limit: int) -> int | None:
    """Find the sequence at which a page of ``limit`` rows ends, or None if nothing is left behind it."""
    parts = (f'SELECT e._seq FROM "{name}" AS e WHERE {_WANTED.format(tombstone="")}' for name in starts)
    sql = f"{' UNION ALL '.join(parts)} ORDER BY 1 LIMIT 2 OFFSET ?"
    within = [value for since in starts.values() for value in (since, until, tombstones_after)]
    found = connection().execute(sql, (*within, limit - 1))
    sequences = [int(row[0]) for row in found]
    return sequences[0] if len(sequences) == 2 else None


@dataclass(slots=True)
class Chunk:
    """Some rows of a table in their order: their JSON with commas between, and the sequence of the last."""

    last: int
    count: int
    json: bytes
    is_end: bool = True
    """There are no more in the page."""

    def rows(self) -> list[Row]:
        """Parse them."""
        return decode_rows(b"[" + self.json + b"]")


_NOTHING = Chunk(0, 0, b"")


@cache
def _rows_sql(words: Dialect, table: str, is_by_another: bool) -> str:
    wanted = _WANTED.format(tombstone=_by_another(words) if is_by_another else "")
    return words.joined(
        f'SELECT e._seq AS seq, c.row AS row FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq'
        f" WHERE {wanted} ORDER BY e._seq LIMIT ?"
    )


def rows_of(page: Page, table: str, after: int, count: int) -> Chunk:
    """Read the next ``count`` rows of one table in a page."""
    if after >= page.until:
        return _NOTHING
    asked_by = () if page.asked_by is None else (page.asked_by,)
    values = (after, page.until, page.tombstones_after, *asked_by, count)
    last, found, json = next(iter(connection().execute(_rows_sql(dialect(), table, bool(asked_by)), values)))
    return Chunk(last or 0, found, json or b"", is_end=found < count)


def first_rows(page: Page, count: int) -> dict[str, Chunk]:
    """Read up to ``count`` rows of a page, table by table, in the read that planned it, so that none can have moved."""
    chunks: dict[str, Chunk] = {}
    for table, since in page.starts.items():
        chunks[table] = rows_of(page, table, since, count)
        count -= chunks[table].count
        if not count:
            break
    return chunks


def has_moved_on(page: Page) -> bool:
    """Tell whether anything was committed since a page was planned: rows of it may have changed before they were read."""
    return position().sequence > page.until


def pending_rows(table: str, after: int, count: int) -> Chunk:
    """Read rows marked as pending; only SQL of the operator's marks one."""
    sql = (
        f'SELECT e._seq, c.row FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq'
        " WHERE e.sync_status = 'pending' AND e._seq > ? ORDER BY e._seq LIMIT ?"
    )
    found = list(connection().execute(sql, (after, count)))
    rows = [encode(decode_stored(row) | {"sync_status": "pending"}) for _, row in found]
    return Chunk(found[-1][0], len(rows), b",".join(rows), is_end=len(rows) < count) if found else _NOTHING
