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
from typing import NamedTuple

from operations.backups import manifest as manifests
from operations.backups.manifest import BackupError
from operations.backups.verification import verify
from protocol.errors import StorageFull
from storage import main_database
from storage.engine import Engine, NotRestored
from storage.main_database import Customer
from storage.sqlite.errors import reason_of
from storage.sqlite.files import copy_file, faults_of
from tenants import parse_tenant_id

Report = Callable[[str], None]
_WAIT_SECONDS = 60.0


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
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "main.db"
        try:
            manifests.copy_and_hash(backup / "main.db", copy)
            return manifests.customers_in(copy)
        except Exception as error:
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


def restore(engine: Engine, choice: Choice, report: Report, wait_seconds: float = _WAIT_SECONDS) -> list[str]:
    """Restore the chosen customers' tenants, each under a new epoch; give their IDs.

    A customer that is not in the main database is added to it; an existing one stays as it is. A running server takes the
    files over within a second and notifies the devices; otherwise they are put in place here.
    Raises: BackupError if a file is no longer what was checked, or the running server does not take it.
    """
    hashes = manifests.read(choice.backup).files
    epochs = {}
    for customer in choice.customers:
        file = manifests.file_in(choice.backup, customer.id)
        sha256 = hashes.get(f"tenants/{file.name}")
        told = [f"{customer.id}: restored"]
        note = partial(_bring_back, customer, told)
        epochs[customer.id] = _laid_ready(engine, customer.id, partial(_copy_checked, file, sha256), note)
        for line in told:
            report(line)
    _wait_until_taken(engine, epochs, wait_seconds)
    return list(epochs)


def _laid_ready(engine: Engine, tenant_id: str, put: Callable[[Path], object], note: Callable[[], object]) -> str:
    try:
        return engine.lay_ready(tenant_id, put, note)
    except StorageFull:
        where = f"{engine.place}, in {engine.replaced}, which keeps what is replaced, or in {tempfile.gettempdir()}"
        raise BackupError(f"{tenant_id}: there is no room to restore it in {where}.") from None


def _bring_back(customer: Customer, told: list[str]) -> None:
    other = main_database.add_missing_customer(customer)
    if other:
        told.append(f"{customer.email} is another account's by now: this one comes back as {other}")


def restore_file(engine: Engine, file: Path, wanted: str, wait_seconds: float = _WAIT_SECONDS) -> str:
    """Restore a tenant from a file that is in no backup, such as one of Litestream's; give the tenant's ID.

    Raises: BackupError if it is damaged or another customer's; InvalidTenantId.
    """
    tenant_id = _existing_customer(engine, wanted)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy.db"
        copy_of_tenant(engine, file, tenant_id, copy)
        epoch = _laid_ready(engine, tenant_id, partial(manifests.copy_and_hash, copy), lambda: None)
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
