"""What the operator's commands share: opening the data folder, asking, errors, counts.

Knows: the command line, which errors an operator can act on. Must not know: what any command does.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import click
from gevent.monkey import get_original

import settings as environment
from operations.archive import ArchiveError
from operations.backups.manifest import BackupError
from operations.checks.tenant_checks import CheckUnderWay
from operations.command_jobs import DONE_BY
from operations.engine_choice import postgres_engine
from operations.migration import CopiesInUse, Lost, NoRoomForCopies
from operations.move_checks import MoveError
from operations.tenant_list import NoCustomer
from protocol.errors import Problem
from server.log_format import printable
from storage.declarations import compatibility, toml_file
from storage.engine import CanNotOpen, Engine, EngineFailed, NotRestored
from storage.sqlite.data_folder import DataFolder, is_filled
from storage.sqlite.engine import MainDatabaseBroken, NoData, SQLiteEngine
from storage.sqlite.errors import EngineError
from storage.sqlite.folder_locks import DataFolderInUse

_EXPECTED_ERRORS = (
    Problem,
    environment.SettingError,
    toml_file.DeclarationError,
    compatibility.MigrationRefused,
    CanNotOpen,
    NotRestored,
    DataFolderInUse,
    MainDatabaseBroken,
    EngineFailed,
    EngineError,
    NoData,
    ArchiveError,
    BackupError,
    MoveError,
    NoCustomer,
    CheckUnderWay,
    CopiesInUse,
    Lost,
    NoRoomForCopies,
    OSError,
)
_select = get_original("select", "select")  # gevent's own writes of a Ctrl-C to the terminal.
_POLL_SECONDS = 0.2
_ANSWERS = {"y": True, "yes": True, "n": False, "no": False, "": False}


def progress(line: str) -> None:
    """Report progress on standard error."""
    click.echo(line, err=True)


def confirm(question: str) -> None:
    """Ask at the terminal whether to go on.

    Not by ``input``, as click does: that notices a Ctrl-C only if it comes while it reads, and one that comes between the
    question and the reading waits for a line. So this looks for one while it waits, and reads what is there.
    Raises: click.Abort unless the answer is yes.
    """
    answer = None
    while answer not in _ANSWERS:
        click.echo(f"{printable(question)} [y/N]: ", nl=False, err=True)
        line = _line_typed()
        if not line:
            click.echo(err=True)
            raise click.UsageError("Nobody is there to ask: use --yes.")
        answer = line.strip().lower()
    if not _ANSWERS[answer]:
        raise click.Abort


def _line_typed() -> str:
    """Wait for a line of standard input; nothing at its end, or if there is none."""
    if sys.stdin is None:  # As under some supervisors, or after <&-.
        return ""
    while not _select([sys.stdin], [], [], _POLL_SECONDS)[0]:
        pass
    return sys.stdin.readline()


def has_terminal() -> bool:
    """Tell whether somebody may be there to answer."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_line(what: str) -> str:
    """Read a secret from a line of standard input."""
    try:
        return sys.stdin.buffer.readline().decode().rstrip("\r\n") if sys.stdin else ""
    except UnicodeDecodeError:
        raise click.ClickException(f"The {what} must be UTF-8.") from None


def password_asked(from_stdin: bool) -> str:
    """Ask for a new password at the terminal, twice, or read it from standard input."""
    if from_stdin:
        return read_line("password")
    if not has_terminal():
        raise click.UsageError("There is no terminal to ask for the password: use --password-stdin.")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


def done_by() -> str | None:
    """Give the session of the console that has this command run, for the record; None if a person runs it."""
    return os.environ.get(DONE_BY)


def counted(count: int, noun: str) -> str:
    """Write a number with its noun, such as ``1 tenant`` or ``2,000 tenants``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turn an error that an operator can act on into one sentence and exit code 1."""
    try:
        yield
    except BrokenPipeError:  # Who reads the output has enough of it; click ends without a word.
        raise
    except _EXPECTED_ERRORS as error:
        raise click.ClickException(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


@contextlib.contextmanager
def storage(*, creates: bool = False, is_server: bool = False) -> Iterator[tuple[environment.Settings, Engine]]:
    """Open what the settings name, the data folder or PostgreSQL, beside a server that may be running, or as the server.

    ``creates``: begin it if there is no data.
    """
    with failures():
        settings = environment.load()
        toml_file.declare(settings.tables_file)
        engine = _opened(settings, creates, is_server)
        try:
            yield settings, engine
        finally:
            engine.close()


def _opened(settings: environment.Settings, creates: bool, is_server: bool) -> Engine:
    if settings.database_url:
        return postgres_engine(settings, is_server=is_server, creates=creates)
    if creates and not is_filled(DataFolder(settings.data_dir).main):
        progress(f"There was no data in {settings.data_dir.resolve()}: a new installation begins there.")
    return SQLiteEngine(settings.data_dir, is_server=is_server, creates=creates)
