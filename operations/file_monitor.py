"""Customers' files that are missing, broken, or went back: found at the start and from time to time, logged once.

Knows: how every customer's file is looked at, which need not be looked into again. Must not know: requests, sockets, how
often it is done, what is done about it. It is of the SQLite engine alone: no other has a file a tenant.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
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
    """What is known of the files of one installation."""

    def __init__(self, engine: SQLiteEngine) -> None:
        self._engine = engine
        self.faults: dict[str, str] = {}
        """What is wrong with customers' files, by ID, as they were looked at last."""
        self._marks: dict[str, int] = {}
        engine.files.missed.connect(self._note)

    def look_over(self, yield_to_loop: Callable[[], None]) -> None:
        """Look at the file of every customer, and keep in ``faults`` what is wrong; what is new is logged."""
        main, found = self._engine.directory, {}
        for number, tenant_id in enumerate(sorted(main.read(main_database.customer_ids))):
            if fault := self.look_at(tenant_id):
                found[tenant_id] = fault
            if number % _LOOKED_AT_ONCE == 0:
                yield_to_loop()
        known = main.read(main_database.customer_ids)  # Some may have closed their accounts meanwhile.
        self._marks = {one: mark for one, mark in self._marks.items() if one in known}
        before, self.faults = self.faults, {one: fault for one, fault in found.items() if one in known}
        for tenant_id, fault in self.faults.items():
            if before.get(tenant_id) != fault:
                _log(tenant_id, fault)

    def _note(self, tenant_id: str) -> None:
        """Keep what a request met before all files were looked at again."""
        is_known = self._engine.directory.read(lambda: main_database.customer_by_id(tenant_id))
        fault = self._engine.folder.fault_of(tenant_id) if is_known else None
        if fault and self.faults.get(tenant_id) != fault:
            self.faults[tenant_id] = fault
            _log(tenant_id, fault)

    def look_at(self, tenant_id: str) -> str | None:
        """Tell what is wrong with a customer's file; one that went back is opened, which begins a new epoch."""
        if tenant_id in self._engine.files or self._engine.folder.restored_path_of(tenant_id).exists():
            return None
        if fault := self._engine.folder.fault_of(tenant_id):
            return fault
        try:
            mark = _mark_of(self._engine.folder.path_of(tenant_id))
            if self._marks.get(tenant_id) == mark:
                return None
            fault = self._look_into(tenant_id)
            if not fault:
                self._marks[tenant_id] = mark
            return fault
        except Exception as error:
            return f"its file can't be read: {reason_of(error)}"

    def _look_into(self, tenant_id: str) -> str | None:
        here = disk.in_thread(partial(self._engine.peek, tenant_id, incarnation))
        fault = went_back(self._engine.rollbacks.known(tenant_id), here)
        if fault and self._engine.is_server:
            self._engine.tenant(tenant_id).read(position)
        return fault


def _log(tenant_id: str, fault: str) -> None:
    log.error("tenant %s: %s; docs/backups.md tells what to do", tenant_id, fault)


def _mark_of(path: Path) -> int:
    """Give a number by which a file that changed since is told: to look into thousands each time would cost seconds."""
    found = path.stat()
    return hash((found.st_ino, found.st_size, found.st_mtime_ns))
