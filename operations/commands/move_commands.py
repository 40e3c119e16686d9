"""The operator's command that moves an installation, or a tenant, into another (docs/postgresql.md, "Moving").

Knows: the command line, what to ask before the source takes no more writes, what to do next. Must not know: what is copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from accounts import signing_key
from operations import move as moves
from operations import tenant_list
from operations.commands.command_line import confirm, counted, has_terminal, progress, storage
from operations.engine_choice import target_engine
from operations.move import Move
from operations.move_checks import MoveError
from protocol.errors import Problem
from settings import Settings
from storage import main_database
from storage.engine import CanNotOpen, Engine

_AGAIN = "Run the same command again to go on where it stopped."


@click.command()
@click.option("--to", metavar="URL|FOLDER", help="Where to: postgresql://… or a data folder; both may be empty.")
@click.option("--tenant", help="Only this tenant, by ID or e-mail address.")
@click.option("--yes", is_flag=True, help="Do not ask before this installation takes no more writes.")
@click.option("--recheck", is_flag=True, help="Compare again every row that an earlier run compared.")
@click.option("--undo", is_flag=True, help="Have this installation take writes again, and the target none.")
def move(to: str | None, tenant: str | None, yes: bool, recheck: bool, undo: bool) -> None:
    """Move everything, or one tenant, into PostgreSQL or into a data folder, while the server runs.

    Example: python syncapp.py move --to postgresql://syncapp:secret@db.example.com/syncapp
    """
    with storage() as (settings, source):
        tenant_id = None if tenant is None else tenant_list.find(source, tenant).id
        if to is None:
            _reopen(source, tenant_id, yes, undo)
            return
        there = _settings_of(settings, to)
        with _told_to_go_on(), _opened(there) as target:
            moving = moves.begin(source, target, tenant_id, progress, compares_all=recheck)
            if undo:
                moves.undo(moving)
                click.echo("Undone: this installation takes writes again, the target takes none.")
                return
            moves.copy(moving)
            _take_key(settings, there, moving)
            _cut_over(moving, there, yes)


@contextmanager
def _opened(settings: Settings) -> Iterator[Engine]:
    try:
        target = target_engine(settings)
    except CanNotOpen as error:
        raise MoveError(str(error).replace("DATABASE_URL", "--to")) from None
    try:
        yield target
    finally:
        target.close()


@contextmanager
def _told_to_go_on() -> Iterator[None]:
    """Say of what may be over when it is tried again, such as a lost connection, that nothing has to be done anew."""
    try:
        yield
    except Problem as error:
        raise MoveError(f"{error} {_AGAIN}") from error
    except KeyboardInterrupt:
        progress(f"Interrupted. {_AGAIN}")
        raise


def _settings_of(settings: Settings, to: str) -> Settings:
    """Give the settings of a server at the target."""
    if re.match("postgres(ql)?://", to):
        return replace(settings, database_url=to)
    if not to or "://" in to:
        raise click.UsageError("--to must be a folder, or a URL that begins with postgresql://.")
    return replace(settings, database_url="", data_dir=Path(to))


def _cut_over(moving: Move, there: Settings, yes: bool) -> None:
    what = "this tenant takes" if moving.tenant_id else "this installation takes"
    if not yes:
        if not has_terminal():
            click.echo("All is copied, and the server goes on. Run the same command with --yes for the cut-over.")
            return
        progress(f"All is copied. From here on {what} no more writes, until a server runs there; reads go on.")
        confirm("Go on?")
    moves.cut_over(moving)
    count = counted(len(moving.tenant_ids()), "tenant")
    click.echo(f"Moved: {count}, all rows compared. Here {what} no more writes. {_next(there)}")


def _next(there: Settings) -> str:
    if there.database_url:
        return "Now start the server with that URL as DATABASE_URL, and stop this one."
    return f"Now start the server without DATABASE_URL and with DATA_DIR={there.data_dir.resolve()}, and stop this one."


def _reopen(source: Engine, tenant_id: str | None, yes: bool, undo: bool) -> None:
    if not undo:
        raise click.UsageError("Say where to: --to postgresql://… or --to FOLDER")
    progress("Without --to nobody looks what the target has: what it took since is not here.")
    if not yes:
        confirm("Go on?")
    ids = source.tenant_ids() if tenant_id is None else [tenant_id]
    moves.reopen(source, ids, is_all=tenant_id is None)
    click.echo("Undone: this installation takes writes again.")


def _take_key(settings: Settings, there: Settings, moving: Move) -> None:
    """Have the target sign tokens with the key of the source, so that everybody stays logged in."""
    if settings.jwt_secret_key:
        progress("JWT_SECRET_KEY is set here: set it there too, else everybody has to log in again.")
        return
    key = signing_key.signing_key(settings, moving.source.kept_secret)
    others = moving.target.directory.read(main_database.customer_ids) - {moving.tenant_id}
    if moving.tenant_id is None or not others:
        if not moving.target.keep_secret(key):
            signing_key.keep(there, key)
    elif signing_key.signing_key(there, moving.target.kept_secret) != key:
        progress("The target signs tokens with another key: who uses this tenant has to log in again there.")
