"""One push on its way into the database: its numbers, its results, what is the same on the fast path and the general one.

Knows: the statements that both paths share, all bound to one tenant by the caller. Must not know: Flask, sockets, which
engine or file, whose request this is, what becomes of a change.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from models import connection
from protocol.codec import format_time
from protocol.errors import Detail
from protocol.messages import Change, Position, Push, PushResult
from protocol.row_types import RowType
from storage import digest
from storage.positions import move, time_until
from storage.system_tables import Logged

_REPORTED_PROBLEMS = 3
_IDS_AT_ONCE = 100


class Writing:
    """What is numbered, noted and refused while a push is written. ``at`` is the time of its commit in milliseconds."""

    def __init__(self, push: Push, row_bytes: int, before: Position, at: int) -> None:
        self.push, self.row_bytes, self.before, self.at = push, row_bytes, before, at
        self.time = format_time(at)
        self.sequence = before.sequence
        self._new_ids: Iterator[str] | None = None
        self.is_named, self.session = int(push.device_id is not None), push.evidence.session
        self.applied = PushResult(before, before)
        self.problems: list[Detail] = []
        self.is_faulty = False
        """Whether a row is refused for another reason than that its table is not synced."""
        self.rejected: list[str] = []
        self.differences: defaultdict[str, digest.Difference] = defaultdict(digest.Difference)
        self.touched: defaultdict[str, dict[str, bytes]] = defaultdict(dict)

    def note_row_device_id(self, stated: object, held: object) -> None:
        """Note which device a row states that it comes from, unless the row was sent back as it was ``held``."""
        if isinstance(stated, str) and stated != held:
            self.applied.row_device_ids.add(stated)

    def new_row_id(self) -> str:
        """Make an id."""
        if self._new_ids is None:
            self._new_ids = new_ids(self.at, min(self.push.count, _IDS_AT_ONCE))
        return next(self._new_ids)

    def note(self, table: str, row_id: str, status: str, version: int, body: bytes) -> None:
        """Note what became of a change, and its row as it is now."""
        if status != "unchanged":
            self.touched[table][row_id] = body
        self.applied.rows.append(body)
        self.applied.results.append({"table": table, "id": row_id, "status": status, "version": version})

    def is_too_large(self, change: Change, body: bytes) -> bool:
        """Tell whether a row is too large to be stored, and refuse it then."""
        if len(body) <= self.row_bytes:
            return False
        sentence = f"the row would have {len(body):,} bytes of JSON; at most {self.row_bytes:,} are stored"
        self.refuse(change, [{"path": change.path, "error": sentence}])
        return True

    def refuse(self, change: Change, problems: Sequence[Detail]) -> None:
        """Note why a change is not made. One of a table that is not synced is no fault of the others."""
        self.problems += problems
        self.is_faulty |= change.unknown_table is None
        self.rejected.append(change.path)
        table = change.table.name if change.table else change.unknown_table
        error = "; ".join(f"{problem['path']} {problem['error']}" for problem in problems)
        self.applied.rows.append(None)
        self.applied.results.append(
            {"table": table, "id": change.row_id, "status": "rejected", "version": None, "error": error}
        )

    def why_none(self) -> str:
        """Say why nothing of a push is stored. Of a push with one row the reason itself: many apps show only ``error``."""
        if self.push.count > 1:
            return f"{len(self.rejected)} of {self.push.count} rows can't be stored, so none was."
        problems = self.all_problems
        some = "; ".join(f"{problem['path']} {problem['error']}" for problem in problems[:_REPORTED_PROBLEMS])
        left = len(problems) - _REPORTED_PROBLEMS
        more = f"; and {left} more faults" if left > 0 else ""
        return f"{some}{more}. Nothing was stored."

    @property
    def all_problems(self) -> list[Detail]:
        """List what is wrong with each row, or with tables that are named without one."""
        return self.problems or list(self.push.unknown_tables.values())

    def finish(self) -> PushResult:
        """Bring digests and the position up to date, and give what the push became."""
        for table, difference in self.differences.items():
            digest.change(table, difference)
        if self.sequence > self.before.sequence:
            move(self.sequence, self.at)
            self.applied.after = Position(self.before.epoch, self.sequence, self.at, *self.before[3:])
        self.applied.touched = dict(self.touched)
        self.applied.known_until = self._known_until(self.applied.after.clock)
        self.applied.unknown_tables = list(self.push.unknown_tables)
        return self.applied

    def _known_until(self, clock: int) -> int:
        epoch, position = self.before.epoch, self.push.evidence.until(self.before.epoch)
        return clock if position >= self.before.sequence else time_until(epoch, position, clock)


def new_ids(at: int, count: int) -> Iterator[str]:
    """Make ids of rows that have none: UUIDs that begin with the time, so that new rows lie together in the index.

    Whoever asks for more than ``count`` waits for the system's randomness again.
    Source: RFC 9562 section 5.7, UUID version 7.
    """
    time = f"{at:012x}"
    while True:
        chance = secrets.token_hex(count * 10)
        for first in range(0, len(chance), 20):
            one = chance[first : first + 20]
            variant = "89ab"[int(one[3], 16) & 3]
            yield f"{time[:8]}-{time[8:]}-7{one[:3]}-{variant}{one[4:7]}-{one[7:19]}"


class Chunk:
    """The rows of one chunk, as they are written: into the log and, statement by statement, into their tables."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.rows: defaultdict[RowType, list[tuple[Any, ...]]] = defaultdict(list)
        self.edits: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)

    def edit(self, table: str, before: int, sequence: int, values: Mapping[str, Any]) -> None:
        """Give a row, whose latest change was ``before``, the values of another change, by column."""
        self.edits[_update_row(table, tuple(values))].append((sequence, *values.values(), before))

    def write(self) -> None:
        """Write them."""
        sql = connection().cursor()
        sql.executemany(INSERT_LOGGED, self.log)
        for update, rows in self.edits.items():
            sql.executemany(update, rows)
        for row_type, rows in self.rows.items():
            sql.executemany(insert_row(row_type.table, row_type.columns), rows)


@cache
def insert_row(table: str, columns: Sequence[str]) -> str:
    """Write the statement for a row that is not in its table. If it replaced one, SQLite would keep what each row's
    statement might have to undo, which takes as long as all the rest with rows in many places."""
    names = ", ".join(f'"{column}"' for column in columns)
    return f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(columns))})'


@lru_cache(maxsize=1024)
def _update_row(table: str, columns: Sequence[str]) -> str:
    """Write the statement that changes columns of a row, in four fifths of the time of a deletion and an insertion."""
    changes = ", ".join(f'"{column}" = ?' for column in ("_seq", *columns))
    return f'UPDATE "{table}" SET {changes} WHERE "_seq" = ?'


INSERT_LOGGED = insert_row(Logged._meta.table_name, tuple(field.column_name for field in Logged._meta.sorted_fields))
