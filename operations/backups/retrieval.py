"""Brings a backup back from its place: into a folder from which ``restore`` goes on, or to be verified as a whole.

Knows: which objects of a catalogue are needed. Must not know: the command line, how tenants are put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from operations.backups import manifest as manifests
from operations.backups.catalogue import Catalogue, Catalogues
from operations.backups.chains import Chains
from operations.backups.manifest import BackupError, Manifest
from operations.backups.objects import Packing
from operations.backups.place_choice import place_of
from operations.backups.places import PlaceUnusable
from operations.backups.scratch import is_no_room, scratch_folder
from settings import Settings
from storage.main_database import Customer
from storage.sqlite.errors import reason_of
from storage.sqlite.tenant_files import remove_file

Report = Callable[[str], object]


class Kept:
    """One backup in its place."""

    def __init__(self, catalogues: Catalogues, chains: Chains, catalogue: Catalogue) -> None:
        self.catalogues, self._chains, self.catalogue = catalogues, chains, catalogue

    def main(self, target: Path) -> dict[str, Customer]:
        """Make the main database, and list its customers."""
        try:
            self._chains.restore_main(self.catalogue.main, target)
            return manifests.customers_in(target)
        except PlaceUnusable:
            raise
        except Exception as error:
            if is_no_room(error):
                raise
            raise BackupError(f"main.db of {self.catalogue.name} can't be read: {reason_of(error)}") from None

    def tenant(self, tenant_id: str, target: Path) -> None:
        """Make a tenant's file.

        Raises: BackupError if it is not in this backup, or damaged.
        """
        if tenant_id not in self.catalogue.tenants:
            raise BackupError(f"{tenant_id} is not in the backup {self.catalogue.name}.")
        try:
            self._chains.restore(tenant_id, self.catalogue.tenants[tenant_id], target)
        except PlaceUnusable:
            raise
        except Exception as error:
            if is_no_room(error):
                raise
            raise BackupError(f"{tenant_id} of {self.catalogue.name}: {reason_of(error)}") from None

    def faults(self, report: Report) -> dict[str, str]:
        """Verify all of it; give what is wrong, by tenant or by ``main.db``."""
        found = {}
        with scratch_folder() as scratch:
            try:
                self.main(scratch / "main.db")
            except PlaceUnusable:
                raise
            except BackupError as error:
                found["main.db"] = str(error)
                report(str(error))
        for tenant_id, held in self.catalogue.tenants.items():
            fault = self._chains.fault_of(tenant_id, held)
            report(f"{tenant_id}: {fault or 'good'}")
            if fault:
                found[tenant_id] = fault
        return found


@contextmanager
def catalogues(settings: Settings) -> Iterator[tuple[Catalogues, Chains]]:
    """Open the place that BACKUP_TO names.

    Raises: BackupError.
    """
    with scratch_folder() as scratch:
        place, packing = place_of(settings), Packing(settings.backup_key, scratch)
        yield Catalogues(place, packing, scratch), Chains(place, packing, scratch)


@contextmanager
def kept(settings: Settings, wanted: str) -> Iterator[Kept]:
    """Open a backup: ``latest``, its name, or a time, of which it is the last one until then.

    Raises: BackupError.
    """
    with catalogues(settings) as (found, chains):
        yield Kept(found, chains, found.read(found.chosen(wanted)))


def bring_back(backup: Kept, folder: Path, wanted: str | None, report: Report) -> list[str]:
    """Make a folder of backups' form of one tenant, or of all (``wanted`` is None), with the main database.

    Gives those of all that are damaged: the others are not held up by them.
    Raises: BackupError.
    """
    damaged = []
    (folder / "tenants").mkdir(mode=0o700, parents=True)
    if not (folder / "main.db").exists():
        backup.main(folder / "main.db")
    files = {"main.db": manifests.flush_and_hash(folder / "main.db")}
    manifest = Manifest(manifests.FORMAT, backup.catalogue.made, None, files, {}, {}, [])
    for tenant_id in sorted(backup.catalogue.tenants) if wanted is None else [wanted]:
        target = manifests.file_in(folder, tenant_id)
        try:
            backup.tenant(tenant_id, target)
            state = manifests.state_of(target)
        except BackupError as error:
            if wanted or isinstance(error, PlaceUnusable):
                raise
            damaged.append(tenant_id)
            remove_file(target)
            report(str(error))
            continue
        manifest.tenants[tenant_id] = state
        files[f"tenants/{target.name}"] = manifests.flush_and_hash(target)
        report(f"{tenant_id}: read from {backup.catalogue.name}")
    manifests.write(folder, manifest)
    return damaged
