"""The rules of a push, without I/O: what becomes of a change.

Knows: the words that push and pull are spoken in, and how a change meets the row as it stands and what others did to it.
Must not know: how a body says it (``parser``), Flask, peewee, sockets, files, the clock (it is passed in). Foreseen
outcomes are values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypedDict

from protocol.codec import Cursor, Row, encode, format_time
from protocol.errors import Detail
from protocol.seen_rows import NOBODY, Evidence

Kind = Literal["create", "update", "upsert", "delete"]
Strategy = Literal["merge", "last-write-wins", "server-wins", "client-wins"]
Status = Literal["created", "updated", "deleted", "unchanged", "merged", "conflict", "rejected"]

EDIT_FIELDS = frozenset({"last_updated", "device_id"})
"""Fields that describe the edit: they follow the later one and are no conflict by themselves."""


SERVER_FIELDS = frozenset({"id", "sync_status", "version", "server_synced", "createdAt", "updatedAt"})
"""Fields of every row that the server sets; what a device sends for them is no change."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a synced table: ``check`` gives the value to store or raises ValueError with what is wrong."""

    check: Callable[[Any], Any]
    default: Any = None
    plain: tuple[type, ...] = ()
    """The types of which any value passes ``check`` as it is: most fields of most rows."""
    typed: Any = None
    """A type by which msgspec takes some of what ``check`` takes, with the same value; None if there is none."""


@dataclass(frozen=True, eq=False)
class Table:
    """A synced table as the rules see it: its name and the columns that devices may write. Equal to itself alone."""

    name: str
    columns: Mapping[str, Column]
    required: Sequence[str] = ()
    """Columns that a row that is not deleted always has, and that no device may clear."""

    @cached_property
    def defaults(self) -> Row:
        """What a new row has in the columns that its device leaves out."""
        return {name: column.default for name, column in self.columns.items()}

    @cached_property
    def plain(self) -> Mapping[str, tuple[type, ...]]:
        """The columns with the types of which their values need no check."""
        return {name: column.plain for name, column in self.columns.items() if column.plain}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one push or pull may ask for."""

    push_rows: int
    pull_rows: int
    row_bytes: int
    name_characters: int


@dataclass(slots=True)
class Change:
    """One change that a device asks for, checked as far as possible without the stored row.

    ``path`` is its place in the body, ``edited_at`` in milliseconds and never in the future; ``is_timed`` tells a time that
    was said from that of the arrival. ``is_base_stated`` tells a ``base_version`` that was stated from one inferred from
    the row's own version, which a device may have counted up by itself; ``is_counted`` tells that a create has such a
    version, which says nothing of what the device had. ``problems`` says why it cannot be taken at all;
    then ``table`` may be None, and ``unknown_table`` the name that was said for it. ``lacking`` says by column what is
    wrong if it makes a row that has none of it yet. ``local_id`` is the number that its device has for a row without names.
    """

    path: str
    table: Table | None
    kind: Kind = "upsert"
    row_id: str | None = None
    unique_id: str | None = None
    fields: Row = field(default_factory=dict)
    local_id: int | float | None = None
    edited_at: int = 0
    is_timed: bool = False
    base_version: int | None = None
    is_base_stated: bool = False
    is_counted: bool = False
    op_id: str | None = None
    problems: list[Detail] = field(default_factory=list)
    lacking: Mapping[str, Detail] | None = None
    unknown_table: str | None = None

    def lacks(self, row: Row, stored: Stored | None) -> list[Detail]:
        """Say what a row lacks that this change makes or brings back; a row that stands is not asked."""
        if self.lacking is None or row["is_deleted"] or (stored is not None and not stored.row["is_deleted"]):
            return []
        return [detail for name, detail in self.lacking.items() if row.get(name) is None]


@dataclass(slots=True)
class Push:
    """A push as parsed; ``base`` is the place up to which its device had seen everything, if it said so.

    ``changes`` can be read once, since they are checked while they are read; ``count`` tells how many they are, and
    ``tables`` which they are of, as far as they were read, and ``unknown_tables`` which others they name, each with what is
    wrong there. A ``NewRow`` among them becomes a change if it is asked to.
    """

    changes: Iterator[Any]
    count: int
    tables: Set[str]
    atomic: bool = True
    base: Cursor | None = None
    device_id: str | None = None
    unknown_tables: Mapping[str, Detail] = field(default_factory=dict)
    is_atomic_stated: bool = False
    evidence: Evidence = NOBODY

    @property
    def fails_for_unknown_tables(self) -> bool:
        """Tell whether tables that are not synced cost the whole push: not others' rows, unless that was asked for."""
        return self.atomic and bool(self.unknown_tables) and (self.is_atomic_stated or not self.tables)


