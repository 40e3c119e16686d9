"""Begins the backups of a running server when they are due, each as a process of its own, and watches over them.

Knows: how a run is begun, that of several servers one begins it, when somebody is told. Must not know: how a backup is
made. A process of its own, so that the server keeps neither the memory nor the time that a run takes; it is the command
``backup run``, which gives itself the lowest priority.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from operations.backups import alerts, status
from operations.backups.lock import is_underway
from operations.backups.status import Status
from settings import Settings
from storage import backup_runs
from storage.backup_runs import BackupRun
from storage.engine import Engine

_LOOK_SECONDS, _POLL_SECONDS, _LEASE_SECONDS = 10.0, 0.5, 60.0
_END_SECONDS = 5.0
_PROGRAM = Path(__file__).resolve().parents[2] / "syncapp.py"
_LAST_BYTES = 2_000
log = logging.getLogger("syncapp.backups")

Sleep = Callable[[float], None]


class BackupSchedule:
    """The backups of one server."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings, self._engine = settings, engine
        self._since = int(time.time())
        self._is_told = False

    def status(self) -> Status:
        """Tell how it stands with the backups."""
        asked = self._settings.backup_to, self._settings.backup_every, self._since
        return self._engine.directory.read(lambda: status.read(*asked, int(time.time())))

    def look(self, sleep: Sleep) -> None:
        """Begin a run if one is due and no other process does, and wait for its end; tell if one is overdue."""
        if not self._engine.lease("backup-schedule", _LEASE_SECONDS):
            return
        self._note_lost()
        found = self.status()
        self._tell_if_overdue(found)
        if found.due_at <= time.time() and not is_underway(self._engine, self._settings):
            self._run(sleep)

    def _note_lost(self) -> None:
        """Note that the last run was killed, if it says that it is at work and nobody is."""
        last = self._engine.directory.read(backup_runs.latest)
        if last and last.state == "running" and not is_underway(self._engine, self._settings):
            self._engine.directory.write(lambda: backup_runs.note_lost(last.number, int(time.time())))

    def _tell_if_overdue(self, found: Status) -> None:
        if found.state != "overdue":
            self._is_told = False
        elif not self._is_told:
            self._is_told = True
            hours = found.age_seconds / 3_600
            message = f"There is no good backup of the last {hours:,.1f} hours. {_last_end(found.last)}"
            log.error("%s", message)
            alerts.tell(self._settings, self._engine, "backup_overdue", message)

    def _run(self, sleep: Sleep) -> None:
        before = self._engine.directory.read(backup_runs.latest)
        with tempfile.TemporaryFile() as said:
            process = _begun(said)
            try:
                while not _has_ended(process):
                    sleep(_POLL_SECONDS)
                    self._engine.lease("backup-schedule", _LEASE_SECONDS)
            except BaseException:  # The server ends.
                _end(process)
                raise
            self._note_lost()
            last = self._engine.directory.read(backup_runs.latest)
            if last is None or (before and last.number == before.number):
                self._tell(before, f"A backup could not be begun: {_last_line(said)}")
                self._pause(sleep)
            elif last.state == "good":
                log.info("backed up %d tenants, %d of them changed", last.tenants, last.changed)
            elif last.state == "interrupted":
                self._tell(before, "A backup was killed.")
            else:  # It has told so itself.
                log.error("a backup ended as %s: %s", last.state, last.error)

    def _tell(self, before: BackupRun | None, message: str) -> None:
        """Tell of a run that could not do so, unless the one before failed too."""
        log.error("%s", message)
        if before is None or before.state == "good":
            alerts.tell(self._settings, self._engine, "backup_failed", message)

    def _pause(self, sleep: Sleep) -> None:
        """Rest after a command that could not even record a run."""
        sleep(min(self._settings.backup_every, status.RETRY_SECONDS))


def _last_end(last: BackupRun | None) -> str:
    if last is None:
        return "No run came to an end."
    if last.state == "good":
        return "The last run ended well, and none came to an end since."
    return f"The last run ended as {last.state}: {last.error or 'it was killed.'}"


def _begun(said: IO[bytes]) -> int:
    """Begin a run; by posix_spawn, since a fork would copy the tables of the server's memory."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, nowhere, 0),
            (os.POSIX_SPAWN_DUP2, nowhere, 1),
            (os.POSIX_SPAWN_DUP2, said.fileno(), 2),
        ]
        command = [sys.executable, str(_PROGRAM), "backup", "run", "--quiet"]
        return os.posix_spawn(sys.executable, command, dict(os.environ), file_actions=actions)
    finally:
        os.close(nowhere)


def _has_ended(process: int) -> bool:
    try:
        return os.waitpid(process, os.WNOHANG)[0] == process
    except ChildProcessError:  # Somebody else in this process waited for it.
        return True


def _end(process: int) -> None:
    """End a run with the server: it notes how far it came. One that takes too long for that is killed."""
    give_up = time.monotonic() + _END_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
        while not _has_ended(process):
            if time.monotonic() > give_up:
                os.kill(process, signal.SIGKILL)
            time.sleep(_POLL_SECONDS / 10)


def _last_line(said: IO[bytes]) -> str:
    said.seek(max(0, said.seek(0, os.SEEK_END) - _LAST_BYTES))
    lines = said.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
