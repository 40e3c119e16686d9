"""The types by which msgspec decodes, checks and fills in a whole row of a table at once, for the fast path.

Knows: how the columns of a table become such types, and how a decoded row is compared and stored. Must not know: which
rows a push has (``row_decoder``), stored rows, Flask, peewee, sockets, files, the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from operator import attrgetter, ne
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType
from msgspec.structs import astuple

from protocol.codec import MAX_DEPTH, decode_any, encode
from protocol.messages import Column, Table, same

FLAG = Literal[0, 1] | bool
WHOLE = Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)]
"""msgspec refuses wider bounds when the decoder is made, so that each push to the table would fail."""
NUMBER = Annotated[float, Meta(gt=-(2**53), lt=2**53)]
"""Beyond these bounds msgspec would round a whole number that no float holds."""
CHECKED = Annotated[str, Meta(title="checked")]
"""Text that the column's own check must see too."""

NULL = Raw(b"null")
_LEVELS = MAX_DEPTH - 4
"""Levels that the value of a field may have: the row, its list, its table and the body are around it."""

_SET_LAST = ("sync_status", "version", "server_synced", "createdAt", "updatedAt")
SET_BY_SERVER = frozenset({"id", *_SET_LAST})
_OF_ONE_TYPE = (str, CHECKED, Any)
_SCALAR = str | int | float | bool | None
_Field = tuple[str, Any, Any]
"""Attribute, type and default of a field."""


@dataclass(frozen=True, slots=True, eq=False)
class RowType:
    """How msgspec decodes the rows of a table that have the table's columns and these ``unknown`` fields, or some of them.

    Three decoders give rows with the same attributes in the same order: of a new row; of an edit, where ``UNSET`` stands
    for what it does not say; and of an existing row, as it was stored. JSON of any shape is kept as bytes. Equal to itself
    alone.
    """

    table: str
    decode_new: Callable[[Raw], Any]
    decode_edit: Callable[[Raw], Any]
    decode_existing: Callable[[str], Any]
    unknown: tuple[str, ...]
    columns: tuple[str, ...]
    """Those in which a row is stored, in the order of ``stored``."""
    names: Mapping[str, str]
    """The names of the fields that a device may write, by their attributes."""
    attributes: tuple[str, ...]
    """In their order: the id, what a device may write, of that the unknown fields last; behind them is what we set."""
    numbers: tuple[int, ...]
    """Which of ``attributes`` may have equal values of different types, such as 1 and true."""
    unknown_fields: type[msgspec.Struct]
    """Holds the values of the unknown fields alone."""
    flags: tuple[str, ...]
    flags_of: Callable[[Any], tuple[Any, ...]]
    json_columns: tuple[str, ...]
    json_attributes: tuple[str, ...]
    """``json_columns`` and the unknown fields."""
    json_of: Callable[[Any], tuple[Any, ...]]
    checked: tuple[tuple[str, Callable[[Any], Any]], ...]
    required: Sequence[str]

    def difference(self, edit: Any, existing: Any) -> dict[str, Any]:
        """Give by attribute the values of an edit that differ from the existing row's, as they are stored.

        Raises: ValueError, or an error of msgspec's, for JSON that can't be read or may be nested too deeply.
        """
        sent, was = astuple(edit), astuple(existing)
        unequal = compress(range(len(self.attributes)), map(ne, sent, was))  # Python looks at no others.
        places = [at for at in unequal if at and sent[at] is not UNSET and not _same(sent[at], was[at])]
        if odd := [at for at in self.numbers if type(sent[at]) is not type(was[at]) and sent[at] == was[at]]:
            places = sorted(places + odd)
        return {
            self.attributes[at]: as_stored(decode_any(value)) if type(value := sent[at]) is Raw else value
            for at in places
        }

    def fields_of(self, edit: Any) -> dict[str, Any]:
        """Give the fields of an edit by name, as the general path has them."""
        found = zip(self.names.values(), astuple(edit)[1:])  # noqa: B905 - the server's own fields come after.
        return {name: decode_any(value) if type(value) is Raw else value for name, value in found if value is not UNSET}

    def stored(self, row: Any, sequence: int) -> tuple[Any, ...]:
        """Give a row as the values of ``columns``. Its JSON must have been made before."""
        for name in self.json_columns:
            if (value := getattr(row, name)) is not None:
                setattr(row, name, _text(value))
        values = astuple(row)
        if not self.unknown:
            return (*values, sequence)
        after = len(self.attributes)
        first = after - len(self.unknown)
        return (*values[:first], *values[after:], sequence, self._extra(values[first:after]))

    def _extra(self, values: Iterable[Any]) -> str | None:
        """Give the values of the unknown fields as the one column that has them all."""
        unknown = encode(self.unknown_fields(*values))
        return None if unknown == b"{}" else unknown.decode()

    def edited(self, row: Any, names: Iterable[str]) -> dict[str, Any]:
        """Give by column what an edit of these attributes changed in an existing row, which has it already."""
        values = {"last_updated": row.last_updated, "version": row.version, "updatedAt": row.updatedAt}
        for name in names:
            value = getattr(row, name)
            if self.names[name] != name:
                after = len(self.attributes)
                values["_extra"] = self._extra(astuple(row)[after - len(self.unknown) : after])
            else:
                values[name] = _text(value) if type(value) is Raw else value
        return values


