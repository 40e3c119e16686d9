"""A PostgreSQL of this test run's own: one server in a temporary folder, and an empty database for each test.

As root it runs under the user that Debian's package makes, since PostgreSQL refuses root.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.needs import where_postgres

IS_UNDER_TEST = os.environ.get("SYNCAPP_TEST_ENGINE") == "postgres"
"""Whether the product's tests are to run on PostgreSQL; those that look into a tenant's file are skipped then."""

MISSING = "PostgreSQL is not installed here: apt-get install postgresql"

_SETTINGS = {
    "fsync": "off",  # What a test kills is a process, never the machine.
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
}


def is_there() -> bool:
    """Tell whether PostgreSQL's programs are installed."""
    return where_postgres("initdb") is not None


def _end_with_parent() -> None:
    """Have the kernel end this process when who began it is killed (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


class Server:
    """A running server, which ends with this process."""

    def __init__(self, listens: Sequence[str] = ()) -> None:
        """``listens``: addresses to listen on beside its Unix socket; who calls from their network is trusted."""
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        shutil.chown(self.folder, self._user)
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self._settings = _SETTINGS | {"listen_addresses": ",".join(listens)}
        for address in listens:
            with (self.folder / "data" / "pg_hba.conf").open("a") as allowed:
                allowed.write(f"host all all {address}/30 trust\n")
        self._process = self._started()
        atexit.register(self._end, os.getpid())
        self.ask("CREATE ROLE app LOGIN")

    def _command(self, program: str, *arguments: str) -> dict[str, Any]:
        path = where_postgres(program)
        assert path is not None, MISSING
        as_user = {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}
        where = {"cwd": self.folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return {"args": [path, *arguments], **where, **(as_user if os.geteuid() == 0 else {})}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(check=True, **self._command(program, *arguments))

    def _started(self) -> subprocess.Popen[bytes]:
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = self._command("postgres", "-D", "data", "-k", str(self.folder), *options)
        process = subprocess.Popen(**command, process_group=0, preexec_fn=_end_with_parent)  # noqa: PLW1509 -- no locks
        for _ in range(600):
            try:
                self.ask("SELECT 1")
                return process
            except psycopg.OperationalError:
                assert process.poll() is None, "PostgreSQL did not start"
                time.sleep(0.05)
        raise AssertionError("PostgreSQL did not become ready")

    def _end(self, process_id: int) -> None:
        if os.getpid() == process_id:  # A fork has the same functions to call at its exit.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def socket(self) -> Path:
        """Give its Unix socket."""
        return self.folder / ".s.PGSQL.5432"

    @property
    def process_id(self) -> int:
        """Give the ID of its first process, which takes connections."""
        return self._process.pid

    def restart(self, how: signal.Signals = signal.SIGINT, seconds: float = 0) -> None:
        """Restart it: fast by SIGINT, at once by SIGQUIT; it is away for so long."""
        self._process.send_signal(how)
        self._process.wait()
        time.sleep(seconds)
        self._process = self._started()

    def address(self, database: str, user: str = "app") -> str:
        """Give the URL of a database."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def ask(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, whom no policy binds."""
        with psycopg.connect(self.address(database, "postgres"), autocommit=True) as connection:
            found = connection.execute(sql)
            return found.fetchall() if found.description else []

    def new_database(self) -> str:
        """Make an empty database, and give its name."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.ask(f"CREATE DATABASE {name} OWNER app TEMPLATE template0")
        return name

    def drop(self, database: str) -> None:
        """Drop a database, whoever uses it."""
        self.ask(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


_DATABASES: dict[Path, str] = {}


def address_of(folder: Path) -> str:
    """Give the URL of the database that a test has in place of a data folder."""
    if folder not in _DATABASES:
        _DATABASES[folder] = server().new_database()
    return server().address(_DATABASES[folder])


def environ_of(folder: Path) -> dict[str, str]:
    """Give what makes a server use that database, if PostgreSQL is under test."""
    return {"DATABASE_URL": address_of(folder)} if IS_UNDER_TEST else {}


def ask(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the database in place of a data folder, as the superuser."""
    return server().ask(sql, _DATABASES[folder])


def dump(folder: Path, tenant_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """Read everything of a tenant."""
    names = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    return {
        name: ask(folder, f"SELECT * FROM \"{name}\" WHERE _tenant_id = '{tenant_id}' ORDER BY 1")
        for (name,) in ask(folder, names)
    }


def drop_those_in(folder: Path) -> None:
    """Drop the databases in place of data folders in a test's folder."""
    for path in [path for path in _DATABASES if folder in path.parents]:
        server().drop(_DATABASES.pop(path))


def must_be_about_files() -> None:
    """Skip a test that looks into files, if there are none."""
    if IS_UNDER_TEST:
        pytest.skip("about the files of SQLite")


@cache
def server() -> Server:
    """Give the server of this test run, started when it is asked for first."""
    return Server()
