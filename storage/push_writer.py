"""How a push is written: into the log of changes, the synced tables and all that comes with them.

Knows: the statements on synced tables and the log, all bound to one tenant by the caller (see ``engine``). Must not
know: Flask, sockets, which engine or file, whose request this is. What becomes of a change is decided in ``merge``.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models import connection, synced_tables
from protocol.codec import Row, encode
from protocol.errors import ResyncRequired, ValidationError
from protocol.merge import decide, decide_recreation
from protocol.messages import UNCHECKED, Change, MissedEdits, Outcome, Push, PushResult, StoredRow, Strategy
from protocol.row_decoder import TypedRow
from storage.dialect import dialect
from storage.idempotency import Taken, implied_name, is_retry, keep_receipts, mark_of, taken
from storage.look_ahead import looked_ahead
from storage.merge_base import (
    Entry,
    Key,
    Own,
    entry_at,
    look_up,
    since_counted,
    since_elsewhere,
    since_sequence,
    since_version,
)
from storage.plain_edits import PlainEdit
from storage.positions import position
from storage.push_batch import INSERT_LOGGED, Writing, insert_row
from storage.push_fast_path import FastPath
from storage.recreated_rows import Revivals
from storage.repeated_creates import is_earlier_state
from storage.row_identity import Identities
from storage.system_tables import Conflict, shown_conflict

_CHUNK_ROWS = 16
"""Rows between two breaths: other tenants wait no longer than these take."""

_FAST_CHUNK_ROWS = 48
"""The same where rows before took the fast path: about a millisecond."""


def apply(push: Push, row_bytes: int, now: int, pause: Callable[[], None], strategy: Strategy = "merge") -> PushResult:
    """Write a push into the tenant this code is bound to, inside the transaction that the caller holds.

    ``pause`` is called between chunks of a long push; no one else may write this tenant meanwhile.
    Raises: ValidationError if the push is atomic and a row of it can't be stored, ResyncRequired if its base is of
    another incarnation.
    """
    before = position()
    if push.base and (push.base.epoch != before.epoch or push.base.sequence > before.sequence):
        raise ResyncRequired("The baseCursor is not of this database. Pull again from the start, then push.")
    writing = Writing(push, row_bytes, before, max(now, before.clock + 1))
    fast, general = FastPath(writing), None
    rows = _CHUNK_ROWS
    look_ahead = dialect().look_ahead
    changes = looked_ahead(push.changes, look_ahead) if look_ahead else push.changes
    while some := list(itertools.islice(changes, rows)):
        is_full = len(some) == rows
        if fast.takes(some, general.known if general else ()):
            rows = _FAST_CHUNK_ROWS
        else:
            general, rows = general or _GeneralPath(writing, strategy), _CHUNK_ROWS
            for first in range(0, len(some), rows):
                general.take([_change_of(one) for one in some[first : first + rows]], fast.edited)
                if first + rows < len(some):
                    pause()
        if is_full:
            pause()
    if (push.atomic and writing.is_faulty) or push.fails_for_unknown_tables:
        raise ValidationError(writing.why_none(), details=writing.all_problems)
    writing.applied.may_delete = general is not None
    writing.applied.has_seen_all &= general is None
    return writing.finish()


def _change_of(one: Change | TypedRow) -> Change:
    return one.change() if isinstance(one, TypedRow) else one


class _GeneralPath:
    """Takes changes one after the other: looks their rows up, decides, and collects what to write."""

    def __init__(self, writing: Writing, strategy: Strategy) -> None:
        self.writing, self.push, self.strategy = writing, writing.push, strategy
        self.applied, self.before, self.at = writing.applied, writing.before, writing.at
        self.log: list[tuple[Any, ...]] = []
        self.receipts: dict[str, Taken] = {}
        self.taken: dict[str, Taken] = {}
        self.known: dict[Key, StoredRow | None] = {}
        """The rows handled so far, as they were before this push."""
        self.current: dict[Key, StoredRow] = {}
        self.identities = Identities(self.current, self.push.base, writing.new_row_id)
        self.revivals = Revivals(self.known, self.current, self.push.base)
        self.received: defaultdict[Key, Row] = defaultdict(dict)
        self.written: defaultdict[Key, set[str]] = defaultdict(set)
        self.replayed: set[int | None] = set()
        self.reported: set[int] = set()
        self.existing: set[Key] = set()
        self.counted: dict[Key, int] = {}

    def take(self, changes: Sequence[Change], edited: Mapping[Key, PlainEdit]) -> None:
        """Take some changes, and write what becomes of them; ``edited``: what the fast path did to rows before."""
        for change in changes:
            change.op_id = change.op_id or implied_name(change, self.push.device_id)
        self._look_up(changes, edited)
        for change in changes:
            self._take(change)
        self._write()

    def _look_up(self, changes: Sequence[Change], edited: Mapping[Key, PlainEdit]) -> None:
        """Read the rows of these changes, as they were before this push; what the push itself did to a row is known."""
        op_ids = {change.op_id for change in changes if change.op_id} - self.taken.keys()
        if op_ids:
            self.taken |= taken(op_ids)
        results = [self.taken[op_id].result for op_id in op_ids if op_id in self.taken]
        rows = look_up(changes, results, self.current)
        self.existing |= rows.keys()
        for key, stored in rows.items():
            if key not in self.known:
                self.known[key] = None if stored.sequence > self.before.sequence else stored
                self.current[key] = stored
                self.identities.note(*key, stored.row["Unique_id"])
                if key in edited:
                    self._recall(key, edited[key])

    def _recall(self, key: Key, edited: PlainEdit) -> None:
        """Know of a row what the general path would know if it had made the edit, whose base was the row as it was."""
        self.known[key] = edited.before
        self.received[key] |= edited.received
        self.written[key].update(edited.names)
        if edited.different and (version := edited.typed.base_version) is not None:
            self.counted[key] = version

    def _take(self, change: Change) -> None:
        """Take one change, unless it can't be stored or was taken before."""
        before = self.taken.get(change.op_id or "")
        if change.problems:
            self.writing.refuse(change, change.problems)
        elif before is None:
            self._decide(change)
        elif is_retry(change, before):
            self._replay(change, before)
        else:
            path = "opId" if change.path == "data" else f"{change.path}.opId"  # In form A it stands beside the data.
            self.writing.refuse(change, [{"path": path, "error": "was used for another operation"}])

    def _decide(self, change: Change) -> None:
        """Decide a change and note its result; a row that is too large is refused here, where its size is known."""
        assert change.table is not None
        table = change.table.name
        row_id = self.identities.row_id(change)
        stored = self.current.get((table, row_id))
        outcome = self._outcome(change, stored, (table, row_id))
        version, body = stored.version if stored else 0, b""
        if (outcome.conflicts or outcome.replaced) and self.writing.is_too_large(change, encode(change.fields)):
            return None  # What loses is kept too, and is no larger than a row that wins.
        if outcome.row is not None:
            missing = change.missing_required(outcome.row, stored) if change.required_errors else []
            if missing:
                return self.writing.refuse(change, missing)
            version += 1
            row = self._complete(row_id, outcome.row, version)
            body = encode(row)
            if self.writing.is_too_large(change, body):
                return None
            self._log(change, table, row_id, outcome, stored, row, body)
        self.writing.note_row_device_id(change.fields.get("device_id"), stored.row["device_id"] if stored else None)
        conflict = self._note_conflict(change, outcome, stored, row_id)
        self.received[table, row_id] |= change.fields
        result = {"table": table, "id": row_id, "status": outcome.status, "version": version}
        if change.op_id:
            taken = Taken(mark_of(change), result, self.writing.sequence if body else None, conflict)
            self.receipts[change.op_id] = self.taken[change.op_id] = taken
        return self._note(result, body)

    def _outcome(self, change: Change, stored: StoredRow | None, key: Key) -> Outcome:
        """Give what becomes of a change."""
        if self._is_late_repeat(change, key):
            return Outcome("unchanged")
        if stored is None or change.kind != "create" or not stored.row["is_deleted"]:
            return decide(change, stored, lambda: self._missed(change, key), self.strategy)
        if self.revivals.is_repeat(change, key):
            return Outcome("unchanged")
        since = self._missed_deletion(change, key) if self.revivals.is_late(change, key) else None
        return decide_recreation(change, stored, since, self.strategy)

    def _is_late_repeat(self, change: Change, key: Key) -> bool:
        """Tell whether a create of an existing row, or what may be one, was taken before, and others edited since."""
        known = self.known.get(key)
        if known is None or known.version < 2 or known.row["is_deleted"] or change.kind not in ("create", "upsert"):
            return False
        if self.push.base is not None or change.is_base_stated or change.op_id is not None:
            return False
        if change.base_version and "last_updated" not in change.fields:
            return False  # It has more than what the row was made with; what it has not seen is looked up by that.
        is_any, session = change.kind == "create", self.push.evidence.session
        return is_earlier_state(known.sequence, change.fields, is_any, session, self.push.device_id)

    def _missed_deletion(self, change: Change, key: Key) -> MissedEdits | None:
        """Tell what a create missed that did not know of the deletion of its row."""
        known = self.known[key]
        assert known is not None
        if change.base_version is not None or self.push.base is not None:
            return self._missed(change, key)
        return since_elsewhere(known, Own(self.received[key], self.written[key], self._is_own, change.fields))

    def _replay(self, change: Change, before: Taken) -> None:
        """Answer an operation that was taken before as it was then, with the current row."""
        self.received[before.result["table"], before.result["id"]] |= change.fields
        self.replayed.add(before.sequence)
        number = before.conflict
        if number is not None and number not in self.reported and (conflict := Conflict.get_or_none(number=number)):
            self.reported.add(number)
            self.applied.replayed_conflicts.append(shown_conflict(conflict))
        self._note(before.result | {"replayed": True})

    def _note(self, result: dict[str, Any], body: bytes = b"") -> None:
        """Note a result with its row: ``body``, or the current row, or what is left to say of one never stored."""
        stored = self.current.get((result["table"], result["id"]))
        nothing = {"id": result["id"], "is_deleted": 1, "version": 0, "sync_status": "synced"}
        self.applied.rows.append(body or encode(stored.row if stored else nothing))
        self.applied.results.append(result)

    def _missed(self, change: Change, key: Key) -> MissedEdits | None:
        """Tell what a device did not know of a row when it changed it; what it did itself is no reason for a conflict."""
        known, version, base = self.known.get(key), change.base_version, self.push.base
        if known is None:
            return None
        own = Own(self.received[key], self.written[key], self._is_own, change.fields)
        if version is None and base is None:
            counted = change.is_counted
            return self._missed_by_count(change, key, known, 0) if counted else self._deleted_by_another(change, known)
        if version is None:
            return since_sequence(known, base.sequence, own) if base and base.sequence < known.sequence else None
        if not change.is_base_stated:
            return self._missed_by_count(change, key, known, version)
        if version > self.current[key].version:
            return since_elsewhere(known, own)
        return None if version >= known.version else since_version(known, version, own)

    def _missed_by_count(self, change: Change, key: Key, known: StoredRow, version: int) -> MissedEdits | None:
        """Tell the same of a device that counts on by itself from what it had, as far as that is known of it."""
        version = self.counted[key] = min(version, self.counted.get(key, version))
        stated, evidence = change.fields.get("device_id"), self.push.evidence
        positions = evidence.positions(key[0], self.before.epoch)
        if not evidence.is_of(stated, known.row.get("device_id")):
            positions = (0, 0)
        if known.sequence <= positions[0] and (not version or known.version <= version):
            return None
        own = Own(self.received[key], self.written[key], lambda entry: self._is_ours(entry, stated), change.fields)
        return since_counted(known, version, positions, own)

    def _deleted_by_another(self, change: Change, known: StoredRow) -> MissedEdits | None:
        """Tell of an edit without a base whether it meets a row that another device deleted."""
        if change.kind == "delete" or not known.row["is_deleted"]:
            return None
        entry = entry_at(known.sequence)
        return UNCHECKED if entry and not self._is_ours(entry, change.fields.get("device_id")) else None

    def _is_own(self, entry: Entry) -> bool:
        """Tell whether a change was made by the device that pushes: by its name, or since it sent it again."""
        device = self.push.device_id
        is_mine = device is not None and entry.is_named and entry.device_id == device
        return is_mine or entry.sequence in self.replayed

    def _is_ours(self, entry: Entry, stated: object) -> bool:
        """Tell the same of a device that only its session names, and the ``device_id`` that its rows state, if they do."""
        session = self.push.evidence.session
        is_same = session is not None and entry.session == session
        return self._is_own(entry) or (is_same and (not stated or entry.device_id in (None, stated)))

    def _note_conflict(self, change: Change, outcome: Outcome, stored: StoredRow | None, row_id: str) -> int | None:
        """Keep an edit that lost in the log of conflicts, for the answer and the notification too; give its number.

        What the device has most likely seen when it replaced it is kept as decided already, and not reported.
        """
        if not (outcome.conflicts or outcome.replaced) or stored is None or change.table is None:
            return None
        decided = {"state": "resolved", "resolution": "keep", "resolved_at": self.at} if outcome.replaced else {}
        conflict = Conflict.create(
            table=change.table.name,
            row_id=row_id,
            strategy=self.strategy,
            base_version=change.base_version,
            version=stored.version + (outcome.row is not None),
            fields=outcome.replaced or outcome.conflicts,
            pushed=change.fields,
            client_device_id=self.push.device_id or change.fields.get("device_id"),
            client_edited_at=change.edited_at,
            server_device_id=stored.device_id,
            server_edited_at=stored.edited_at,
            detected_at=self.at,
            **decided,
        )
        if decided:
            return None
        self.applied.conflicts.append(shown_conflict(conflict))
        self.reported.add(conflict.number)
        return int(conflict.number)

    def _complete(self, row_id: str, row: Row, version: int) -> Row:
        """Set what the server sets."""
        return {
            "id": row_id,
            **row,
            "sync_status": "synced",
            "version": version,
            "server_synced": 1,
            "createdAt": row.get("createdAt", self.writing.time),
            "updatedAt": self.writing.time,
        }

    def _log(
        self, change: Change, table: str, row_id: str, outcome: Outcome, stored: StoredRow | None, row: Row, body: bytes
    ) -> None:
        self.writing.sequence += 1
        sequence = self.writing.sequence
        fields = encode(outcome.fields).decode() if stored else None
        device = self.push.device_id or change.fields.get("device_id")
        version, previous = row["version"], stored.sequence if stored else None
        about = version, previous, self.at, change.edited_at, device, fields
        self.log.append((sequence, table, row_id, *about, body.decode(), self.writing.is_named, self.writing.session))
        now = StoredRow(row, version, sequence, change.edited_at, device)
        self.known.setdefault((table, row_id), stored)
        self.current[table, row_id] = now
        self.writing.differences[table].replace(stored, now)
        self.written[table, row_id].update(outcome.fields)
        self.identities.note(table, row_id, row["Unique_id"], stored.row["Unique_id"] if stored else None)
        self.writing.touched[table][row_id] = body

    def _write(self) -> None:
        """Write what was taken: receipts, the log, and the rows in their last state."""
        if self.receipts:
            keep_receipts(self.receipts, self.at)
        sql = connection()
        sql.executemany(INSERT_LOGGED, self.log)
        written = dict.fromkeys((table, row_id) for _, table, row_id, *_ in self.log)
        for name in dict.fromkeys(table for table, _ in written):
            table = synced_tables()[name]
            keys = [key for key in written if key[0] == name]
            before = [(key[1],) for key in keys if key in self.existing]
            current = (self.current[key] for key in keys)
            rows = (table.stored(stored.row, stored.sequence) for stored in current)
            sql.executemany(f'DELETE FROM "{name}" AS e WHERE e.id = ?', before)
            sql.executemany(insert_row(name, table.columns), rows)
        self.existing.update(written)
        self.receipts, self.log = {}, []
