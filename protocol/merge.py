"""The rules of a push, without I/O: what becomes of a change.

Knows: how a change meets the row as it stands and what others did to it.
Must not know: how a body says it (``push_parser``), Flask, peewee, sockets, files, the clock (it is passed in). Foreseen
outcomes are values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from protocol.codec import Row, format_time
from protocol.messages import (
    EDIT_FIELDS,
    PLAIN_TYPES,
    SERVER_FIELDS,
    UNCHECKED,
    Change,
    FieldConflict,
    Outcome,
    Since,
    Status,
    Stored,
    Strategy,
    same,
)


def decide(
    change: Change, stored: Stored | None, missed: Callable[[], Since | None], strategy: Strategy = "merge"
) -> Outcome:
    """Decide what becomes of a well-formed change, given the row as it stands.

    ``missed`` tells what its device did not know of the row, None if nothing; it is asked only if that matters. Only
    where something was missed, ``strategy`` counts.
    """
    assert change.table is not None
    if stored is None:
        if change.kind == "delete":
            return Outcome("unchanged")
        return Outcome("created", _edited(change.table.defaults, change, change.fields, change.edited_at), ())
    different = _different(change, stored.row)
    if not different:
        return Outcome("unchanged")
    since = missed()
    if since is None or since is UNCHECKED or (not since.changed and _is_informed(different, since)):
        return _take(change, stored, different, since)
    return _settle(change, stored, different, since.whole, strategy)


def _take(change: Change, stored: Stored, different: Row, since: Since | None) -> Outcome:
    """Take a change that missed nothing, or is not checked, or has most likely seen what it replaces."""
    row = _edited(stored.row, change, different, stored.edited_at)
    status: Status = "deleted" if change.kind == "delete" else "updated"
    if since is UNCHECKED:
        swallowed = _swallowed(change, stored, row, different, since)
        return Outcome("conflict" if swallowed else status, row, tuple(different), swallowed or None)
    replaced = None
    if since is not None:
        lost = {name: value for name, value in different.items() if name in since.perhaps} | _undone(change, row, since)
        held = {name for name in lost.keys() - EDIT_FIELDS if stored.row.get(name) is not None}
        replaced = {name: _sides(since, name, lost[name], stored, "client") for name in lost if name in held}
    return Outcome(status, row, tuple(different), replaced=replaced or None)


def _is_informed(different: Row, since: Since) -> bool:
    """Tell whether a device has most likely seen what it was sent: not if it edits one field and only repeats in another
    what that was before."""
    own = different.keys() - EDIT_FIELDS
    repeated = {name for name in own if any(same(different[name], one) for one in since.before.get(name, ()))}
    return not repeated or repeated == own


def decide_again(change: Change, stored: Stored, since: Since | None, strategy: Strategy = "merge") -> Outcome:
    """Decide a create of a deleted row: one that missed nothing (``since``) brings the row back, as what it says alone.

    One that missed something is settled as any change is.
    """
    assert change.table is not None
    settled = decide(change, stored, lambda: since, strategy) if since else Outcome("updated")
    if since and (settled.row is None or settled.row["is_deleted"]):
        return settled
    lost = {name for name, one in (settled.conflicts or {}).items() if one["winner"] == "server"}
    said = {name: stored.row.get(name) if name in lost else value for name, value in change.fields.items()}
    row = _edited({**change.table.defaults, **said, "is_deleted": 0}, change, {}, 0)
    names = (name for name in {**stored.row, **row} if name not in SERVER_FIELDS)
    return settled._replace(row=row, fields=[name for name in names if not same(stored.row.get(name), row.get(name))])


def _different(change: Change, row: Row) -> Row:
    """Give the fields that would change; a create of a deleted row asks for it to be back too."""
    different = {}
    for name, value in change.fields.items():
        stored = row.get(name)
        if type(stored) is not type(value) or (
            stored != value if type(value) in PLAIN_TYPES else not same(stored, value)
        ):
            different[name] = value
    if different and change.kind == "create" and row["is_deleted"] and "is_deleted" not in change.fields:
        different["is_deleted"] = 0
    return different


def _settle(change: Change, stored: Stored, different: Row, since: Since, strategy: Strategy) -> Outcome:
    """Settle a change that did not know the row as it stands, and note each field by which a side loses an edit."""
    taken: Row = {}
    typed: Row = {}
    conflicts: dict[str, FieldConflict] = {}
    for name, value in different.items():
        repeated = since.repeats(name, value)
        wins = _wins(name, change, stored, since, strategy, repeated)
        if wins:
            taken[name] = value
        if not repeated:
            typed[name] = value
        if name not in EDIT_FIELDS and (name in since.changed if wins else not repeated):
            conflicts[name] = _sides(since, name, value, stored, "client" if wins else "server")
    row = _edited(stored.row, change, taken, stored.edited_at)
    conflicts |= _swallowed(change, stored, row, typed, since)
    if not taken.keys() - EDIT_FIELDS:
        return Outcome("conflict" if conflicts else "unchanged", conflicts=conflicts or None)
    return Outcome("conflict" if conflicts else "merged", row, tuple(taken), conflicts or None)


def _swallowed(change: Change, stored: Stored, row: Row, typed: Row, since: Since) -> dict[str, FieldConflict]:
    """Note the edits that a deletion swallows, so that the losing side brings row and edits back: those of others that it
    did not know, or what was ``typed`` into a row that another had deleted."""
    if not row["is_deleted"] or (change.kind == "delete") is bool(stored.row["is_deleted"]):
        return {}
    if change.kind == "delete":
        lost = _undone(change, row, since)
        deletion = FieldConflict(base=0, client=1, server=0, winner="client")
    else:
        lost = {name: value for name, value in typed.items() if name not in EDIT_FIELDS}
        deletion = FieldConflict(base=0, client=0, server=1, winner="server")
        if since is not UNCHECKED and "is_deleted" not in since.changed:
            return {}
    sides = {name: _sides(since, name, value, stored, deletion["winner"]) for name, value in lost.items()}
    return sides and {**sides, "is_deleted": deletion}


def _undone(change: Change, row: Row, since: Since) -> Row:
    """Give what a deletion has in the fields that others edited: what was there before."""
    if change.kind != "delete" or not row["is_deleted"]:
        return {}
    assert change.table is not None
    base = {**change.table.defaults, **(since.base or {})}
    edited = [name for name in {**since.changed, **since.perhaps} if name not in EDIT_FIELDS | change.fields.keys()]
    return {name: base.get(name) for name in edited if not same(base.get(name), row.get(name))}


def _sides(since: Since, name: str, value: Any, stored: Stored, winner: Literal["client", "server"]) -> FieldConflict:
    before = since.before.get(name) or [None]
    base = since.base[name] if since.base and name in since.base else before[-1]
    return FieldConflict(base=base, client=value, server=stored.row.get(name), winner=winner)


def _wins(name: str, change: Change, stored: Stored, since: Since, strategy: Strategy, repeated: bool) -> bool:
    """Tell whether the device's value of a field is taken.

    ``merge`` looks at each field: one side's change is kept, both sides' goes to the later edit, and a value that the
    device only repeats is no change of it. The others take or refuse the change as a whole.
    """
    if strategy == "merge":
        return not repeated and (name not in since.changed or change.edited_at >= since.changed[name])
    return strategy == "client-wins" or (strategy == "last-write-wins" and change.edited_at >= stored.edited_at)


def _edited(row: Row, change: Change, fields: Row, before: int) -> Row:
    """Give the row with its new fields; when it was last edited is the later of this edit and the one ``before``."""
    edited = {**row, **fields}
    if "last_updated" not in change.fields:
        edited["last_updated"] = format_time(max(change.edited_at, before))
    return edited
