"""Backup and restore of tenants, one or all, while the server runs.

Knows: what a backup folder holds, how it is checked, how a tenant's file is put back. Must not know: the command line,
requests, sockets. A backup is a folder ``syncapp-<UTC time>`` with ``main.db``, ``tenants/`` and ``manifest.json``; it
appears under that name when it is whole, so that whatever stands there is complete.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import digest
import directory
import ledger
import pulls
from files import copy_file, faults_of
from models import connection, synced_tables
from protocol import Pull
from storage import Store
from tenants import Tenants, now_ms, open_tenant_file, sync_folder

_NAME = "syncapp-%Y%m%dT%H%M%SZ"
_SLICE_ROWS = 1000
Say = Callable[[str], None]


class BackupError(RuntimeError):
    """One sentence that says why a backup or a restore can't be made."""


class Checked(NamedTuple):
    """What a check found: tenants that are whole, and what is wrong with the others."""

    good: list[str]
    faults: dict[str, str]


def make(tenants: Tenants, to: Path, tenant_id: str | None, keep: int | None, say: Say) -> Path:
    """Back up all tenants, or one, and give the new folder; then remove all but the newest ``keep`` backups.

    Raises: BackupError if a tenant's file can't be copied: nothing appears then, and nothing old is removed.
    """
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".syncapp-", dir=to) as scratch:
        made = Path(scratch) / "backup"
        (made / "tenants").mkdir(mode=0o700, parents=True)
        copy_file(tenants.folder / "main.db", made / "main.db")
        with _opened(made / "main.db") as main:
            ids = sorted(main.read(directory.customer_ids))
        if tenant_id is not None and tenant_id not in ids:
            raise BackupError(f"There is no tenant {tenant_id}.")
        manifest = _copy_tenants(tenants, made, [tenant_id] if tenant_id else ids, say)
        (made / "manifest.json").write_text(json.dumps(manifest, indent=1))
        target = to / datetime.now(UTC).strftime(_NAME)
        if target.exists():
            raise BackupError(f"{target} exists already.")
        made.rename(target)
    sync_folder(to)
    for old in backups_in(to)[keep:] if keep else []:
        shutil.rmtree(old)
        say(f"removed {old.name}")
    return target


def _copy_tenants(tenants: Tenants, made: Path, ids: Iterable[str], say: Say) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for tenant_id in ids:
        source = tenants.path_of(tenant_id)
        if not source.exists():
            say(f"{tenant_id}: closed meanwhile")
            continue
        target = made / "tenants" / source.name
        try:
            copy_file(source, target)
            held[tenant_id] = _state_of(target)
        except Exception as error:
            raise BackupError(f"{tenant_id}: can't be copied: {error}") from error
        say(f"{tenant_id}: {held[tenant_id]['sequence']} changes")
    return {"format": 1, "made": datetime.now(UTC).isoformat(timespec="seconds"), "tenants": held}


def backups_in(folder: Path) -> list[Path]:
    """List the backups in a folder, the newest first."""
    return sorted((path.parent for path in folder.glob("syncapp-*/manifest.json")), reverse=True)


# --- checking --------------------------------------------------------------------------------------------------------


def verify(backup: Path, say: Say) -> Checked:
    """Really restore each tenant of a backup into a scratch folder, check it and pull all its rows as a device would."""
    manifest = _manifest(backup)
    checked = Checked([], {})
    with tempfile.TemporaryDirectory() as scratch:
        for tenant_id, told in manifest["tenants"].items():
            fault = _fault_of(_file_in(backup, tenant_id), Path(scratch) / "scratch.db", told)
            if fault:
                checked.faults[tenant_id] = fault
            else:
                checked.good.append(tenant_id)
            say(f"{tenant_id}: {fault or 'good'}")
    return checked


def _fault_of(file: Path, scratch: Path, told: dict[str, Any]) -> str | None:
    """Tell the first thing that is wrong with a tenant's file in a backup."""
    if not file.is_file():
        return "its file is missing"
    shutil.copyfile(file, scratch)
    faults = faults_of(scratch)
    if faults:
        return faults[0]
    try:
        state = _state_of(scratch)
    except Exception as error:
        return f"it can't be read: {error}"
    finally:
        for left in scratch.parent.glob(scratch.name + "*"):
            left.unlink()
    if state["pulled"] != state["digests"]:
        return "the rows that a device pulls do not give the digest that is stored with them"
    return None if _same_tables(state, told) else "it is not what the manifest says"


def _same_tables(state: dict[str, Any], told: dict[str, Any]) -> bool:
    """Compare what a file holds with what the manifest tells, of tables that were synced then and are now."""
    places = [(one["epoch"], one["sequence"]) for one in (state, told)]
    both = state["digests"].keys() & told["digests"].keys()
    return places[0] == places[1] and all(state["digests"][name] == told["digests"][name] for name in both)