def _same(value: Any, before: Any) -> bool:
    """Tell whether two JSON texts that differ as bytes say the same."""
    return type(value) is Raw is type(before) and same(decode_any(value), decode_any(before))


def as_stored(value: Any) -> Raw:
    """Give JSON of any shape as bytes.

    Raises: ValueError if it may be nested too deeply.
    """
    text = encode(value)
    if len(text) > _LEVELS and text.count(b"[") + text.count(b"{") > _LEVELS:
        raise ValueError("perhaps too deep")
    return Raw(text)


def _text(value: Any) -> str | None:
    """Give JSON as its column stores it."""
    if type(value) is not Raw:
        return encode(value).decode()
    return None if value == NULL else str(value, "utf-8")


@lru_cache(maxsize=64)
def row_type_of(table: Table, unknown: tuple[str, ...] = ()) -> RowType:
    """Make the types of a table's rows. What a device sends for the server's own fields is accepted and not kept."""
    types = {name: column.msgspec_type for name, column in table.columns.items()}
    names_of_unknown = {f"_unknown{number}": name for number, name in enumerate(unknown)}
    json_columns = tuple(name for name, kind in types.items() if kind is Any)
    names = {name: name for name in types} | names_of_unknown
    flags = tuple(name for name, kind in types.items() if kind is FLAG)
    return RowType(
        table=table.name,
        decode_new=_decoder(_sent_fields(table, names_of_unknown, is_new=True), names_of_unknown),
        decode_edit=_decoder(_sent_fields(table, names_of_unknown, is_new=False), names_of_unknown),
        decode_existing=_decoder(_stored_fields(table, names_of_unknown), names_of_unknown),
        unknown=unknown,
        columns=("id", *types, *_SET_LAST, "_seq", *(["_extra"] if unknown else [])),
        names=names,
        attributes=("id", *names),
        numbers=tuple(at for at, kind in enumerate(types.values(), 1) if kind not in _OF_ONE_TYPE),
        unknown_fields=_struct([(name, Any, UNSET) for name in names_of_unknown], names_of_unknown, kw_only=False),
        flags=flags,
        flags_of=_getter(flags),
        json_columns=json_columns,
        json_attributes=(*json_columns, *names_of_unknown),
        json_of=_getter([*json_columns, *names_of_unknown]),
        checked=tuple((name, table.columns[name].check) for name, kind in types.items() if kind is CHECKED),
        required=table.required,
    )


def _sent_fields(table: Table, unknown: Iterable[str], is_new: bool) -> list[_Field]:
    """Describe the fields that a device may send."""
    columns = [_sent_column(name, column, is_new) for name, column in table.columns.items()]
    server: list[_Field] = [(name, _SCALAR, None) for name in _SET_LAST]
    return [("id", _SCALAR, None), *columns, *((name, Any if is_new else Raw, UNSET) for name in unknown), *server]


def _sent_column(name: str, column: Column, is_new: bool) -> _Field:
    kind = column.msgspec_type
    if is_new:
        return name, kind | UnsetType | None, _new_value(name, kind, column.default)
    return name, Raw if kind is Any else kind | UnsetType | None, UNSET


def _new_value(name: str, kind: Any, default: Any) -> Any:
    """Give what a new row has in a column that its device leaves out."""
    if kind is Any and default is not None:
        return Raw(encode(default))
    return UNSET if name == "last_updated" else default


def _stored_fields(table: Table, unknown: Iterable[str]) -> list[_Field]:
    """Describe the fields of a row as it was stored."""
    columns = [
        (name, Raw if column.msgspec_type is Any else Any, msgspec.NODEFAULT) for name, column in table.columns.items()
    ]
    server = [(name, Any, msgspec.NODEFAULT) for name in _SET_LAST]
    return [("id", Any, msgspec.NODEFAULT), *columns, *((name, Raw, UNSET) for name in unknown), *server]


def _decoder(fields: Iterable[_Field], names: Mapping[str, str]) -> Any:
    """Make a decoder of rows with these fields; ``names`` are those on the wire that differ from the attributes."""
    return msgspec.json.Decoder(_struct(fields, names)).decode


def _struct(fields: Iterable[_Field], names: Mapping[str, str], *, kw_only: bool = True) -> type[msgspec.Struct]:
    named = [(name, kind, msgspec.field(default=default, name=names.get(name))) for name, kind, default in fields]
    return msgspec.defstruct("Row", named, forbid_unknown_fields=True, kw_only=kw_only, gc=False)


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Read several attributes at once, also none or one."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda row: tuple(getattr(row, name) for name in names)
