"""The synced tables as peewee models, and how code is bound to a tenant's database.

Knows: columns and what each accepts. Must not know: Flask, sockets, which engine or file: ``database`` stands for the one
that the running code is bound to (see ``storage.engine``).

A new synced table is one subclass of ``SyncedRow``, written here or made of a declaration (``table``): push, pull,
provisioning, migration and checks find it. Beside peewee's options its ``Meta`` may have ``required``, the columns that
every row has, and ``indexed``, a tuple of columns for each index.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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

from protocol import column_checks
from protocol.codec import Row, encode
from protocol.messages import Column, Table
from protocol.row_types import CHECKED, FLAG, NUMBER, WHOLE

bound: ContextVar[Any] = ContextVar("bound")
"""What the running code is bound to: a ``conn``, a ``dialect``, and for peewee a ``database``; only ``storage`` sets it."""


class NotBound(RuntimeError):
    """Code used a database without being bound to one. That is a bug; it must never reach the data of another tenant."""


class _BoundDatabase(DatabaseProxy):
    """For peewee the database of what the running code is bound to, of whichever engine; bound to nothing, it raises."""

    def initialize(self, obj: Any) -> None:
        """Take nothing: the process has no database."""

    @property
    def obj(self) -> Any:
        """Give the engine's database for peewee, None if nothing is bound."""
        return getattr(bound.get(None), "database", None)

    def __getattr__(self, name: str) -> Any:
        if self.obj is None:
            raise NotBound("no database is bound here")
        return super().__getattr__(name)


database = _BoundDatabase()


def connection() -> Any:
    """Give the connection that the running code is bound to, for prepared statements.

    Raises: NotBound.
    """
    try:
        return bound.get().conn
    except LookupError:
        raise NotBound("no database is bound here") from None


class JsonField(JSONField):
    """JSON in a column of type TEXT (to SQLite, ``JSON`` is a number), written and read here: the same on every engine."""

    field_type = "TEXT"

    def db_value(self, value: Any) -> str | None:
        """Write a value as JSON."""
        return None if value is None else encode(value).decode()

    def python_value(self, value: str | None) -> Any:
        """Read JSON."""
        return None if value is None else json.loads(value)


class DateText(TextField):
    """A date, as the device wrote it."""


class TimeText(TextField):
    """A time of day, as the device wrote it."""


class TimestampText(TextField):
    """A timestamp, as the device wrote it; without a zone it is UTC."""


TYPES: dict[str, type[Field]] = {
    "text": TextField,
    "integer": IntegerField,
    "number": FloatField,
    "boolean": BooleanField,
    "json": JsonField,
    "date": DateText,
    "time": TimeText,
    "timestamp": TimestampText,
}
"""The types of synced columns by name."""


class Bound(Model):
    """Base of every model. It reads and writes only the database that the running code is bound to."""

    class Meta:
        database = database
        legacy_table_names = False


def _after(field: Field) -> Field:
    """Put a column of the base class after the table's own columns, which reads better in a shell."""
    field._sort_key = (3, field._order)  # type: ignore[attr-defined]
    return field


