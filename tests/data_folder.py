"""Data folders opened in this process, and the files of tenants in them."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from storage import main_database
from storage.engine import Engine
from storage.postgres.engine import PostgresEngine
from storage.sqlite.data_folder import DataFolder
from storage.sqlite.engine import SQLiteEngine
from storage.sqlite.files import file_bytes, put_file
from tenants import Tenants
from tests import postgres


def opened(path: Path, *, retiring: Collection[str] = (), **options: Any) -> Tenants:
    """Open a folder as a start of the server does; one that is refused leaves it to the next.

    The directory of a new folder is laid out once for all tests of a run.
    """
    folder = DataFolder(path)
    if not path.exists():
        folder.make()
        put_file(folder.main, _new_directory())
    engine = _opened(path, **options)
    try:
        return Tenants(engine, retiring)
    except BaseException:
        engine.close()
        raise


@cache
def _new_directory() -> bytes:
    return file_bytes(b"", main_database.prepare, main_database.FINGERPRINT)


def _opened(path: Path, *, most_waiting: int = 1000, is_server: bool = True, **of_files: Any) -> Engine:
    if postgres.IS_UNDER_TEST:
        return PostgresEngine(postgres.address_of(path), most_waiting=most_waiting, is_server=is_server)
    return SQLiteEngine(path, most_waiting=most_waiting, is_server=is_server, **of_files)


def engine_of(tenants: Tenants) -> SQLiteEngine:
    """Give the engine, known to be SQLite's."""
    postgres.must_be_about_files()
    assert isinstance(tenants.engine, SQLiteEngine)
    return tenants.engine


def folder_of(tenants: Tenants) -> DataFolder:
    """Give where the tenants' files lie."""
    return engine_of(tenants).folder


def stored_in(path: Path) -> set[str]:
    """Give the IDs of the tenants whose data lies in a folder, or in the database in its place."""
    if postgres.IS_UNDER_TEST:
        return {str(found) for (found,) in postgres.ask(path, "SELECT _tenant_id FROM public._meta")}
    return {str(uuid.UUID(file.stem.removeprefix("tenant_"))) for file in (path / "tenants").glob("*.db")}


def path_of(tenants: Tenants, tenant_id: str) -> Path:
    """Give the file of a tenant."""
    return folder_of(tenants).path_of(tenant_id)
