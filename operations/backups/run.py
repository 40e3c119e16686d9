"""One run of the backups that look after themselves: keeps what changed, verifies it, and removes what is too old.

Knows: the order in which a run does what, what it leaves if it is cut off, how it is recorded. Must not know: the command
line, when a run is due, the form of objects.

A run goes on from the newest backup, also from one that was cut off: that has a partial catalogue, written now and then. Of
a customer whose data can't be read now, the backup keeps what is held already, and says so.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from operations.backups import manifest as manifests
from operations.backups.catalogue import (
    Catalogue,
    Catalogues,
    Held,
    NotEncrypted,
    Object,
    new_name,
    object_name,
    sha256_of,
)
from operations.backups.chains import Chains
from operations.backups.changes import later_marks, unchanged
from operations.backups.lock import alone
from operations.backups.manifest import BackupError
from operations.backups.objects import Packing
from operations.backups.place_choice import place_of
from operations.backups.places import Place, PlaceUnusable
from operations.backups.retention import Removed, remove_old
from operations.backups.scratch import is_no_room, scratch_folder
from protocol.errors import Problem
from settings import Settings
from storage import backup_runs, main_database
from storage.engine import Engine
from storage.sqlite.errors import reason_of

_SAMPLE = 5
_REPLACED_SECONDS = 7 * 86_400
"""For how long what a restore replaced is kept: it may be in no backup, and the next one may be minutes away."""

_PARTIAL_SECONDS, _RENEW_SECONDS = 30.0, 20.0
Report = Callable[[str], object]


class RunResult(NamedTuple):
    """A backup, the faults that need somebody to look, and what was removed."""

    catalogue: Catalogue
    faults: dict[str, str]
    removed: Removed


def run(engine: Engine, settings: Settings, report: Report) -> RunResult:
    """Make a backup of all tenants where BACKUP_TO says, and record it.

    Raises: Underway; BackupError if none was made: what was there before is as it was, and the next run goes on from it.
    """
    place = place_of(settings)
    with alone(engine, settings) as renew:
        number = engine.directory.write(lambda: backup_runs.begin(settings.backup_to, int(time.time())))
        try:
            with scratch_folder() as scratch:
                result = _Run(engine, settings, place, scratch, report, renew).make()
        except BaseException as error:
            _record_failure(engine, number, error)
            raise
        _record(engine, number, result)
    return result


def _record(engine: Engine, number: int, result: RunResult) -> None:
    made = result.catalogue
    counts: dict[str, int | str] = {"name": made.name, "tenants": len(made.tenants), "changed": made.changed}
    counts["stored_bytes"] = made.stored_bytes
    state: backup_runs.State = "incomplete" if result.faults else "good"
    shown = "; ".join(f"{one}: {why}" for one, why in list(result.faults.items())[:3]) or None
    engine.directory.write(lambda: backup_runs.finish(number, state, int(time.time()), shown, **counts))


def _record_failure(engine: Engine, number: int, error: BaseException) -> None:
    why = reason_of(error) if isinstance(error, Exception) else "it was ended"
    state: backup_runs.State = "failed" if isinstance(error, Exception) else "interrupted"
    with contextlib.suppress(Problem, OSError):  # A full disk: then whoever looks finds a run that never ended.
        engine.directory.write(lambda: backup_runs.finish(number, state, int(time.time()), why or type(error).__name__))


class _Run:
    """The state of one run."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        place: Place,
        scratch: Path,
        report: Report,
        renew: Callable[[], None],
    ) -> None:
        self._engine, self._settings, self._report, self._renew = engine, settings, report, renew
        packing = Packing(settings.backup_key, scratch)
        self._catalogues, self._chains = Catalogues(place, packing, scratch), Chains(place, packing, scratch)
        self._main, self._restored_main = scratch / "main.db", scratch / "restored main.db"
        self._faults: dict[str, str] = {}
        self._noted = self._renewed = time.monotonic()

    def make(self) -> RunResult:
        """Make the backup."""
        before = self._before()
        self._held = before.tenants if before else {}
        began = datetime.now(UTC)
        name = new_name(began, before.name if before else "")
        self._engine.copy_directory(self._main)
        tenant_ids = sorted(manifests.customers_in(self._main))
        if before is not None:
            self._tell_of_vanished(before, tenant_ids)
            self._leave_out_lost(tenant_ids)
        self._made = Catalogue(name, began.isoformat(timespec="seconds"), self._keep_main(name), {})
        try:
            self._keep_all(tenant_ids)
        except BaseException:
            with contextlib.suppress(BackupError, OSError):
                self._note_partial()
            raise
        self._note_marks()
        self._made.stored_bytes = self._chains.stored_bytes
        self._made.missing = self._faults
        self._catalogues.write(self._made, is_complete=True)
        return RunResult(self._made, *self._removed())

    def _removed(self) -> tuple[dict[str, str], Removed]:
        """Remove what is too old; give what needs attention, and what was removed."""
        closed = self._engine.directory.read(main_database.closed_ids)
        removed = remove_old(self._catalogues, self._made, self._settings.backup_keep, closed, self._report)
        self._forget_replaced()
        faults = dict(self._faults)
        if removed.kept_why:  # Else nobody would see it before the disk is full.
            faults["older backups"] = f"none was removed: {removed.kept_why}"
        return faults, removed

    def _forget_replaced(self) -> None:
        """Remove what restores replaced long ago, of tenants that are kept as they are now."""
        folder = self._engine.replaced
        if folder is not None and folder.is_dir() and any(folder.iterdir()):
            for one in self._made.tenants.keys() - self._faults.keys():
                self._engine.forget_replaced(one, time.time() - _REPLACED_SECONDS)

    def _before(self) -> Catalogue | None:
        """Give the backup from which this one goes on. A newer one that can't be read, or is not encrypted, is a fault."""
        passed: list[BackupError] = []
        before = self._catalogues.newest(passed.append)
        for error in passed:
            self._report(str(error))
        if before is not None and passed:
            self._faults["older backups"] = str(passed[0])
        elif any(isinstance(error, NotEncrypted) for error in passed):
            self._report("All of it is kept anew, encrypted with BACKUP_KEY.")
        elif before is None:
            self._tell_if_emptied()
        return before

    def _tell_if_emptied(self) -> None:
        """Note a fault if there were backups here: somebody emptied the place, or it is another disk."""
        place = self._settings.backup_to
        if self._engine.directory.read(lambda: backup_runs.latest_made(place)) is not None:
            self._faults["older backups"] = f"they are no more in {place}, or can't be read; this one begins anew"

    def _tell_of_vanished(self, before: Catalogue, tenant_ids: list[str]) -> None:
        """Note a fault of each customer who is no more here and did not close the account: main.db went back, or another
        installation makes its backups here, too.

        Raises: BackupError if nobody is left: the latest backup would be one of nothing.
        """
        closed = self._engine.directory.read(main_database.closed_ids)
        vanished = before.tenants.keys() - set(tenant_ids) - closed
        if vanished and not tenant_ids:
            raise BackupError(
                f"There is no customer in {self._engine.place}, and {len(vanished):,} in the backup {before.name}: none was"
                " made, so that it stays the latest. If the data is lost, restore it from there with --new; else give this"
                " installation a BACKUP_TO of its own."
            )
        for one in sorted(vanished):
            self._faults[one] = (
                f"this customer is no more here, and did not close the account; {before.name} has its data"
            )

    def _keep_main(self, name: str) -> Object:
        """Keep the main database, and see that it comes back as it is.

        Raises: BackupError.
        """
        made = self._chains.put_main(self._main, name)
        self._chains.restore_main(made, self._restored_main)
        if sha256_of(self._restored_main) != sha256_of(self._main):
            raise BackupError("What was backed up of main.db is not what is there.")
        self._restored_main.unlink()
        return made

    def _leave_out_lost(self, tenant_ids: list[str]) -> None:
        """Make a tenant anew of which an object is gone, also if it did not change: nobody would read it for long."""
        there = set(self._catalogues.objects())
        for one in set(tenant_ids) & self._held.keys():
            names = [object_name(one, part) for part in self._held[one].chain]
            if lost := [name for name in names if name not in there]:
                del self._held[one]
                self._faults[one] = f"what was backed up before is damaged, and is made anew: {lost[0]} is missing"

    def _keep_all(self, tenant_ids: list[str]) -> None:
        same, marks = unchanged(self._engine, self._held, tenant_ids, self._go_on)
        for one, mark in same.items():
            held = self._held[one]
            self._made.tenants[one] = Held(held.state, held.chain, mark, held.run)
        for one in tenant_ids:
            if one not in same:
                self._keep(one, self._held.get(one), marks.get(one, ""))
        for one in random.sample(sorted(same), min(_SAMPLE, len(same))):
            self._go_on()
            if fault := self._chains.fault_of(one, self._held[one]):
                self._report(f"{one}: what was backed up is damaged: {fault}")
                self._keep(one, None, "")
                self._faults.setdefault(one, f"what was backed up before is damaged, and was made anew: {fault}")

    def _note_marks(self) -> None:
        now = {one: held for one, held in self._made.tenants.items() if held.run == self._made.name}
        for one, mark in later_marks(self._engine, now).items():
            self._made.tenants[one] = Held(now[one].state, now[one].chain, mark, now[one].run)

    def _keep(self, tenant_id: str, before: Held | None, mark: str) -> None:
        """Keep a tenant that changed. If that fails, what is held of it stays."""
        self._go_on()
        try:
            fault = self._engine.fault_of(tenant_id)
            if fault is None:
                held, what = self._chains.keep(self._engine, tenant_id, before, self._made.name, mark)
                self._made.tenants[tenant_id] = held
                self._made.changed += 1
                self._report(f"{tenant_id}: backed up as of change {held.state.sequence}, {what}")
                return
        except PlaceUnusable:
            raise
        except Exception as error:
            if is_no_room(error):
                raise
            fault = f"it can't be backed up: {reason_of(error)}"
        if self._engine.directory.read(lambda: main_database.customer_by_id(tenant_id)) is None:
            self._report(f"{tenant_id}: closed meanwhile")
            return
        if before is not None:
            self._made.tenants[tenant_id] = before
        self._faults[tenant_id] = fault
        self._report(f"{tenant_id}: {fault}")

    def _go_on(self) -> None:
        """Do what is due now and then: stay the only run, note how far it came."""
        now = time.monotonic()
        if now - self._renewed >= _RENEW_SECONDS:
            self._renew()
            self._renewed = now
        if now - self._noted >= _PARTIAL_SECONDS:
            self._note_partial()
            self._noted = now

    def _note_partial(self) -> None:
        """Note what is kept by now, with what was held of the others, so that another run goes on from here."""
        made = self._made
        tenants = {**self._held, **made.tenants}
        partial = Catalogue(made.name, made.made, made.main, tenants)
        self._catalogues.write(partial, is_complete=False)
