"""The background work of a server: saves visits, removes what is too old, takes over restores, checks files, backs up.

Knows: how often, and over which tenants, when memory is given back. Must not know: requests, sockets, SQL, engines.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import gevent
from greenlet import GreenletExit

from operations.file_monitor import FileMonitor
from operations.usage_saving import UsageSaving
from protocol.errors import Busy, Moved, StorageFull
from server import memory
from server.maintenance import Notice, maintenance
from settings import Settings
from storage import devices, main_database, operator_actions
from storage import maintenance as noted
from storage.devices import DAY_MS, Seen
from storage.positions import now_ms
from tenants import Tenants

T = TypeVar("T")
log = logging.getLogger("syncapp.housekeeping")

_SAVE_SECONDS = 5.0
_QUIET_SHARE = 0.2
"""Of a core: a server that uses less is quiet."""

_PAUSE_SECONDS = 0.01
_CHUNK_SECONDS = 0.002  # For so long nobody else runs.
_FEWEST, _MOST = 50, 3_000  # Entries in a chunk.
_COMMANDS_SECONDS = 0.5
_MONITOR_SECONDS = 60.0
_BACKUPS_SECONDS = 2.0
_LEAST_LEASE_SECONDS = 60.0


class Housekeeping:
    """The background work of one server."""

    def __init__(
        self,
        settings: Settings,
        tenants: Tenants,
        monitor: FileMonitor | None,
        seen: Seen,
        usage: UsageSaving,
        notify_restored: Callable[[str], None],
        look_at_sessions: Callable[[], None],
        look_at_rows: Callable[[str], None],
        look_at_backups: Callable[[Callable[[float], None]], None] | None = None,
    ) -> None:
        """``notify_restored`` tells a tenant's devices that its data was restored, ``look_at_rows`` of what it has by now;
        ``look_at_sessions`` closes the sockets of sessions that count no more; ``monitor`` is None without files.
        ``look_at_backups`` makes a backup if one is due, pausing by what it is given; None if there are to be none."""
        self._tenants, self._monitor, self._look_at_backups = tenants, monitor, look_at_backups
        self._notify_restored, self._look_at_sessions = notify_restored, look_at_sessions
        self._look_at_rows = look_at_rows
        self._purge_seconds = settings.purge_seconds
        self._history_ms = settings.history_days * DAY_MS
        self._idle_ms = settings.device_idle_days * DAY_MS
        self.seen, self._usage = seen, usage
        self._is_over = False
        self._action_seen: int | None = None
        self._measured = time.process_time(), time.monotonic()
        self._running: list[gevent.Greenlet] = []
        self._sleeping: set[gevent.Greenlet] = set()

    def start(self) -> None:
        """Begin the work in the background, once what holds from the first request on is known."""
        self._follow_maintenance()
        self._log_errors(self._follow_operator)
        self._tenants.engine.has_room()
        self._running = [
            gevent.spawn(work)
            for work in (
                self._save_and_purge,
                self._follow_commands,
                self._monitor_files,
                self._save_usage,
                self._back_up,
            )
        ]

    def end(self) -> None:
        """End the work at its next pause, since a file may be half moved now; then save once more."""
        self._is_over = True
        for sleeping in list(self._sleeping):
            sleeping.kill(block=False)
        gevent.joinall(self._running)
        self._save()
        self._log_errors(self._usage.save)

    def _save(self) -> None:
        """Save the visits of every tenant's devices."""
        for tenant_id in self.seen.tenants:
            self._log_errors(lambda: self.seen.save(tenant_id))

    def _sleep(self, seconds: float) -> None:
        """Pause, so that others run.

        Not by ``Event.wait``: in gevent 26.9 a waiter may never wake up if ``set`` comes as its time runs out.
        Raises: GreenletExit at the end of the work, which ends a greenlet without a log line.
        """
        sleeping = gevent.getcurrent()
        if not self._is_over:
            self._sleeping.add(sleeping)
            try:
                gevent.sleep(seconds)
            finally:
                self._sleeping.discard(sleeping)
        if self._is_over:
            raise GreenletExit

    def purge(self, tenant_id: str) -> None:
        """Expire one tenant's idle devices and remove what is too old, in chunks, so that others go on."""
        self.seen.save(tenant_id)
        now = now_ms()
        self._tenants.write(tenant_id, lambda: devices.expire(now, self._idle_ms))
        self._tenants.write(tenant_id, lambda: devices.forget_receipts(now - self._history_ms))
        until = self._tenants.read(tenant_id, lambda: devices.purge_limit(now, self._history_ms))
        after: int | None = 0
        count = devices.PURGED_AT_ONCE
        while after is not None:
            chunk = partial(devices.purge, after, until, count)
            after, seconds = self._tenants.write(tenant_id, lambda: _timed(chunk))
            count = _fitting(count, seconds)
            self._sleep(_PAUSE_SECONDS)

    def _save_and_purge(self) -> None:
        purged_at = time.monotonic()
        while True:
            self._sleep(_SAVE_SECONDS)
            self._log_errors(self._save)
            self._log_errors(self._tenants.engine.maintain)  # After the save, which uses what may rest now.
            self._give_back_if_quiet()
            if time.monotonic() - purged_at >= self._purge_seconds:
                self._log_errors(self._purge_all)  # Or another process does, and this one asks again as late.
                purged_at = time.monotonic()

    def _give_back_if_quiet(self) -> None:
        """Give back free memory, unless the server is busy and would take it again at once."""
        before, self._measured = self._measured, (time.process_time(), time.monotonic())
        used_seconds, passed_seconds = (now - then for now, then in zip(self._measured, before, strict=True))
        if used_seconds < _QUIET_SHARE * passed_seconds:
            memory.give_back()

    def _follow_commands(self) -> None:
        """Take over what the operator's commands did beside this server: restored tenants, ended sessions, suspensions."""
        while True:
            self._sleep(_COMMANDS_SECONDS)
            self._log_errors(lambda: [self._notify_restored(tenant_id) for tenant_id in self._tenants.engine.renewed()])
            self._log_errors(self._follow_operator)
            self._log_errors(self._tenants.engine.has_room)  # Looks at the disk.

    def _follow_operator(self) -> None:
        newest, before = self._tenants.directory.read(operator_actions.newest), self._action_seen
        if newest != before:
            self._look_at_sessions()
            self._follow_maintenance()
            self._action_seen = newest
            if before is not None:
                self._tell_of_rows(before)

    def _tell_of_rows(self, after: int) -> None:
        """Have listeners told of rows that commands wrote; at a start nobody listens yet."""
        for tenant_id in self._tenants.directory.read(lambda: operator_actions.changed_since(after)):
            self._look_at_rows(tenant_id)

    def _follow_maintenance(self) -> None:
        found = self._tenants.directory.read(noted.maintenance)
        maintenance.follow(Notice(*found) if found else None)

    def _monitor_files(self) -> None:
        """Check all customers' files, at the start and once a minute."""
        while monitor := self._monitor:
            self._log_errors(partial(monitor.look_over, lambda: self._sleep(_PAUSE_SECONDS)))
            self._sleep(_MONITOR_SECONDS)

    def _save_usage(self) -> None:
        while True:
            self._sleep(self._usage.seconds_left())
            self._log_errors(self._usage.save)

    def _back_up(self) -> None:
        """Look every few seconds whether a backup is due."""
        while look := self._look_at_backups:
            self._sleep(_BACKUPS_SECONDS)
            self._log_errors(partial(look, self._sleep))

    def _may_purge(self) -> bool:
        """Tell whether this process is the one that purges; it is for the time between two purges."""
        return self._tenants.engine.lease("purge", max(_LEAST_LEASE_SECONDS, self._purge_seconds))

    def _purge_all(self) -> None:
        tenant_id, directory = "", self._tenants.directory
        while self._may_purge() and (found := directory.read(lambda: main_database.customer_ids_after(tenant_id, 1))):
            if not tenant_id:
                self._log_errors(self._usage.forget_old)
            tenant_id = found[0]
            self._log_errors(partial(self.purge, tenant_id))
        self._log_errors(lambda: self._tenants.engine.forget_migrated(time.time() - self._history_ms / 1000))

    def _log_errors(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (StorageFull, Busy, Moved):  # The log has why already, or it passes by itself.
            pass
        except Exception:
            log.exception("housekeeping failed; it is tried again")


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _fitting(count: int, seconds: float) -> int:
    """Give how many entries fit into the time of a chunk, after ``count`` took ``seconds``; at most twice as many."""
    return max(_FEWEST, min(_MOST, 2 * count, int(count * _CHUNK_SECONDS / seconds)))
