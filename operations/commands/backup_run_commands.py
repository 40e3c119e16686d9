"""The operator's commands about backups in BACKUP_TO (docs/backups.md): make one, list them, verify one, make a key.

Knows: the command line. Must not know: what a backup is made of.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import click

import settings as environment
from operations.backups import alerts, objects, retrieval, run
from operations.backups.catalogue import Catalogue, Catalogues, NotEncrypted, time_of
from operations.backups.lock import Underway
from operations.backups.manifest import BackupError
from operations.backups.run import RunResult
from operations.commands.backup_commands import ATTENTION, backup
from operations.commands.command_line import counted, failures, progress, storage
from protocol.codec import format_time
from storage import backup_runs
from storage.engine import Engine

_ENDED_BY_SIGTERM = 128 + signal.SIGTERM


@backup.command("run")
@click.option("--quiet", is_flag=True, help="Do not name each tenant.")
def run_(quiet: bool) -> None:
    """Back up what changed into BACKUP_TO, verify it, remove what is too old: what BACKUP_EVERY does by itself.

    Exit code 3 if it was made but needs attention.

    Example: python syncapp.py backup run --quiet
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_ENDED_BY_SIGTERM))  # So that it notes how far it came.
    with storage(creates=False) as (settings, engine):
        was_failing = _is_failing(engine)
        try:
            result = run.run(engine, settings, (lambda _: None) if quiet else progress)
        except Underway:
            raise
        except Exception as error:
            if not was_failing:
                alerts.tell(settings, engine, "backup_failed", f"A backup failed: {error}", progress)
            raise
    _show(result)
    if result.faults:
        if not was_failing:
            alerts.tell(settings, engine, "backup_incomplete", _needs_attention(result), progress)
        progress(f"Error: {_needs_attention(result)}")
        raise SystemExit(ATTENTION)


def _is_failing(engine: Engine) -> bool:
    """Tell whether the last run failed, so that whoever is told was told already."""
    last = engine.directory.read(backup_runs.latest)
    return last is not None and last.state in ("failed", "incomplete")


def _show(result: RunResult) -> None:
    made = result.catalogue
    click.echo(
        f"{made.name}: {counted(len(made.tenants), 'tenant')}, {made.changed:,} changed, {_size(made.stored_bytes)}"
    )


def _needs_attention(result: RunResult) -> str:
    one, why = next(iter(result.faults.items()))
    more = f" and {len(result.faults) - 1} more" if len(result.faults) > 1 else ""
    return f"the backup {result.catalogue.name} needs attention: {one}: {why}{more}"


@backup.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the backups in BACKUP_TO, the newest first, with what each has and what was written for it.

    Example: python syncapp.py backup list --json
    """
    with failures(), retrieval.catalogues(environment.load()) as (found, _):
        read = [_described(found, name) for name in found.names()]
        has_key = found.encrypts
    if as_json:
        click.echo(json.dumps(read, indent=1))
        return
    for one in read:
        click.echo(f"{one['name']}  {one['error'] if 'error' in one else _line(one, has_key=has_key)}")
    if not read:
        progress("There are no backups.")


def _line(one: dict[str, Any], *, has_key: bool) -> str:
    what = f"{counted(one['tenants'], 'tenant')}, {one['changed']:,} changed"
    missing = f", {counted(one['missing'], 'fault')}" if one["missing"] else ""
    plain = ", NOT ENCRYPTED although BACKUP_KEY is set" if has_key and not one["isEncrypted"] else ""
    return f"{what}, {_size(one['storedBytes'])} of {_size(one['sizeBytes'])}{missing}{plain}"


def _described(found: Catalogues, name: str) -> dict[str, Any]:
    try:
        try:
            return _about(found.read(name), is_encrypted=found.encrypts)
        except NotEncrypted:
            return _about(found.read(name, also_plain=True), is_encrypted=False)
    except BackupError as error:
        return {"name": name, "error": str(error)}


def _about(made: Catalogue, *, is_encrypted: bool) -> dict[str, Any]:
    return {
        "name": made.name,
        "made": format_time(time_of(made.name) * 1000),
        "tenants": len(made.tenants),
        "changed": made.changed,
        "missing": len(made.missing),
        "storedBytes": made.stored_bytes,
        "sizeBytes": made.size_bytes,
        "isEncrypted": is_encrypted,
    }


@backup.command("new-key")
def new_key() -> None:
    """Make a key for BACKUP_KEY, of age's form. Without it nobody reads the backups, so keep a copy elsewhere.

    Example: python syncapp.py backup new-key > /etc/syncapp/backup.key
    """
    click.echo(objects.new_key())


def _size(size_bytes: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:,.1f} {unit}"
    return f"{size_bytes:,} bytes"
