"""How a push is written: into the log of changes, the synced tables and all that comes with them.

Knows: the statements on synced tables and the log, all bound to one tenant by the caller (see ``storage``). Must not
know: Flask, sockets, which engine or file, whose request this is. What becomes of a change is decided in ``protocol``.
"""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import digest
from bases import Entry, Key, Own, look_up, since_sequence, since_unknown, since_version
from errors import Detail, ResyncRequired, ValidationError
from ledger import Place, place
from models import connection, synced_tables
from protocol import Change, Outcome, Push, Since, Stored, Strategy, Table, decide
from receipts import Taken, keep_receipts, mark_of, taken
from records import Conflict, Logged
from typed import NewRow, form_of
from wire import Row, encode, format_time

_SLICE_ROWS = 16
"""Rows between two breaths: other tenants wait no longer than these take."""


@dataclass(slots=True)
class Applied:
    """What a push became. ``rows`` and ``results`` are as long as its changes; ``rows`` holds JSON or None."""

    before: Place
    after: Place
    rows: list[bytes | None] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    replayed_conflicts: list[dict[str, Any]] = field(default_factory=list)
    """Those of operations that were taken before: their device may never have had that answer."""
    touched: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By table, the id and JSON of each row that changed, in the order of their first change."""


def apply(push: Push, row_bytes: int, now: int, pause: Callable[[], None], strategy: Strategy = "merge") -> Applied:
    """Write a push into the tenant this code is bound to, inside the transaction that the caller holds.

    ``pause`` is called between slices of a long push; no one else may write this tenant meanwhile.
    Raises: ValidationError if the push is atomic and a row of it can't be stored, ResyncRequired if its base is of
    another incarnation.
    """
    before = place()
    if push.base and (push.base.epoch != before.epoch or push.base.sequence > before.sequence):
        raise ResyncRequired("The baseCursor is not of this database. Pull again from the start, then push.")
    writing = _Writing(push, row_bytes, before, max(now, before.clock + 1), strategy)
    while some := list(itertools.islice(push.changes, _SLICE_ROWS)):  # As many as the processor's cache holds.
        writing.take_all(some)
        if len(some) == _SLICE_ROWS:
            pause()
    if push.atomic and writing.problems:
        raise ValidationError(
            f"{len(writing.rejected)} of {push.count} rows can't be stored, so none was.", details=writing.problems
        )
    writing.finish()
    return writing.applied


class _Writing:
    """One push on its way into the database: looks rows up, numbers the changes, collects what to write."""

    def __init__(self, push: Push, row_bytes: int, before: Place, at: int, strategy: Strategy) -> None:
        self.push, self.row_bytes, self.before, self.at, self.strategy = push, row_bytes, before, at, strategy
        self.time = format_time(at)
        self.sequence = before.sequence
        self.applied = Applied(before, before)
        self.problems: list[Detail] = []
        self.rejected: list[str] = []
        self.log: list[tuple[Any, ...]] = []
        self.receipts: dict[str, Taken] = {}
        self.taken: dict[str, Taken] = {}
        self.known: dict[Key, Stored | None] = {}
        self.current: dict[Key, Stored] = {}
        self.ids: defaultdict[Key, set[str]] = defaultdict(set)
        self.differences: defaultdict[str, digest.Difference] = defaultdict(digest.Difference)
        self.said: defaultdict[Key, Row] = defaultdict(dict)
        self.written: defaultdict[Key, set[str]] = defaultdict(set)
        self.replayed: set[int | None] = set()
        self.told: set[int] = set()
        self.standing: set[Key] = set()
        self.counted: dict[Key, int] = {}

    def take_all(self, some: Sequence[Change | NewRow]) -> None:
        """Take some changes, and write what becomes of them; if all are rows that are new, the short way."""
        new = [one for one in some if type(one) is NewRow]
        if len(new) == len(some) and not _any_stands(new):
            return self._create_all(new)
        changes = [one.change() if type(one) is NewRow else cast(Change, one) for one in some]
        self._look_up(changes)
        for change in changes:
            self._take(change)
        return self._write()

    def _create_all(self, new: Sequence[NewRow]) -> None:
        """Write rows of which none stands, and none is named twice."""
        rows: defaultdict[Table, list[tuple[Any, ...]]] = defaultdict(list)
        log: list[tuple[Any, ...]] = []
        for one in new:
            table, row_id = one.table.name, one.row_id or new_id(self.at)
            body = one.complete(row_id, self.time)
            if self._is_too_large(one, body):
                continue
            self.sequence += 1
            device = self.push.device_id or one.row.device_id
            about = 1, None, self.at, one.edited_at, device, None
            log.append((self.sequence, table, row_id, *about, body.decode(), self.push.device_id is not None))
            rows[one.table].append(one.stored(self.sequence))
            self.differences[table].add(row_id, 1)
            self.applied.touched.setdefault(table, {})[row_id] = body
            self._note({"table": table, "id": row_id, "status": "created", "version": 1}, body)
        cursor = connection().cursor()
        cursor.executemany(_INSERT_LOGGED, log)
        for kind, own in rows.items():
            cursor.executemany(_insert_row(kind.name, ("_seq", *form_of(kind).names)), own)

    def _look_up(self, changes: Sequence[Change]) -> None:
        """Read what these changes meet, as it was before this push; what the push itself did to a row is known."""
        op_ids = {change.op_id for change in changes if change.op_id} - self.taken.keys()
        if op_ids:
            self.taken |= taken(op_ids)
        results = [self.taken[op_id].result for op_id in op_ids if op_id in self.taken]
        rows, ids = look_up(changes, results, self.known)
        for key, found in ids.items():
            self.ids[key] |= found
        self.standing |= rows.keys()
        for key, stored in rows.items():
            if key not in self.known:
                self.known[key] = None if stored.sequence > self.before.sequence else stored
                self.current[key] = stored

    def _take(self, change: Change) -> None:
        """Take one change, unless it can't be stored or was taken before."""
        before = self.taken.get(change.op_id or "")
        if change.problems:
            self._reject(change, change.problems)
        elif before is None:
            self._decide(change)
        elif before.mark == mark_of(change):
            self._replay(change, before)
        else:
            self._reject(change, [{"path": f"{change.path}.opId", "error": "was used for another operation"}])

    def _decide(self, change: Change) -> None:
        """Decide a change and note its result; a row that is too large is refused here, where its size is known."""
        assert change.table is not None
        table = change.table.name
        row_id = self._row_id(change, table)
        stored = self.current.get((table, row_id))
        outcome = decide(change, stored, lambda: self._missed(change, (table, row_id)), self.strategy)
        version, body = stored.version if stored else 0, b""
        if outcome.row is not None:
            lacks = change.lacks(outcome.row, stored) if change.lacking else []
            if lacks:
                return self._reject(change, lacks)
            version += 1
            row = self._complete(row_id, outcome.row, version)
            body = encode(row)
            if self._is_too_large(change, body):
                return None
            self._log(change, table, row_id, outcome, stored, row, body)
        conflict = self._note_conflict(change, outcome, stored, row_id)
        self.said[table, row_id] |= change.fields
        result = {"table": table, "id": row_id, "status": outcome.status, "version": version}
        if change.op_id:
            taken = Taken(mark_of(change), result, self.sequence if body else None, conflict)
            self.receipts[change.op_id] = self.taken[change.op_id] = taken
        return self._note(result, body)

    def _is_too_large(self, change: Change | NewRow, body: bytes) -> bool:
        """Tell whether a row is too large to be stored, and refuse it then."""
        if len(body) <= self.row_bytes:
            return False
        sentence = f"the row would have {len(body):,} bytes of JSON; at most {self.row_bytes:,} are stored"
        self._reject(change, [{"path": change.path, "error": sentence}])
        return True

    def _replay(self, change: Change, before: Taken) -> None:
        """Answer an operation that was taken before as it was then, with the row as it stands now."""
        self.said[before.result["table"], before.result["id"]] |= change.fields
        self.replayed.add(before.sequence)
        number = before.conflict
        if number is not None and number not in self.told and (conflict := Conflict.get_or_none(number=number)):
            self.told.add(number)
            self.applied.replayed_conflicts.append(shown_conflict(conflict))
        self._note(before.result | {"replayed": True})

    def _note(self, result: dict[str, Any], body: bytes = b"") -> None:
        """Note a result with its row: ``body``, or the row as it stands, or what is left to say of one never stored."""
        stored = self.current.get((result["table"], result["id"]))
        nothing = {"id": result["id"], "is_deleted": 1, "version": 0, "sync_status": "synced"}
        self.applied.rows.append(body or encode(stored.row if stored else nothing))
        self.applied.results.append(result)

    def _row_id(self, change: Change, table: str) -> str:
        if change.row_id:
            return change.row_id
        found = self.ids.get((table, change.unique_id)) if change.unique_id else None
        return min(found) if found else new_id(self.at)

    def _missed(self, change: Change, key: Key) -> Since | None:
        """Tell what a device did not know of a row when it changed it; what it did itself is no reason for a conflict."""
        known, version, base = self.known.get(key), change.base_version, self.push.base
        if known is None:
            return None
        own = Own(self.said[key], self.written[key], self._is_own, change.fields)
        if version is None:
            return since_sequence(known, base.sequence, own) if base and base.sequence < known.sequence else None
        if not change.is_base_stated:  # A device that counts by itself counts on from what it had.
            version = self.counted[key] = min(version, self.counted.get(key, version))
        elif version > self.current[key].version:
            return since_unknown(self.current[key], own.written)
        return None if version >= known.version else since_version(known, version, own)

    def _is_own(self, entry: Entry) -> bool:
        """Tell whether a change was made by the device that pushes: it says so by name, or by sending it again."""
        device = self.push.device_id
        is_mine = device is not None and entry.is_named and entry.device_id == device
        return is_mine or entry.sequence in self.replayed

    def _note_conflict(self, change: Change, outcome: Outcome, stored: Stored | None, row_id: str) -> int | None:
        """Keep an edit that lost in the log of conflicts, for the answer and the notification too; give its number."""
        if not outcome.conflicts or stored is None or change.table is None:
            return None
        conflict = Conflict.create(
            table=change.table.name,
            row_id=row_id,
            strategy=self.strategy,
            base_version=change.base_version,
            version=stored.version + (outcome.row is not None),
            fields=outcome.conflicts,
            pushed=change.fields,
            client_device_id=self.push.device_id or change.fields.get("device_id"),
            client_edited_at=change.edited_at,
            server_device_id=stored.device_id,
            server_edited_at=stored.edited_at,
            detected_at=self.at,
        )
        self.applied.conflicts.append(shown_conflict(conflict))
        self.told.add(conflict.number)
        return int(conflict.number)

    def _complete(self, row_id: str, row: Row, version: int) -> Row:
        """Set what the server sets."""
        return {
            "id": row_id,
            **row,
            "sync_status": "synced",
            "version": version,
            "server_synced": 1,
            "createdAt": row.get("createdAt", self.time),
            "updatedAt": self.time,
        }

    def _log(
        self, change: Change, table: str, row_id: str, outcome: Outcome, stored: Stored | None, row: Row, body: bytes
    ) -> None:
        self.sequence += 1
        fields = encode(outcome.fields).decode() if stored else None
        device = self.push.device_id or change.fields.get("device_id")
        version, previous = row["version"], stored.sequence if stored else None
        about = version, previous, self.at, change.edited_at, device, fields
        self.log.append((self.sequence, table, row_id, *about, body.decode(), self.push.device_id is not None))
        now = Stored(row, version, self.sequence, change.edited_at, device)
        self.known.setdefault((table, row_id), stored)
        self.current[table, row_id] = now
        self.differences[table].replace(stored, now)
        self.written[table, row_id].update(outcome.fields)
        if stored:
            self.ids[table, stored.row["Unique_id"]].discard(row_id)
        self.ids[table, row["Unique_id"]].add(row_id)
        self.applied.touched.setdefault(table, {})[row_id] = body

    def _reject(self, change: Change | NewRow, problems: Sequence[Detail]) -> None:
        self.problems += problems
        self.rejected.append(change.path)
        table = change.table.name if change.table else None
        error = "; ".join(f"{problem['path']} {problem['error']}" for problem in problems)
        self.applied.rows.append(None)
        self.applied.results.append(
            {"table": table, "id": change.row_id, "status": "rejected", "version": None, "error": error}
        )

    def _write(self) -> None:
        """Write what was taken: receipts, the log, and the rows in their last state."""
        if self.receipts:
            keep_receipts(self.receipts, self.at)
        cursor = connection().cursor()
        cursor.executemany(_INSERT_LOGGED, self.log)
        written = dict.fromkeys((table, row_id) for _, table, row_id, *_ in self.log)
        for name in dict.fromkeys(table for table, _ in written):
            table = synced_tables()[name]
            keys = [key for key in written if key[0] == name]
            before = [(key[1],) for key in keys if key in self.standing]
            current = (self.current[key] for key in keys)
            rows = (table.stored(stored.row, stored.sequence) for stored in current)
            cursor.executemany(f'DELETE FROM "{name}" WHERE id = ?', before)
            cursor.executemany(_insert_row(name, table.columns), rows)
        self.standing.update(written)
        self.receipts, self.log = {}, []

    def finish(self) -> None:
        """Bring digests and ledger up to date."""
        for table, difference in self.differences.items():
            digest.change(table, difference)
        if self.sequence > self.before.sequence:
            connection().execute("UPDATE _meta SET sequence = ?, clock = ?", (self.sequence, self.at))
            self.applied.after = self.before._replace(sequence=self.sequence, clock=self.at)


