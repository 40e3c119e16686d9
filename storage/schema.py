"""Brings a database to this version and its declared tables, be it empty or older.

Knows: tables, columns and how to add what is missing. Must not know: Flask, sockets, engines, whose database it is.

Nothing is dropped. A new column takes over what rows had under its name as an unknown field, and a column that this
version does not know leaves the table and stays in the rows, or rows written meanwhile would lack it when it comes back.
The log of a table that is no longer synced is not purged. ``_tables`` records what a file was prepared for: files are
opened at different times, so that between two openings a column may have gone and come back with another type.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from peewee import Field

from models import (
    Bound,
    SyncedTable,
    connection,
    synced_tables,
)
from protocol.codec import encode
from storage import digest
from storage.dialect import dialect
from storage.positions import position
from storage.row_migration import resend, take_over, takes_all
from storage.system_tables import (
    CommitOrder,
    Conflict,
    Device,
    KeptAnswer,
    Logged,
    PreparedTable,
    Receipt,
    SeenRows,
    TableDigest,
)


def fingerprint(models: Sequence[type[Bound]]) -> int:
    """Give a number that changes with any table or column of ``models``, for a quick look at opening."""
    text = ";".join(f"{m._meta.table_name}({_ddl(m)}){getattr(m._meta, 'indexed', ())}" for m in models)
    return zlib.crc32(text.encode()) & 0x7FFFFFFF


def _ddl(model: type[Bound]) -> str:
    return ",".join(f"{f.column_name} {f.field_type} {f.null} {f.default}" for f in model._meta.sorted_fields)


@cache
def tenant_fingerprint() -> int:
    """Give the fingerprint of a tenant's schema in this version, and of what its columns take."""
    described = encode({name: table.described() for name, table in synced_tables().items()})
    return zlib.crc32(described, fingerprint(tenant_models())) & 0x7FFFFFFF


def is_current() -> bool:
    """Tell whether the tenant this code is bound to needs nothing."""
    return dialect().schema.prepared_for() == tenant_fingerprint()


def tenant_models() -> list[type[Bound]]:
    """List every table of a tenant's database."""
    return [
        CommitOrder,
        Logged,
        Conflict,
        Receipt,
        KeptAnswer,
        Device,
        SeenRows,
        TableDigest,
        PreparedTable,
        *(table.model for table in synced_tables().values()),
    ]


def prepare_tenant(now: int) -> None:
    """Make a tenant's database of an older version, or of another declaration, what this version needs.

    No row loses anything, so that an older version can still read what a newer one wrote: tables stay, and a column that
    this version does not know stays in the rows as an unknown field. Else rows written by this version would lack it.
    What becomes of rows thereby, and the rows of a table that is synced again, comes to every device.
    Raises: LookupError for a file that was never begun: its devices would take it for the end of all rows.
    """
    if not dialect().schema.columns(CommitOrder._meta.table_name) or not CommitOrder.select().exists():
        raise LookupError("this is no tenant's database")
    known = prepared_tables()
    prepare_rows(lay_out(known), known, now)


class Layout(NamedTuple):
    """What became of tables: the columns that are to be filled from rows, and those that rows keep as unknown fields."""

    filled: list[tuple[SyncedTable, Field]]
    left: list[tuple[str, str]]


def lay_out(known: Mapping[str, PreparedTable] = MappingProxyType({})) -> Layout:
    """Make the tables of tenants what this version needs, in an empty database all of them.

    ``known``: the tables as they were before.
    """
    layout = Layout([], [])
    for table in synced_tables().values():
        _clear_way(table, known.get(table.name.casefold()), layout)
    added = add_missing(tenant_models())
    layout.filled.extend((synced_tables()[name], field) for name, field in added if name in synced_tables())
    for table in synced_tables().values():
        _add_indexes(table)
    return layout


def prepare_rows(layout: Layout, known: Mapping[str, PreparedTable], now: int) -> None:
    """Bring a tenant's rows to tables that are laid out; what becomes of rows thereby comes to every device."""
    for name, column in layout.left:
        dialect().rows.keep_as_unknown(name, column)
    changed: defaultdict[str, set[int]] = defaultdict(set)
    for table, field in layout.filled:
        changed[table.name] |= take_over(table, field)
    _note_tables(known)
    at = max(now, position().clock + 1)
    for name, table in synced_tables().items():
        was = known.get(name.casefold())
        if was and (was.is_retired or was.name != name):
            resend(table, at, None)
        elif changed[name]:
            resend(table, at, changed[name])
        else:
            continue
        TableDigest.delete().where(TableDigest.table == name).execute()
    digest.add_missing(synced_tables().values())


def prepared_tables() -> dict[str, PreparedTable]:
    """Read, by name without case, the tables that this file was prepared for; of a file that did not say so those that it
    synced and that are not now."""
    if dialect().schema.columns(PreparedTable._meta.table_name):
        return {table.name.casefold(): table for table in PreparedTable.select()}
    gone = [found.table for found in TableDigest.select(TableDigest.table) if found.table not in synced_tables()]
    return {name.casefold(): PreparedTable(name=name, declaration={"columns": {}}, is_retired=True) for name in gone}


