"""Sends the outbox: in order, in parts that the server accepts, storing each answer in one transaction.

Knows: the server's push, and what its results mean for the outbox. Must not know: how requests are sent, how a pull
comes in. An edit leaves the outbox in the transaction that stores the row as the server has it now; until then it is sent
again under the same name, and the server does it once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence

from . import places, records, rows
from .answers import conflicts_of, outcomes_of
from .errors import NotTaken, Offline, Stalled, SyncError
from .pace import Pace
from .pulling import Report
from .replica import Replica
from .rows import Edit
from .session import Session
from .wire import JSON, encode

PUSH = "/api/client/sync/push"
_PART_BYTES = 1_000_000
_FINAL = ("validation_error", "not_found", "invalid_json", "payload_too_large")
"""What the server says of a decision that it will never take."""

Renamed = Callable[[str, str, str], None]
"""Told of each row that the server has under another id than it was sent with: its table, the old id, the new one."""


class Pushing:
    """Sends what waits in a replica."""

    def __init__(self, replica: Replica, session: Session, part_rows: int, report: Report, renamed: Renamed) -> None:
        self._replica, self._session, self._report, self._renamed = replica, session, report, renamed
        self._pace = Pace(part_rows)

    def run(self) -> bool:
        """Send all that waits, and tell whether the replica's place has passed it, so that no pull is needed.

        Raises: ResyncRequired if the server was restored since the last pull: what waits has bases of before.
        """
        is_passed = True
        while part := self._next_part():
            try:
                is_passed &= self._send(part)
            except Offline as error:
                self._pace.shrink(len(part))
                if not isinstance(error, Stalled) or len(part) == 1:
                    raise
            else:
                self._pace.grow()
        return not self._tell_decisions() and is_passed

    def _next_part(self) -> list[Edit]:
        """Take from the front of the outbox what may go together.

        What follows an edit that may make its row waits for its answer: alone it would make a row of itself. And what this
        device only gives back goes apart from its own edits.
        """
        with self._replica.reading() as connection:
            waiting = rows.edits(connection, self._pace.rows)
        part: list[Edit] = []
        opened: set[tuple[str, str]] = set()
        size = 0
        for edit in waiting:
            if (edit.table, edit.row_id) in opened:
                continue
            size += len(encode(edit.fields)) + 200
            if part and (size > _PART_BYTES or edit.is_edit != part[0].is_edit):
                break
            part.append(edit)
            if edit.opens:
                opened.add((edit.table, edit.row_id))
        return part

    def _send(self, part: Sequence[Edit]) -> bool:
        """Send a part; one that the server will not take as it is, in halves, down to the edit that is at fault."""
        body: JSON = {"operations": [_operation(edit) for edit in part], "atomic": False}
        with self._replica.reading() as connection:
            if place := places.latest(connection):
                body["baseCursor"] = place
        headers: dict[str, str | None] = {} if part[0].is_edit else {"X_Device_Id": None}
        try:
            answer = outcomes_of(self._session.ask("POST", PUSH, body, **headers), len(part))
        except NotTaken as error:
            if len(part) == 1:
                return self._refuse(part[0], error)
            first, second = (self._send(half) for half in _halves(part))
            return first and second
        answer["conflicts"] += self._lost_conflicts(answer)
        return self._take(part, answer)

    def _refuse(self, edit: Edit, error: NotTaken) -> bool:
        with self._replica.transaction() as connection:
            _refuse(connection, edit, error.message)
            rows.lay_over(connection, edit.table, edit.row_id)
        self._report("push", 1, {edit.table: [edit.row_id]})
        return True

    def _lost_conflicts(self, answer: JSON) -> list[JSON]:
        """Fetch the conflicts of operations whose first answer, which named them, was lost."""
        replayed = [one for one in answer["results"] if one.get("replayed") and one["status"] == "conflict"]
        if not replayed:
            return []
        keys = {(one["table"], one["id"]) for one in replayed}
        return [one for one in self._later_conflicts() if (one["table"], one["id"]) in keys]

    def _later_conflicts(self) -> Iterator[JSON]:
        with self._replica.reading() as connection:
            after = records.last_conflict_id(connection)
        has_more = True
        while has_more:
            path = f"/api/client/sync/conflicts?state=all&limit=500&after={after}"
            page = conflicts_of(self._session.ask("GET", path))
            yield from page["data"]
            has_more = page["hasMore"]
            after = page["data"][-1]["conflictId"] if page["data"] else after

    def _take(self, part: Sequence[Edit], answer: JSON) -> bool:
        """Store an answer: rows, conflicts and refusals, the outbox without the edits, and the cursor if it follows on."""
        ids = [
            (edit.table, edit.row_id, row["id"] if row else edit.row_id)
            for edit, row in zip(part, answer["data"], strict=True)
        ]
        renamed = [one for one in dict.fromkeys(ids) if one[1] != one[2]]
        with self._replica.transaction() as connection:
            for edit, row, result in zip(part, answer["data"], answer["results"], strict=True):
                if result["status"] == "rejected":
                    _refuse(connection, edit, result["error"])
                else:
                    _take_row(connection, edit, row, result)
            for table, row_id in {(table, row_id) for table, *names in ids for row_id in names}:
                rows.lay_over(connection, table, row_id)
            records.note_conflicts(connection, answer["conflicts"])
            follows: bool = answer["previousCursor"] == places.shared(connection)
            if follows:
                places.move(connection, places.wanted(connection), answer["cursor"])
        changed: dict[str, list[str]] = {}
        for table, from_id, to_id in ids:
            changed.setdefault(table, []).extend(dict.fromkeys((from_id, to_id)))
        self._report("push", len(part), changed)
        for names in renamed:
            self._renamed(*names)
        return follows

    def _tell_decisions(self) -> bool:
        """Tell the server what was decided about conflicts, and give whether there was any."""
        with self._replica.reading() as connection:
            waiting = records.decisions(connection)
        for decision in waiting:
            path = f"/api/client/sync/conflicts/{decision.conflict_id}/resolve"
            refused: str | None = None
            try:
                self._session.ask("POST", path, decision.body, Idempotency_Key=decision.key)
            except SyncError as error:
                if error.code not in _FINAL:
                    raise
                refused = error.message
            with self._replica.transaction() as connection:
                records.mark_decided(connection, decision)
                if refused:
                    records.note_refusal(connection, decision, refused)
        return bool(waiting)


def _operation(edit: Edit) -> JSON:
    return {
        "table": edit.table,
        "operation": edit.operation,
        "data": {"id": edit.row_id, **edit.fields},
        "timestamp": edit.timestamp,
        "baseVersion": edit.base_version,
        "opId": edit.op_id,
    }


def _take_row(connection: sqlite3.Connection, edit: Edit, row: JSON, result: JSON) -> None:
    rows.remove_edit(connection, edit)
    if row["version"] > 0:  # 0: a delete of what the server never had.
        rows.store(connection, edit.table, row, places.generation_of(connection, edit.table))
    if row["id"] != edit.row_id:
        rows.follow(connection, edit.table, edit.row_id, row["id"], row["version"])
    if not edit.is_edit and result["status"] in ("created", "updated"):  # The row is now what this device gave back.
        rows.settle_seen(connection, edit.table, edit.row_id, result["version"])


def _refuse(connection: sqlite3.Connection, edit: Edit, error: str) -> None:
    """Keep an edit that is refused; one that makes its row goes once more, with the updates that wait for it."""
    if edit.opens and rows.fold(connection, edit):
        return
    rows.remove_edit(connection, edit)
    records.note_refusal(connection, edit, error)


def _halves(part: Sequence[Edit]) -> tuple[Sequence[Edit], Sequence[Edit]]:
    return part[: len(part) // 2], part[len(part) // 2 :]
