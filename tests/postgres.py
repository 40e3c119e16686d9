"""A PostgreSQL of this test run's own: one server in a temporary folder, and an empty database for each test.

As root it runs under the user that Debian's package makes, since PostgreSQL refuses root. With
``SYNCAPP_TEST_ENGINE=pgbouncer`` the product reaches it through PgBouncer in transaction mode.
"""

from __future__ import annotations

import atexit
import contextlib
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.needs import where, where_postgres
from tests.ports import free_port

_ENGINE = os.environ.pop("SYNCAPP_TEST_ENGINE", "sqlite")  # Else the product warns of it: it is no setting of its own.
IS_POOLED = _ENGINE == "pgbouncer"
IS_UNDER_TEST = IS_POOLED or _ENGINE == "postgres"
"""Whether the product's tests are to run on PostgreSQL; those marked ``files``, or that ask for a tenant's, are skipped."""

not_pooled = pytest.mark.skipif(IS_POOLED, reason="no pooler lets it through")
"""About NOTIFY, or how many connections PostgreSQL itself takes."""

MISSING = "PostgreSQL is not installed here: apt-get install postgresql"

_SETTINGS = {
    "fsync": "off",  # What a test kills is a process, never the machine.
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
    "log_line_prefix": "%p ",
}

_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_WHAT_IS_LEFT = "\nUNION ALL ".join(
    [
        *(
            f"SELECT '{catalog}', oid::text FROM {catalog} WHERE oid >= 16384"  # Below it is what initdb made.
            for catalog in (
                "pg_class",
                "pg_namespace",
                "pg_proc",
                "pg_type",
                "pg_extension",
                "pg_event_trigger",
                "pg_cast",
            )
        ),
        "SELECT 'a large object', oid::text FROM pg_largeobject_metadata",
        "SELECT 'public', nspacl::text FROM pg_namespace"
        " WHERE nspname = 'public' AND nspacl::text <> '{pg_database_owner=UC/pg_database_owner,=U/pg_database_owner}'",
        "SELECT 'a setting', setconfig::text FROM pg_db_role_setting"
        " WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
        "SELECT 'a limit', datname FROM pg_database"
        " WHERE datname = current_database() AND (datconnlimit <> -1 OR datacl IS NOT NULL OR NOT datallowconn)",
    ]
)
"""Asks what a test left in a database whose objects were dropped: a row for each."""


def is_there() -> bool:
    """Tell whether PostgreSQL's programs are installed."""
    return where_postgres("initdb") is not None


def _end_with_parent() -> None:
    """Have the kernel end this process when who began it is killed (prctl(2), PR_SET_PDEATHSIG)."""
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # A shell takes it from what runs in the background.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


