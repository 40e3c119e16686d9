"""What a start does after its checks, tried without doing it: take the folder, open the data, listen.

Knows: where a start can still end. Must not know: requests, the command line. Beside a running server only what does not
concern it is tried.
"""

from __future__ import annotations

from collections.abc import Iterator

from operations import doctor
from operations.doctor import CHECKS, Check, Finding, Place
from operations.file_monitor import FileMonitor
from protocol.errors import Problem
from server.http.lifecycle import CannotListen, listen
from storage import main_database
from storage.declarations import compatibility, toml_file
from storage.sqlite.engine import MainDatabaseBroken, SQLiteEngine
from storage.sqlite.errors import EngineError
from storage.sqlite.folder_locks import has_server

_SHOWN = 10


def stored_data(place: Place) -> Finding | None:
    """Look whether the data can be opened and its rows allow the declared tables."""
    if place.is_new or not place.folder.is_dir():
        return None
    try:
        toml_file.declare(place.settings.tables_file)
        engine = SQLiteEngine(place.folder, is_server=False)
    except (toml_file.DeclarationError, OSError):
        return None  # Another check tells.
    except (MainDatabaseBroken, Problem) as error:
        return Finding(str(error), "", refuses=True)
    try:
        return _migrations(engine)
    finally:
        engine.close()


def customers_files(place: Place) -> Finding | None:
    """Look whether the file of every customer is there, can be read, and did not go back."""
    if place.is_new or not place.folder.is_dir():
        return None
    try:
        engine = SQLiteEngine(place.folder, is_server=False)
    except (MainDatabaseBroken, Problem, OSError):
        return None  # Another check tells.
    try:
        ids = sorted(engine.directory.read(main_database.customer_ids))
        if not ids and any((place.folder / "tenants").glob("tenant_*.db")):
            return Finding(
                "main.db knows no customer, but there are files of tenants.", "Run restore (docs/backups.md)."
            )
        look_at = FileMonitor(engine).look_at
        found = [f"Tenant {one}: {fault}." for one in ids if (fault := look_at(one))]
    finally:
        engine.close()
    more = f" And {len(found) - _SHOWN} more." if len(found) > _SHOWN else ""
    return Finding(" ".join(found[:_SHOWN]) + more, "docs/backups.md tells what to do.") if found else None


def _migrations(engine: SQLiteEngine) -> Finding | None:
    try:
        refusal = compatibility.compare(engine).refusal()
    except EngineError as error:
        return Finding(f"A database can't be read: {error}.", "Put it back from a backup.", refuses=True)
    return Finding(refusal, "docs/tables.md tells what may change.", refuses=True) if refusal else None


def address(place: Place) -> Finding | None:
    """Look whether the port is free, unless a server runs in this data folder and has it."""
    if has_server(place.folder):
        return None
    try:
        listen(place.settings.host, place.settings.port).close()
    except CannotListen as error:
        return Finding(str(error), "", refuses=True)
    return None


REHEARSED: tuple[Check, ...] = (stored_data, customers_files, address)


def looked(place: Place) -> Iterator[tuple[str, Finding | None]]:
    """Run every check of a start and try the rest of it; give what each looks for and what it found."""
    return doctor.looked(place, (*CHECKS, *REHEARSED))
