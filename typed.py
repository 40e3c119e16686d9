"""Whole rows of a push, decoded straight into checked values: the short way for rows that are new.

Knows: how the columns of a table make a type by which msgspec decodes, checks and fills in a row at once. Must not know:
stored rows, Flask, peewee, sockets, files, the clock. A row that its type does not take goes the long way (``parsing``,
``protocol``), which knows more forms and says what is wrong. Both ways make the same row, byte for byte, of what both take:
``tests/test_typed.py`` holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from protocol import Change, Table
from wire import MAX_DEPTH, deeper_than, encode, format_time

FLAG = Literal[0, 1] | bool
WHOLE = Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)]
NUMBER = Annotated[float, Meta(gt=-1e308, lt=1e308)]
CHECKED = Annotated[str, Meta(title="checked")]
"""Text of a form that the column's own check knows."""

_SCALAR = str | int | float | bool | None
_LEVELS = MAX_DEPTH - 4
"""Levels that the value of a field may have: the row, its list, its table and the body are around it."""


@dataclass(frozen=True, slots=True)
class Form:
    """What is made of a table once. ``names`` are the fields of a row in the order in which they are sent."""

    decode: Callable[[Raw], Any]
    names: tuple[str, ...]
    flags: tuple[str, ...]
    open: tuple[str, ...]
    """Columns that take any JSON."""
    checked: tuple[tuple[str, Callable[[Any], Any]], ...]
    required: Sequence[str]


@cache
def form_of(table: Table) -> Form:
    """Make the type of a table's rows; what a device sends for the server's own fields is let through, and not kept."""
    columns = table.columns
    own = [(name, column.typed | UnsetType | None, _default(name, column.default)) for name, column in columns.items()]
    after = [(name, _SCALAR, None) for name in ("sync_status", "version", "server_synced", "createdAt", "updatedAt")]
    fields = [("id", _SCALAR, None), *own, *after]
    made = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
    kinds = {name: column.typed for name, column in columns.items()}
    return Form(
        msgspec.json.Decoder(made).decode,
        tuple(name for name, *_ in fields),
        tuple(name for name, kind in kinds.items() if kind is FLAG),
        tuple(name for name, kind in kinds.items() if kind is Any),
        tuple((name, columns[name].check) for name, kind in kinds.items() if kind is CHECKED),
        table.required,
    )


def _default(name: str, default: Any) -> Any:
    """Give what a new row has; when it was last edited is not known before its time has come."""
    if isinstance(default, dict | list):
        return msgspec.field(default_factory=lambda: default)  # Nobody changes it.
    return UNSET if name == "last_updated" else default


def read(table: Table, raw: Raw) -> Any:
    """Decode a row if its type takes it, else give None."""
    form = form_of(table)
    try:
        row = form.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    for name in form.flags:
        if type(value := getattr(row, name)) is bool:
            setattr(row, name, int(value))
    for name in form.open:
        if type(value := getattr(row, name)) in (dict, list) and deeper_than(value, _LEVELS):
            return None
    return None if (form.checked or form.required) and not _is_good(row, form) else row


def _is_good(row: Any, form: Form) -> bool:
    """Tell whether a row has what its type alone can't ask for."""
    try:
        for name, check in form.checked:
            if type(value := getattr(row, name)) is str:
                check(value)
    except ValueError:
        return False
    return all(getattr(row, name) is not None for name in form.required)


@dataclass(slots=True)
class NewRow:
    """A row of a push that can be stored as it is if there is no such row yet; ``change`` reads it the long way."""

    path: str
    table: Table
    row: Any
    row_id: str | None
    edited_at: int
    change: Callable[[], Change]

    def complete(self, row_id: str, time: str) -> bytes:
        """Set what the server sets, and give the row's JSON."""
        row = self.row
        row.id, row.sync_status, row.version, row.server_synced = row_id, "synced", 1, 1
        row.createdAt = row.updatedAt = time
        if row.last_updated is UNSET:
            row.last_updated = format_time(self.edited_at)
        return encode(row)

    def stored(self, sequence: int) -> tuple[Any, ...]:
        """Lay the completed row out as the values of ``_seq`` and the form's ``names``, after its JSON was made."""
        row = self.row
        for name in form_of(self.table).open:
            if (value := getattr(row, name)) is not None:
                setattr(row, name, encode(value).decode())
        return (sequence, *msgspec.structs.astuple(row))