def _note_tables(known: Mapping[str, PreparedTable]) -> None:
    """Note what the file is prepared for now."""
    PreparedTable.delete().execute()
    for name, table in synced_tables().items():
        PreparedTable.create(name=name, declaration=table.described())
    for was in known.values():
        if was.name.casefold() not in {name.casefold() for name in synced_tables()}:
            PreparedTable.create(name=was.name, declaration=was.declaration, is_retired=True)
            _forget_positions(was.name)


def _forget_positions(table: str) -> None:
    """Forget how far devices are in a table, else what is too old would be held for them for ever."""
    for device in Device.select():
        if device.positions.pop(table, None) is not None:
            device.save()


def begin_tenant(now: int) -> None:
    """Begin a tenant's commit order. In plain SQL, as the next: many tenants are made, and nothing of it is read."""
    columns = "id, epoch, sequence, clock, purged_until, purged_at, restored_at"
    begun = f"INSERT INTO _meta ({columns}) VALUES (1, ?, 0, ?, 0, 0, 0)"
    connection().execute(begun, (secrets.token_hex(6), now))


def begin_tables() -> None:
    """Note of a new tenant for which tables it is prepared, and that they have no rows."""
    prepared = [(name, encode(table.described()).decode()) for name, table in synced_tables().items()]
    sql = connection().cursor()
    sql.executemany("INSERT INTO _tables (table_name, declaration, is_retired) VALUES (?, ?, 0)", prepared)
    sql.executemany("INSERT INTO _digests (table_name, count, hash) VALUES (?, 0, ?)", digest.of_no_rows())


def add_missing(models: Sequence[type[Bound]]) -> list[tuple[str, Field]]:
    """Create the tables that are missing, and in the others the columns that are, which are given with their tables."""
    added = []
    for model in models:
        name = model._meta.table_name
        present = dialect().schema.columns(name)
        if not present:
            dialect().schema.create_table(model)
            continue
        for field in model._meta.sorted_fields:
            if field.column_name not in present:
                dialect().schema.add_column(name, field)
                added.append((name, field))
    return added


# --- synced tables ---------------------------------------------------------------------------------------------------


def _clear_way(table: SyncedTable, known: PreparedTable | None, layout: Layout) -> None:
    """Take away what a synced table has no more: columns, which stay in the rows as fields that it does not know, and
    indexes. A column whose type is another now goes too, to come back with what the rows hold; so does what is in a column
    that stays and may hold what it does not take now.
    """
    change = dialect().schema
    present = change.columns(table.name)
    if not present:
        return
    wanted = {index_name(table.name, columns) for columns in table.indexed}
    kinds = {field.column_name: change.type_of(field) for field in table.model._meta.sorted_fields}
    going = [name for name, kind in present.items() if kinds.get(name, "").split(" ")[0] != kind.split(" ")[0]]
    for index, columns in change.indexes(table.name).items():
        if (index.startswith(_INDEX) and index not in wanted) or not set(going).isdisjoint(columns):
            change.drop_index(index)
    come = change.drop_columns(table, going, kinds.keys() - present.keys())
    layout.left.extend((table.name, name) for name in going if name not in kinds)
    layout.filled.extend(_fields(table, come) + _stricter(table, present.keys() - going, known))


def _fields(table: SyncedTable, columns: Iterable[str]) -> list[tuple[SyncedTable, Field]]:
    fields = {field.column_name: field for field in table.model._meta.sorted_fields}
    return [(table, fields[name]) for name in columns]


def _stricter(
    table: SyncedTable, present: Collection[str], known: PreparedTable | None
) -> list[tuple[SyncedTable, Field]]:
    """Find the columns that may hold what they do not take now, by what the file was prepared for: nobody may have looked
    at it since, as when a column was taken out of the file of declarations and put in again otherwise."""
    if known is None:
        return []
    was, now = known.declaration["columns"], table.described()["columns"]
    found = [name for name in now if name in present and not (name in was and takes_all(was[name], now[name]))]
    return _fields(table, found)


_INDEX = "_ix_"


def index_name(table: str, columns: Sequence[str]) -> str:
    """Name an index that a table is declared to have, so that no other can have this name.

    A name that is longer than PostgreSQL's are ends with a digest.
    """
    name = f"{_INDEX}{table}({','.join(columns)})"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:40]}{hashlib.sha256(name.encode()).hexdigest()[:16]}"


_LONGEST_NAME = 63


def _add_indexes(table: SyncedTable) -> None:
    change = dialect().schema
    change.add_index(table.name, f"{table.name}_Unique_id", ["Unique_id"], '"Unique_id" IS NOT NULL')
    for columns in table.indexed:
        change.add_index(table.name, index_name(table.name, columns), columns)
