"""The values of a push and a pull, as the rest of the server has them.

Knows: what a change, a push, a pull, a stored row and an outcome hold, and what a push became. Must not know: how a body
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


class Place(NamedTuple):
    """Where a tenant's order of commits stands."""

    epoch: str
    sequence: int
    clock: int
    purged_until: int = 0
    purged_at: int = 0
    restored_at: int = 0

    @property
    def cursor(self) -> str:
        """Write this place as clients hold it."""
        return str(Cursor(self.epoch, self.sequence))


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


PLAIN_TYPES = frozenset({str, int, bool, float, type(None)})


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same, without Python's ``1 == True == 1.0``."""
    if type(one) is not type(other):
        return False
    if type(one) in PLAIN_TYPES:
        return bool(one == other)
    if encode(one) == encode(other):
        return True
    if isinstance(one, dict):  # The same keys in another order?
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return len(one) == len(other) and all(map(same, one, other))


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
    speakers: set[str] = field(default_factory=set)
    """What its rows state as their ``device_id``, other than sent back."""
    may_delete: bool = False
    """Whether a row of it may have been deleted."""
    known_until: int = 0
    """A time from which on its device may pull next and misses nothing."""
    unknown_tables: Collection[str] = ()
    """Tables that the push names and this server does not sync."""
