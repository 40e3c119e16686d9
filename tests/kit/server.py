"""A server that the suite starts itself, and may kill, restore and make older.

Knows: how this repository's server is run and operated. Must not know: clients, scenarios.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import requests

from tests import forking
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
_SETTINGS = {
    "BCRYPT_ROUNDS": "8",
    "RATE_LIMIT_LOGIN": "100000 per minute",
    "RATE_LIMIT_REGISTER": "100000 per minute",
    "LOG_FORMAT": "json",
    "HOST": "127.0.0.1",
}
_DAY_MS = 86_400_000


class LocalServer:
    """A real server process with a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.data = folder, folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | forking.Forked | None = None

    def start(self, **settings: str) -> None:
        """Start it and wait until it serves."""
        self._process = forking.begin([], self._environ(settings), self.folder / "server.log")
        wait_for(self._is_up, "the server")

    def _environ(self, settings: dict[str, str]) -> dict[str, str]:
        return {**os.environ, **_SETTINGS, **settings, "DATA_DIR": str(self.data), "PORT": str(self.port)}

    def _is_up(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/health", timeout=5).ok
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, by default in good order."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(timeout=40)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.stop(signal.SIGKILL)

    def restart(self, **settings: str) -> None:
        """Stop it and start it with other settings."""
        self.stop()
        self.start(**settings)

    def backup(self, to: Path) -> Path:
        """Make a backup as the operator does, and give its folder."""
        return Path(self.operate("backup", "--to", str(to)).strip().splitlines()[-1])

    def restore(self, backup: Path, tenant_id: str) -> None:
        """Put a tenant of a backup back as the operator does."""
        self.operate("restore", str(backup), "--tenant", tenant_id, "--yes")

    def operate(self, *arguments: str) -> str:
        """Run a command of the operator's, which must succeed."""
        done = forking.run([*arguments], self._environ({}))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def age(self, tenant_id: str, days: int) -> None:
        """Let time pass for a tenant, and with it what is held: then its deletions are purged."""
        self.stop()
        with self._tenant(tenant_id) as tenant:
            tenant.execute(f"UPDATE _changes SET committed_at = committed_at - {days * _DAY_MS}")
            tenant.execute(f"UPDATE _devices SET last_seen_at = last_seen_at - {days * _DAY_MS}")
        self.start(PURGE_SECONDS="1")
        wait_for(lambda: self._is_purged(tenant_id), "the purge")
        self.restart()

    def _is_purged(self, tenant_id: str) -> bool:
        with self._tenant(tenant_id) as tenant:
            (until,) = tenant.execute("SELECT purged_until FROM _meta").fetchone() or (0,)
            return bool(until)

    @contextlib.contextmanager
    def _tenant(self, tenant_id: str) -> Iterator[sqlite3.Connection | psycopg.Connection]:
        """Open a tenant beside the server: its file, or its rows in the database of DATABASE_URL."""
        if url := os.environ.get("DATABASE_URL"):
            with psycopg.connect(url) as database:
                database.execute("SELECT set_config('app.tenant', %s, false)", (tenant_id,))
                database.execute(
                    "DELETE FROM syncapp.leases"
                )  # Else the server that was stopped has that of the purge.
                yield database
        else:
            file = self.data / "tenants" / f"tenant_{uuid.UUID(tenant_id).hex}.db"
            with contextlib.closing(sqlite3.connect(file)) as tenant, tenant:
                yield tenant


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait until something is true."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"waited {seconds} s for {what}"
        time.sleep(0.02)
