"""How a pull reads: which changes its answer holds, and their rows.

Knows: the statements that read synced tables in the order of commits, bound to one tenant by the caller. Must not know:
Flask, sockets, engines, whose request this is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from errors import ResyncRequired
from ledger import Place, committed_at, last_until, place, place_and_digests
from models import connection
from protocol import Pull
from wire import Cursor, Row, decode_rows, format_time


class Page(NamedTuple):
    """What a pull's answer holds: the changes after ``since`` up to ``until``, and what it says of itself."""

    tables: Sequence[str]
    since: int
    until: int
    tombstones_after: int
    """Tombstones up to this sequence are of rows that the device never had."""
    cursor: str
    sync_timestamp: str
    has_more: bool
    digest: dict[str, dict[str, Any]] | None = None
    unknown_tables: Sequence[str] = ()


def page_of(pull: Pull, now: int, skew_ms: int) -> Page:
    """Plan a pull's answer; the rows are read afterwards in slices, and each is as it stands when it is read.

    A row that changes while the answer is under way moves beyond ``until`` and comes with the next pull.
    Raises: ResyncRequired for a cursor of another incarnation.
    """
    here, digests = place_and_digests() if pull.digest else (place(), {})
    since, first_until = _start(pull, here, now, skew_ms)
    cut = None
    if pull.limit and here.sequence - since > pull.limit:  # Else there can't be as many rows.
        cut = _cut(pull.tables, since, here.sequence, first_until, pull.limit)
    until = here.sequence if cut is None else cut
    cursor = Cursor(here.epoch, until, first_until)
    clock = here.clock if cut is None else committed_at(cut) - 1  # The commit at the cut may go on behind it.
    wanted = {name: digests[name] for name in pull.tables} if pull.digest and cut is None else None
    about = str(cursor), format_time(clock), cut is not None, wanted
    return Page(pull.tables, since, until, first_until, *about, pull.unknown_tables)


def _start(pull: Pull, here: Place, now: int, skew_ms: int) -> tuple[int, int]:
    """Find the sequence a pull starts after, and up to where its tombstones are not wanted."""
    if pull.since is None:
        return 0, here.sequence
    if isinstance(pull.since, int):
        return _start_at(pull.since, here, now, skew_ms + _FURTHEST_ZONE_MS * pull.is_local), 0
    if pull.since.epoch != here.epoch or pull.since.sequence > here.sequence:
        raise ResyncRequired
    if max(pull.since.sequence, pull.since.first_until) < here.purged_until:
        raise ResyncRequired(_PURGED)
    return pull.since.sequence, pull.since.first_until


_PURGED = "Deletions since then are no longer all held. Pull again from the start, without a cursor or time."


_FURTHEST_ZONE_MS = 14 * 3_600_000
"""How far ahead of UTC a local time may be."""


def _start_at(time: int, here: Place, now: int, skew_ms: int) -> int:
    """Find the last change of the commit that a device's ``lastSync`` names.

    A time that this server gave is the exact time of a commit. Any other comes from a device's own clock: it is met
    with a margin, and if it lies in the future it tells nothing, so that everything is sent rather than a change missed.
    """
    if time > max(now, here.clock):
        return 0
    sequence = last_until(time, here.sequence)
    is_exact = time == here.purged_at or (sequence and committed_at(sequence) == time)
    margin_ms = 0 if is_exact else skew_ms
    has_seen_any = last_until(time + margin_ms, here.sequence) > 0
    if has_seen_any and time - margin_ms < here.purged_at:
        raise ResyncRequired(_PURGED)
    return last_until(time - margin_ms, here.sequence) if margin_ms else sequence


_WANTED = "e._seq > ?1 AND e._seq <= ?2 AND (e.is_deleted = 0 OR e._seq > ?3)"
"""Rows of a table ``e``. A name of ours beside a declared table is always qualified: its columns may have the same."""


def _cut(tables: Sequence[str], since: int, until: int, tombstones_after: int, limit: int) -> int | None:
    """Find the sequence at which a page of ``limit`` rows ends, or None if nothing is left behind it."""
    parts = " UNION ALL ".join(f'SELECT e._seq FROM "{name}" AS e WHERE {_WANTED}' for name in tables)
    found = connection().execute(f"{parts} ORDER BY 1 LIMIT 2 OFFSET ?4", (since, until, tombstones_after, limit - 1))
    sequences = [int(row[0]) for row in found]
    return sequences[0] if len(sequences) == 2 else None


@dataclass(frozen=True, slots=True)
class Slice:
    """Some rows of a table in their order: their JSON with commas between, and the sequence of the last."""

    last: int
    count: int
    json: bytes

    def rows(self) -> list[Row]:
        """Parse them."""
        return decode_rows(b"[" + self.json + b"]")


def rows_of(page: Page, table: str, after: int, count: int) -> Slice:
    """Read the next ``count`` rows of one table in a page."""
    return _joined(
        f'SELECT e._seq AS seq, c.row AS row FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq'
        f" WHERE {_WANTED} ORDER BY e._seq LIMIT ?4",
        (after, page.until, page.tombstones_after, count),
    )


def pending_rows(table: str, after: int, count: int) -> Slice:
    """Read rows marked as pending; only SQL of the operator's marks one."""
    return _joined(
        "SELECT e._seq AS seq, json_set(c.row, '$.sync_status', 'pending') AS row"
        f' FROM "{table}" AS e JOIN _changes AS c ON c.seq = e._seq'
        " WHERE e.sync_status = 'pending' AND e._seq > ? ORDER BY e._seq LIMIT ?",
        (after, count),
    )


def _joined(query: str, values: tuple[int, ...]) -> Slice:
    """Let SQLite join the rows: as bytes they leave in half the time that a list of texts takes.

    It takes them as the inner query gives them, which is in order: that has a LIMIT, and so is run by itself. An order
    stated for the aggregate would have them sorted again, at twice the time.
    """
    sql = f"SELECT max(seq), count(*), CAST(group_concat(row, ',') AS BLOB) FROM ({query})"
    last, count, json = next(iter(connection().execute(sql, values)))
    return Slice(last or 0, count, json or b"")
