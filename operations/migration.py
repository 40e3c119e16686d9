"""Migrates the files of all tenants: a few first, each copied before it is changed, none stopped by another.

Knows: in which order files are copied and changed, what is kept of a run. Must not know: the command line, what a migration
does. A file says itself whether it was migrated, in the transaction that does it. So a run that was killed goes on where it
was, without a list of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from operations import fleet
from operations.migration_check import losses
from protocol.errors import StorageFull
from server.disk_threads import disk
from server.durable_files import sync_folder
from storage import main_database
from storage.engine import Engine
from storage.sqlite.data_folder import DataFolder
from storage.sqlite.errors import reason_of
from storage.sqlite.file_replacement import name_aside
from storage.sqlite.files import copy_file
from storage.sqlite.tenant_files import remove_file

Say = Callable[[str], None]
Failure = dict[str, Any]
_FAILURES = "failures.json"
_CUT_OFF = "it was not compared with what it was yet, since the run was cut off"
_SPARE_BYTES = 64 * 1024 * 1024


class Lost(RuntimeError):
    """Canaries that did not pass: they are not what they were; as text it says which, or what is missing."""


class NoRoomForCopies(RuntimeError):
    """The disk can't hold what is to be copied; as text it says how much is missing."""


class CopiesInUse(RuntimeError):
    """Another process makes or removes copies of before a migration; as text it says so."""


class Result(NamedTuple):
    """What became of a run: who was migrated, who could not be, by ID with the reason, and how many it left."""

    migrated: list[str]
    failed: dict[str, str]
    left: int


