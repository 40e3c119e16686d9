"""The operator's command that brings an archive of ``export`` back.

Knows: the command line, what is shown before anything is stored. Must not know: SQL, engines, archives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from accounts.passwords import Passwords
from accounts.registration import new_customer
from operations import import_archive as importing
from operations import tenant_list
from operations.commands.command_line import confirm, counted, done_by, has_terminal, password_asked, progress, storage
from operations.commands.tenant_commands import as_json_option, print_json
from operations.import_archive import Counts, Import
from settings import Settings
from storage import operator_actions
from storage.declarations import compatibility
from storage.engine import Engine
from storage.main_database import Customer

_NAMES = {"first_name": "firstName", "last_name": "lastName", "company_name": "companyName"}
_KINDS = ("added", "changed", "deleted", "conflict", "unchanged")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tenant", help="Merge the rows into this tenant, by ID or e-mail address, in place of a new one.")
@click.option("--dry-run", is_flag=True, help="Only say what would be stored.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@click.option("--email", help="The address to log in with; that of the archive if not given.")
@click.option("--first-name", help="First name of who is responsible; that of the archive if not given.")
@click.option("--last-name", help="Last name of who is responsible; that of the archive if not given.")
@click.option("--phone", help="A telephone number; that of the archive if not given.")
@click.option("--company-name", help="Name of the business; that of the archive if not given.")
@click.option("--password-stdin", is_flag=True, help="Read the new customer's password from standard input.")
def import_archive(
    file: Path, tenant: str | None, dry_run: bool, yes: bool, as_json: bool, password_stdin: bool, **account: str | None
) -> None:
    """Bring an archive of export back: as a new customer with its history, or its rows into an existing tenant.

    Into an existing tenant rows come by the rules of a push: of an edit here and one there the later wins, field by field,
    and the other is in the conflicts. It says first what would become of them, and asks.

    Example: python syncapp.py import asha.zip --email asha@example.com
    """
    given = {_NAMES.get(name, name): value for name, value in account.items() if value is not None}
    if tenant and (given or password_stdin):
        raise click.UsageError("A tenant that is there has its address and its names: leave these options out.")
    if not (yes or dry_run or password_stdin or has_terminal()):
        raise click.UsageError(
            "This stores data, and there is no terminal to ask: use --yes, or --dry-run to look only."
        )
    password = "" if tenant or dry_run else password_asked(password_stdin)
    with storage(creates=False) as (settings, engine):
        compatibility.must_be_accepted(engine)
        customer = tenant_list.find(engine, tenant) if tenant else None
        with importing.read(file, settings.max_row_bytes) as found:
            if customer:
                shown = _into_tenant(engine, settings, found, customer, file, dry_run, yes)
            else:
                body = {**found.account, **given, "password": password or "dry run only"}
                shown = _as_new(engine, settings, found, body, file, dry_run, yes or password_stdin)
    if as_json:
        print_json(shown)
    elif shown["written"]:
        click.echo(shown["tenant"])


def _as_new(
    engine: Engine, settings: Settings, found: Import, body: dict[str, Any], file: Path, dry_run: bool, yes: bool
) -> dict[str, Any]:
    customer = new_customer(Passwords(settings.bcrypt_rounds), body, importing.free_id(engine, found.account))
    customer.subscriptionPlan = _text(found.account, "subscriptionPlan") or customer.subscriptionPlan
    importing.must_be_free(engine, customer.email)
    progress(f"{customer.email} becomes a new customer, {customer.id}, with {counted(found.changes, 'change')}.")
    _tell_left_out(found)
    if not dry_run:
        if not yes:
            confirm("Go on?")
        importing.create(engine, found, customer, file.name)
    return {
        "tenant": customer.id,
        "email": customer.email,
        "isNew": True,
        "changes": found.changes,
        "leftOut": dict(found.left_out),
        "written": not dry_run,
    }


def _text(account: dict[str, Any], name: str) -> str | None:
    value = account.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= 64 else None


def _into_tenant(
    engine: Engine, settings: Settings, found: Import, customer: Customer, file: Path, dry_run: bool, yes: bool
) -> dict[str, Any]:
    counts = importing.merge(engine, customer.id, found, settings)
    _show(counts, customer, found)
    _tell_left_out(found)
    is_any = any(count for one in counts.values() for kind, count in one.items() if kind != "unchanged")
    if is_any and not dry_run:
        if not yes:
            confirm("Go on?")
        counts = importing.merge(engine, customer.id, found, settings, _recording(engine, customer, file))
    return {
        "tenant": customer.id,
        "email": customer.email,
        "isNew": False,
        "tables": {table: {kind: one.get(kind, 0) for kind in _KINDS} for table, one in counts.items()},
        "leftOut": dict(found.left_out),
        "written": is_any and not dry_run,
    }


def _recording(engine: Engine, customer: Customer, file: Path) -> Callable[[int, int], None]:
    """Record that an import begins, and give what records the changes that it made."""

    def record(action: str, about: str) -> None:
        """Record something of this customer."""
        now = int(time.time())
        engine.directory.write(lambda: operator_actions.record(action, customer.id, now, about, done_by()))

    def note(first: int, last: int) -> None:
        """Record which changes were made, so that servers tell their sockets."""
        record(operator_actions.IMPORTED, f"changes {first} to {last}")
        progress(f"Written as changes {first:,} to {last:,}.")

    record("import", file.name)
    return note


def _show(counts: Counts, customer: Customer, found: Import) -> None:
    whose = _text(found.account, "email")
    progress(f"Rows of {whose or 'an unnamed customer'} come into {customer.email} ({customer.id}).")
    rows = [(table, *(f"{one.get(kind, 0):,}" for kind in _KINDS)) for table, one in counts.items()]
    for line in rows and [("TABLE", *(kind.upper() for kind in _KINDS)), *rows]:
        progress("  ".join(cell.ljust(12) for cell in line).rstrip())


def _tell_left_out(found: Import) -> None:
    for table, count in found.left_out.items():
        progress(f"Left out: {counted(count, 'change')} of {table!r}, which was synced no more when this was exported.")
