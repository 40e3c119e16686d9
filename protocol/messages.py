"""The values of a push and a pull that the rest of the server works with.

Knows: what a change, a push, a pull, a stored row, an outcome and the result of a push hold. Must not know: how a body
says it (``push_parser``), what becomes of a change (``merge``), Flask, peewee, sockets, files, the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypedDict

from protocol.codec import Cursor, Row, encode
from protocol.errors import Detail
from protocol.seen_rows import NOBODY, Evidence


class Position(NamedTuple):
    """A position in a tenant's commit order."""

    epoch: str
    sequence: int
    clock: int
    purged_until: int = 0
    purged_at: int = 0
    restored_at: int = 0

    @property
    def cursor(self) -> str:
        """Give the position as the cursor that clients get."""
        return str(Cursor(self.epoch, self.sequence))


Kind = Literal["create", "update", "upsert", "delete"]
Strategy = Literal["merge", "last-write-wins", "server-wins", "client-wins"]
Status = Literal["created", "updated", "deleted", "unchanged", "merged", "conflict", "rejected"]

EDIT_FIELDS = frozenset({"last_updated", "device_id"})
"""Fields that describe an edit: they follow the later edit and are no conflict by themselves."""

SERVER_FIELDS = frozenset({"id", "sync_status", "version", "server_synced", "createdAt", "updatedAt"})
"""Fields of every row that the server sets; a device's values for them are ignored."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a synced table. ``check`` gives the value to store, or raises ValueError with what is wrong."""

    check: Callable[[Any], Any]
    default: Any = None
    unchecked_types: tuple[type, ...] = ()
    """Types whose values all pass ``check`` unchanged, which is true of most fields of most rows."""
    msgspec_type: Any = None
    """A type by which msgspec accepts some of what ``check`` accepts, with the same result; None if there is none."""


@dataclass(frozen=True, eq=False)
class Table:
    """A synced table: its name and the columns that devices may write. Equal to itself alone."""

    name: str
    columns: Mapping[str, Column]
    required: Sequence[str] = ()
    """Columns that every row has until it is deleted, and that no device may clear."""

    @cached_property
    def defaults(self) -> Row:
        """The values of the columns that the device of a new row leaves out."""
        return {name: column.default for name, column in self.columns.items()}

    @cached_property
    def unchecked_types(self) -> Mapping[str, tuple[type, ...]]:
        """By column, the types whose values need no check."""
        return {name: column.unchecked_types for name, column in self.columns.items() if column.unchecked_types}


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one push or pull."""

    push_rows: int
    pull_rows: int
    row_bytes: int
    name_characters: int


@dataclass(slots=True)
class Change:
    """One change of a push, checked as far as possible without the stored row.

    ``path`` is where it is in the body. ``edited_at`` is in milliseconds and never in the future; ``is_timed`` says that
    the device stated it, otherwise it is the time of arrival. ``is_base_stated`` says that ``base_version`` was stated,
    not inferred from the row's version, which a device may have counted up by itself; ``is_counted`` says that the row
    has such a version. ``problems`` says why the change can't be accepted; then ``table`` may be None and
    ``unknown_table`` the name that was given. ``required_errors`` has, by required column, the error if the change
    creates a row without it. ``local_id`` is the device's own number for a row that has no id yet.
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
    required_errors: Mapping[str, Detail] | None = None
    unknown_table: str | None = None

    def missing_required(self, row: Row, stored: StoredRow | None) -> list[Detail]:
        """Give the errors for required columns that a created or undeleted row lacks; none for an existing row."""
        if self.required_errors is None or row["is_deleted"] or (stored is not None and not stored.row["is_deleted"]):
            return []
        return [detail for name, detail in self.required_errors.items() if row.get(name) is None]


