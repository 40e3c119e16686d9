"""Compares a tenant that was migrated with the copy of what it was: nothing of it may be gone.

Knows: what a migration may change of rows: columns that are declared, and whose values may go to ``_unfit``. Must not know:
the command line, how a migration is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from models import synced_tables
from protocol.messages import SERVER_FIELDS
from storage import tenant_check
from storage.engine import Engine
from storage.positions import incarnation
from storage.row_migration import UNFIT
from storage.sqlite.files import look_into

_AT_ONCE = 500
_SAME = ("_changes", "_conflicts", "_devices", "_receipts")
"""Tables of which a migration removes nothing."""


def losses(engine: Engine, tenant_id: str, copy: Path) -> list[str]:
    """List what a migrated tenant lacks of what is in its copy, and what has another value without a reason."""
    return list(_losses(engine, tenant_id, copy))


def _losses(engine: Engine, tenant_id: str, copy: Path) -> Iterator[str]:
    (epoch, before), (epoch_now, now) = look_into(copy, incarnation), engine.peek(tenant_id, incarnation)
    if epoch != epoch_now or now < before:
        yield f"it is at change {now:,} of {epoch_now}, and was at {before:,} of {epoch}"
    for table in _SAME:
        counted = partial(tenant_check.count_rows, table)
        was, there = look_into(copy, counted), engine.peek(tenant_id, counted)
        if there < was:
            yield f"{table} has {there:,} rows, and had {was:,}"
    for table in look_into(copy, tenant_check.synced_here):
        yield from _losses_of_table(engine, tenant_id, copy, table)


def _losses_of_table(engine: Engine, tenant_id: str, copy: Path, table: str) -> Iterator[str]:
    """Compare a table's rows page by page, in the order of their IDs."""
    last: str | None = ""
    while last is not None:
        page = partial(tenant_check.rows_after, table, last, _AT_ONCE)
        before, after = look_into(copy, page), engine.peek(tenant_id, page)
        if before.keys() != after.keys():
            yield f"{table}: row {min(before.keys() ^ after.keys())} is not in both"
            return
        for row_id, row in before.items():
            if fields := _changed(table, row, after[row_id]):
                yield f"{table}: row {row_id} has another {', '.join(fields)}"
                return
        last = max(before) if len(before) == _AT_ONCE else None


def _changed(table: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Give the fields that lost their value: a column may write it otherwise or put it aside, anything else may not."""
    aside = after.get(UNFIT) or {}
    declared = synced_tables()[table].columns
    return [
        name
        for name, value in before.items()
        if name not in SERVER_FIELDS
        and name != UNFIT
        and after.get(name) != value
        and not (name in declared and (after.get(name) is not None or name in aside or value is None))
    ]
