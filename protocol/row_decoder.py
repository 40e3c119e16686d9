"""Whole rows of a push, decoded straight into checked values: the fast path (``push_fast_path``).

Knows: how the columns of a table make types by which msgspec decodes, checks and fills in a row at once. Must not know:
stored rows, Flask, peewee, sockets, files, the clock. A row that does not fit its type takes the general path (``parser``,
``merge``), which knows more forms and says what is wrong. Both paths make the same row of what both take:
``tests/storage/test_push_fast_path.py`` and ``tests/storage/test_fast_path_of_declared.py`` hold them to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from cachetools import LRUCache
from msgspec import UNSET, Meta, Raw, UnsetType

from protocol.codec import MAX_DEPTH, decode_any, decode_stored, encode, format_time, whole_number
from protocol.messages import Change, Kind, Table, same

FLAG = Literal[0, 1] | bool
WHOLE = Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)]
NUMBER = Annotated[float, Meta(gt=-(2**53), lt=2**53)]
"""Beyond, msgspec would make the next float of a whole number that no float is."""
CHECKED = Annotated[str, Meta(title="checked")]
"""Text of a form that the column's own check knows."""

_SCALAR = str | int | float | bool | None
_LEVELS = MAX_DEPTH - 4
"""Levels that the value of a field may have: the row, its list, its table and the body are around it."""

_NULL = Raw(b"null")
_SET_AFTER = ("sync_status", "version", "server_synced", "createdAt", "updatedAt")
_SET = frozenset({"id", *_SET_AFTER})
_CONTAINERS: frozenset[type] = frozenset({dict, list})
_ANY: frozenset[type] = frozenset({dict, list, str, int, float, bool, type(None)})
_MOST_UNKNOWN = 32
_LEARNT_AFTER_ROWS = 16
_MOST_MISSES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What is made of a table once, for rows that have ``unknown`` fields too, or some of them. Equal to itself alone.

    Three types with the same attributes decode a row: one that is ``new``, an ``edit``, whose attributes are ``UNSET``
    where it says nothing, and one that ``stood``, as it was stored. JSON of any shape is kept as bytes.
    """

    table: str
    new: Callable[[Raw], Any]
    edit: Callable[[Raw], Any]
    stood: Callable[[str], Any]
    unknown: tuple[str, ...]
    columns: tuple[str, ...]
    """Those in which a row is stored, in the order of ``stored``."""
    names: Mapping[str, str]
    """The names of what a device may write, by their attributes."""
    values_of: Callable[[Any], tuple[Any, ...]]
    own_of: Callable[[Any], tuple[Any, ...]]
    flags: tuple[str, ...]
    open: tuple[str, ...]
    """Attributes that take any JSON: ``open_columns`` and the unknown fields."""
    open_of: Callable[[Any], tuple[Any, ...]]
    open_columns: tuple[str, ...]
    checked: tuple[tuple[str, Callable[[Any], Any]], ...]
    required: Sequence[str]

    def difference(self, edit: Any, stood: Any) -> dict[str, Any]:
        """Give by attribute what an edit says otherwise than the row stands."""
        found = zip(self.names, self.own_of(edit), self.own_of(stood), strict=True)
        return {
            name: value
            for name, value, before in found
            if value is not UNSET and (value != before or type(value) is not type(before)) and not _same(value, before)
        }

    def said(self, edit: Any) -> dict[str, Any]:
        """Give by name what an edit says, as the general path has it."""
        found = zip(self.names.values(), self.own_of(edit), strict=True)
        return {name: decode_any(value) if type(value) is Raw else value for name, value in found if value is not UNSET}

    def unknown_of(self, row: Any) -> str | None:
        """Give as JSON what a row has beside its table's columns."""
        found = {name: getattr(row, f"_unknown{number}") for number, name in enumerate(self.unknown)}
        kept = {name: value for name, value in found.items() if value is not UNSET}
        return encode(kept).decode() if kept else None


