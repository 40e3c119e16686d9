"""What a running server does by itself: note which devices were here, and remove what is too old.

Knows: how often, and over which tenants. Must not know: requests, sockets, SQL, engines.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import gevent
from greenlet import GreenletExit

from operations.file_monitor import FileMonitor
from protocol.errors import StorageFull
from settings import Settings
from storage import devices, main_database
from storage.devices import DAY_MS, Seen
from storage.positions import now_ms
from tenants import Tenants

log = logging.getLogger("syncapp.upkeep")

_SAVE_SECONDS = 5.0
_BREATH_SECONDS = 0.01
_RESTORED_SECONDS = 0.5
_LOOK_SECONDS = 60.0


class Upkeep:
    """The background work of one server."""

    def __init__(
        self,
        settings: Settings,
        tenants: Tenants,
        monitor: FileMonitor,
        seen: Seen,
        tell_restored: Callable[[str], None],
    ) -> None:
        """``tell_restored``: tells a tenant's devices that its data was restored."""
        self._tenants, self._monitor, self._tell_restored = tenants, monitor, tell_restored
        self._purge_seconds = settings.purge_seconds
        self._history_ms = settings.history_days * DAY_MS
        self._idle_ms = settings.device_idle_days * DAY_MS
        self.seen = seen
        self._is_over = False
        self._running: list[gevent.Greenlet] = []
        self._resting: set[gevent.Greenlet] = set()

    def start(self) -> None:
        """Begin the work in the background."""
        self._running = [gevent.spawn(work) for work in (self._run, self._take_restored, self._look)]

    def end(self) -> None:
        """End the work where it rests next, since what is cut short may lose a file that is moved; then save for good."""
        self._is_over = True
        for resting in list(self._resting):
            resting.kill(block=False)
        gevent.joinall(self._running)
        self._save()

    def _save(self) -> None:
        """Write what is known of every tenant's devices."""
        for tenant_id in self.seen.tenants:
            self._safely(lambda: self.seen.save(tenant_id))

    def _rest(self, seconds: float) -> None:
        """Let others run.

        Not by ``Event.wait``: in gevent 26.9 one of several waiters may stay away if ``set`` comes as their time runs out.
        Raises: GreenletExit once all is over, which ends a greenlet without a word.
        """
        resting = gevent.getcurrent()
        if not self._is_over:
            self._resting.add(resting)
            try:
                gevent.sleep(seconds)
            finally:
                self._resting.discard(resting)
        if self._is_over:
            raise GreenletExit

    def purge(self, tenant_id: str) -> None:
        """Expire one tenant's idle devices and remove what is too old, in slices that hold up no one."""
        self.seen.save(tenant_id)
        now = now_ms()
        self._tenants.write(tenant_id, lambda: devices.expire(now, self._idle_ms))
        self._tenants.write(tenant_id, lambda: devices.forget_receipts(now - self._history_ms))
        until = self._tenants.read(tenant_id, lambda: devices.purge_limit(now, self._history_ms))
        after: int | None = 0
        while after is not None:
            start = after
            after = self._tenants.write(tenant_id, lambda: devices.purge(start, until))
            self._rest(_BREATH_SECONDS)

    def _run(self) -> None:
        purged_at = time.monotonic()
        while True:
            self._rest(_SAVE_SECONDS)
            self._safely(self._tenants.engine.maintain)
            self._safely(self._save)
            if time.monotonic() - purged_at >= self._purge_seconds:
                self._safely(self._purge_all)
                purged_at = time.monotonic()

    def _take_restored(self) -> None:
        """Take over what the operator restores while the server runs."""
        while True:
            self._rest(_RESTORED_SECONDS)
            self._safely(lambda: [self._tell_restored(tenant_id) for tenant_id in self._tenants.engine.renewed()])

    def _look(self) -> None:
        """Look for customers whose files are missing, broken or went back, at the start and once in a while."""
        while True:
            self._safely(lambda: self._monitor.look_over(lambda: self._rest(_BREATH_SECONDS)))
            self._rest(_LOOK_SECONDS)

    def _purge_all(self) -> None:
        for tenant_id in self._tenants.directory.read(main_database.customer_ids):
            self._safely(lambda tenant_id=tenant_id: self.purge(tenant_id))  # type: ignore[misc]

    def _safely(self, work: Callable[[], object]) -> None:
        try:
            work()
        except StorageFull:  # Which the log has already.
            pass
        except Exception:
            log.exception("upkeep failed; it is tried again")
