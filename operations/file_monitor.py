"""Finds customers' files that are missing, damaged, or older than they were, and logs each once.

Knows: how a customer's file is checked, and which files did not change since. Must not know: requests, sockets, how often
files are checked, what to do about a fault. It is of the SQLite engine alone: no other has a file a tenant.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from server.disk_threads import disk
from storage import main_database
from storage.positions import incarnation, position
from storage.sqlite.engine import SQLiteEngine
from storage.sqlite.errors import reason_of
from storage.sqlite.rollback_detection import went_back

_LOOKED_AT_ONCE = 10
log = logging.getLogger("syncapp.tenants")


class FileMonitor:
    """Checks the files of one installation."""

    def __init__(self, engine: SQLiteEngine) -> None:
        self._engine = engine
        self.faults: dict[str, str] = {}
        """The faults that the last check found, by customer ID."""
        self._marks = array("q")
        """Of the files that were sound, in order: 8 bytes for each of 100,000 tenants."""
        engine.files.missed.connect(self._note)

    def look_over(self, yield_to_loop: Callable[[], None]) -> None:
        """Check the file of every customer, update ``faults``, and log new ones."""
        found, marks = {}, array("q")
        for tenant_ids in self._customers():
            for tenant_id in tenant_ids:
                if fault := self.look_at(tenant_id, marks):
                    found[tenant_id] = fault
            yield_to_loop()
        self._marks = array("q", sorted(marks))
        before = self.faults  # Some may have closed their accounts meanwhile.
        self.faults = {tenant_id: fault for tenant_id, fault in found.items() if self._is_customer(tenant_id)}
        for tenant_id, fault in self.faults.items():
            if before.get(tenant_id) != fault:
                _log(tenant_id, fault)

    def _customers(self) -> Iterator[list[str]]:
        last = [""]
        while last := self._engine.directory.read(partial(main_database.customer_ids_after, last[-1], _LOOKED_AT_ONCE)):
            yield last

    def _is_customer(self, tenant_id: str) -> bool:
        return self._engine.directory.read(lambda: main_database.customer_by_id(tenant_id)) is not None

    def _note(self, tenant_id: str) -> None:
        """Note a fault that a request found between two checks."""
        fault = self._engine.folder.fault_of(tenant_id) if self._is_customer(tenant_id) else None
        if fault and self.faults.get(tenant_id) != fault:
            self.faults[tenant_id] = fault
            _log(tenant_id, fault)

    def look_at(self, tenant_id: str, marks: array[int] | None = None) -> str | None:
        """Give the fault of a customer's file, or add its mark to ``marks``. An older file is opened, which gives it a new
        epoch."""
        if tenant_id in self._engine.files or self._engine.folder.restored_path_of(tenant_id).exists():
            return None
        if fault := self._engine.folder.fault_of(tenant_id):
            return fault
        if self._engine.files.left_logs.is_to_wait(tenant_id):
            return None  # It was open a moment ago.
        try:
            mark = _mark_of(self._engine.folder.path_of(tenant_id))
            if fault := None if _has(self._marks, mark) else self._look_into(tenant_id):
                return fault
            if marks is not None:
                marks.append(mark)
            return None
        except Exception as error:
            return f"its file can't be read: {reason_of(error)}"

    def _look_into(self, tenant_id: str) -> str | None:
        here = disk.in_thread(partial(self._engine.peek, tenant_id, incarnation))
        fault = went_back(self._engine.rollbacks.known(tenant_id), here)
        if fault and self._engine.is_server:
            self._engine.tenant(tenant_id).read(position)
        return fault


def _log(tenant_id: str, fault: str) -> None:
    log.error("tenant %s: %s; docs/backups.md says what to do", tenant_id, fault)


def _mark_of(path: Path) -> int:
    """Give a number that changes with the file, since reading thousands of files each time would take seconds."""
    found = path.stat()
    return hash((path.name, found.st_ino, found.st_size, found.st_mtime_ns))


def _has(marks: array[int], mark: int) -> bool:
    place = bisect_left(marks, mark)
    return place < len(marks) and marks[place] == mark
