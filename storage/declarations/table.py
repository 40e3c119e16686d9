"""A table of one's own as it was declared, and the model that is made of it.

Knows: what a declaration holds. Must not know: how it is written (``toml_file``), Flask, sockets, engines, stored data.
What a column takes is decided in ``models``, for a declared one as for any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peewee import Field

from models import TYPES, SyncedRow


@dataclass(frozen=True, slots=True)
class Column:
    """A declared column."""

    name: str
    type: str
    required: bool = False
    default: Any = None
    enum: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A declared table; ``indexes`` holds the columns of each."""

    name: str
    columns: Sequence[Column]
    indexes: Sequence[Sequence[str]]


def model_of(table: Table) -> type[SyncedRow]:
    """Make the model of a declared table.

    Its name has a dot, so that no other schema's name is the same; its attributes have a prefix, since a column may be
    named as a method of models is.
    """
    options = {
        "table_name": table.name,
        "required": tuple(column.name for column in table.columns if column.required),
        "indexed": tuple(table.indexes),
        "is_declared": True,
    }
    fields: dict[str, Any] = {f"column_{column.name}": field_of(column) for column in table.columns}
    return type(f"{table.name}.Row", (SyncedRow,), {**fields, "Meta": type("Meta", (), options)})


def field_of(column: Column) -> Field:
    """Make the field of a declared column."""
    choices = [(value, str(value)) for value in column.enum] or None
    make: Callable[..., Field] = TYPES[column.type]
    return make(null=True, column_name=column.name, default=column.default, choices=choices)
