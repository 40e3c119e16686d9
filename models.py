"""The tables of a tenant's database: synced ones and the server's own, whose names start with ``_``.

Knows: columns, what each column takes, and how a database of an older schema becomes one of this. Must not know: Flask,
sockets, which engine or file: ``database`` stands for the one that the running code is bound to (see ``storage``).

A new synced table is one subclass of ``SyncedRow`` here: push, pull, provisioning, migration and checks find it.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from peewee import (
    AutoField,
    BlobField,
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
from wire import Row, encode

database = DatabaseProxy()


def connection() -> Any:
    """Give the connection that the running code is bound to, for statements that are prepared once."""
    return database.connection()


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


class Ledger(Bound):
    """One row: which incarnation of the database this is, its latest sequence and its clock in milliseconds.

    ``purged_until`` is the sequence up to which tombstones may be gone, ``purged_at`` when the last of them was
    committed: who has not pulled that far must start anew.
    """

    id = IntegerField(primary_key=True)
    epoch = TextField()
    sequence = IntegerField()
    clock = IntegerField()
    purged_until = IntegerField(default=0)
    purged_at = IntegerField(default=0)

    class Meta:
        table_name = "_meta"


class Logged(Bound):
    """One accepted change: what the row was after it (as pulls send it), who made it and when.

    ``previous`` is the sequence of the row's change before this one: the chain is the row's history and the base of
    merges. ``fields`` is NULL for the change that created the row.
    """

    sequence = IntegerField(primary_key=True, column_name="seq")
    table = TextField(column_name="table_name")
    row_id = TextField()
    version = IntegerField()
    previous = IntegerField(null=True, column_name="previous_seq")
    committed_at = IntegerField()
    edited_at = IntegerField()
    device_id = TextField(null=True)
    fields = JsonField(null=True)
    row = JsonField()

    class Meta:
        table_name = "_changes"


class Conflict(Bound):
    """An edit that lost against another: both sides of each field, who and when, and whether a person has decided.

    ``fields`` is a JSON object of ``FieldConflict`` by name, ``pushed`` all that the device had sent for the row. Times
    in milliseconds.
    """

    number = AutoField(column_name="id")
    table = TextField(column_name="table_name")
    row_id = TextField()
    state = TextField(default="open", choices=[(word, word) for word in ("open", "resolved")])
    strategy = TextField()
    base_version = IntegerField(null=True)
    version = IntegerField()
    fields = JsonField()
    pushed = JsonField()
    client_device_id = TextField(null=True)
    client_edited_at = IntegerField()
    server_device_id = TextField(null=True)
    server_edited_at = IntegerField()
    detected_at = IntegerField()
    resolution = TextField(null=True)
    resolved_at = IntegerField(null=True)

    class Meta:
        table_name = "_conflicts"


class TableDigest(Bound):
    """How many rows a synced table has that are not deleted, and the hash over them (see ``digest``)."""

    table = TextField(primary_key=True, column_name="table_name")
    count = IntegerField()
    hash = TextField()

    class Meta:
        table_name = "_digests"


class Device(Bound):
    """An installation of a customer's app that names itself: how far it has pulled, and when it was last here.

    ``sequence`` is the place up to which it said that it has everything. Times in milliseconds.
    """

    id = TextField(primary_key=True)
    name = TextField(null=True)
    sequence = IntegerField(default=0)
    first_seen_at = IntegerField()
    last_seen_at = IntegerField()
    expired_at = IntegerField(null=True)

    class Meta:
        table_name = "_devices"


class Receipt(Bound):
    """An operation that was taken, by the name its device gave it: what became of it, and what it was.

    ``mark`` is a digest of the operation, ``result`` the result it was answered with.
    """

    op_id = TextField(primary_key=True)
    mark = TextField()
    result = JsonField()
    taken_at = IntegerField(index=True)

    class Meta:
        table_name = "_receipts"


class KeptAnswer(Bound):
    """The answer to a request with an ``Idempotency-Key``, deflated; ``mark`` is a digest of that request."""

    key = TextField(primary_key=True)
    mark = TextField()
    answer = BlobField()
    answered_at = IntegerField(index=True)

    class Meta:
        table_name = "_answers"


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


_CHECKS = {BooleanField: _flag, IntegerField: _whole, FloatField: _number, TextField: _text, JsonField: _json}


def _column(field: Field) -> Column:
    """Derive a column's rule from its field.

    Raises: TypeError for a field whose JSON form would not be obvious.
    """
    check = _CHECKS.get(type(field))
    if check is None or callable(field.default):
        raise TypeError(
            f"{field.model.__name__}.{field.name}: a synced column is one of Text, Integer, Float, Boolean, Json"
        )
    default = int(field.default) if isinstance(field.default, bool) else field.default
    if not field.choices:
        return Column(check, default)
    choices = tuple(choice for choice, _ in field.choices)

    def one_of(value: Any) -> Any:
        if value not in choices:
            raise ValueError("must be " + ", ".join(choices[:-1]) + " or " + choices[-1])
        return value

    return Column(one_of, default)


_SERVER_COLUMNS = {"_seq", "id", "sync_status", "version", "server_synced", "createdAt", "updatedAt", "_extra"}


@dataclass(frozen=True, slots=True)
class SyncedTable:
    """A synced table with what is derived from its model once: its rules and the order of its stored columns."""

    model: type[SyncedRow]
    rules: Table
    columns: tuple[str, ...]
    json_columns: frozenset[str]

    @property
    def name(self) -> str:
        return self.rules.name

    def stored(self, row: Row, sequence: int) -> list[Any]:
        """Lay a row out as the values of ``columns``; what the table does not know goes into ``_extra`` as JSON."""
        known = self.rules.columns
        extra = {name: value for name, value in row.items() if name not in known and name not in _SERVER_COLUMNS}
        values = {**row, "_seq": sequence, "_extra": extra or None}
        for name in self.json_columns:
            if values[name] is not None:
                values[name] = encode(values[name]).decode()
        return [values[name] for name in self.columns]


@cache
def synced_tables() -> dict[str, SyncedTable]:
    """Give every synced table by its name, in the order of their declaration."""
    tables = {}
    for model in SyncedRow.__subclasses__():
        fields = model._meta.sorted_fields
        rules = {field.column_name: _column(field) for field in fields if field.column_name not in _SERVER_COLUMNS}
        tables[model._meta.table_name] = SyncedTable(
            model,
            Table(model._meta.table_name, rules),
            tuple(field.column_name for field in fields),
            frozenset(field.column_name for field in fields if isinstance(field, JsonField)),
        )
    return tables


# --- schema ----------------------------------------------------------------------------------------------------------


def fingerprint(models: Sequence[type[Bound]]) -> int:
    """Give a number that changes with any table or column of ``models``, for a quick look at opening."""
    text = ";".join(f"{m._meta.table_name}({_ddl(m)})" for m in models)
    return zlib.crc32(text.encode()) & 0x7FFFFFFF


def _ddl(model: type[Bound]) -> str:
    return ",".join(f"{f.column_name} {f.field_type} {f.null} {f.default}" for f in model._meta.sorted_fields)


@cache
def tenant_fingerprint() -> int:
    """Give the fingerprint of a tenant's schema in this version."""
    return fingerprint(tenant_models())


