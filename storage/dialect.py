"""What the engines say differently in SQL: the parts of statements, and the changes of a schema, that each gives.

Knows: what a dialect gives, and that code finds the one of the database to which it is bound. Must not know: any engine.
An engine's dialect is the module ``dialect`` in its folder, with the same names. The one in use comes with the
connection and not from the process, so that one process can copy from one engine to another.

All other statements are written once, in the modules of ``storage``, and both SQLite and PostgreSQL must understand them.
``tests/storage/test_neutral_sql.py`` looks for words that only SQLite knows. Such a statement may rely on this, and on
nothing else:

- A parameter is ``?``; the values come in the order of the marks, so that a value for two marks is given twice. No text
  within a statement has a ``?``. (An engine that counts its parameters numbers them when it first sees a statement.)
- ``execute`` gives rows as tuples, to go through or to ``fetchone``; ``executemany`` gives nothing, and may be put off
  until the next ``execute`` or the commit. A ``cursor`` has both.
- A truth value is stored as 0 or 1 and compared as a number (``is_deleted = 0``); True and False may be given as
  parameters. A comparison is used as a condition, or read in Python for its truth alone: it is 1 here and True there.
- Whole numbers have 64 bits. JSON is text, and comes back in the bytes that were written.
- Text is compared and sorted by its code points.
- Where NULL is sorted is not known: no statement sorts by a column that can be NULL. ``IS DISTINCT FROM`` compares with it.
- Beside plain SELECT, INSERT, UPDATE and DELETE both know: ``coalesce``, ``nullif``, CASE, the aggregates ``count``,
  ``min`` and ``max`` (of one argument), EXISTS, UNION ALL, WITH RECURSIVE, ``row_number``, LIMIT and OFFSET,
  UPDATE … FROM, ON CONFLICT (column) DO UPDATE with ``excluded``.
- What peewee writes is in the words of the class of its database, which the engine gives (``models.database``).
- An INSERT names its columns, a subquery in FROM has a name, and what a client or a declaration may have named is quoted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from peewee import Field, Model

from models import NotBound, SyncedRow, SyncedTable, bound
from storage.look_ahead import Wanted


class SchemaChanges(Protocol):
    """How a table is looked at and changed; bound to a database, in the transaction of the caller."""

    def prepared_for(self) -> int:
        """Give the fingerprint of the schema for which the database was prepared last."""

    def columns(self, table: str) -> Mapping[str, str]:
        """Give the types of a table's columns by their names; none of a table that is not there."""

    def indexes(self, table: str) -> Mapping[str, Collection[str]]:
        """Give by name the columns of each index that was made apart from its table."""

    def create_table(self, model: type[Model]) -> None:
        """Make the table of a model, with its keys and defaults."""

    def add_index(self, table: str, name: str, columns: Sequence[str], where: str = "") -> None:
        """Make an index of a tenant's table, unless there is one of this name; of the rows ``where`` alone, if given."""

    def drop_index(self, name: str) -> None:
        """Drop an index, whatever its name."""

    def type_of(self, field: Field) -> str:
        """Give the type of a field's column, as ``columns`` gives it."""

    def add_column(self, table: str, field: Field) -> None:
        """Add the column of a field, empty, or with its default in all rows."""

    def drop_columns(self, table: SyncedTable, going: Collection[str], coming: Collection[str]) -> Collection[str]:
        """Drop columns of a synced table, whatever their names; no index has them.

        ``coming``: the columns that will be added. Gives those that are there thereafter already.
        """


class RowEdits(Protocol):
    """How many rows of a synced table are changed at once, in their JSON; bound to a database as above.

    A row's JSON is that of its latest change in the log; its other fields keep their order and their spelling.
    """

    def field_of_rows(self, table: str, name: str) -> Iterator[tuple[int, str, int, str | None]]:
        """Give of each row its sequence, its id, whether it is deleted, and the JSON of a field; None if it has none."""

    def fill_field(self, table: str, name: str, value: str, *, replaces_null: bool) -> set[int]:
        """Set a field to a JSON value where rows have none, or null if it ``replaces_null``; give their sequences."""

    def fill_column(self, table: str, name: str, *, is_json: bool) -> None:
        """Set a column to what the rows have in the field of its name, which is no unknown field any more."""

    def keep_as_unknown(self, table: str, name: str) -> None:
        """Note what rows have in a field that has no column any more among their unknown fields."""

    def repeat_changes(self, table: str, after: int, at: int, sequences: Collection[int] | None) -> None:
        """Log for each row, in their order, a change of no field, with the next version.

        The first has the sequence behind ``after``; ``at`` is the time in milliseconds. ``sequences``: these rows alone,
        if they are not deleted; None for all.
        """


class Dialect(Protocol):
    """What an engine says in its own way. Statements are given as text, which stays the same."""

    def __hash__(self) -> int:
        """Be itself alone, so that statements are built once for each dialect."""

    @property
    def schema(self) -> SchemaChanges:
        """Give how tables are changed."""

    @property
    def rows(self) -> RowEdits:
        """Give how rows are changed in a migration."""

    @property
    def look_ahead(self) -> Callable[[Wanted], None] | None:
        """Give what has rows looked up together that will be asked for; None where a look-up costs no round trip."""

    def contains(self, text: str, part: str) -> str:
        """Say that a text has another in it."""

    def has_null(self, text: str) -> str:
        """Say that a text has U+0000 in it, as what older versions stored may have."""

    def is_among(self, column: str) -> str:
        """Say that a column of text has one of the values of a list, which is a parameter made by ``listed``."""

    def listed(self, values: Iterable[str]) -> Any:
        """Make a parameter of a list of texts."""

    def joined(self, query: str) -> str:
        """Select from a query of ``seq`` and ``row`` the greatest ``seq``, how many there are, and all ``row`` in their
        order as bytes, with commas between."""

    def rows_where(self, table: str, column: str) -> str:
        """Select the rows of a synced table by a column of text, whose values are ``listed``: id, JSON, version,
        sequence, when edited, by which device, the value."""

    def any_where(self, table: str, column: str) -> str:
        """Select one row of 1 if there is such a row."""

    def spare_bytes(self, most_bytes: int) -> int:
        """Give how much the bound database may grow at the least until it has ``most_bytes``; below 0 if it has more."""


def dialect() -> Dialect:
    """Give the dialect of the database that the running code is bound to.

    Raises: NotBound.
    """
    try:
        found: Dialect = bound.get().dialect
    except LookupError:
        raise NotBound("no database is bound here") from None
    return found


def default_of(field: Field) -> str:
    """Write the default of a column of ours, for the version before: that adds rows, and does not know the column.

    Columns of synced tables have none here; what they hold is decided when a row is parsed, or taken over.
    """
    if field.default is None or issubclass(field.model, SyncedRow):
        return ""
    value = int(field.default) if isinstance(field.default, bool) else field.default
    return f" DEFAULT '{value}'"
