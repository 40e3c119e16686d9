"""What is looked at before anything is moved: whether all of it can be, and harms nothing where it comes.

Knows: what a target can't hold, whose data may be there. Must not know: the command line, engines, how rows are copied.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

from models import Bound
from protocol.errors import TenantNotFound
from storage import copying, main_database, moving
from storage.declarations import compatibility
from storage.declarations.table import Column, Table, model_of
from storage.dialect import dialect
from storage.engine import Engine
from storage.positions import incarnation
from storage.schema import prepared_tables

_NOBODY = "00000000-0000-0000-0000-000000000000"
_MOST_SHOWN = 3


class MoveError(RuntimeError):
    """What can't be moved; as text it says why, and what to do."""


def must_be_movable(
    source: Engine, target: Engine, installation: str, tenant_id: str | None, tenant_ids: Sequence[str]
) -> None:
    """Refuse what can't be moved from one to the other, before anything is.

    ``installation``: the name of the target. ``tenant_id``: that of one tenant, None for all.
    Raises: MoveError, MigrationRefused.
    """
    compatibility.must_be_accepted(source)
    with suppress(TenantNotFound):
        target.tenant(_NOBODY).read(lambda: None)  # Tables whose names it can't have are refused here.
    if tenant_id is None:
        _must_be_whole(source, installation, tenant_ids)
        _must_be_nobodys(source, target)
    else:
        _must_be_alone_with_its_address(source, target, tenant_id)
    _must_have_no_null(source, None)
    there = set(target.tenant_ids())
    for one in tenant_ids:
        if not source.is_current(one):
            source.migrate(one)
        if one in there and not target.is_current(one):
            target.migrate(one)
        _must_not_be_elsewhere(source, target, installation, one, is_there=one in there)
        _must_have_no_null(source, one)
        source.peek(one, retired_models)


def _must_be_whole(source: Engine, installation: str, tenant_ids: Collection[str]) -> None:
    if source.directory.read(destination_of_directory) not in (None, installation):
        raise MoveError(_ELSEWHERE.format("All of this"))
    if missing := source.directory.read(main_database.customer_ids) - set(tenant_ids):
        raise MoveError(
            f"The database of {_shown(missing)} is missing or broken: put it back from a backup, or close the account."
        )
    if not tenant_ids:
        raise MoveError("There are no tenants here: nothing is to be moved.")


_ELSEWHERE = "{} has moved to another installation already. If that is not so any more: move --undo."


def _must_be_nobodys(source: Engine, target: Engine) -> None:
    """Refuse a target with customers that are not, nor were, those of the source."""
    known = source.directory.read(lambda: main_database.customer_ids() | main_database.closed_ids())
    if others := target.directory.read(main_database.customer_ids) - known:
        raise MoveError(
            f"There are other customers at the target already, such as {_shown(others)}: move into an empty one."
        )


def _must_be_alone_with_its_address(source: Engine, target: Engine, tenant_id: str) -> None:
    customer = source.directory.read(lambda: main_database.customer_by_id(tenant_id))
    if customer is None or tenant_id not in source.tenant_ids():
        raise MoveError(f"There is no tenant {tenant_id} here.")
    other = target.directory.read(lambda: main_database.customer_by_email(customer.email))
    if other is not None and other.id != tenant_id:
        raise MoveError(f"At the target {customer.email} is the address of another customer, {other.id}.")


def _must_not_be_elsewhere(
    source: Engine, target: Engine, installation: str, tenant_id: str, *, is_there: bool
) -> None:
    """Refuse a tenant that moved to a third installation, or is written at the target without having moved there."""
    if source.peek(tenant_id, destination_of_tenant) not in (None, installation):
        raise MoveError(_ELSEWHERE.format(f"The tenant {tenant_id}"))
    is_written = is_there and target.peek(tenant_id, destination_of_tenant) is None
    if is_written and not has_moved(source, target, installation, tenant_id):
        raise MoveError(
            f"The tenant {tenant_id} is at the target already, and is written there: nothing is overwritten."
        )


def has_moved(source: Engine, target: Engine, installation: str, tenant_id: str) -> bool:
    """Tell of a tenant that is at the target whether it has moved there: it is written there, and here no more."""
    epoch, sequence = source.peek(tenant_id, incarnation)
    return (
        source.peek(tenant_id, destination_of_tenant) == installation
        and target.peek(tenant_id, destination_of_tenant) is None
        and target.peek(tenant_id, incarnation) >= (epoch, sequence)
        and target.peek(tenant_id, incarnation)[0] == epoch
    )


def _must_have_no_null(source: Engine, tenant_id: str | None) -> None:
    if tenant_id is None:
        found = source.directory.read(lambda: _first_null(copying.DIRECTORY))
    else:
        found = source.peek(tenant_id, lambda: _first_null(copying.models_of_tenant()))
    if found:
        raise MoveError(
            f"{found}{f' of the tenant {tenant_id}' if tenant_id else ''} has a text with U+0000, which not every database"
            " can store. Give that field another value, by a push for example, and run this again."
        )


def _first_null(models: Collection[type[Bound]]) -> str | None:
    return next(filter(None, map(copying.place_of_null, models)), None)


def retired_models() -> list[type[Bound]]:
    """Make the models of the tables that the bound tenant has rows in, though they are synced no more.

    Raises: MoveError if such a table has columns of which nothing is known.
    """
    found: list[type[Bound]] = []
    for table in prepared_tables().values():
        held = set(dialect().schema.columns(table.name)) if table.is_retired else ()
        if held and copying.has_rows(table.name):
            model = _model_of(table.name, table.declaration)
            if left := held - {str(field.column_name) for field in model._meta.sorted_fields}:
                raise MoveError(
                    f"The table {table.name}, which is synced no more, has columns unknown here: {min(left)}."
                )
            found.append(model)
    return found


def _model_of(name: str, declaration: dict[str, object]) -> type[Bound]:
    columns: dict[str, dict[str, object]] = declaration["columns"]  # type: ignore[assignment]
    return model_of(Table(name, [Column(one, str(described["type"])) for one, described in columns.items()], []))


def destination_of_tenant() -> str | None:
    """Tell to which installation the bound tenant moved."""
    return moving.destination(moving.TENANT)


def destination_of_directory() -> str | None:
    """Tell to which installation the bound directory moved."""
    return moving.destination(moving.DIRECTORY)


def _shown(tenant_ids: Collection[str]) -> str:
    shown = ", ".join(sorted(tenant_ids)[:_MOST_SHOWN])
    return shown + (f" and {len(tenant_ids) - _MOST_SHOWN:,} more" if len(tenant_ids) > _MOST_SHOWN else "")