class _Program:
    """A program that runs in a folder of its own, under the user who may run it, and ends with this process."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.folder.chmod(0o755)
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        shutil.chown(self.folder, self._user)
        self.port = free_port()
        self._make()
        self._process = self._started()
        atexit.register(self._end, os.getpid())

    def _make(self) -> None:
        """Make what it starts with."""

    def _started(self) -> subprocess.Popen[bytes]:
        command = self._command(*self._line())
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(**command | {"stderr": log}, process_group=0, preexec_fn=_end_with_parent)  # noqa: PLW1509 -- no locks
        for _ in range(600):
            try:
                self.ask("SELECT 1")
                return process
            except psycopg.OperationalError:
                assert process.poll() is None, f"{self._line()[0]} did not start"
                time.sleep(0.05)
        raise AssertionError(f"{self._line()[0]} did not become ready")

    def _line(self) -> list[str]:
        """Give its command line."""
        raise NotImplementedError

    def _end(self, process_id: int) -> None:
        if os.getpid() == process_id:  # A fork has the same functions to call at its exit.
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it at once."""
        self._process.send_signal(how)
        self._process.wait()

    def start(self) -> None:
        """Start it again."""
        self._process = self._started()

    @property
    def process_id(self) -> int:
        """Give the ID of its first process, which takes connections."""
        return self._process.pid

    def address(self, database: str, user: str = "app") -> str:
        """Give the URL of a database."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def ask(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, whom no policy binds."""
        with psycopg.connect(self.address(database, "postgres"), autocommit=True) as connection:
            found = connection.execute(sql)
            return found.fetchall() if found.description else []

    def _command(self, program: str, *arguments: str) -> dict[str, Any]:
        path = where_postgres(program) or where(program)
        assert path is not None, MISSING
        as_user = {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}
        place = {"cwd": self.folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return {"args": [path, *arguments], **place, **(as_user if os.geteuid() == 0 else {})}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(check=True, **self._command(program, *arguments))


class Server(_Program):
    """A running PostgreSQL."""

    def __init__(self, listens: Sequence[str] = ()) -> None:
        """``listens``: more addresses to listen on; who calls from their network is trusted."""
        self._listens = listens
        self._given_back: list[str] = []
        super().__init__()

    def _make(self) -> None:
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        with (self.folder / "data" / "pg_hba.conf").open("a") as allowed:
            allowed.writelines(f"host all all {address}/30 trust\n" for address in self._listens)

    def _line(self) -> list[str]:
        settings = _SETTINGS | {"listen_addresses": ",".join(["127.0.0.1", *self._listens])}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        folders = f"unix_socket_directories={self.folder}"
        return ["postgres", "-D", "data", "-p", str(self.port), "-c", folders, *options]

    def _started(self) -> subprocess.Popen[bytes]:
        with contextlib.suppress(FileExistsError):  # A socket's file has the port's number in its name.
            (self.folder / ".s.PGSQL.5432").symlink_to(f".s.PGSQL.{self.port}")
        return super()._started()

    def restart(self, how: signal.Signals = signal.SIGINT, seconds: float = 0) -> None:
        """Restart it: fast by SIGINT, at once by SIGQUIT; it is away for so long."""
        self.kill(how)
        time.sleep(seconds)
        self.start()

    def new_database(self) -> str:
        """Give the name of an empty database: of one that was given back, or of a new one."""
        if self._given_back:
            return self._given_back.pop()
        name = f"t{uuid.uuid4().hex[:12]}"
        self.ask(f"CREATE DATABASE {name} OWNER app TEMPLATE template0")
        return name

    def give_back(self, database: str) -> None:
        """Empty a database for the next test: to make one takes more than most tests. What can't be emptied is dropped."""
        with psycopg.connect(self.address(database, "postgres"), autocommit=True) as connection:
            connection.execute(_END_OTHERS)
            connection.execute("DROP OWNED BY app CASCADE")
            found = connection.execute(_WHAT_IS_LEFT).fetchall()
        if found:
            self.drop(database)
        else:
            self._given_back.append(database)

    def drop(self, database: str) -> None:
        """Drop a database, whoever uses it."""
        self.ask(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def encrypt(self) -> None:
        """Take encrypted connections too, with a certificate that nobody vouches for."""
        certificate = [
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=db",
        ]
        files = ["-keyout", "data/server.key", "-out", "data/server.crt"]
        subprocess.run(**self._command("openssl", "req", *certificate, *files), check=True)
        self.ask("ALTER SYSTEM SET ssl = on")
        self.ask("SELECT pg_reload_conf()")


class Replica(Server):
    """A server that follows another one."""

    def __init__(self, primary: Server) -> None:
        self._primary = primary
        super().__init__()

    def _make(self) -> None:
        where = ["-h", str(self._primary.folder), "-U", "postgres"]
        self._run("pg_basebackup", "-R", "-D", "data", *where, "--checkpoint=fast", "--no-sync", "-X", "stream")

    def stop_following(self) -> None:
        """Hear nothing more of the other."""
        self.ask("ALTER SYSTEM SET primary_conninfo = ''")
        self.ask("SELECT pg_reload_conf()")
        while self.ask("SELECT 1 FROM pg_stat_wal_receiver"):
            time.sleep(0.02)

    def promote(self) -> None:
        """Become the primary."""
        self.ask("SELECT pg_promote()")


class Pooler(_Program):
    """PgBouncer in transaction mode, before a server; three sessions there are for all who connect."""

    def __init__(self, upstream: Path) -> None:
        """``upstream``: the folder of the server's socket."""
        self._upstream = upstream
        super().__init__()

    def _make(self) -> None:
        (self.folder / "users").write_text('"app" ""\n"postgres" ""\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={self._upstream}\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {self.folder}\n"
            f"auth_type = trust\nauth_file = {self.folder}/users\npool_mode = transaction\ndefault_pool_size = 3\n"
            "listen_port = 5432\nmax_client_conn = 500\nserver_login_retry = 0.1\n"
        )

    def _line(self) -> list[str]:
        return ["pgbouncer", "pgbouncer.ini"]


_DATABASES: dict[Path, str] = {}


def address(database: str) -> str:
    """Give the URL under which the product reaches a database of the server."""
    return (pooler() if IS_POOLED else server()).address(database)


def address_of(folder: Path) -> str:
    """Give the URL of the database that a test has in place of a data folder."""
    if folder not in _DATABASES:
        _DATABASES[folder] = server().new_database()
    return address(_DATABASES[folder])


def environ_of(folder: Path) -> dict[str, str]:
    """Give what makes a server use that database, if PostgreSQL is under test."""
    return {"DATABASE_URL": address_of(folder)} if IS_UNDER_TEST else {}


def ask(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the database in place of a data folder, as the superuser."""
    return server().ask(sql, _DATABASES[folder])


@contextmanager
def locked(folder: Path, table: str) -> Iterator[None]:
    """Have all others wait for a table meanwhile."""
    with psycopg.connect(server().address(_DATABASES[folder], "postgres")) as connection:
        connection.execute(f"LOCK TABLE {table}")
        yield


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
    server = Server()
    server.ask("CREATE ROLE app LOGIN")
    return server


@cache
def pooler() -> Pooler:
    """Give a pooler before that server."""
    return Pooler(server().folder)
