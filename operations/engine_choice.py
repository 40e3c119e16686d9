"""Opens the storage that the settings name: the files of a data folder, or a database of PostgreSQL.

Knows: both engines, and which settings each has. Must not know: what is stored. PostgreSQL's is imported only where it is
used: its driver takes 17 MB, and 0.14 s of a start.
"""

from __future__ import annotations

from settings import Settings
from storage.engine import CanNotOpen, Engine
from storage.sqlite.engine import SQLiteEngine

NOT_INSTALLED = "DATABASE_URL needs psycopg, which is not installed: pip install -r requirements.txt."


def server_engine(settings: Settings) -> Engine:
    """Open the storage as the server.

    Raises: CanNotOpen, DataFolderInUse, MainDatabaseBroken.
    """
    if settings.database_url:
        return postgres_engine(settings, is_server=True)
    return SQLiteEngine(
        settings.data_dir,
        most_open=settings.open_tenants,
        most_waiting=settings.max_waiting_pushes,
        lock_wait_seconds=settings.shutdown_seconds + 5,
        least_free_bytes=settings.min_free_bytes,
    )


def target_engine(settings: Settings) -> Engine:
    """Open an installation that another is moved into. A folder is this process's alone: no server starts in it.

    Raises: CanNotOpen, DataFolderInUse, MainDatabaseBroken.
    """
    return postgres_engine(settings) if settings.database_url else SQLiteEngine(settings.data_dir)


def postgres_engine(settings: Settings, *, is_server: bool = False, creates: bool = True) -> Engine:
    """Open a database of PostgreSQL; one without our tables is begun if it ``creates``.

    Raises: CanNotOpen.
    """
    try:
        from storage.postgres.engine import PostgresEngine  # noqa: PLC0415
    except ImportError:
        raise CanNotOpen(NOT_INSTALLED) from None
    return PostgresEngine(
        settings.database_url,
        connections=settings.database_pool,
        most_waiting=settings.max_waiting_pushes,
        wait_seconds=settings.database_wait_seconds if is_server else 0,
        is_server=is_server,
        creates=creates,
        replaced=settings.data_dir / "replaced",
    )
