"""The operator's commands that back up and restore (docs/backups.md).

Knows: the command line, what to ask before data is replaced. Must not know: what a backup holds, how it is made.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

import settings as environment
from operations import tenant_list
from operations.backups import backup as backups
from operations.backups import restore as restoring
from operations.backups import retrieval
from operations.backups.manifest import BackupError
from operations.backups.restore import Choice, Source
from operations.backups.scratch import scratch_folder
from operations.backups.verification import verify as check
from operations.commands.command_line import confirm, counted, done_by, failures, has_terminal, progress, storage
from settings import Settings
from storage import accepted_tables, main_database
from storage.declarations import compatibility, toml_file
from storage.engine import Engine

ATTENTION = 3
"""Exit code of a backup that was made and needs somebody to look."""

_SHOWN = 10
_LEAST_PRIORITY = 19
_Folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(invoke_without_command=True)
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of backups. Each backup is a new folder in it.",
)
@click.option("--tenant", help="Only this tenant, by ID or e-mail address.")
@click.option("--keep", type=click.IntRange(1), help="Verify the backup, then keep only this many of the newest.")
@click.pass_context
def backup(context: click.Context, to: Path | None, tenant: str | None, keep: int | None) -> None:
    """Back up every tenant, or one, while the server runs; exit code 3 if it was made but needs attention.

    Without a command it makes a copy in a folder. The commands are about the backups in BACKUP_TO (docs/backups.md).

    Example: python syncapp.py backup --to /backups --keep 7
    """
    os.nice(_LEAST_PRIORITY)  # Hashing and checking is work for the processor, which a server beside it needs more.
    if context.invoked_subcommand:
        return
    if to is None:
        raise click.UsageError("Say where to put the backup: --to FOLDER")
    if tenant is not None and keep:
        raise click.UsageError("--keep counts backups of all tenants: leave it out with --tenant.")
    with storage(creates=False) as (settings, engine):
        if not settings.database_url and to.resolve().is_relative_to(settings.data_dir.resolve()):
            progress(f"Warning: {to} is in the data folder: whatever takes the data takes this backup with it.")
        made = backups.make(engine, to, None if tenant is None else tenant_list.find(engine, tenant).id, keep, progress)
    click.echo(made.path)
    if made.missing:
        progress(
            f"Error: not in this backup: {counted(len(made.missing), 'customer')}, whose files are missing or broken."
        )
    if made.kept:
        progress(f"Error: no older backup was removed: {made.kept}")
    if made.missing or made.kept:
        raise SystemExit(ATTENTION)


@backup.command()
@click.argument("path", type=_Folder, required=False)
@click.option("--from", "wanted", help="In place of PATH: latest, a name or a time of a backup in BACKUP_TO.")
def verify(path: Path | None, wanted: str | None) -> None:
    """Restore a backup into a scratch folder, verify it and pull all its rows; exit code 1 if anything is wrong. Nothing of
    the server's is touched.

    Example: python syncapp.py backup verify --from latest
    """
    if path is None:
        if wanted is None:
            raise click.UsageError("Say what to verify: the PATH of a backup, or --from latest for one in BACKUP_TO.")
        _verify_kept(wanted)
        return
    if wanted is not None:
        raise click.UsageError("Say what to verify: the PATH of a backup, or --from, and not both.")
    with failures():
        toml_file.declare(environment.load().tables_file)
        checked = check(path, progress)
    if checked.faults:
        raise click.ClickException(
            f"bad: {len(checked.faults)} of {counted(len(checked.good) + len(checked.faults), 'tenant')}."
        )
    if checked.backup_faults:
        raise click.ClickException("; ".join(checked.backup_faults))
    click.echo(f"{counted(len(checked.good), 'tenant')} good.")


def _verify_kept(wanted: str) -> None:
    with failures():
        settings = environment.load()
        toml_file.declare(settings.tables_file)
        with retrieval.kept(settings, wanted) as backup:
            faults = backup.faults(progress)
    name, tenants = backup.catalogue.name, counted(len(backup.catalogue.tenants), "tenant")
    if faults:
        bad = ["main.db"] * ("main.db" in faults) + [f"{len(faults.keys() - {'main.db'})} of {tenants}"]
        raise click.ClickException(f"bad: {' and '.join(bad)} in {name}.")
    click.echo(f"{name}: {tenants} good.")


@click.command()
@click.argument("path", type=_Folder, required=False)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A tenant's database file, in place of a backup.",
)
@click.option("--tenant", help="Only this tenant, by ID or e-mail address.")
@click.option("--from", "wanted", help="In place of PATH: latest, a name or a time of a backup in BACKUP_TO.")
@click.option("--closed", is_flag=True, help="Restore accounts that were closed since, too.")
@click.option("--new", is_flag=True, help="Create the data folder, on a new machine.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def restore(
    path: Path | None, file: Path | None, tenant: str | None, wanted: str | None, closed: bool, new: bool, yes: bool
) -> None:
    """Restore all tenants of a backup, or one, or a tenant's file. A running server takes them over.

    It says what it would replace, and asks. What it replaces is kept (docs/backups.md).

    Example: python syncapp.py restore --from latest --tenant asha@example.com
    """
    if sum(one is not None for one in (path, file, wanted)) != 1:
        raise click.UsageError("Say what to restore: the PATH of a backup, or --from latest, or --file FILE.")
    if file and not tenant:
        raise click.UsageError("Say whose file it is: --tenant ID.")
    if not yes and not has_terminal():
        raise click.UsageError("This replaces data, and there is no terminal to ask: use --yes.")
    with storage(creates=new) as (settings, engine):
        if engine.directory.read(accepted_tables.accepted_tables):  # Else nobody is served by others here.
            compatibility.must_be_accepted(engine)
        if file:
            _restore_file(engine, file, str(tenant), yes)
        elif path is not None:
            _restore_backup(engine, restoring.choose(engine, path, tenant, closed), str(path), yes)
        elif wanted is not None:
            _restore_kept(engine, settings, wanted, tenant, closed, yes)


def _restore_kept(engine: Engine, settings: Settings, wanted: str, tenant: str | None, closed: bool, yes: bool) -> None:
    """Bring a backup back from BACKUP_TO and go on from there as with one in a folder."""
    with retrieval.kept(settings, wanted) as backup, scratch_folder() as scratch:
        folder = scratch / "backup"
        folder.mkdir(mode=0o700)
        known = backup.main(folder / "main.db")
        only = None if tenant is None else restoring.named(engine, known, tenant)
        damaged = retrieval.bring_back(backup, folder, only, progress)
        _restore_backup(engine, restoring.choose(engine, folder, tenant, closed), backup.catalogue.name, yes)
    if damaged:
        raise BackupError(
            f"{counted(len(damaged), 'tenant')} not restored, since they are damaged in {backup.catalogue.name}:"
            f" {', '.join(damaged[:_SHOWN])}. Restore each with --tenant from an older backup."
        )


def _restore_backup(engine: Engine, choice: Choice, source: str, yes: bool) -> None:
    if choice.left_out:
        progress(f"Left out, since their accounts were closed (--closed brings them back): {_named(choice.left_out)}")
    if not choice.customers:
        raise BackupError("Nothing was put back.")
    there = [customer for customer in choice.customers if engine.fault_of(customer.id) is None]
    what = f"{counted(len(choice.customers), 'tenant')} back in {engine.place}"
    _ask(f"This puts {what} {_replaced(len(there), len(choice.customers))}: {_named(choice.customers)}.", yes)
    restored = restoring.restore(engine, choice, Source(source, done_by()), progress)
    click.echo(f"{counted(len(restored), 'tenant')} restored.{_kept(engine) if there else ''}")


def _restore_file(engine: Engine, file: Path, tenant: str, yes: bool) -> None:
    _ask(f"This replaces what the tenant {tenant} holds in {engine.place} by {file}.", yes)
    tenant_id = restoring.restore_file(engine, file, tenant, done_by())
    click.echo(f"{tenant_id} restored.{_kept(engine)}")


def _kept(engine: Engine) -> str:
    return f" What was replaced is in {engine.replaced}." if engine.replaced else ""


@click.command("new-epoch")
@click.option("--tenant", help="Only this tenant, by ID or e-mail address.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def new_epoch(tenant: str | None, yes: bool) -> None:
    """Have all devices pull from the start, after the database or the disk was put back by other means than restore.

    Example: python syncapp.py new-epoch --tenant asha@example.com
    """
    if not yes and not has_terminal():
        raise click.UsageError("This has devices pull everything again, and there is no terminal to ask: use --yes.")
    with storage(creates=False) as (_, engine):
        tenant_ids = engine.tenant_ids() if tenant is None else [tenant_list.find(engine, tenant).id]
        which = counted(len(tenant_ids), "tenant")
        _ask(f"This begins a new epoch of {which} in {engine.place}: devices pull everything again.", yes)
        for tenant_id in tenant_ids:
            engine.begin_epoch(tenant_id)
            progress(f"{tenant_id}: begins anew")
        click.echo(f"{which} begun anew. The server may start now.")


def _replaced(there: int, coming: int) -> str:
    if not there:
        return "and replaces nothing"
    whose = ("it holds" if coming == 1 else "they hold") if there == coming else f"{there} of them hold"
    return f"and replaces what {whose} now"


def _ask(what: str, yes: bool) -> None:
    progress(what)
    if not yes:
        confirm("Go on?")


def _named(customers: list[main_database.Customer]) -> str:
    shown = ", ".join(f"{customer.email} ({customer.id})" for customer in customers[:_SHOWN])
    return shown + (f" and {len(customers) - _SHOWN} more" if len(customers) > _SHOWN else "")