def _any_stands(new: Sequence[NewRow]) -> bool:
    """Tell whether one of these rows is there already, by its id or else its ``Unique_id``, or named twice."""
    wanted: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    named: Counter[Key] = Counter()
    for one in new:
        unique_id = one.row.Unique_id
        if one.row_id:
            wanted[one.table.name, "id"].append(one.row_id)
        elif unique_id:
            wanted[one.table.name, "Unique_id"].append(unique_id)
        if unique_id:
            named[one.table.name, unique_id] += 1
    return any(
        len(set(own)) < len(own)
        or (column == "Unique_id" and any(named[table, unique_id] > 1 for unique_id in own))
        or _stands(table, column, own)
        for (table, column), own in wanted.items()
    )


def _stands(table: str, column: str, wanted: list[str]) -> bool:
    if len(wanted) == 1:
        found = connection().execute(f'SELECT 1 FROM "{table}" WHERE "{column}" = ?', wanted)
    else:
        sql = f'SELECT 1 FROM json_each(?) AS wanted CROSS JOIN "{table}" AS e ON e."{column}" = wanted.value LIMIT 1'
        found = connection().execute(sql, (encode(wanted).decode(),))
    return found.fetchone() is not None


def new_id(at: int) -> str:
    """Make the id of a row that has none: a UUID that begins with the time, so that new rows lie together in the index.

    Source: RFC 9562 section 5.7, UUID version 7.
    """
    chance = secrets.randbits(74)
    return str(uuid.UUID(int=at << 80 | 0x7 << 76 | chance >> 62 << 64 | 0b10 << 62 | chance & (1 << 62) - 1))


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


def _marks(columns: Sequence[Any]) -> str:
    return ", ".join("?" * len(columns))


_INSERT_LOGGED = f"INSERT INTO _changes VALUES ({_marks(Logged._meta.sorted_fields)})"


@cache
def _insert_row(table: str, columns: Sequence[str]) -> str:
    """Write the statement for a row that is not in its table. For ``OR REPLACE``, SQLite keeps what each row's statement
    might have to undo, which takes as long as all the rest with rows in many places."""
    names = ", ".join(f'"{column}"' for column in columns)
    return f'INSERT INTO "{table}" ({names}) VALUES ({_marks(columns)})'
