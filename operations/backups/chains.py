"""Keeps a tenant as a chain of objects, makes its file of them again, and proves that it is what was there.

Knows: when a chain goes on and when another begins, how what is kept is verified. Must not know: which tenants are kept,
catalogues, what becomes of older backups.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from operations.backups import manifest as manifests
from operations.backups.catalogue import Held, Kind, Object, object_name, sha256_of
from operations.backups.manifest import BackupError, State
from operations.backups.objects import Packing, steps_in, write_steps
from operations.backups.places import Place, PlaceUnusable
from operations.backups.scratch import is_no_room
from storage import increments
from storage.engine import Engine
from storage.positions import incarnation
from storage.sqlite.errors import reason_of
from storage.sqlite.files import change_copy, faults_of, look_into

MOST_INCREMENTS = 30

Counts = Mapping[str, int]
"""By table how many rows a tenant has in it."""


class Chains:
    """The chains in a place, written and read by way of files in a folder."""

    def __init__(self, place: Place, packing: Packing, scratch: Path) -> None:
        self._place, self._packing = place, packing
        self._packed, self._copy, self._restored = (scratch / name for name in ("packed", "copy.db", "restored.db"))
        self.stored_bytes = 0
        """How much was kept so far."""

    # --- out ---------------------------------------------------------------------------------------------------------

    def keep(self, engine: Engine, tenant_id: str, before: Held | None, run: str, mark: str) -> tuple[Held, str]:
        """Keep a tenant as it is now: what changed since ``before``, or all of it; say what was kept, for the log.

        What is kept is restored and compared. If an increment does not give what the tenant has, all of it is kept.
        Raises: BackupError if not even that can be restored; what the engine raises; PlaceUnusable.
        """
        fault = ""
        if before is not None and _goes_on(before):
            found = self._keep_changes(engine, tenant_id, before, run, mark)
            if found is not None:
                fault = self.fault_of(tenant_id, *found)
                if not fault:
                    return found[0], f"{found[0].chain[-1].size_bytes:,} bytes of changes"
        held, counts = self._keep_all(engine, tenant_id, run, mark)
        if why := self.fault_of(tenant_id, held, counts):
            raise BackupError(f"what was backed up is not what is there: {why}")
        size = f"{held.chain[0].size_bytes:,} bytes, all of it"
        return held, f"{size}, since its changes did not fit: {fault}" if fault else size

    def _keep_changes(
        self, engine: Engine, tenant_id: str, before: Held, run: str, mark: str
    ) -> tuple[Held, Counts] | None:
        def write() -> tuple[str, increments.State, Counts] | None:
            """Read all of it in one transaction."""
            if not increments.can_follow(before.state):
                return None
            sha256 = self._packing.pack(partial(write_steps, increments.steps_since(before.state)), self._packed)
            return sha256, increments.state(), increments.counts()

        written = engine.peek(tenant_id, write)
        if written is None:
            return None
        sha256, state, counts = written
        more = self.put(tenant_id, "more", run, sha256)
        return Held(state, (*before.chain, more), mark, run), counts

    def _keep_all(self, engine: Engine, tenant_id: str, run: str, mark: str) -> tuple[Held, Counts]:
        try:
            engine.copy_to(tenant_id, self._copy)
            state, counts = look_into(self._copy, lambda: (increments.state(), increments.counts()))
            sha256 = self._packing.pack_file(self._copy, self._packed)
        finally:
            _remove(self._copy)
        return Held(state, (self.put(tenant_id, "base", run, sha256),), mark, run), counts

    def put(self, tenant_id: str | None, kind: Kind, run: str, sha256: str) -> Object:
        """Keep what was packed last."""
        made = Object(run, kind, self._packed.stat().st_size, sha256)
        try:
            self._place.put(object_name(tenant_id, made), self._packed)
        finally:
            self._packed.unlink(missing_ok=True)
        self.stored_bytes += made.size_bytes
        return made

    def put_main(self, file: Path, run: str) -> Object:
        """Keep a main database."""
        return self.put(None, "main", run, self._packing.pack_file(file, self._packed))

    # --- back in -----------------------------------------------------------------------------------------------------

    def restore(self, tenant_id: str, held: Held, target: Path) -> None:
        """Make a tenant's file of its chain.

        Raises: BackupError if an object is missing or damaged, or the file is not of that state; PlaceUnusable.
        """
        for one in held.chain:
            self._fetch(tenant_id, one)
            try:
                if one.kind == "base":
                    self._packing.unpack(self._packed, target)
                else:
                    bring = partial(self._bring, target)
                    self._packing.read(self._packed, bring)
            finally:
                self._packed.unlink(missing_ok=True)
        if look_into(target, incarnation) != (held.state.epoch, held.state.sequence):
            raise BackupError("it is not at the change at which it was backed up")

    def _bring(self, target: Path, packed: object) -> None:
        try:
            change_copy(target, lambda: increments.bring(steps_in(packed)))
        except increments.BadStep as error:
            raise BackupError(f"what was backed up was changed by somebody: {error}") from None

    def restore_main(self, main: Object, target: Path) -> None:
        """Make a main database of its object."""
        self._fetch(None, main)
        try:
            self._packing.unpack(self._packed, target)
        finally:
            self._packed.unlink(missing_ok=True)

    def _fetch(self, tenant_id: str | None, one: Object) -> None:
        self._place.get(object_name(tenant_id, one), self._packed)
        if sha256_of(self._packed) != one.sha256:
            raise BackupError(f"{object_name(tenant_id, one)} is damaged: it has another SHA-256 than when it was made")

    def verify(self, tenant_id: str, held: Held, counts: Counts | None = None) -> State:
        """Restore a tenant into a scratch file, check it from end to end, and pull all its rows as a device does.

        Raises: BackupError; PlaceUnusable.
        """
        try:
            self.restore(tenant_id, held, self._restored)
            if faults := faults_of(self._restored):
                raise BackupError(faults[0])
            if counts is not None and (found := look_into(self._restored, increments.counts)) != counts:
                raise BackupError(f"it has {_difference(found, counts)}")
            return manifests.state_of(self._restored)
        finally:
            _remove(self._restored)

    def fault_of(self, tenant_id: str, held: Held, counts: Counts | None = None) -> str:
        """Say what is wrong with a chain; nothing, if it gives the state at which it ends. Raises: PlaceUnusable."""
        try:
            self.verify(tenant_id, held, counts)
        except PlaceUnusable:
            raise
        except Exception as error:
            if is_no_room(error):
                raise
            return reason_of(error)
        return ""


def _goes_on(held: Held) -> bool:
    """Tell whether a chain may be longer: neither so long that a restore takes its time, nor more than a copy would be."""
    base, *more = held.chain
    return len(more) < MOST_INCREMENTS and sum(one.size_bytes for one in more) <= base.size_bytes


def _difference(found: Counts, counts: Counts) -> str:
    table = next(name for name in {**found, **counts} if found.get(name) != counts.get(name))
    return f"{found.get(table, 0):,} rows of {table}, and there are {counts.get(table, 0):,}"


def _remove(file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
