"""One installation of each engine, opened here and in other processes; what tests store and read in a tenant."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from models import connection
from storage.engine import Engine
from storage.main_database import Customer
from storage.positions import position
from storage.postgres.engine import PostgresEngine
from storage.sqlite.engine import SQLiteEngine
from tests import postgres
from tests.customers import customer
from tests.sources import ROOT


class Installation(Protocol):
    """Where an engine keeps its data during a test."""

    opening: str
    """The statements that open ``engine`` in another process, as one beside the server."""

    def open(self, *, most_waiting: int = 1000, is_server: bool = True) -> Engine:
        """Open it, as a start of the server does."""

    def break_commit(self) -> None:
        """Have the commit of the running write fail, and nothing before that."""

    def end(self) -> None:
        """Remove what is not in the test's folder."""


class SQLiteInstallation:
    """A data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.opening = f"""
from pathlib import Path
from storage.sqlite.engine import SQLiteEngine
engine = SQLiteEngine(Path({str(folder)!r}), is_server=False)
"""

    def open(self, *, most_waiting: int = 1000, is_server: bool = True) -> Engine:
        return SQLiteEngine(self._folder, most_waiting=most_waiting, is_server=is_server)

    def break_commit(self) -> None:
        _break_commit()

    def end(self) -> None:
        pass


class PostgresInstallation:
    """A database of its own."""

    def __init__(self, folder: Path) -> None:
        self._replaced = folder / "replaced"
        self.name = postgres.server().new_database()
        self.address = postgres.address(self.name)
        self.opening = f"""
from storage.postgres.engine import PostgresEngine
engine = PostgresEngine({self.address!r}, is_server=False)
"""

    def open(self, *, most_waiting: int = 1000, is_server: bool = True) -> Engine:
        options = {"most_waiting": most_waiting, "is_server": is_server}
        return PostgresEngine(self.address, **options, replaced=self._replaced)  # type: ignore[arg-type]

    def break_commit(self) -> None:
        _break_commit()

    def end(self) -> None:
        postgres.server().give_back(self.name)


def _break_commit() -> None:
    refers = "other INTEGER REFERENCES broken DEFERRABLE INITIALLY DEFERRED"
    connection().execute(f"CREATE TABLE broken (n INTEGER PRIMARY KEY, {refers})")
    connection().execute("INSERT INTO broken (n, other) VALUES (1, 2)")


ENGINES: dict[str, Callable[[Path], Installation]] = {"sqlite": SQLiteInstallation, "postgres": PostgresInstallation}
"""Each engine by its name, and how a test gets an empty installation of it."""


def elsewhere(installation: Installation, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a script in another process, with ``engine`` opened there and this module's functions at hand."""
    first = f"from gevent import monkey\nmonkey.patch_all()\nimport gevent, sys\n{installation.opening}"
    code = f"{first}\nfrom tests.storage.engine.installations import *\n{script}"
    command, environ = [sys.executable, "-c", code, *arguments], {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def lines_of(process: subprocess.Popen[str]) -> IO[str]:
    """Give what a process prints."""
    assert process.stdout is not None
    return process.stdout


def create(engine: Engine, tenant_id: str) -> str:
    """Create a tenant with its customer, and give its ID."""
    new = customer(f"{tenant_id}@example.com", tenant_id)
    engine.create(tenant_id, lambda: new.save(force_insert=True))
    return tenant_id


def known_ids() -> set[str]:
    """List the customers in the directory, to which this is bound."""
    return {row.id for row in Customer.select(Customer.id)}


# --- in a tenant -----------------------------------------------------------------------------------------------------

_ADD = (
    'INSERT INTO end_user (_seq, id, name, sync_status, version, is_deleted, server_synced, "createdAt", "updatedAt")'
    " VALUES (?, ?, ?, 'synced', 1, 0, 1, '', '')"
)


def add(word: str, pause: Callable[[], object] = lambda: None) -> int:
    """Store a word, with an ID of its own, under the next sequence, as a push does, and give that.

    It may pause between reading and writing.
    """
    sequence = position().sequence + 1
    pause()
    connection().execute("UPDATE _meta SET sequence = ?", (sequence,))
    connection().execute(_ADD, (sequence, f"{word} {sequence}", word))
    return sequence


def words() -> list[str]:
    """Read the words, in the order of their sequences."""
    return [name for (name,) in connection().execute("SELECT name FROM end_user ORDER BY _seq")]


def sequence() -> int:
    """Read where the tenant's order of commits is."""
    return position().sequence
