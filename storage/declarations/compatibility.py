"""Compares the current declaration of tables with the accepted one: what changes, and whether stored rows allow it.

Knows: which change of a declaration rows could violate, and how to look. Must not know: how a declaration is written
(``toml_file``), how a file becomes what is declared (``schema``), requests, sockets. Declarations are compared, not data:
the accepted one is kept in the main database, so that a start costs the same with any number of tenants. Only a change
that rows could violate has them read, in every tenant's file, before any file is changed: half the tenants migrated would
be worse than none. That took 6 s for 1,000 tenants of 1,000 rows. The data folder's lock is held meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from models import connection, synced_tables
from protocol.messages import Column
from storage import accepted_tables
from storage.dialect import dialect
from storage.engine import Engine
from storage.row_migration import takes_all

_MOST_SHOWN = 3

Description = Mapping[str, Any]
"""A table as ``SyncedTable.described`` gives it."""


class MigrationRefused(RuntimeError):
    """The declaration can't be used with the rows there are; as text it says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is declared otherwise now; ``is_risk`` if rows could violate it.

    ``is_rewritten``: the column is stored in another form, so that no row may have a value in it. ``is_new``: it is not
    declared yet, though a file that was not opened since it was may still have it, of whatever type.
    """

    sentence: str
    table: str
    column: str = ""
    is_risk: bool = False
    is_rewritten: bool = False
    remedy: str = ""
    is_new: bool = False


class Offence(NamedTuple):
    """The rows of one tenant that violate a difference: how many, and the id of one."""

    tenant_id: str
    rows: int
    example: str


@dataclass(slots=True)
class Found:
    """What a comparison found."""

    differences: list[Difference] = field(default_factory=list)
    offences: dict[Difference, list[Offence]] = field(default_factory=dict)

    def refusal(self) -> str:
        """Say what is in the way and what to do about it, a line each; nothing if nothing is."""
        return "\n".join(_refusal(difference, offences) for difference, offences in self.offences.items())


def declared_now() -> dict[str, Description]:
    """Give the tables that this process has from a file, described."""
    return {name: table.described() for name, table in synced_tables().items() if table.is_declared}


def compare(engine: Engine, retiring: Collection[str] = ()) -> Found:
    """Find what is declared otherwise than it was accepted, and which rows of which tenants do not allow it.

    The tables that ``retiring`` names may go although they have rows.
    """
    found = Found(differences(engine, retiring))
    risks = [difference for difference in found.differences if difference.is_risk]
    if risks:
        for tenant_id in engine.tenant_ids():
            for risk, ids in engine.peek(tenant_id, lambda: [(one, _violating(one)) for one in risks]):
                if ids:
                    found.offences.setdefault(risk, []).append(Offence(tenant_id, len(ids), ids[0]))
    return found


def differences(engine: Engine, retiring: Collection[str] = ()) -> list[Difference]:
    """Find what is declared otherwise than it was accepted, without a look at rows."""
    accepted = engine.directory.read(accepted_tables.accepted_tables)
    now, found = declared_now(), list[Difference]()
    for table in accepted:
        if table.name in now:
            found += _of_table(table.name, table.declaration, now[table.name], table.is_retired)
        elif not table.is_retired:
            found.append(_removed(table.name, table.name in retiring))
    known = {table.name for table in accepted}
    return found + [Difference(f"{name}: new table", name) for name in now if name not in known]


def must_be_accepted(engine: Engine) -> None:
    """Refuse to go on where a tenant that is opened would get other tables than those of the server.

    A start compares them with all rows first, and a command does not.
    Raises: MigrationRefused.
    """
    if found := differences(engine):
        raise MigrationRefused(
            f"The tables that are declared are not those of the server ({found[0].sentence}): start the server with them"
            " first, or run migrate; or declare those of before. Nothing was changed."
        )


def accept(engine: Engine, retiring: Collection[str] = ()) -> list[Difference]:
    """Keep what is declared now as accepted, and give what is different from before.

    Raises: MigrationRefused, with nothing changed, if rows do not allow it.
    """
    found = compare(engine, retiring)
    if found.offences:
        raise MigrationRefused(found.refusal())
    if found.differences:
        now = declared_now()
        engine.directory.write(lambda: accepted_tables.accept_tables(now))
    return found.differences


# --- comparing -------------------------------------------------------------------------------------------------------


def _removed(name: str, is_agreed: bool) -> Difference:
    return Difference(
        f"{name}: no longer declared",
        name,
        is_risk=not is_agreed,
        remedy=f"Declare it again; or keep its rows in the files and sync them no more: migrate --retire {name}",
    )


def _of_table(name: str, before: Description, now: Description, was_retired: bool) -> list[Difference]:
    found = [Difference(f"{name}: declared again", name)] if was_retired else []
    for column, described in now["columns"].items():
        was = before["columns"].get(column)
        found += _added(name, column, described) if was is None else _of_column(name, column, was, described)
    for column in before["columns"].keys() - now["columns"].keys():
        found.append(Difference(f"{name}.{column}: no longer declared; rows keep it as an unknown field", name, column))
    if before["indexes"] != now["indexes"]:
        found.append(Difference(f"{name}: other indexes", name))
    return found


def _added(table: str, column: str, described: Description) -> list[Difference]:
    is_risk = described["required"] and described["default"] is None
    remedy = "Give it a default, or leave it optional"
    return [Difference(f"{table}.{column}: new column", table, column, is_risk, remedy=remedy, is_new=True)]


def _of_column(table: str, column: str, was: Description, described: Description) -> list[Difference]:
    changed = [key for key in ("type", "enum", "required", "default") if was[key] != described[key]]
    if not changed:
        return []
    parts = [f"{key} {_word(was[key])} becomes {_word(described[key])}" for key in changed]
    is_risk = not takes_all(was, described)
    remedy = "Declare a new column beside it, or change these rows first"
    is_rewritten = was["type"] != described["type"] and "json" in (was["type"], described["type"])
    return [Difference(f"{table}.{column}: {', '.join(parts)}", table, column, is_risk, is_rewritten, remedy)]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# --- looking ---------------------------------------------------------------------------------------------------------


def _violating(risk: Difference) -> list[str]:
    """List the rows that are not deleted and do not allow a change, in the tenant this code is bound to."""
    present = dialect().schema.columns(risk.table)
    if not present:
        return []
    if not risk.column:
        rows = connection().execute(f'SELECT e.id FROM "{risk.table}" AS e WHERE e.is_deleted = 0')
        return [row_id for (row_id,) in rows]
    rules = synced_tables()[risk.table].rules
    rule, is_required = rules.columns[risk.column], risk.column in rules.required
    is_held = risk.column in present and not risk.is_new
    values = _held(risk.table, risk.column) if is_held else _held_unknown(risk.table, risk.column)
    if risk.is_rewritten:
        return [row_id for row_id, value in values if value is not None or is_required]
    return [row_id for row_id, value in values if not _fits(value, rule, is_required)]


def _held(table: str, column: str) -> Iterator[tuple[str, Any]]:
    """Read a column's values with their rows' ids; the copy for SQL is as good as the rows, and four times as fast."""
    yield from connection().execute(f'SELECT e.id, e."{column}" FROM "{table}" AS e WHERE e.is_deleted = 0')


def _held_unknown(table: str, column: str) -> Iterator[tuple[str, Any]]:
    """Read the values of what is no column yet from the rows."""
    for _, row_id, is_deleted, held in dialect().rows.field_of_rows(table, column):
        if not is_deleted:
            yield row_id, json.loads(held or "null")


def _fits(value: Any, rule: Column, is_required: bool) -> bool:
    """Tell whether a stored value is one that the column could have stored."""
    try:
        return not is_required if value is None else bool(rule.check(value) == value)
    except ValueError:
        return False


def _refusal(difference: Difference, offences: Sequence[Offence]) -> str:
    rows = _counted(sum(offence.rows for offence in offences), "row")
    shown = "; ".join(f"row {one.example} of tenant {one.tenant_id}" for one in offences[:_MOST_SHOWN])
    those = f"{rows} of {_counted(len(offences), 'tenant')}"
    return f"{difference.sentence}. That does not fit {those}: {shown}. {difference.remedy}."


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
