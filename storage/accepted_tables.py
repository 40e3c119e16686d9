"""The declared tables as they were last accepted, in the main database.

Knows: the table and the statements on it, bound by the caller. Must not know: what may follow on what
(``declarations.compatibility``), which engine or file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peewee import BooleanField, TextField

from models import Bound, JsonField


class DeclaredTable(Bound):
    """A table as it was last declared and accepted (see ``compatibility``); of a retired one tenants may still hold
    rows."""

    name = TextField(primary_key=True)
    declaration = JsonField()
    is_retired = BooleanField(default=False)

    class Meta:
        table_name = "declared_tables"


def accepted_tables() -> list[DeclaredTable]:
    """List the tables as they were last accepted."""
    return list(DeclaredTable.select().order_by(DeclaredTable.name))


def accept_tables(declared: Mapping[str, Any]) -> None:
    """Keep what is declared now; whatever else was accepted before is retired."""
    DeclaredTable.update(is_retired=True).execute()
    for name, declaration in declared.items():
        row = DeclaredTable.insert(name=name, declaration=declaration, is_retired=False)
        now = [DeclaredTable.declaration, DeclaredTable.is_retired]
        row.on_conflict(conflict_target=[DeclaredTable.name], preserve=now).execute()
