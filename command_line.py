"""What the operator's commands share: the data folder they work in, and how they end.

Knows: the command line, what an operator can act on. Must not know: what any command does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

import migration
import settings as environment
import tables_file
from engine_errors import EngineError
from errors import Problem
from folder_locks import DataFolderInUse
from manifest import BackupError
from tenants import MainDatabaseBroken, NoData, Tenants

_ACTED_ON = (
    Problem,
    environment.SettingError,
    tables_file.DeclarationError,
    migration.MigrationRefused,
    DataFolderInUse,
    MainDatabaseBroken,
    EngineError,
    NoData,
    BackupError,
    OSError,
)


def progress(line: str) -> None:
    """Tell what was done, apart from the result."""
    click.echo(line, err=True)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turn what an operator can act on into one sentence and exit code 1."""
    try:
        yield
    except _ACTED_ON as error:
        raise click.ClickException(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


@contextlib.contextmanager
def data(*, creates: bool = False) -> Iterator[tuple[environment.Settings, Tenants]]:
    """Open the data folder beside a server that may be running in it; ``creates``: begin one where there is none."""
    with failures():
        settings = environment.load()
        tables_file.declare(settings.tables_file)
        tenants = Tenants(settings.data_dir, is_server=False, creates=creates)
        try:
            yield settings, tenants
        finally:
            tenants.close()