def _same(value: Any, before: Any) -> bool:
    """Tell of JSON that is written in other words whether it says the same."""
    return type(value) is Raw is type(before) and same(decode_any(value), decode_any(before))


@lru_cache(maxsize=64)
def form_of(table: Table, unknown: tuple[str, ...] = ()) -> Form:
    """Make the types of a table's rows; what a device sends for the server's own fields is let through, and not kept."""
    columns = table.columns
    kinds = {name: column.typed for name, column in columns.items()}
    beside = {f"_unknown{number}": name for number, name in enumerate(unknown)}
    open_columns = tuple(name for name, kind in kinds.items() if kind is Any)
    order = ["id", *columns, *beside, *_SET_AFTER]
    stored = ("id", *columns, *_SET_AFTER)

    def decoder(kind: Callable[[str], Any], default: Callable[[str], Any]) -> Any:
        fields = [(name, kind(name), msgspec.field(default=default(name), name=beside.get(name))) for name in order]
        made = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, kw_only=True, gc=False)
        return msgspec.json.Decoder(made).decode

    def said(name: str) -> Any:
        return Any if name in beside else kinds[name] | UnsetType | None if name in columns else _SCALAR

    def unsaid(name: str) -> Any:
        return UNSET if name in columns or name in beside else None

    def at_first(name: str) -> Any:
        if name in open_columns:
            return Raw(encode(columns[name].default))
        return columns[name].default if name in columns and name != "last_updated" else unsaid(name)

    return Form(
        table.name,
        decoder(said, at_first),
        decoder(said, unsaid),
        decoder(
            lambda name: Raw if name in open_columns or name in beside else Any,
            lambda name: UNSET if name in beside else msgspec.NODEFAULT,
        ),
        unknown,
        ("_seq", *stored, *(["_extra"] if unknown else [])),
        {name: name for name in columns} | beside,
        attrgetter(*stored),
        _getter([*columns, *beside]),
        tuple(name for name, kind in kinds.items() if kind is FLAG),
        (*open_columns, *beside),
        _getter([*open_columns, *beside]),
        open_columns,
        tuple((name, columns[name].check) for name, kind in kinds.items() if kind is CHECKED),
        table.required,
    )


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Read several attributes at once, also none or one."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda row: tuple(getattr(row, name) for name in names)


_latest: dict[Table, Form] = {}
_met: LRUCache[tuple[Table, tuple[str, ...]], int] = LRUCache(256)
"""How many rows with these unknown fields were met."""


class Reader:
    """Reads the rows of one table in one push as what they probably are: new, or edits of rows that stand."""

    __slots__ = ("expects_new", "form", "kind", "misses", "table")

    def __init__(self, table: Table, kind: Kind = "upsert") -> None:
        self.table, self.kind, self.expects_new = table, kind, kind != "update"
        self.form = _latest.get(table) or form_of(table)
        self.misses = 0

    def read(self, raw: Raw) -> Any:
        """Decode a row if its type takes it, else give None."""
        form = self.form
        if self.misses >= _MOST_MISSES:
            return None
        try:
            row = (form.new if self.expects_new else form.edit)(raw)
            _shorten(row, form, _CONTAINERS if self.expects_new else _ANY)
            if form.checked or form.required:
                _check(row, form)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            return None
        return row

    def learn(self, names: Iterable[str]) -> None:
        """Note which fields a row has that took the general path: more of its kind may come."""
        unknown = tuple(name for name in names if name not in self.table.columns and name not in _SET)
        if len(unknown) > _MOST_UNKNOWN or set(unknown) <= set(self.form.unknown):
            return
        if any(name.startswith("_") for name in unknown):  # Our own columns begin so.
            return
        count = _met[self.table, unknown] = _met.get((self.table, unknown), 0) + 1
        if count >= _LEARNT_AFTER_ROWS:
            with contextlib.suppress(ValueError):  # msgspec takes no quotes and the like in a name.
                self.form = _latest[self.table] = form_of(self.table, unknown)


