"""Copies the rows of a tenant, or of the directory, into another database, and compares them row for row.

Knows: which tables there are, in which order rows are read. Must not know: engines, when and why something is copied. Code
is bound to the database that is written; that which is read is passed as a connection.

Both are read in the order of keys, side by side, so that memory holds a page of each. Rows that are not as in the source
are deleted, those that are missing are inserted, and then all are read once more. What is there is not written again: so
a copy is brought up to date by the same, and one that was cut off goes on. Of tables that are ordered by the sequence
a row never changes under its key. Once compared, up to a sequence only the keys are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from peewee import TextField

from models import Bound, connection
from storage import digest, schema
from storage.accepted_tables import DeclaredTable
from storage.dialect import dialect
from storage.main_database import AccountLink, Closing, Customer, OperatorAction, Session
from storage.outbox import Mail
from storage.system_tables import CommitOrder, PreparedTable, TableDigest
from storage.usage import DailyUsage

_AT_ONCE = 200
_IN_ORDER = {"seq", "_seq"}
_LOG, _DIGESTS, _PREPARED = "_changes", TableDigest._meta.table_name, PreparedTable._meta.table_name
Row = tuple[Any, ...]


class Table(NamedTuple):
    """A table to copy, with its columns, the key first. ``only``: a column and the value that it has in rows to copy."""

    name: str
    columns: Sequence[str]
    only: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """Give the column by which rows are ordered."""
        return self.columns[0]

    @property
    def is_in_order(self) -> bool:
        """Tell whether the key is the sequence of a change."""
        return self.key in _IN_ORDER


def table_of(model: type[Bound], only: tuple[str, str] | None = None) -> Table:
    """Give a model's table."""
    fields = sorted(model._meta.sorted_fields, key=lambda field: not field.primary_key)
    return Table(str(model._meta.table_name), [str(field.column_name) for field in fields], only)


def models_of_tenant() -> list[type[Bound]]:
    """List the tables of a tenant that are copied as they are: all but ``_meta``."""
    return [model for model in schema.tenant_models() if model is not CommitOrder]


DIRECTORY = (DeclaredTable, Customer, Session, Closing, OperatorAction, Mail, AccountLink, DailyUsage)
"""The tables that go with customers. The positions of files stay where these are."""


def tables_of_directory(customer_id: str | None = None) -> list[Table]:
    """List the tables of the directory to copy, for all customers or for one."""
    if customer_id is None:
        return [table_of(model) for model in DIRECTORY]
    return [table_of(Customer, ("id", customer_id)), table_of(Session, ("customer_id", customer_id))]


class NotTheSame(RuntimeError):
    """What was copied is not what was read; as text it says where."""


# --- a table ---------------------------------------------------------------------------------------------------------


def bring(source: Any, table: Table, known: int = 0) -> int:
    """Make a table the same as in the source, and give how many rows were written.

    ``known``: up to this sequence all that is here was compared before.
    Raises: NotTheSame if it is not the same when it is read again.
    """
    if not (known and table.is_in_order):
        return _bring(source, table, Part(table.columns))
    before = Part([table.key], (f'"{table.key}" <= ?', known))
    return _bring(source, table, before) + _bring(source, table, Part(table.columns, (f'"{table.key}" > ?', known)))


class Part(NamedTuple):
    """What is compared of a table: columns, the key first, of all rows or of those under a condition."""

    columns: Sequence[str]
    condition: tuple[str, Any] | None = None


def _bring(source: Any, table: Table, part: Part) -> int:
    if _difference(source, table, part) is None:
        return 0
    target, key = connection(), table.key
    surplus = _not_among(pages(target, table, *part), pages(source, table, *part))
    _send(f'DELETE FROM "{table.name}" WHERE "{key}" = ?', ((row[0],) for row in surplus))
    listed, places = ", ".join(f'"{name}"' for name in table.columns), ", ".join("?" * len(table.columns))
    missing = _not_among(pages(source, table, *part), pages(target, table, *part))
    insert = f'INSERT INTO "{table.name}" ({listed}) VALUES ({places})'
    written = _send(insert, (_whole(source, table, row) for row in missing))
    if (at := _difference(source, table, part)) is not None:
        raise NotTheSame(f"{table.name}: the row with {key} {at} is not the same in both databases")
    return written


def _difference(source: Any, table: Table, part: Part) -> Any:
    """Give the key of the first row that is not the same in both; None if all are."""
    sides = [pages(sql, table, *part) for sql in (source, connection())]
    different = (pair for pair in zip_longest(*sides) if pair[0] != pair[1])
    return next((min(row[0] for row in pair if row) for pair in different), None)


def _not_among(rows: Iterator[Row], others: Iterator[Row]) -> Iterator[Row]:
    """Give the rows that are not among others; both come in the order of their keys. Ends with ``rows``."""
    other = next(others, None)
    for row in rows:
        while other is not None and other[0] < row[0]:
            other = next(others, None)
        if other != row:
            yield row