def tenant_models() -> list[type[Bound]]:
    """List every table of a tenant's database."""
    return [
        Ledger,
        Logged,
        Conflict,
        Receipt,
        KeptAnswer,
        Device,
        TableDigest,
        *(table.model for table in synced_tables().values()),
    ]


def prepare_tenant(now: int) -> None:
    """Make a tenant's database what this version needs, be it empty or of an older version.

    Adds tables and columns and never takes any away, so that an older version can still read what a newer one wrote.
    """
    add_missing(tenant_models())
    for table in synced_tables().values():
        connection().execute(
            f'CREATE INDEX IF NOT EXISTS "{table.name}_Unique_id" ON "{table.name}" ("Unique_id")'
            ' WHERE "Unique_id" IS NOT NULL'
        )
    if not Ledger.select().exists():
        Ledger.create(id=1, epoch=secrets.token_hex(6), sequence=0, clock=now)


def add_missing(models: Sequence[type[Bound]]) -> None:
    """Create the tables that are missing, and in the others the columns that are."""
    for model in models:
        name = model._meta.table_name
        present = {column.name for column in database.get_columns(name)} if database.table_exists(name) else set()
        if not present:
            model.create_table()
            continue
        for field in model._meta.sorted_fields:
            if field.column_name not in present:
                _add_column(name, field, issubclass(model, SyncedRow))


def _add_column(table: str, field: Field, is_synced: bool) -> None:
    """Add a column; in a synced table it takes over what rows already hold under its name, else its default."""
    name, kind = field.column_name, database._field_types.get(field.field_type, field.field_type)
    connection().execute(f'ALTER TABLE "{table}" ADD COLUMN "{name}" {kind}')
    if not is_synced:
        if field.default is not None:
            connection().execute(f'UPDATE "{table}" SET "{name}" = ?', (field.default,))
        return
    default, path = encode(_column(field).default).decode(), f'$."{name}"'
    current = f'seq IN (SELECT _seq FROM "{table}")'
    connection().execute(f"UPDATE _changes SET row = json_insert(row, ?, json(?)) WHERE {current}", (path, default))
    arrow = "->" if isinstance(field, JsonField) else "->>"
    connection().execute(
        f'UPDATE "{table}" SET "{name}" = (SELECT row {arrow} ? FROM _changes WHERE seq = _seq),'
        " _extra = nullif(json_remove(_extra, ?), '{}')",
        (path, path),
    )
