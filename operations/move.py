"""Moves an installation, or one tenant, into another while it serves (docs/postgresql.md).

Knows: in which order what is copied, closed to writes and opened. Must not know: the command line, engines, requests.

First all is copied while it is written. Then, at the cut-over, the source takes no more writes, first the directory, then
each tenant; what changed is copied once more and compared, and when all of it is there, the target takes writes. A copy
takes none until then: of the two one at the most is written at any moment, wherever this is cut off, and another run goes
on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from models import Bound, connection
from operations.move_checks import MoveError, destination_of_tenant, has_moved, must_be_movable, retired_models
from protocol.errors import Problem
from storage import copying, main_database, moving
from storage.engine import CanNotOpen, Engine
from storage.positions import incarnation

Report = Callable[[str], None]


class Move(NamedTuple):
    """From where to where. ``installation`` names the target; ``tenant_id`` is that of one tenant, None for all."""

    source: Engine
    target: Engine
    installation: str
    tenant_id: str | None
    report: Report
    compares_all: bool = False

    def tenant_ids(self) -> list[str]:
        """List what is to be moved."""
        return self.source.tenant_ids() if self.tenant_id is None else [self.tenant_id]


def begin(source: Engine, target: Engine, tenant_id: str | None, report: Report, *, compares_all: bool = False) -> Move:
    """Look whether an installation, or a tenant, can be moved. Nothing is copied yet.

    ``compares_all``: compare rows again that an earlier run compared.
    Raises: MoveError.
    """
    installation = target.rewrite(None, moving.name_of_installation)
    if source.rewrite(None, moving.name_of_installation) == installation:
        raise MoveError("That is where the data is already: the source and the target are one installation.")
    move = Move(source, target, installation, tenant_id, report, compares_all)
    must_be_movable(source, target, installation, tenant_id, move.tenant_ids())
    return move


def copy(move: Move) -> None:
    """Copy all of it while it is written.

    Raises: MoveError, and the problems of storage.
    """
    _copy_directory(move)
    _copy_tenants(move)


def cut_over(move: Move) -> None:
    """End writes at the source, copy what changed since, and have the target take writes.

    Raises: MoveError, and the problems of storage. Then the source takes no writes until another run ended, or ``undo``.
    """
    if move.tenant_id is None:
        move.source.rewrite(None, partial(moving.note_directory, move.installation))
    _copy_directory(move)
    _copy_tenants(move, closes=True)
    for tenant_id in move.tenant_ids():
        move.target.rewrite(tenant_id, partial(moving.note_tenant, None))
    if move.tenant_id is None:
        move.target.rewrite(None, partial(moving.note_directory, None))


# --- the directory ---------------------------------------------------------------------------------------------------


def _copy_directory(move: Move) -> None:
    """Copy customers, sessions and closed accounts; of a closed account what was copied of its tenant goes."""
    if move.tenant_id is None:
        here = move.source.directory.read(main_database.customer_ids)
        for closed in sorted(move.target.directory.read(main_database.customer_ids) - here):
            move.target.remove(closed)
    written = move.source.directory.read(
        lambda: move.target.rewrite(None, partial(_take_directory, connection(), move))
    )
    if written:
        move.report(f"customers and sessions: {written:,} rows copied and compared")


def _take_directory(source: Any, move: Move) -> int:
    tables = copying.tables_of_directory(move.tenant_id)
    if move.tenant_id is None:
        moving.note_directory(move.installation)
    return sum(copying.bring(source, table) for table in tables)


# --- tenants ---------------------------------------------------------------------------------------------------------


def _copy_tenants(move: Move, *, closes: bool = False) -> None:
    tenant_ids = move.tenant_ids()
    there = set(move.target.tenant_ids())
    for number, tenant_id in enumerate(tenant_ids, 1):
        with _named(tenant_id):
            if tenant_id in there and has_moved(move.source, move.target, move.installation, tenant_id):
                continue
            if closes:
                move.source.rewrite(tenant_id, partial(moving.note_tenant, move.installation))
            written, sequence = _copy_tenant(move, tenant_id)
        move.report(
            f"{tenant_id}: as of change {sequence:,}, {written:,} rows copied, compared ({number} of {len(tenant_ids)})"
        )


@contextmanager
def _named(tenant_id: str) -> Iterator[None]:
    """Say of a failure whose data it was about."""
    try:
        yield
    except (Problem, MoveError, CanNotOpen):
        raise
    except Exception as error:
        raise MoveError(f"Tenant {tenant_id} can't be copied: {error}") from error


def _copy_tenant(move: Move, tenant_id: str) -> tuple[int, int]:
    """Bring a tenant's copy to what the source has now; give how many rows were written, and its sequence."""

    def read() -> tuple[int, int]:
        """Read the source as of one moment, and write what the target lacks."""
        retired = retired_models()
        tables = [copying.table_of(model) for model in [*copying.models_of_tenant(), *retired]]
        (sequence,) = connection().execute("SELECT sequence FROM _meta").fetchone()
        take = partial(_take_tenant, connection(), tables, retired, move)
        return move.target.rewrite(tenant_id, take), int(sequence)

    return move.source.peek(tenant_id, read)


def _take_tenant(source: Any, tables: list[copying.Table], retired: list[type[Bound]], move: Move) -> int:
    copying.begin_tables(retired)
    return copying.bring_tenant(source, tables, move.installation, compares_all=move.compares_all)


# --- and back --------------------------------------------------------------------------------------------------------


def undo(move: Move) -> None:
    """Have the source take writes again, and the target none.

    Raises: MoveError if the target took any: what it has since is not here.
    """
    source_name = move.source.rewrite(None, moving.name_of_installation)
    there = set(move.target.tenant_ids())
    copied = [one for one in move.tenant_ids() if one in there]
    written = [one for one in copied if move.target.peek(one, destination_of_tenant) is None]
    if move.tenant_id is None:
        move.target.rewrite(None, partial(moving.note_directory, source_name))
    for tenant_id in copied:
        move.target.rewrite(tenant_id, partial(moving.note_tenant, source_name))
    if why := _took_writes(move, written):
        for tenant_id in written:
            move.target.rewrite(tenant_id, partial(moving.note_tenant, None))
        if move.tenant_id is None and written:
            move.target.rewrite(None, partial(moving.note_directory, None))
        raise MoveError(f"{why} To bring back what is there, move from there to here.")
    reopen(move.source, move.tenant_ids(), is_all=move.tenant_id is None)


def _took_writes(move: Move, written: list[str]) -> str | None:
    """Say what the target has that the source has not."""
    if move.tenant_id is None:
        here = move.source.directory.read(main_database.customer_ids)
        if new := move.target.directory.read(main_database.customer_ids) - here:
            return f"The target has customers since, such as {min(new)}."
    for tenant_id in written:
        if move.target.peek(tenant_id, incarnation) != move.source.peek(tenant_id, incarnation):
            return f"The target took changes of the tenant {tenant_id} since."
    return None


def reopen(source: Engine, tenant_ids: list[str], *, is_all: bool) -> None:
    """Have an installation take writes again, whatever there is elsewhere."""
    for tenant_id in tenant_ids:
        source.rewrite(tenant_id, partial(moving.note_tenant, None))
    if is_all:
        source.rewrite(None, partial(moving.note_directory, None))
