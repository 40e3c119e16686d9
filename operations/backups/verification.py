"""Verifies a backup: restores it into a scratch folder, compares hashes, and pulls all rows as a device would.

Knows: when a backup is complete and correct. Must not know: the command line, how a backup is made or restored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from operations.backups import manifest as manifests
from operations.backups.manifest import BackupError, Manifest, State
from operations.backups.scratch import is_no_room, scratch_folder
from storage.sqlite.data_folder import file_name
from storage.sqlite.errors import reason_of
from storage.sqlite.files import faults_of, look_into

Report = Callable[[str], None]
_MAIN = "main.db"


class Verification(NamedTuple):
    """The result: tenants without faults, the faults of others, and the faults of the backup as a whole."""

    good: list[str]
    faults: dict[str, str]
    backup_faults: list[str]
    notes: list[str]
    """What could not be checked, since an older backup does not have it."""

    @property
    def is_good(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.faults and not self.backup_faults


def verify(backup: Path, report: Report, only: Collection[str] | None = None) -> Verification:
    """Check all tenants of a backup, or ``only`` some, and what they need of the rest.

    Raises: BackupError if it has no manifest.
    """
    manifest = manifests.read(backup)
    checked = Verification([], {}, [], [])
    if not manifest.has_hashes:
        checked.notes.append(
            "This backup was made by an older version, without hashes of its files: changed contents of a row, and a"
            " customer whose file was missing, can't be found in it."
        )
    with scratch_folder() as scratch:
        _check_main(backup, manifest, scratch, checked)
        _check_unknown_files(backup, manifest, checked)
        for tenant_id in manifest.tenants if only is None else sorted(set(only) & manifest.tenants.keys()):
            fault = _fault_of(backup, manifest, tenant_id, scratch / "scratch.db")
            if fault:
                checked.faults[tenant_id] = fault
            else:
                checked.good.append(tenant_id)
            report(f"{tenant_id}: {fault or 'good'}")
    for line in (*checked.backup_faults, *checked.notes):
        report(line)
    return checked


def _check_main(backup: Path, manifest: Manifest, scratch: Path, checked: Verification) -> None:
    """Check the main database, and that every customer in it has a file in the backup, unless it is of one tenant."""
    fault = _fault_of_bytes(backup / _MAIN, scratch / _MAIN, manifest.files.get(_MAIN) if manifest.has_hashes else None)
    if fault:
        checked.backup_faults.append(f"{_MAIN}: {fault}")
        return
    try:
        customers = manifests.customers_in(scratch / _MAIN)
    except Exception as error:
        checked.backup_faults.append(f"{_MAIN}: it can't be read: {reason_of(error)}")
        return
    for tenant_id in sorted(set(manifest.tenants) - set(customers)):
        checked.faults[tenant_id] = "main.db does not know this customer"
    if manifest.has_hashes and manifest.only is None:
        for tenant_id in sorted(set(customers) - set(manifest.tenants) - set(manifest.closed)):
            checked.faults[tenant_id] = manifest.missing.get(tenant_id, "its file is not in the manifest")


def _check_unknown_files(backup: Path, manifest: Manifest, checked: Verification) -> None:
    """Name files that the manifest does not know: somebody else put them there."""
    known = {manifests.NAME, _MAIN, *(f"tenants/{file_name(one)}" for one in manifest.tenants)}
    for path in sorted(backup.rglob("*")):
        name = path.relative_to(backup).as_posix()
        if not path.is_dir() and name not in known:
            checked.backup_faults.append(f"{name!r} is not in the manifest")


def _fault_of(backup: Path, manifest: Manifest, tenant_id: str, scratch: Path) -> str | None:
    """Tell the first thing that is wrong with a tenant's file in a backup."""
    expected = manifest.tenants[tenant_id]
    sha256 = manifest.files.get(f"tenants/{file_name(tenant_id)}", "") if manifest.has_hashes else None
    fault = _fault_of_bytes(manifests.file_in(backup, tenant_id), scratch, sha256)
    if fault:
        return fault
    try:
        kept = look_into(scratch, manifests.stored_state)  # To open it may make it what is declared now.
        state = manifests.state_of(scratch)
    except BackupError as error:
        return str(error)
    except Exception as error:
        if is_no_room(error):
            raise
        return f"it can't be read: {reason_of(error)}"
    finally:
        for left in scratch.parent.glob(scratch.name + "*"):
            left.unlink()
    return None if _same(kept, state, expected) else "it is not what the manifest says"


def _fault_of_bytes(file: Path, scratch: Path, sha256: str | None) -> str | None:
    """Copy a file to ``scratch``, and tell what is wrong with it as a file."""
    if not file.is_file():
        return "its file is missing"
    if manifests.copy_and_hash(file, scratch) != sha256 and sha256 is not None:
        return "its contents are not those that were backed up: another SHA-256 than in the manifest"
    faults = faults_of(scratch)
    return faults[0] if faults else None


def _same(kept: State, state: State, expected: State) -> bool:
    """Compare a file with the manifest: its position and digests as stored (``kept``), and its rows as pulled if the same
    tables are declared as then."""
    try:
        places = [(one["epoch"], one["sequence"]) for one in (kept, expected)]
        pairs = [(kept["digests"], expected["digests"])]
        if expected.get("schema") == state["schema"]:
            pairs.append((state["rows"], expected["rows"]))
        return places[0] == places[1] and all(
            one[table] == other[table] for one, other in pairs for table in one.keys() & other.keys()
        )
    except (KeyError, TypeError, AttributeError):  # Somebody else wrote it.
        return False