def _shorten(row: Any, form: Form, kept_as_bytes: Container[type]) -> None:
    """Bring the values of a decoded row into the form in which they are kept: those of any shape, if of these types, as
    bytes. An edit's are compared with what stands, which are all bytes.

    Raises: ValueError for what may be nested too deeply.
    """
    if row.is_deleted is None:
        row.is_deleted = 0
    for name in form.flags:
        if type(value := getattr(row, name)) is bool:
            setattr(row, name, int(value))
    for name, value in zip(form.open, form.open_of(row)):  # noqa: B905 - checking it costs as much as the loop.
        if type(value) in kept_as_bytes:
            text = encode(value)
            if text.count(b"[") + text.count(b"{") > _LEVELS:
                raise ValueError("perhaps too deep")
            setattr(row, name, Raw(text))


def _check(row: Any, form: Form) -> None:
    """Raises: ValueError for what a row's type alone can't refuse."""
    for name, check in form.checked:
        if type(value := getattr(row, name)) is str:
            check(value)
    if any(getattr(row, name) in (None, _NULL) for name in form.required):
        raise ValueError("required")


class TypedRow(msgspec.Struct, gc=False):
    """A row of a push that can be written as it is, if it is what it was read as; ``change`` is for the general path."""

    reader: Reader
    form: Form
    raw: Raw
    row: Any
    is_new: bool
    row_id: str | None
    edited_at: int
    index: int
    again: Callable[[int], Change]

    @property
    def table(self) -> Table:
        """Give the table that it is of."""
        return self.reader.table

    def change(self) -> Change:
        """Read the same by the general path."""
        return self.again(self.index)

    def read_otherwise(self) -> bool:
        """Read it as what its reader expects by now, and tell whether that is another thing that its type takes."""
        if self.is_new is self.reader.expects_new:
            return False
        self.form, self.is_new, self.row = self.reader.form, self.reader.expects_new, self.reader.read(self.raw)
        return self.row is not None

    @property
    def base_version(self) -> int | None:
        """Give the version that it was edited from, as a device tells it that counts by itself."""
        version = whole_number(self.row.version)
        return version - 1 if version is not None and version > 0 and self.reader.kind != "create" else None

    def complete(self, row_id: str, time: str) -> bytes:
        """Set what the server sets in a row that is new, and give its JSON."""
        row = self.row
        row.id, row.sync_status, row.version, row.server_synced = row_id, "synced", 1, 1
        row.createdAt = row.updatedAt = time
        if row.last_updated is UNSET:
            row.last_updated = format_time(self.edited_at)
        return encode(row)

    def stood(self, body: str) -> Any:
        """Decode the row as it was stored, if its type takes it, else give None."""
        try:
            return self.form.stood(body)
        except msgspec.MsgspecError:
            self.reader.learn(decode_stored(body))
            return None

    def merge(self, stood: Any, different: Mapping[str, Any], time: str, edited_at: int) -> bytes:
        """Write what is different into the row as it stood, and give its JSON; ``edited_at``: when it was edited then."""
        for name, value in different.items():
            setattr(stood, name, value)
        stood.version += 1
        stood.updatedAt = time
        if self.row.last_updated is UNSET:
            stood.last_updated = format_time(max(self.edited_at, edited_at))
        return encode(stood)


def _text(value: Any) -> str | None:
    """Give JSON as a column has it."""
    if type(value) is not Raw:
        return None if value is None else encode(value).decode()
    return None if value == _NULL else str(value, "utf-8")


def stored(form: Form, row: Any, sequence: int) -> tuple[Any, ...]:
    """Lay a row out as the values of the form's ``columns``, after its JSON was made."""
    for name in form.open_columns:
        value = getattr(row, name)
        setattr(row, name, _text(value))
    if form.unknown:
        return (sequence, *form.values_of(row), form.unknown_of(row))
    return (sequence, *form.values_of(row))