class SyncedRow(Bound):
    """A row that devices share. ``sequence`` is the position of its latest change in the tenant's commit order.

    It is the primary key, so that the table is stored in the order in which pulls read it.
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


# --- what the columns accept ------------------------------------------------------------------------------------------


_MSGSPEC_TYPES: dict[type[Field], Any] = {
    BooleanField: FLAG,
    IntegerField: WHOLE,
    FloatField: NUMBER,
    TextField: str,
    JsonField: Any,
    DateText: CHECKED,
    TimeText: CHECKED,
    TimestampText: CHECKED,
}
_CHECKS: dict[type[Field], Callable[[Any], Any]] = {
    BooleanField: column_checks.flag,
    IntegerField: column_checks.whole,
    FloatField: column_checks.number,
    TextField: column_checks.text,
    JsonField: column_checks.any_json,
    DateText: column_checks.day,
    TimeText: column_checks.time_of_day,
    TimestampText: column_checks.timestamp,
}
_UNCHECKED_TYPES: dict[Any, tuple[type, ...]] = {
    column_checks.text: (str,),
    column_checks.any_json: (dict, list, str, int, float, bool),
}


def column_of(field: Field) -> Column:
    """Derive a column's rules from its field.

    Raises: TypeError for a field whose JSON form would not be obvious, or that can't be null: devices may clear any column.
    """
    check = _CHECKS.get(type(field))
    if check is None or callable(field.default):
        kinds = ", ".join(kind.__name__ for kind in TYPES.values())
        raise TypeError(f"{_place(field)}: a synced column is one of {kinds}, its default a value")
    if not field.null and field.name not in SyncedRow._meta.fields:
        raise TypeError(f"{_place(field)}: a synced column must be null=True, devices may clear it")
    default = int(field.default) if isinstance(field.default, bool) else field.default
    if not field.choices:
        return Column(check, default, _UNCHECKED_TYPES.get(check, ()), _MSGSPEC_TYPES[type(field)])
    choices = tuple(choice for choice, _ in field.choices)
    is_text = check is column_checks.text
    return Column(column_checks.one_of(choices, check), default, msgspec_type=Literal[choices] if is_text else None)


def _place(field: Field) -> str:
    return f"{field.model.__module__}.py, {field.model.__name__}.{field.name}"


SERVER_COLUMNS = {"_seq", "id", "sync_status", "version", "server_synced", "createdAt", "updatedAt", "_extra"}


@dataclass(frozen=True, slots=True)
class SyncedTable:
    """A synced table, with its rules and the order of its stored columns."""

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

    @property
    def indexed(self) -> Sequence[Sequence[str]]:
        """Give the columns of each index that the table is declared to have."""
        return tuple(getattr(self.model._meta, "indexed", ()))

    def described(self) -> dict[str, Any]:
        """Describe the table's own columns and indexes as JSON."""
        own = [field for field in self.model._meta.sorted_fields if field.name not in SyncedRow._meta.fields]
        columns = {field.column_name: _described(field, self.rules.required) for field in own}
        return {"columns": columns, "indexes": [list(columns) for columns in self.indexed]}

    @property
    def is_declared(self) -> bool:
        """Tell whether the table is declared in ``tables.toml``."""
        return bool(getattr(self.model._meta, "is_declared", False))

    def stored(self, row: Row, sequence: int) -> tuple[Any, ...]:
        """Give a row as the values of ``columns``; fields that the table does not know go into ``_extra`` as JSON."""
        values = {**row, "_seq": sequence, "_extra": None}
        if len(values) > len(self.columns):
            known = frozenset(self.columns)
            values["_extra"] = {name: value for name, value in row.items() if name not in known}
        for name in self.json_columns:
            if values[name] is not None:
                values[name] = encode(values[name]).decode()
        return self.values_of(values)


def _described(field: Field, required: Sequence[str]) -> dict[str, Any]:
    column = column_of(field)
    return {
        "type": next(word for word, kind in TYPES.items() if type(field) is kind),
        "required": field.column_name in required,
        "default": column.default,
        "enum": [choice for choice, _ in field.choices] if field.choices else None,
    }


def described_common_columns() -> dict[str, Any]:
    """Describe the columns of every table as JSON."""
    fields = [field for field in SyncedRow._meta.sorted_fields if not field.column_name.startswith("_")]
    return {field.column_name: _described(field, ("id", "version", "createdAt", "updatedAt")) for field in fields}


_declared: list[type[SyncedRow]] = []


def declare(declared: Sequence[type[SyncedRow]]) -> None:
    """Set the models of the declared tables. Call it before ``synced_tables``."""
    _declared[:] = declared
    synced_tables.cache_clear()


def python_models() -> list[type[SyncedRow]]:
    """List the models that are written in Python."""
    return [model for model in SyncedRow.__subclasses__() if not getattr(model._meta, "is_declared", False)]


@cache
def synced_tables() -> dict[str, SyncedTable]:
    """Give every synced table by its name, in the order of declaration."""
    tables = {}
    for model in (*python_models(), *_declared):
        fields = model._meta.sorted_fields
        columns = tuple(field.column_name for field in fields)
        rules = {field.column_name: column_of(field) for field in fields if field.column_name not in SERVER_COLUMNS}
        tables[model._meta.table_name] = SyncedTable(
            model,
            Table(model._meta.table_name, rules, tuple(getattr(model._meta, "required", ()))),
            columns,
            frozenset(field.column_name for field in fields if isinstance(field, JsonField)),
            itemgetter(*columns),
        )
    return tables
