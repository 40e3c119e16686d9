"""The write-ahead logs that tenants' files were closed with to make room: remembered, and taken into the files later.

Knows: which logs were left, and when each is due. Must not know: open files, customers, requests.

Taking a log in costs two syncs, and the first push into another log three in place of two. Who opens the file goes on with
the log that is there, and so does the next start after a crash: what was answered is in it, and on disk. But SQLite reads
all of a log in opening, so that one that has grown is taken in soon; others when their tenant is quiet, or when too many
are left.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gevent
from gevent.event import Event
from gevent.pool import Pool

from protocol.errors import StorageFull
from server.disk_threads import disk
from storage.sqlite.database import Identity, identity_of
from storage.sqlite.file_replacement import keep_log_aside
from storage.sqlite.files import take_log_in

_MOST, _MOST_BYTES = 1_000, 128 * 1024 * 1024
_LARGE_BYTES = 400_000
_QUIET_SECONDS = 60.0
_AT_ONCE = 8
log = logging.getLogger("syncapp.tenants")


class _LeftLog(NamedTuple):
    path: Path
    file: Identity
    size_bytes: int
    due: float
    has_failed: bool = False
    """It could not be taken in, when that was tried last."""


class LeftLogs:
    """The logs that were left, the longest ago first; those whose files are gone are kept in the folder ``replaced``."""

    def __init__(self, replaced: Path) -> None:
        self._replaced = replaced
        self._left: dict[str, _LeftLog] = {}
        self._under_way: dict[str, Event] = {}
        self._bytes = 0
        self._is_tidying = False

    def __contains__(self, tenant_id: str) -> bool:
        return tenant_id in self._left

    def __len__(self) -> int:
        return len(self._left)

    def is_to_wait(self, tenant_id: str) -> bool:
        """Tell whether who only looks at a tenant's file is to wait: reading takes the log in, be it another file's."""
        left = self._left.get(tenant_id)
        return left is not None and not (left.has_failed and identity_of(str(left.path)) == left.file)

    @property
    def is_full(self) -> bool:
        """Tell whether no more may be left."""
        return len(self._left) >= _MOST or self._bytes >= _MOST_BYTES

    def add(self, tenant_id: str, path: Path, file: Identity, size_bytes: int) -> None:
        """Remember the log beside a path, and which file it belongs to."""
        is_large = size_bytes > _LARGE_BYTES
        self._put(tenant_id, _LeftLog(path, file, size_bytes, time.monotonic() + (0 if is_large else _QUIET_SECONDS)))
        if is_large or self._has_many():
            self.tidy()

    def forget(self, tenant_id: str) -> None:
        """Forget a tenant's log, since its file is open, or gone."""
        if left := self._left.pop(tenant_id, None):
            self._bytes -= left.size_bytes

    def wait_for(self, tenant_id: str) -> bool:
        """Wait if a tenant's log is being taken in; tell whether it was."""
        done = self._under_way.get(tenant_id)
        return done is not None and bool(done.wait())

    def keep_apart(self, tenant_id: str) -> bool:
        """Put a tenant's log aside if another file is at the place of its own, which would take it for its log.

        Tell whether there is one that stays.
        """
        left = self._left.get(tenant_id)
        if left is None or identity_of(str(left.path)) == left.file:
            return left is not None
        keep_log_aside(left.path, self._replaced)
        self.forget(tenant_id)
        return False

    def take_in(self, tenant_id: str) -> bool:
        """Take a tenant's log into its file, if one is left, and remove it; what fails is tried again later."""
        while self.wait_for(tenant_id):
            pass
        left, done = self._left.get(tenant_id), Event()
        if left is None:
            return True
        self._under_way[tenant_id] = done
        try:
            if self.keep_apart(tenant_id):
                self.forget(tenant_id)
                disk.in_thread(partial(take_log_in, left.path))
            return True
        except Exception as error:
            self.forget(tenant_id)
            self._put(tenant_id, left._replace(due=time.monotonic() + _QUIET_SECONDS, has_failed=True))
            if not isinstance(error, StorageFull):
                log.exception("the log of tenant %s can't be taken in; it is tried again", tenant_id)
            return False
        finally:
            del self._under_way[tenant_id]
            done.set()

    def take_all_in(self) -> None:
        """Take all logs in, as at the end of the server."""
        Pool(_AT_ONCE).map(self.take_in, [*self._left, *self._under_way])

    def tidy(self) -> None:
        """Begin to take in what is due, one log after the other, while others go on."""
        if not self._is_tidying and self._due():
            self._is_tidying = True
            gevent.spawn(self._tidy)

    def _tidy(self) -> None:
        try:
            while (due := self._due()) and self.take_in(due):
                pass
        finally:
            self._is_tidying = False

    def _due(self) -> str | None:
        """Give a tenant whose log is due: it is large, its tenant is quiet, or it is the oldest of many."""
        now = time.monotonic()
        oldest = next(iter(self._left), None) if self._has_many() else None
        return next((tenant_id for tenant_id, left in self._left.items() if left.due <= now), oldest)

    def _has_many(self) -> bool:
        return len(self._left) > _MOST // 2 or self._bytes > _MOST_BYTES // 2

    def _put(self, tenant_id: str, left: _LeftLog) -> None:
        self._left[tenant_id] = left
        self._bytes += left.size_bytes