def _state_of(file: Path) -> dict[str, Any]:
    """Read where a tenant's file stands, and pull all of it through the code that serves devices."""
    with _opened(file) as store:
        place, digests = store.read(ledger.place_and_digests)
        pull = Pull(list(synced_tables()), None, None)
        page = store.read(lambda: pulls.page_of(pull, now_ms(), 0))
        pulled = {table: _digest_of(store, page, table) for table in page.tables}
    synced = {name: digests[name] for name in pulled}  # There may be those of tables that are synced no more.
    return {"epoch": place.epoch, "sequence": place.sequence, "digests": synced, "pulled": pulled}


def _digest_of(store: Store, page: pulls.Page, table: str) -> dict[str, Any]:
    after, count, whole = page.since, 0, 0
    while (some := store.read(lambda: pulls.rows_of(page, table, after, _SLICE_ROWS))).count:
        for row in some.rows():
            count, whole = count + 1, whole ^ digest.number_of(row["id"], row["version"])
        after = some.last
    return {"count": count, "hash": digest.text_of(whole)}


class _opened:  # noqa: N801 -- reads as a verb where it is used
    """An open copy that nobody else uses."""

    def __init__(self, file: Path) -> None:
        opening = _open_main if file.name == "main.db" else open_tenant_file
        self._store = opening(file)

    def __enter__(self) -> Store:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()


def _open_main(file: Path) -> Store:
    return Store.open(file, directory.prepare, directory.FINGERPRINT)


# --- restoring -------------------------------------------------------------------------------------------------------


def restore(tenants: Tenants, backup: Path, tenant_id: str | None, say: Say, wait_seconds: float = 60) -> list[str]:
    """Put tenants of a backup back, all or one, each checked before and under a new epoch; give their IDs.

    A customer that the directory does not know comes back with it; one that it knows stays as it is. A running server
    takes the files over within a second and tells the devices; else they are put in place here.
    Raises: BackupError if a tenant is not whole in the backup: then nothing at all is put back.
    """
    ids = [tenant_id] if tenant_id else list(_manifest(backup)["tenants"])
    checked = verify(backup, lambda _: None)
    for wanted in ids:
        if wanted not in checked.good:
            raise BackupError(f"{wanted}: {checked.faults.get(wanted, 'is not in this backup')}")
    with _opened_copy(backup / "main.db") as main:
        customers = {customer.id: customer for customer in main.read(lambda: list(directory.Customer.select()))}
    for wanted in ids:
        _put_back(tenants, _file_in(backup, wanted), wanted)
        tenants.directory.write(lambda: directory.add_missing_customer(customers[wanted]))
        say(f"{wanted}: restored")
    _wait_until_taken(tenants, ids, wait_seconds)
    return ids


def _put_back(tenants: Tenants, file: Path, tenant_id: str) -> None:
    """Lay a tenant's file ready under a new epoch, so that no old cursor fits it, and every device as one to start anew."""
    ready = tenants.restored_path_of(tenant_id)
    making = ready.with_suffix(".making")
    shutil.copyfile(file, making)
    store = open_tenant_file(making)
    store.write(_begin_epoch)
    store.close()
    making.rename(ready)
    sync_folder(ready.parent)


def _begin_epoch() -> None:
    """Whoever pulled by a time before this one held what is no more."""
    begun = "UPDATE _meta SET epoch = ?1, clock = max(clock + 1, ?2), restored_at = max(clock + 1, ?2)"
    connection().execute(begun, (secrets.token_hex(6), now_ms()))
    connection().execute("UPDATE _devices SET places = '{}'")


def _wait_until_taken(tenants: Tenants, ids: Iterable[str], wait_seconds: float) -> None:
    give_up = time.monotonic() + wait_seconds
    for tenant_id in ids:
        while tenants.restored_path_of(tenant_id).exists():
            if tenants.is_server or not tenants.has_server():
                tenants.take_restored(tenant_id)
            elif time.monotonic() > give_up:
                raise BackupError("The running server does not take the restored files over; restart it, that does.")
            else:
                time.sleep(0.1)


class _opened_copy(_opened):  # noqa: N801
    """An open copy of a file that must stay as it is."""

    def __init__(self, file: Path) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        copy = Path(self._scratch.name) / file.name
        shutil.copyfile(file, copy)
        super().__init__(copy)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._scratch.cleanup()


def _manifest(backup: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((backup / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise BackupError(f"{backup} is no backup: {error}") from None
    return manifest


def _file_in(backup: Path, tenant_id: str) -> Path:
    return backup / "tenants" / f"tenant_{uuid.UUID(tenant_id).hex}.db"
