"""The operator's commands over all tenants: to migrate them, and to check them.

Knows: the command line, what is said of a run and how it ends. Must not know: SQL, what a migration or a check does.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

from operations import migration
from operations.checks import tenant_checks
from operations.commands.command_line import counted, progress, storage
from operations.commands.tenant_commands import as_json_option, print_json, print_table
from operations.migration import Migration, Result
from settings import Settings
from storage import accepted_tables
from storage.declarations import compatibility
from storage.engine import Engine
from tenants import Tenants

_LEAST_PRIORITY = 19
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 8),
    default=4,
    help="So many tenants at once, which overlaps what the disk does; 4 if not given.",
)
_AT_ONCE = (
    "PostgreSQL has the rows of all tenants in the same tables: one transaction migrates all of them or none, so that there"
    " is no canary, no copy and no --jobs. Look first with migrate --check, and back up."
)


@click.command()
@click.option("--check", is_flag=True, help="Only say what would be done. It may run beside a running server.")
@click.option(
    "--retire",
    multiple=True,
    metavar="TABLE",
    help="Stop syncing a table that is no longer declared; its rows stay in the files.",
)
@click.option(
    "--canary",
    type=click.IntRange(1),
    metavar="N",
    help="Migrate N tenants of all sizes, compare each with what it was, and stop; without it the next call goes on.",
)
@jobs_option
@click.option("--no-copy", is_flag=True, help="Keep no copy of each file as it was; take a backup before.")
@click.option(
    "--status", is_flag=True, help="Only say of each tenant how it stands. It may run beside a running server."
)
@click.option("--remove-copies", is_flag=True, help="Only remove the copies of before.")
@as_json_option
@click.pass_context
def migrate(
    context: click.Context,
    check: bool,
    retire: tuple[str, ...],
    canary: int | None,
    jobs: int,
    no_copy: bool,
    status: bool,
    remove_copies: bool,
    as_json: bool,
) -> None:
    """Migrate every tenant's database to this version and the declared tables. With files no server may be running.

    Example: python syncapp.py migrate --canary 5
    """
    chooses = bool(canary or no_copy or are_jobs_given(context))
    if check + status + remove_copies > 1 or ((status or remove_copies) and retire):
        raise click.UsageError("--check, --status and --remove-copies each go alone; --retire may go with --check.")
    if chooses and (check or status or remove_copies):
        raise click.UsageError("--canary, --jobs and --no-copy are about a migration: leave them out here.")
    if canary and no_copy:
        raise click.UsageError("--canary compares with copies: leave out --no-copy.")
    if as_json and not status:
        raise click.UsageError("--json works only with --status.")
    with storage(is_server=not (check or status or remove_copies)) as (settings, engine):
        _must_be_undeclared(engine, retire)
        if check:
            _preview(engine, retire)
        elif status:
            _show_status(migration.statuses(engine, settings.data_dir), as_json)
        elif remove_copies:
            _remove_copies(settings.data_dir)
        elif settings.database_url:
            _migrate_at_once(engine, retire, is_refused=chooses)
        else:
            _migrate(settings, engine, retire, canary, jobs, copies=not no_copy)


def are_jobs_given(context: click.Context) -> bool:
    """Tell whether ``--jobs`` was given, and is not the default."""
    return context.get_parameter_source("jobs") is click.core.ParameterSource.COMMANDLINE


def _must_be_undeclared(engine: Engine, retire: tuple[str, ...]) -> None:
    """Refuse to retire what is no table, or one that is still declared: nothing would come of it."""
    known = {table.name for table in engine.directory.read(accepted_tables.accepted_tables)}
    for name in retire:
        if name not in known - compatibility.declared_now().keys():
            raise click.UsageError(f"--retire {name!r}: it must be a table that was declared and is no more.")


def _preview(engine: Engine, retire: tuple[str, ...]) -> None:
    found = compatibility.compare(engine, retire)
    for difference in found.differences:
        click.echo(difference.sentence)
    if found.offences:
        raise click.ClickException(found.refusal())
    click.echo(f"{counted(_count_waiting(engine), 'tenant')} would be migrated.")


def _count_waiting(engine: Engine) -> int:
    return sum(not engine.is_current(tenant_id) for tenant_id in engine.tenant_ids())


def _show_status(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_table(
        ("TENANT", "STATE", "ABOUT"),
        [(one["tenant"], one["state"], one.get("error", one.get("copy", ""))) for one in found],
    )
    states = Counter(one["state"] for one in found)
    progress(f"{counted(len(found), 'tenant')}: {', '.join(f'{count:,} {state}' for state, count in states.items())}.")


def _remove_copies(data_dir: Path) -> None:
    count, size = migration.remove_copies(data_dir)
    click.echo(f"{_copies(count)} removed, {size / 2**20:,.0f} MiB.")
    if left := sum(map(len, migration.copies_in(data_dir).values())):
        progress(f"{_copies(left)} kept: of canaries that did not pass, or were not compared yet.")


def _copies(count: int) -> str:
    return f"{count:,} {'copy' if count == 1 else 'copies'}"


def _migrate_at_once(engine: Engine, retire: tuple[str, ...], *, is_refused: bool) -> None:
    if is_refused:
        raise click.ClickException(_AT_ONCE)
    waiting = _count_waiting(engine)
    Tenants(engine, retire)  # Makes the tables current.
    if waiting:
        click.echo(f"{counted(waiting, 'tenant')} migrated.")
    else:
        click.echo(_none_waited(engine))


def _none_waited(engine: Engine) -> str:
    """Say that it was done before: by another migrate, or by a server, which does it by itself."""
    return f"0 tenants migrated: {counted(len(engine.tenant_ids()), 'tenant')} current already."


def _migrate(
    settings: Settings, engine: Engine, retire: tuple[str, ...], canary: int | None, jobs: int, *, copies: bool
) -> None:
    migrating = Migration(engine, settings.data_dir, progress)
    waiting = migrating.waiting()
    if not waiting:
        Tenants(engine, retire)
        click.echo(_none_waited(engine))
        return
    if canary is None:
        migrating.must_have_lost_nothing(waiting)
    chosen = migrating.canaries(waiting, canary) if canary else waiting
    migrating.must_have_room(chosen, copies=copies)
    Tenants(engine, retire)  # Has the declared tables accepted, before any file is changed.
    done = migrating.run(chosen, jobs, copies=copies, verifies=canary is not None)
    click.echo(f"{counted(len(done.migrated), 'tenant')} migrated.")
    if done.migrated and copies:
        progress(
            f"What they were is in {migrating.kept} until it is removed: python syncapp.py migrate --remove-copies"
        )
    _say_the_end(done, len(waiting) - len(done.migrated), is_canary=canary is not None)


def _say_the_end(done: Result, left: int, *, is_canary: bool) -> None:
    if done.left:
        progress(f"The disk is full: {counted(done.left, 'tenant')} were left as they are.")
    if done.failed:
        raise click.ClickException(f"{counted(len(done.failed), 'tenant')} can't be migrated.")
    if is_canary and left:
        click.echo(
            "Each of them was compared with what it was, and checked. "
            f"{counted(left, 'tenant')} still to be migrated: run migrate again without --canary."
        )


def check_all(jobs: int, *, resume: bool, as_json: bool) -> None:
    """Check every tenant from end to end, beside a server too; exit code 1 if anything is wrong."""
    os.nice(_LEAST_PRIORITY)
    with storage() as (settings, engine):
        found = tenant_checks.check_all(engine, settings.data_dir, jobs, progress, resumes=resume)
    if as_json:
        print_json(
            {"checked": found.checked, "resumed": found.resumed, "faults": found.faults, "waiting": found.waiting}
        )
    else:
        for tenant_id, faults in found.faults.items():
            for fault in faults:
                click.echo(f"{tenant_id}: {fault}")
        waiting = f", {len(found.waiting):,} to be migrated when they are used" if found.waiting else ""
        click.echo(f"{counted(found.checked, 'tenant')} checked, {len(found.faults):,} with faults{waiting}.")
    if found.faults:
        progress("docs/backups.md says what to do about a damaged tenant.")
        raise SystemExit(1)
