"""Restores tenants from a backup, or from a single file.

Knows: which customers come back, and how a file becomes one that a server takes over. Must not know: the command line,
requests, sockets, how a backup is made or checked.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from models import Bound
from operations.backups import manifest as manifests
from operations.backups.manifest import BackupError
from operations.backups.scratch import is_no_room, scratch_folder
from operations.backups.verification import verify
from protocol.codec import Row
from protocol.errors import StorageFull
from storage import main_database, operator_actions
from storage.engine import Engine, NotRestored
from storage.main_database import Closing, Customer, OperatorAction
from storage.positions import now_ms
from storage.sqlite.errors import reason_of
from storage.sqlite.files import copy_file, faults_of
from storage.sqlite.tenant_files import open_main_file
from storage.usage import DailyUsage
from tenants import parse_tenant_id

Report = Callable[[str], None]
T = TypeVar("T")
_WAIT_SECONDS = 60.0
_AT_ONCE = 200


class Source(NamedTuple):
    """From where something is restored, and by which session of the console (None: a command): for the record."""

    name: str
    by: str | None = None

    def record(self, tenant_id: str) -> None:
        """Record that a tenant is restored, bound to the directory."""
        operator_actions.record("restore", tenant_id, now_ms() // 1000, f"from {self.name}", self.by)


class Choice(NamedTuple):
    """The customers of a backup to restore, and those left out because their accounts were closed."""

    backup: Path
    customers: list[Customer]
    left_out: list[Customer]


def choose(engine: Engine, backup: Path, wanted: str | None = None, with_closed: bool = False) -> Choice:
    """Choose all customers of a backup, or the one ``wanted`` by ID or e-mail address, and verify their files.

    ``with_closed``: also those whose accounts were closed since.
    Raises: BackupError if one of the files is damaged; InvalidTenantId.
    """
    held = set(manifests.read(backup).tenants)
    known = _customers(backup)
    ids = held if wanted is None else {named(engine, known, wanted)}
    checked = verify(backup, lambda _: None, ids)
    for fault in checked.backup_faults:
        raise BackupError(fault)
    for tenant_id in sorted(ids - set(checked.good)):
        raise BackupError(f"{tenant_id}: {checked.faults.get(tenant_id, 'is not in this backup')}")
    closed = set() if with_closed else ids & engine.directory.read(main_database.closed_ids)
    if wanted is not None and closed:
        raise BackupError(f"{wanted}: this account was closed since. To bring it back, use --closed as well.")
    customers = [known[tenant_id] for tenant_id in sorted(ids)]
    coming = [customer for customer in customers if customer.id not in closed]
    return Choice(backup, coming, [customer for customer in customers if customer.id in closed])


def _customers(backup: Path) -> dict[str, Customer]:
    return _read_main(backup, manifests.customers_in)


def _read_main(backup: Path, read: Callable[[Path], T]) -> T:
    """Read a copy of a backup's main database: to open it writes beside it.

    Raises: BackupError.
    """
    with scratch_folder() as scratch:
        try:
            manifests.copy_and_hash(backup / "main.db", scratch / "main.db")
            return read(scratch / "main.db")
        except Exception as error:
            if is_no_room(error):
                raise
            raise BackupError(f"main.db of {backup} can't be read: {reason_of(error)}") from None


def named(engine: Engine, known: dict[str, Customer], text: str) -> str:
    """Find the customer of an ID or an address among those of a backup; the address may be another's by now.

    Raises: BackupError, InvalidTenantId.
    """
    if "@" not in text:
        return parse_tenant_id(text)
    address = main_database.normal_email(text)
    there = {customer.id for customer in known.values() if customer.email == address}
    here = engine.directory.read(lambda: main_database.customer_by_email(address))
    found = there | ({here.id} if here else set())
    if len(found) != 1:
        which = (
            f"is of {' in the backup and '.join(sorted(found))} here: say which ID"
            if found
            else "is no customer's address"
        )
        raise BackupError(f"{text} {which}.")
    return found.pop()


def restore(
    engine: Engine, choice: Choice, source: Source, report: Report, wait_seconds: float = _WAIT_SECONDS
) -> list[str]:
    """Restore the chosen customers' tenants, each under a new epoch; give their IDs.

    A customer that is not in the main database is added to it; an existing one stays as it is. A running server takes the
    files over within a second and notifies the devices; otherwise they are put in place here. Each is recorded when its
    file lies ready: whatever ends this, some tenants are restored then.
    Raises: BackupError if a file is no longer what was checked, or the running server does not take it.
    """
    if not engine.directory.read(main_database.count_customers):
        _bring_records(engine, choice.backup)
    hashes = manifests.read(choice.backup).files
    epochs = {}
    for customer in choice.customers:
        file = manifests.file_in(choice.backup, customer.id)
        sha256 = hashes.get(f"tenants/{file.name}")
        told = [f"{customer.id}: restored"]
        note = partial(_bring_back, customer, source, told)
        epochs[customer.id] = _laid_ready(engine, customer.id, partial(_copy_checked, file, sha256), note)
        for line in told:
            report(line)
    _wait_until_taken(engine, epochs, wait_seconds)
    return list(epochs)


def _laid_ready(engine: Engine, tenant_id: str, put: Callable[[Path], object], note: Callable[[], object]) -> str:
    try:
        return engine.lay_ready(tenant_id, put, note)
    except (StorageFull, OSError) as error:
        if not is_no_room(error):
            raise
        where = f"{engine.place}, in {engine.replaced}, which keeps what is replaced, or in {tempfile.gettempdir()}"
        raise BackupError(f"{tenant_id}: there is no room to restore it in {where}.") from None


def _bring_back(customer: Customer, source: Source, told: list[str]) -> None:
    source.record(customer.id)
    other = main_database.add_missing_customer(customer)
    if other:
        told.append(f"{customer.email} is another account's by now: this one comes back as {other}")


def _bring_records(engine: Engine, backup: Path) -> None:
    """Bring which accounts were closed, what operators did and what tenants used into a directory without customers.

    What operators did here already comes after that, under other numbers.
    """
    closings, actions, usage = _read_main(backup, _records_in)

    def add() -> None:
        """Add them."""
        here = _rows_of(OperatorAction)
        OperatorAction.delete().execute()
        first = 1 + max((one["number"] for one in actions), default=0)
        mine = [one for one in here if one not in actions]  # Those of a restore that was cut off may be here already.
        later = [{**one, "number": number} for number, one in enumerate(mine, first)]
        for model, rows in ((Closing, closings), (OperatorAction, actions + later), (DailyUsage, usage)):
            for at in range(0, len(rows), _AT_ONCE):
                model.insert_many(rows[at : at + _AT_ONCE]).on_conflict_ignore().execute()

    engine.directory.write(add)


def _records_in(main: Path) -> list[list[Row]]:
    database = open_main_file(main)
    try:
        return database.read(lambda: [_rows_of(model) for model in (Closing, OperatorAction, DailyUsage)])
    finally:
        database.close()


def _rows_of(model: type[Bound]) -> list[Row]:
    found: Any = model.select().order_by(model._meta.primary_key).dicts()
    return list(found)


def restore_file(
    engine: Engine, file: Path, wanted: str, by: str | None = None, wait_seconds: float = _WAIT_SECONDS
) -> str:
    """Restore a tenant from a file that is in no backup, such as one of Litestream's; give the tenant's ID.

    Raises: BackupError if it is damaged or another customer's; InvalidTenantId.
    """
    tenant_id = _existing_customer(engine, wanted)
    with scratch_folder() as scratch:
        copy = scratch / "copy.db"
        copy_of_tenant(engine, file, tenant_id, copy)
        note = partial(Source(str(file), by).record, tenant_id)
        epoch = _laid_ready(engine, tenant_id, partial(manifests.copy_and_hash, copy), note)
    _wait_until_taken(engine, {tenant_id: epoch}, wait_seconds)
    return tenant_id


def copy_of_tenant(engine: Engine, file: Path, tenant_id: str, copy: Path) -> None:
    """Copy a file that is to be a tenant's.

    Raises: BackupError if it is damaged or another customer's.
    """
    try:
        copy_file(file, copy)
        faults = faults_of(copy)
        state = {} if faults else manifests.state_of(copy)
    except Exception as error:
        if is_no_room(error):
            raise
        faults = [str(error)]
    if faults:
        raise BackupError(f"{file} is no sound database of a tenant: {faults[0]}")
    owner = _other_owner(engine, file, state["epoch"], tenant_id)
    if owner:
        raise BackupError(f"{file} is of another customer, {owner}.")


def _other_owner(engine: Engine, file: Path, epoch: str, tenant_id: str) -> str | None:
    """Give the other customer whose file this is, by its name or its epoch; None if it is not another's."""
    named = re.search(r"tenant_([0-9a-f]{32})", file.name)
    owners = {engine.owner_of(epoch), named and str(uuid.UUID(named[1]))}
    return next(iter(owners - {None, tenant_id}), None)


def _existing_customer(engine: Engine, wanted: str) -> str:
    tenant_id = named(engine, {}, wanted)
    if engine.directory.read(lambda: main_database.customer_by_id(tenant_id)) is None:
        raise BackupError(f"There is no customer {wanted}.")
    return tenant_id


def _copy_checked(file: Path, sha256: str | None, target: Path) -> None:
    if manifests.copy_and_hash(file, target) != sha256 and sha256 is not None:
        raise BackupError(f"{file.name} changed while it was restored.")


def _wait_until_taken(engine: Engine, epochs: dict[str, str], wait_seconds: float) -> None:
    try:
        engine.wait_until_taken(epochs, wait_seconds)
    except NotRestored as error:
        raise BackupError(str(error)) from None
