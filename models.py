"""The synced tables, and how a model is bound to a database.

Knows: columns and what each takes. Must not know: Flask, sockets, which engine or file: ``database`` stands for the one
that the running code is bound to (see ``storage``).

A new synced table is one subclass of ``SyncedRow`` here: push, pull, provisioning, migration and checks find it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, Literal

from peewee import (
    BooleanField,
    DatabaseProxy,
    Field,
    FloatField,
    IntegerField,
    JSONField,
    Model,
    TextField,
)

from protocol import Column, Table
from typed import FLAG, NUMBER, WHOLE
from wire import Row, encode

database = DatabaseProxy()

bound: ContextVar[Any] = ContextVar("bound")
"""What the running code is bound to, with its connection as ``conn``; ``storage`` alone sets it."""


class NotBound(RuntimeError):
    """Code asked for a database without being bound to one: a bug, and never the data of another tenant."""


def connection() -> Any:
    """Give the connection that the running code is bound to, for statements that are prepared once.

    Raises: NotBound.
    """
    try:
        return bound.get().conn
    except LookupError:
        raise NotBound("no database is bound here") from None


class JsonField(JSONField):
    """JSON in a column of type TEXT, since SQLite would store ``JSON`` with the affinity of a number."""

    field_type = "TEXT"


class Bound(Model):
    """Base of every model: it reads and writes the database that the running code is bound to, and no other."""

    class Meta:
        database = database
        legacy_table_names = False


def _after(field: Field) -> Field:
    """Put a column of the base class behind those of the table itself, so that it reads well in a shell."""
    field._sort_key = (3, field._order)  # type: ignore[attr-defined]
    return field


class SyncedRow(Bound):
    """A row that devices share. ``sequence`` is the place of its latest change in the tenant's order of commits.

    That place is the primary key, so the table itself lies in the order in which pulls read it.
    """

    sequence = IntegerField(primary_key=True, column_name="_seq")
    id = TextField(unique=True)
    Unique_id = TextField(null=True)
    sync_status = _after(TextField(default="synced"))
    version = _after(IntegerField())
    last_updated = _after(TextField(null=True))
    device_id = _after(TextField(null=True))
    is_deleted = _after(BooleanField(default=False))
    server_synced = _after(BooleanField(default=True))
    createdAt = _after(TextField())
    updatedAt = _after(TextField())
    unknown_fields = _after(JsonField(null=True, column_name="_extra"))


class EndUser(SyncedRow):
    firstName = TextField(null=True)
    lastName = TextField(null=True)
    name = TextField(null=True)
    email = TextField(null=True)
    phone = TextField(null=True)
    whatsapp = TextField(null=True)
    gender = TextField(null=True)
    bloodGroup = TextField(null=True)
    image = TextField(null=True)
    dob = TextField(null=True)
    phoneModel = JsonField(null=True)
    bankList = JsonField(null=True)
    stateCode = JsonField(null=True)
    gstNo = TextField(null=True)
    companyName = TextField(null=True)
    branchId = TextField(null=True)
    status = TextField(null=True)
    active = BooleanField(null=True, default=True)
    note = TextField(null=True)

    class Meta:
        table_name = "end_user"


class Interaction(SyncedRow):
    type = TextField(null=True, choices=[(word, word) for word in ("email", "call", "meeting", "note", "other")])
    title = TextField(null=True)
    description = TextField(null=True)
    date = TextField(null=True)
    status = TextField(
        null=True, default="pending", choices=[(word, word) for word in ("pending", "completed", "cancelled")]
    )
    metadata = JsonField(null=True)
    client_user_id = TextField(null=True)  # An end_user's id; not enforced, since devices push in any order.

    class Meta:
        table_name = "interactions"


# --- what the columns take -------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return encode(value).decode()  # Apps send a phone or a code as a number; a text column keeps its digits.
    raise ValueError("must be text")


def _flag(value: Any) -> int:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return int(value)
    raise ValueError("must be 0, 1, true or false")


def _whole(value: Any) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) and abs(value) < 2**63:
        return int(value)
    raise ValueError("must be a whole number of at most 63 bits")


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308:
        return float(value)
    raise ValueError("must be a number")


def _json(value: Any) -> Any:
    return value


_TYPES: dict[type[Field], Any] = {
    BooleanField: FLAG,
    IntegerField: WHOLE,
    FloatField: NUMBER,
    TextField: str,
    JsonField: Any,
}
_CHECKS = {BooleanField: _flag, IntegerField: _whole, FloatField: _number, TextField: _text, JsonField: _json}


_PLAIN: dict[Any, tuple[type, ...]] = {_text: (str,), _json: (dict, list, str, int, float, bool)}


def column_of(field: Field) -> Column:
    """Derive a column's rule from its field.

    Raises: TypeError for a field whose JSON form would not be obvious, or that can't be empty: a device may leave out
    or clear any.
    """
    check = _CHECKS.get(type(field))
    if check is None or callable(field.default):
        raise TypeError(
            f"{field.model.__name__}.{field.name}: a synced column is one of Text, Integer, Float, Boolean, Json"
        )
    if not field.null and field.name not in SyncedRow._meta.fields:
        raise TypeError(f"{field.model.__name__}.{field.name}: a synced column must be null=True, devices may clear it")
    default = int(field.default) if isinstance(field.default, bool) else field.default
    if not field.choices:
        return Column(check, default, _PLAIN.get(check, ()), _TYPES[type(field)])
    choices = tuple(choice for choice, _ in field.choices)

    def one_of(value: Any) -> Any:
        if value not in choices:
            raise ValueError("must be " + ", ".join(map(str, choices[:-1])) + f" or {choices[-1]}")
        return check(value)

    return Column(one_of, default, typed=Literal[choices] if check is _text else None)


SERVER_COLUMNS = {"_seq", "id", "sync_status", "version", "server_synced", "createdAt", "updatedAt", "_extra"}


@dataclass(frozen=True, slots=True)
class SyncedTable:
    """A synced table with what is derived from its model once: its rules and the order of its stored columns."""

    model: type[SyncedRow]
    rules: Table
    columns: tuple[str, ...]
    json_columns: frozenset[str]
    values_of: Callable[[Row], tuple[Any, ...]]
    """Gives the values of ``columns``."""

    @property
    def name(self) -> str:
        """Give the name that clients and SQL use."""
        return self.rules.name

    def stored(self, row: Row, sequence: int) -> tuple[Any, ...]:
        """Lay a row out as the values of ``columns``; what the table does not know goes into ``_extra`` as JSON."""
        values = {**row, "_seq": sequence, "_extra": None}
        if len(values) > len(self.columns):
            known = frozenset(self.columns)
            values["_extra"] = {name: value for name, value in row.items() if name not in known}
        for name in self.json_columns:
            if values[name] is not None:
                values[name] = encode(values[name]).decode()
        return self.values_of(values)


@cache
def synced_tables() -> dict[str, SyncedTable]:
    """Give every synced table by its name, in the order of their declaration."""
    tables = {}
    for model in SyncedRow.__subclasses__():
        fields = model._meta.sorted_fields
        columns = tuple(field.column_name for field in fields)
        rules = {field.column_name: column_of(field) for field in fields if field.column_name not in SERVER_COLUMNS}
        tables[model._meta.table_name] = SyncedTable(
            model,
            Table(model._meta.table_name, rules),
            columns,
            frozenset(field.column_name for field in fields if isinstance(field, JsonField)),
            itemgetter(*columns),
        )
    return tables
