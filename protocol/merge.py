"""Decides what becomes of each change of a push, without I/O: who wins a conflict, and what is lost.

Knows: how a change, the current row and the edits of other devices are merged. Foreseen outcomes are values.
Must not know: how a body says it (``push_parser``), Flask, peewee, sockets, files, the clock (it is passed in).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from protocol.codec import Row, format_time
from protocol.messages import (
    EDIT_FIELDS,
    SCALAR_TYPES,
    UNCHECKED,
    Change,
    FieldConflict,
    MissedEdits,
    Outcome,
    Status,
    StoredRow,
    Strategy,
    changed_fields,
    same,
)


def decide(
    change: Change, stored: StoredRow | None, missed: Callable[[], MissedEdits | None], strategy: Strategy = "merge"
) -> Outcome:
    """Decide what becomes of a well-formed change, given the current row.

    ``missed`` gives the edits that the device did not know of, None if there are none; it is called only if that matters.
    ``strategy`` matters only where something was missed.
    """
    assert change.table is not None
    if stored is None:
        if change.kind == "delete":
            return Outcome("unchanged")
        return Outcome("created", _apply(change.table.defaults, change, change.fields, change.edited_at), ())
    different = _changed_fields(change, stored.row)
    if not different:
        return Outcome("unchanged")
    since = missed()
    if since is None or since is UNCHECKED or (not since.changed and _is_informed(different, since)):
        return _accept(change, stored, different, since)
    return _resolve_conflict(change, stored, different, since.whole, strategy)


def _accept(change: Change, stored: StoredRow, different: Row, since: MissedEdits | None) -> Outcome:
    """Accept a change that missed nothing, states no base, or whose device has most likely seen what it replaces."""
    row = _apply(stored.row, change, different, stored.edited_at)
    status: Status = "deleted" if change.kind == "delete" else "updated"
    if since is UNCHECKED:
        lost_edits = _lost_to_deletion(change, stored, row, different, since)
        return Outcome("conflict" if lost_edits else status, row, tuple(different), lost_edits or None)
    replaced = None
    if since is not None:
        lost = {name: value for name, value in different.items() if name in since.perhaps} | _reverted_by_deletion(
            change, row, since
        )
        kept = {name for name in lost.keys() - EDIT_FIELDS if stored.row.get(name) is not None}
        replaced = {name: _field_conflict(since, name, lost[name], stored, "client") for name in lost if name in kept}
    return Outcome(status, row, tuple(different), replaced=replaced or None)


def _is_informed(different: Row, since: MissedEdits) -> bool:
    """Tell whether a device has most likely seen what it was sent: not if it edits one field and repeats an older value
    in another."""
    own = different.keys() - EDIT_FIELDS
    repeated = {name for name in own if any(same(different[name], one) for one in since.before.get(name, ()))}
    return not repeated or repeated == own


def decide_recreation(
    change: Change, stored: StoredRow, since: MissedEdits | None, strategy: Strategy = "merge"
) -> Outcome:
    """Decide a create of a deleted row. If it missed nothing, the row comes back with only the values of the create.

    If it missed something (``since``), it is decided like any change.
    """
    assert change.table is not None
    outcome = decide(change, stored, lambda: since, strategy) if since else Outcome("updated")
    if since and (outcome.row is None or outcome.row["is_deleted"]):
        return outcome
    lost = {name for name, one in (outcome.conflicts or {}).items() if one["winner"] == "server"}
    fields = {name: stored.row.get(name) if name in lost else value for name, value in change.fields.items()}
    row = _apply({**change.table.defaults, **fields, "is_deleted": 0}, change, {}, 0)
    return outcome._replace(row=row, fields=changed_fields(stored.row, row))


def _changed_fields(change: Change, row: Row) -> Row:
    """Give the fields that the change would set to another value; a create of a deleted row also undeletes it."""
    different = {}
    for name, value in change.fields.items():
        stored = row.get(name)
        # As ``same``, which it calls only for what is nested: this is done for each field of each change.
        if type(stored) is not type(value) or (
            stored != value if type(value) in SCALAR_TYPES else not same(stored, value)
        ):
            different[name] = value
    if different and change.kind == "create" and row["is_deleted"] and "is_deleted" not in change.fields:
        different["is_deleted"] = 0
    return different


def _resolve_conflict(
    change: Change, stored: StoredRow, different: Row, since: MissedEdits, strategy: Strategy
) -> Outcome:
    """Merge a change that did not know the current row, and record each field in which one side loses an edit."""
    accepted: Row = {}
    edited: Row = {}
    conflicts: dict[str, FieldConflict] = {}
    for name, value in different.items():
        repeated = since.repeats(name, value)
        wins = _wins(name, change, stored, since, strategy, repeated)
        if wins:
            accepted[name] = value
        if not repeated:
            edited[name] = value
        if name not in EDIT_FIELDS and (name in since.changed if wins else not repeated):
            conflicts[name] = _field_conflict(since, name, value, stored, "client" if wins else "server")
    row = _apply(stored.row, change, accepted, stored.edited_at)
    conflicts |= _lost_to_deletion(change, stored, row, edited, since)
    if not accepted.keys() - EDIT_FIELDS:
        return Outcome("conflict" if conflicts else "unchanged", conflicts=conflicts or None)
    return Outcome("conflict" if conflicts else "merged", row, tuple(accepted), conflicts or None)


def _lost_to_deletion(
    change: Change, stored: StoredRow, row: Row, edits: Row, since: MissedEdits
) -> dict[str, FieldConflict]:
    """Record the edits that a deletion overrides, so that they can be restored: other devices' edits that the deletion did
    not know, or ``edits`` of a row that another device had deleted."""
    if not row["is_deleted"] or (change.kind == "delete") is bool(stored.row["is_deleted"]):
        return {}
    if change.kind == "delete":
        lost = _reverted_by_deletion(change, row, since)
        deletion = FieldConflict(base=0, client=1, server=0, winner="client")
    else:
        lost = {name: value for name, value in edits.items() if name not in EDIT_FIELDS}
        deletion = FieldConflict(base=0, client=0, server=1, winner="server")
        if since is not UNCHECKED and "is_deleted" not in since.changed:
            return {}
    conflicts = {name: _field_conflict(since, name, value, stored, deletion["winner"]) for name, value in lost.items()}
    return conflicts and {**conflicts, "is_deleted": deletion}


def _reverted_by_deletion(change: Change, row: Row, since: MissedEdits) -> Row:
    """Give the fields that others edited before a deletion, with the values that the deletion's device had."""
    if change.kind != "delete" or not row["is_deleted"]:
        return {}
    assert change.table is not None
    base = {**change.table.defaults, **(since.base or {})}
    edited = [name for name in {**since.changed, **since.perhaps} if name not in EDIT_FIELDS | change.fields.keys()]
    return {name: base.get(name) for name in edited if not same(base.get(name), row.get(name))}


def _field_conflict(
    since: MissedEdits, name: str, value: Any, stored: StoredRow, winner: Literal["client", "server"]
) -> FieldConflict:
    before = since.before.get(name) or [None]
    base = since.base[name] if since.base and name in since.base else before[-1]
    return FieldConflict(base=base, client=value, server=stored.row.get(name), winner=winner)


def _wins(name: str, change: Change, stored: StoredRow, since: MissedEdits, strategy: Strategy, repeated: bool) -> bool:
    """Tell whether the device's value of a field wins.

    ``merge`` decides each field: a change of one side is kept, of two changes the later edit wins, and a value that the
    device only repeats is no change. The other strategies accept or reject the change as a whole.
    """
    if strategy == "merge":
        return not repeated and (name not in since.changed or change.edited_at >= since.changed[name])
    return strategy == "client-wins" or (strategy == "last-write-wins" and change.edited_at >= stored.edited_at)


def _apply(row: Row, change: Change, fields: Row, edited_before: int) -> Row:
    """Give the row with new fields; its ``last_updated`` is the later of this edit and ``edited_before``."""
    result = {**row, **fields}
    if "last_updated" not in change.fields:
        result["last_updated"] = format_time(max(change.edited_at, edited_before))
    return result