class Migration:
    """The migration of one data folder, which no server uses meanwhile. What files were is in the folder ``kept``."""

    def __init__(self, engine: Engine, data_dir: Path, say: Say) -> None:
        self._engine, self._folder, self._say = engine, DataFolder(data_dir), say
        self.kept = self._folder.before_migration
        self._copies, self._failed = copies_in(data_dir), failures_of(data_dir)
        self._is_full = False

    def waiting(self) -> list[str]:
        """List the tenants that are not what this version needs, or are canaries that nobody compared yet."""
        found = self._engine.tenant_ids()
        return [one for one in found if self._is_lost(one) or not _is_current(self._engine, one)]

    def must_have_lost_nothing(self, tenant_ids: Collection[str]) -> None:
        """Refuse to go on while canaries are put back, for what befell them may befall all.

        Raises: Lost.
        """
        if lost := self._lost(tenant_ids):
            raise Lost(
                f"Canaries did not pass: {', '.join(lost[:3])}. Nothing was changed. migrate --status says why; mend it,"
                " and run migrate --canary again."
            )

    def _lost(self, tenant_ids: Collection[str]) -> list[str]:
        return [one for one in tenant_ids if self._is_lost(one)]

    def _is_lost(self, tenant_id: str) -> bool:
        return bool(self._failed.get(tenant_id, {}).get("lost"))

    def canaries(self, tenant_ids: Collection[str], count: int) -> list[str]:
        """Choose some tenants of all sizes, and those that lost something when they were canaries before."""
        return list(dict.fromkeys([*self._lost(tenant_ids), *self._spread(tenant_ids, count)]))

    def _spread(self, tenant_ids: Collection[str], count: int) -> list[str]:
        ordered = sorted(tenant_ids, key=self._size_of)
        if count >= len(ordered):
            return ordered
        if count == 1:
            return [ordered[len(ordered) // 2]]
        return [ordered[round(place * (len(ordered) - 1) / (count - 1))] for place in range(count)]

    def must_have_room(self, tenant_ids: Collection[str], *, copies: bool) -> None:
        """Check whether the disk can hold the copies, and what the largest file may grow by.

        Raises: NoRoomForCopies.
        """
        sizes = [self._size_of(tenant_id) for tenant_id in tenant_ids]
        needed = sum(sizes) * copies + 2 * max(sizes, default=0) + _SPARE_BYTES
        free = shutil.disk_usage(self._folder.path).free
        if needed > free:
            remedy = (
                "Make room; or back up to another disk and go on without copies: --no-copy."
                if copies
                else "Make room first."
            )
            raise NoRoomForCopies(
                f"Not enough room in {self._folder.path.resolve()}: {_megabytes(needed)} are needed, and"
                f" {_megabytes(free)} are free. Nothing was changed. {remedy}"
            )

    def run(self, tenant_ids: Sequence[str], jobs: int, *, copies: bool, verifies: bool = False) -> Result:
        """Migrate tenants, ``jobs`` at once; one that fails stops no other, but a disk that is full stops all.

        ``verifies``: compare each with its copy, and check it from end to end.
        Raises: CopiesInUse.
        """
        if not copies:
            return self._run(tenant_ids, jobs, copies=False, verifies=verifies)
        self.kept.mkdir(mode=0o700, exist_ok=True)
        with _alone_with(self.kept):
            for left in self.kept.glob("*.making*"):
                left.unlink()
            return self._run(tenant_ids, jobs, copies=True, verifies=verifies)

    def _run(self, tenant_ids: Sequence[str], jobs: int, *, copies: bool, verifies: bool) -> Result:
        result = Result([], {}, 0)
        progress = fleet.Progress(len(tenant_ids), "tenants", self._say)
        work = partial(self._migrate, copies=copies, verifies=verifies)
        for tenant_id, outcome in fleet.over(tenant_ids, work, jobs):
            if isinstance(outcome, Exception):
                result.failed[tenant_id] = why = reason_of(outcome) or type(outcome).__name__
                self._say(f"{tenant_id}: can't be migrated: {why}")
                self._note(tenant_id, {"error": why, "lost": isinstance(outcome, Lost)})
            elif outcome:
                result.migrated.append(tenant_id)
                self._note(tenant_id, None)
            progress.note()
        return result._replace(left=len(tenant_ids) - len(result.migrated) - len(result.failed))

    def _migrate(self, tenant_id: str, *, copies: bool, verifies: bool) -> bool:
        """Migrate one tenant; False if it was left alone, since the disk is full."""
        if self._is_full:
            return False
        try:
            if _is_current(self._engine, tenant_id):  # A canary of a run that was cut off.
                copy = next(reversed(self._copies[self._folder.path_of(tenant_id).stem]), None)
            else:
                copy = self._copy(tenant_id) if copies else None
                if verifies:
                    self._note(tenant_id, {"error": _CUT_OFF, "lost": True})
                self._engine.migrate(tenant_id)
        except StorageFull:
            self._is_full = True
            raise
        if verifies:
            self._must_be_what_it_was(tenant_id, copy)
        return True

    def _must_be_what_it_was(self, tenant_id: str, copy: Path | None) -> None:
        """Compare a migrated tenant with its copy, if that was not removed meanwhile, and put it back if it differs.

        Raises: Lost.
        """
        found = self._engine.faults_in(tenant_id)
        if copy:
            found += disk.in_thread(partial(losses, self._engine, tenant_id, copy))
        if found:
            if copy:
                disk.in_thread(partial(self._put_back, tenant_id, copy))
            raise Lost(f"it was not what it was{', and was put back' if copy else ''}: {'; '.join(found[:3])}")

    def _put_back(self, tenant_id: str, copy: Path) -> None:
        """Put a copy in the place of a tenant's file, which nobody has used since: it keeps its epoch."""
        path = self._folder.path_of(tenant_id)
        new = path.with_suffix(".new")
        remove_file(new)  # Of one that was killed.
        copy_file(copy, new)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        os.replace(new, path)
        sync_folder(path.parent)

    def _copy(self, tenant_id: str) -> Path:
        """Keep a tenant as it is, in the place of what was kept of it before."""
        path = self._folder.path_of(tenant_id)
        kept = name_aside(path, self.kept)
        making = kept.with_suffix(".making")

        def make() -> None:
            """Copy the file, and let it count once it is on the disk."""
            self._engine.copy_to(tenant_id, making)
            making.rename(kept)
            sync_folder(self.kept)
            for older in self._copies[path.stem]:
                older.unlink(missing_ok=True)

        disk.in_thread(make)
        return kept

    def _note(self, tenant_id: str, failure: Failure | None) -> None:
        """Note that a tenant could not be migrated, or that it was."""
        if failure is None and tenant_id not in self._failed:
            return
        self._failed.pop(tenant_id, None)
        if failure:
            self._failed[tenant_id] = failure
        self.kept.mkdir(mode=0o700, exist_ok=True)
        making = self.kept / f"{_FAILURES}.making"
        making.write_text(json.dumps(self._failed))
        making.chmod(0o600)
        os.replace(making, self.kept / _FAILURES)

    def _size_of(self, tenant_id: str) -> int:
        path = self._folder.path_of(tenant_id)
        return sum(one.stat().st_size for one in (path, Path(f"{path}-wal")) if one.exists())


def _is_current(engine: Engine, tenant_id: str) -> bool:
    try:
        return engine.is_current(tenant_id)
    except Exception:  # Migrating it tells why.
        return False


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


# --- what a run leaves -----------------------------------------------------------------------------------------------


def copies_in(data_dir: Path) -> dict[str, list[Path]]:
    """Give what is kept of tenants as they were before a migration, by the stem of their files."""
    found = defaultdict[str, list[Path]](list)
    for path in sorted(DataFolder(data_dir).before_migration.glob("tenant_*.db")):
        found[path.name.partition("-")[0]].append(path)
    return found


def failures_of(data_dir: Path) -> dict[str, Failure]:
    """Give the tenants that could not be migrated when that was tried last, with the reason."""
    try:
        found = json.loads((DataFolder(data_dir).before_migration / _FAILURES).read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def remove_copies(data_dir: Path) -> tuple[int, int]:
    """Remove what is kept of tenants as they were before, but of canaries that are still to be compared with it; give how
    many there were, and their bytes.

    Raises: CopiesInUse.
    """
    folder = DataFolder(data_dir)
    if not folder.before_migration.is_dir():
        return 0, 0
    with _alone_with(folder.before_migration):
        lost = {folder.path_of(one).stem for one, failure in failures_of(data_dir).items() if failure.get("lost")}
        paths = [path for stem, those in copies_in(data_dir).items() if stem not in lost for path in those]
        size = sum(path.stat().st_size for path in paths)
        for path in paths:
            path.unlink()
    return len(paths), size


@contextlib.contextmanager
def _alone_with(folder: Path) -> Iterator[None]:
    """Be the only one who makes or removes copies. Raises: CopiesInUse."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = f"Another migrate makes or removes copies in {folder}. Try again when it has ended."
            raise CopiesInUse(why) from None
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # At once: gevent closes what is no file a moment later.
        os.close(descriptor)


def statuses(engine: Engine, data_dir: Path) -> list[dict[str, Any]]:
    """Tell of each customer whether its database was migrated, waits for it, could not be, or is not there."""
    there, folder = set(engine.tenant_ids()), DataFolder(data_dir)
    failed, copies, found = failures_of(data_dir), copies_in(data_dir), []
    for tenant_id in sorted(engine.directory.read(main_database.customer_ids)):
        status: dict[str, Any] = {"tenant": tenant_id, "state": "missing"}
        if tenant_id in there:
            is_current = _is_current(engine, tenant_id) and not failed.get(tenant_id, {}).get("lost")
            status["state"] = "current" if is_current else "failed" if tenant_id in failed else "waiting"
        if status["state"] == "failed":
            status["error"] = failed[tenant_id]["error"]
        if kept := copies.get(folder.path_of(tenant_id).stem):
            status["copy"] = str(kept[-1])
        found.append(status)
    return found