@dataclass(slots=True)
class Push:
    """A parsed push. ``base`` is the cursor up to which its device had seen everything, if it stated one.

    ``changes`` can be read once, since they are parsed while they are read; ``count`` is their number. ``tables`` are the
    synced tables that were read so far, ``unknown_tables`` the others, each with its error. A ``TypedRow`` among the
    changes gives its ``Change`` on request.
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
        """Tell whether tables that are not synced fail the whole push: if it states ``atomic``, or has no other rows."""
        return self.atomic and bool(self.unknown_tables) and (self.is_atomic_stated or not self.tables)


def unknown_table(name: str) -> dict[str, str]:
    """Give the error for a table that is not synced here."""
    sentence = f"{name} is not a synced table of this server: nothing of it is stored or sent. Other tables go on."
    return {"code": "unknown_table", "error": sentence}


def unknown_table_errors(names: Collection[str]) -> dict[str, Any]:
    """Give the ``errors`` of an answer for the tables that are not synced; nothing if there are none."""
    return {"errors": {name: unknown_table(name) for name in names}} if names else {}


@dataclass(slots=True)
class Pull:
    """A parsed pull; ``since`` is a cursor, a time in milliseconds, or None for a first pull."""

    tables: Sequence[str]
    since: Cursor | int | None
    limit: int | None
    """The greatest number of rows in the answer; None for all of them, in the forms with a time."""
    digest: bool = False
    is_local: bool = False
    """``since`` is a time without a zone: it may be a device's local time, ahead of UTC."""
    unknown_tables: Sequence[str] = ()
    with_deleted: bool = False
    """A first pull wants the tombstones that are held, too."""


class StoredRow(NamedTuple):
    """An existing row, and the change that made it."""

    row: Row
    version: int
    sequence: int
    edited_at: int
    device_id: str | None = None


class MissedEdits(NamedTuple):
    """The edits of a row that a device missed: those of others since the version that it knew.

    ``changed`` maps each field to the time of its latest edit; ``perhaps`` does so for edits that the device was sent and
    has most likely seen. ``base`` is the row as the device knew it, with its own edits since, or None if that version is
    no longer stored: then the device may have changed each field. ``before`` has the values that others replaced and that
    the device may still have.
    """

    changed: Mapping[str, int]
    base: Row | None
    perhaps: Mapping[str, int] = {}
    before: Mapping[str, Sequence[Any]] = {}

    @property
    def whole(self) -> MissedEdits:
        """Give the same, with the edits that the device has perhaps seen counted as missed."""
        both = self.perhaps.keys() | self.changed.keys()
        changed = {name: max(self.changed.get(name, 0), self.perhaps.get(name, 0)) for name in both}
        return self._replace(changed=changed, perhaps={})

    def repeats(self, name: str, value: Any) -> bool:
        """Tell whether a value is what the device had in the field, or one that others have replaced."""
        is_base = self.base is not None and same(self.base.get(name), value)
        return is_base or any(same(value, before) for before in self.before.get(name, ()))


UNCHECKED = MissedEdits({}, None)
"""For a change that states no base: it is accepted, unless it edits a row that another device deleted."""


class FieldConflict(TypedDict):
    """The values of one field in a conflict: before both edits, of the device, of the server; and whose the row has."""

    base: Any
    client: Any
    server: Any
    winner: Literal["client", "server"]


class Outcome(NamedTuple):
    """What becomes of one change; ``row`` is None if nothing is to be written.

    ``replaced`` has others' edits that the change replaced and that its device has most likely seen; they are recorded in
    case it had not.
    """

    status: Status
    row: Row | None = None
    fields: Sequence[str] = ()
    conflicts: Mapping[str, FieldConflict] | None = None
    replaced: Mapping[str, FieldConflict] | None = None


SCALAR_TYPES = frozenset({str, int, bool, float, type(None)})


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same, without Python's ``1 == True == 1.0``."""
    if type(one) is not type(other):
        return False
    if type(one) in SCALAR_TYPES:
        return bool(one == other)
    if encode(one) == encode(other):
        return True
    if isinstance(one, dict):  # The same keys in another order?
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return len(one) == len(other) and all(map(same, one, other))


def changed_fields(before: Row, after: Row) -> list[str]:
    """Name the fields that devices write in which two states of a row differ; one that is not there is as one that is
    null."""
    names = (name for name in {**before, **after} if name not in SERVER_FIELDS)
    return [name for name in names if not same(before.get(name), after.get(name))]


@dataclass(slots=True)
class PushResult:
    """The result of a push. ``rows`` and ``results`` are as long as its changes; ``rows`` has JSON or None."""

    before: Position
    after: Position
    rows: list[bytes | None] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    replayed_conflicts: list[dict[str, Any]] = field(default_factory=list)
    """Those of operations that were applied before: the device may never have got that answer."""
    touched: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By table, the id and JSON of each row that changed, in the order of their first change."""
    row_device_ids: set[str] = field(default_factory=set)
    """The values of ``device_id`` in its rows, without those that were only sent back."""
    may_delete: bool = False
    """Whether it may have deleted a row."""
    has_seen_all: bool = True
    """Whether its device is known to have seen all of each row that it changed."""
    known_until: int = 0
    """A time from which its device may pull next without missing anything."""
    unknown_tables: Collection[str] = ()
    """Tables that the push names and this server does not sync."""