def unknown_table(name: str) -> dict[str, str]:
    """Answer for a table that is not synced here."""
    sentence = f"{name} is not a synced table of this server: nothing of it is stored or sent. Other tables go on."
    return {"code": "unknown_table", "error": sentence}


@dataclass(slots=True)
class Pull:
    """A pull as parsed; ``since`` is a cursor, a time in milliseconds or None for a first pull."""

    tables: Sequence[str]
    since: Cursor | int | None
    limit: int | None
    """Rows in the answer; None for all of them, as the forms with a time have it."""
    digest: bool = False
    is_local: bool = False
    """``since`` is a time that named no zone: it may be a device's local one, ahead of UTC."""
    unknown_tables: Sequence[str] = ()


class Stored(NamedTuple):
    """A row as it stands, and where it came from."""

    row: Row
    version: int
    sequence: int
    edited_at: int
    device_id: str | None = None


class Since(NamedTuple):
    """What others did to a row since the version a device knew.

    ``changed`` maps each field to the time of its latest edit, ``perhaps`` those of edits that the device was sent and has
    most likely seen. ``base`` is the row as the device knew it, with what it said of it since, or None if that version is
    not held: then each field may have been changed by the device. ``before`` has the values that others replaced and that
    it may still have.
    """

    changed: Mapping[str, int]
    base: Row | None
    perhaps: Mapping[str, int] = {}
    before: Mapping[str, Sequence[Any]] = {}

    @property
    def whole(self) -> Since:
        """Give the same, with what the device has perhaps seen among what it missed."""
        both = self.perhaps.keys() | self.changed.keys()
        changed = {name: max(self.changed.get(name, 0), self.perhaps.get(name, 0)) for name in both}
        return self._replace(changed=changed, perhaps={})

    def repeats(self, name: str, value: Any) -> bool:
        """Tell whether a value is what the field was for the device, or may have been before others edited it."""
        is_base = self.base is not None and same(self.base.get(name), value)
        return is_base or any(same(value, before) for before in self.before.get(name, ()))


UNCHECKED = Since({}, None)
"""Of a change that states no base: it is not checked, but an edit may meet a row that another device deleted."""


class FieldConflict(TypedDict):
    base: Any
    client: Any
    server: Any
    winner: Literal["client", "server"]


class Outcome(NamedTuple):
    """What becomes of one change: ``row`` is None if nothing is to be written.

    ``replaced`` is what the change replaced of others' edits that its device has most likely seen: kept in case it did not.
    """

    status: Status
    row: Row | None = None
    fields: Sequence[str] = ()
    conflicts: Mapping[str, FieldConflict] | None = None
    replaced: Mapping[str, FieldConflict] | None = None


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
        if type(stored) is not type(value) or (stored != value if type(value) in _PLAIN else not same(stored, value)):
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


_PLAIN = frozenset({str, int, bool, float, type(None)})


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same, without Python's ``1 == True == 1.0``."""
    if type(one) is not type(other):
        return False
    if type(one) in _PLAIN:
        return bool(one == other)
    if encode(one) == encode(other):
        return True
    if isinstance(one, dict):  # The same keys in another order?
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return len(one) == len(other) and all(map(same, one, other))