def pages(sql: Any, table: Table, columns: Sequence[str], condition: tuple[str, Any] | None = None) -> Iterator[Row]:
    """Read the columns of a table, the key first, in the order of its keys, of all rows or of those under a condition."""
    names = ", ".join(f'"{name}"' for name in columns)
    bounds = [condition] if condition else []
    bounds += [(f'"{table.only[0]}" = ?', table.only[1])] if table.only else []
    page: list[Row] = []
    while True:
        after = [(f'"{table.key}" > ?', page[-1][0])] if page else []
        where = " AND ".join(text for text, _ in bounds + after)
        page = sql.execute(
            f'SELECT {names} FROM "{table.name}"{where and " WHERE "}{where} ORDER BY "{table.key}" LIMIT {_AT_ONCE}',
            [value for _, value in bounds + after],
        ).fetchall()
        yield from page
        if len(page) < _AT_ONCE:
            return


def _whole(source: Any, table: Table, row: Row) -> Row:
    if len(row) == len(table.columns):
        return row
    (found,) = pages(source, table, table.columns, (f'"{table.key}" = ?', row[0]))
    return found


def _send(statement: str, rows: Iterable[Row]) -> int:
    """Run a statement with each of some rows, and give how many there were. Each part is waited for, by a read."""
    target, count, rows = connection(), 0, iter(rows)
    while part := list(islice(rows, _AT_ONCE)):
        target.executemany(statement, part)
        target.execute("SELECT 1").fetchall()
        count += len(part)
    return count


# --- a tenant --------------------------------------------------------------------------------------------------------


def bring_tenant(source: Any, tables: Sequence[Table], installation: str, *, compares_all: bool = False) -> int:
    """Make a tenant the same as in the source, but for the note that it is not written here.

    Gives how many rows were written. ``installation``: what that note says. ``compares_all``: compare also the rows that
    were compared before.
    Raises: NotTheSame.
    """
    known = 0 if compares_all else compared_until(source)
    written = sum(bring(source, table, known) for table in tables)
    if not known:
        for table in tables:
            _must_have_digest(table)
    columns = [name for name in table_of(CommitOrder).columns if name not in ("id", "moved_to")]
    (place,) = pages(source, Table("_meta", ["id", *columns]), columns)
    setting = ", ".join(f"{name} = ?" for name in [*columns, "moved_to"])
    connection().execute(f"UPDATE _meta SET {setting}", (*place, installation))
    return written


def compared_until(source: Any) -> int:
    """Give the sequence up to which what is here was compared with the source: that of the copy, if it is one.

    0 if the source began another epoch, or either was migrated since: then rows may have changed under their keys.
    """
    target = connection()
    here, there = (sql.execute("SELECT epoch, sequence FROM _meta").fetchone() for sql in (target, source))
    if here[0] != there[0] or here[1] > there[1]:
        return 0
    prepared = table_of(PreparedTable)
    latest = Table(_LOG, ["seq", "table_name", "row_id", "version", "committed_at", "row"])
    for table, condition in ((prepared, None), (latest, ('"seq" = ?', here[1]))):
        read = [list(pages(sql, table, table.columns, condition)) for sql in (source, target)]
        if read[0] != read[1]:
            return 0
    return int(here[1])


def _must_have_digest(table: Table) -> None:
    """Compare the digest that devices know with the rows that are here."""
    target = connection()
    stored = target.execute(f"SELECT count, hash FROM {_DIGESTS} WHERE table_name = ?", (table.name,)).fetchone()
    if stored is None or table.key != "_seq":
        return
    count = whole = 0
    for _, row_id, version in pages(target, table, ["_seq", "id", "version"], ("is_deleted = ?", 0)):
        count, whole = count + 1, whole ^ digest.number_of(row_id, version)
    if (count, digest.text_of(whole)) != tuple(stored):
        raise NotTheSame(f"{table.name}: the digest that devices know is not that of the rows")


def begin_tables(models: Iterable[type[Bound]]) -> None:
    """Make the tables of models that the bound database has not."""
    for model in models:
        if not dialect().schema.columns(model._meta.table_name):
            dialect().schema.create_table(model)


def has_rows(table: str) -> bool:
    """Tell whether the bound database has a row in a table."""
    return connection().execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None


def place_of_null(model: type[Bound]) -> str | None:
    """Name a row that has a text with U+0000, if the bound database has one: other engines can't store it."""
    table = table_of(model)
    texts = [field.column_name for field in model._meta.sorted_fields if isinstance(field, TextField)]
    shown = next(name for name in ("id", "row_id", table.key) if name in table.columns)
    where = " OR ".join(dialect().has_null(f'"{name}"') for name in texts) or "1 = 0"
    found = connection().execute(f'SELECT "{shown}" FROM "{table.name}" WHERE {where} LIMIT 1').fetchone()
    return f"row {found[0]} of {table.name}" if found else None
