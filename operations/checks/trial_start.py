"""Tries what a start does after its checks, without starting: open the data, compare tables, listen.

Knows: where a start can still fail. Must not know: requests, the command line. Beside a running server the port is not
tried.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from operations import smtp_server
from operations.checks import doctor, process_checks
from operations.checks.doctor import Check, Finding, Machine
from operations.engine_choice import postgres_engine
from operations.file_monitor import FileMonitor
from operations.smtp_server import CanNotSend
from protocol.errors import Problem
from server.http.listening import CannotListen, listen
from storage import main_database
from storage.declarations import compatibility, toml_file
from storage.engine import CanNotOpen, Engine, NothingBegun
from storage.sqlite.engine import MainDatabaseBroken, SQLiteEngine
from storage.sqlite.errors import EngineError
from storage.sqlite.folder_locks import has_server

_SHOWN = 10


def database(machine: Machine) -> Finding | None:
    """Check whether PostgreSQL can be used and its rows allow the declared tables."""
    try:
        toml_file.declare(machine.settings.tables_file)
        engine = postgres_engine(machine.settings, creates=False)
    except (toml_file.DeclarationError, OSError):
        return None  # Another check reports it.
    except NothingBegun:  # A start would begin it, and this does nothing.
        return None
    except (CanNotOpen, Problem) as error:
        return Finding(str(error), "docs/postgresql.md says what it needs.", refuses=True)
    try:
        return _migrations(engine)
    finally:
        engine.close()


def customers_rows(machine: Machine) -> Finding | None:
    """Check whether the rows of every customer are in PostgreSQL."""
    try:
        engine = postgres_engine(machine.settings, creates=False)
    except (CanNotOpen, Problem):
        return None  # Another check reports it, or there is no data.
    try:
        missing = sorted(engine.directory.read(main_database.customer_ids) - set(engine.tenant_ids()))
    except Problem:
        return None
    finally:
        engine.close()
    return _finding([f"Tenant {one}: its rows are missing." for one in missing])


def stored_data(machine: Machine) -> Finding | None:
    """Check whether the data can be opened and its rows allow the declared tables."""
    if machine.is_new or not machine.folder.is_dir():
        return None
    try:
        toml_file.declare(machine.settings.tables_file)
        engine = SQLiteEngine(machine.folder, is_server=False)
    except (toml_file.DeclarationError, OSError):
        return None  # Another check reports it.
    except (MainDatabaseBroken, Problem) as error:
        return Finding(str(error), "", refuses=True)
    try:
        return _migrations(engine)
    finally:
        engine.close()


def customers_files(machine: Machine) -> Finding | None:
    """Check whether the file of every customer is there, can be read, and did not go back."""
    if machine.is_new or not machine.folder.is_dir():
        return None
    try:
        engine = SQLiteEngine(machine.folder, is_server=False)
    except (MainDatabaseBroken, Problem, OSError):
        return None  # Another check reports it.
    try:
        ids = sorted(engine.directory.read(main_database.customer_ids))
        if not ids and any((machine.folder / "tenants").glob("tenant_*.db")):
            return Finding(
                "main.db knows no customer, but there are files of tenants.", "Run restore (docs/backups.md)."
            )
        look_at = FileMonitor(engine).look_at
        found = [f"Tenant {one}: {fault}." for one in ids if (fault := look_at(one))]
    finally:
        engine.close()
    return _finding(found)


def _finding(found: list[str]) -> Finding | None:
    more = f" And {len(found) - _SHOWN} more." if len(found) > _SHOWN else ""
    return Finding(" ".join(found[:_SHOWN]) + more, "docs/backups.md says what to do.") if found else None


def _migrations(engine: Engine) -> Finding | None:
    try:
        refusal = compatibility.compare(engine).refusal()
    except EngineError as error:
        return Finding(f"A database can't be read: {error}.", "Put it back from a backup.", refuses=True)
    return Finding(refusal, "docs/tables.md says what may change.", refuses=True) if refusal else None


def address(machine: Machine) -> Finding | None:
    """Check whether the ports are free, unless a server runs in this data folder and has them."""
    settings = machine.settings
    if not settings.database_url and has_server(machine.folder):
        return None
    try:
        listen(settings.host, settings.port).close()
        if settings.metrics_port:
            listen(settings.metrics_host, settings.metrics_port, "METRICS_").close()
    except CannotListen as error:
        return Finding(str(error), "", refuses=not settings.database_url)  # It may be that of our own server.
    return None


def log_file(machine: Machine) -> Finding | None:
    """Check whether LOG_FILE can be written, without making it."""
    if not machine.settings.log_file:
        return None
    path = Path(machine.settings.log_file).resolve()
    is_there, folder = path.exists(), path.parent
    if os.access(folder, os.W_OK | os.X_OK) and (not is_there or (path.is_file() and os.access(path, os.W_OK))):
        return None
    return Finding(
        f"LOG_FILE is {path}, which can't be written and rotated: the log would be on standard error alone.",
        "Name a file in a folder that is there, and that the server may write.",
    )


def mail_server(machine: Machine) -> Finding | None:
    """Check whether the mail server can be reached with TLS and takes the password; no mail is sent."""
    if not machine.settings.smtp_url:
        return None
    try:
        smtp_server.try_out(machine.settings)
    except CanNotSend as error:
        return Finding(f"{error}.".replace("..", "."), "Mails wait meanwhile (docs/mail.md).")
    return None


PROCESS_CHECKS: tuple[Check, ...] = (process_checks.bus, process_checks.versions, process_checks.connections)
TRIAL_CHECKS: tuple[Check, ...] = (
    database,
    customers_rows,
    *PROCESS_CHECKS,
    stored_data,
    customers_files,
    log_file,
    address,
    mail_server,
)
_OF_POSTGRES, _OF_FILES = {database, customers_rows, *PROCESS_CHECKS}, {stored_data, customers_files}


def run_checks(machine: Machine) -> Iterator[tuple[str, Finding | None]]:
    """Run every check of a start and try the rest of it; give a description of each and its finding."""
    others = _OF_FILES if machine.settings.database_url else _OF_POSTGRES
    trial = [check for check in TRIAL_CHECKS if check not in others]
    return doctor.run_checks(machine, (*doctor.checks_of(machine.settings), *trial))
