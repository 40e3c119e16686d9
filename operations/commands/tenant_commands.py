"""The operator's commands about tenants.

Knows: the command line, how a list is printed. Must not know: SQL, engines, the rules of sync. They run beside a running
server, which notices soon what they change.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from operations import customer_changes, tenant_list
from operations import export as exporting
from operations.commands.command_line import confirm, counted, done_by, progress, storage
from operations.tenant_list import Described
from protocol.codec import format_time
from server.log_format import printable
from settings import Settings
from storage import operator_actions
from storage.engine import Engine
from storage.main_database import Customer, State
from storage.sessions import live_sessions
from tenants import Tenants

_SHOWN_EVERY = 500
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
tenant_argument = click.argument("tenant", metavar="TENANT")


@contextlib.contextmanager
def customer_named(tenant: str) -> Iterator[tuple[Settings, Engine, Customer]]:
    """Open the storage, and find the customer of a tenant's ID or an e-mail address."""
    with storage() as (settings, engine):
        yield settings, engine, tenant_list.find(engine, tenant)


# --- all tenants -----------------------------------------------------------------------------------------------------


@click.command()
@as_json_option
@click.option(
    "--search", default="", metavar="TEXT", help="Only those with this in their name, address, company or ID."
)
@click.option("--sort", type=click.Choice(tenant_list.ORDERS), default="email", help="The order; email if not given.")
def tenants(as_json: bool, search: str, sort: str) -> None:
    """List the tenants: who they are, how much they have, when a device was seen last.

    Example: python syncapp.py tenants --sort size
    """
    with storage() as (_, engine):
        found = tenant_list.listed(engine, search, sort, _report)
    if as_json:
        print_json(found)
        return
    rows = [(one["id"], one["email"], one["name"], one["state"], *_measured(one)) for one in found]
    print_table(("ID", "ADDRESS", "NAME", "STATE", "ROWS", "DEVICES", "SIZE", "LAST SEEN"), rows)
    progress(f"{counted(len(found), 'tenant')}.")


def _report(done: int) -> None:
    if done % _SHOWN_EVERY == 0:
        progress(f"{counted(done, 'tenant')} looked at")


def _measured(one: Described) -> tuple[str, str, str, str]:
    if "fault" in one:
        return "-", "-", "-", f"can't be read: {one['fault']}"
    return f"{one['rows']:,}", f"{one['devices']:,}", f"{one['bytes'] / 2**20:,.1f} MiB", one["lastSeenAt"] or "never"


# --- one tenant ------------------------------------------------------------------------------------------------------


@click.group()
def tenant() -> None:
    """Show or change one tenant. TENANT is its ID or the e-mail address of its customer.

    Example: python syncapp.py tenant show asha@example.com
    """


@tenant.command()
@tenant_argument
@as_json_option
def show(tenant: str, as_json: bool) -> None:
    """Show a tenant: its account, tables, devices, sessions.

    Example: python syncapp.py tenant show asha@example.com
    """
    with customer_named(tenant) as (_, engine, customer):
        sessions = engine.directory.read(lambda: live_sessions(customer.id, int(time.time())))
        found = tenant_list.describe(engine, customer) | {"sessions": len(sessions)}
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        text = ", ".join(f"{key} {_shown(one)}" for key, one in value.items()) if isinstance(value, dict) else value
        click.echo(printable(f"{name}: {'-' if text is None else text}"))


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


@tenant.command("rename-email")
@tenant_argument
@click.argument("email")
def rename_email(tenant: str, email: str) -> None:
    """Replace the address that a customer logs in with. Sessions go on.

    Example: python syncapp.py tenant rename-email asha@example.com asha@example.in
    """
    with customer_named(tenant) as (_, engine, customer):
        address = customer_changes.change_email(engine, customer, email)
    click.echo(f"{customer.id} logs in as {address} now.")


@tenant.command()
@tenant_argument
def suspend(tenant: str) -> None:
    """Refuse a customer everything, also to log in, and close its sockets, within a second. Nothing is lost.

    Example: python syncapp.py tenant suspend asha@example.com
    """
    _set_state(tenant, "suspended", "is suspended")


@tenant.command("read-only")
@tenant_argument
def read_only(tenant: str) -> None:
    """Refuse a customer's pushes, while devices pull and listen. They send later what they could not.

    Example: python syncapp.py tenant read-only asha@example.com
    """
    _set_state(tenant, "read-only", "can be read only")


@tenant.command()
@tenant_argument
def resume(tenant: str) -> None:
    """End a suspension, or let a customer that was read-only push again.

    Example: python syncapp.py tenant resume asha@example.com
    """
    _set_state(tenant, "active", "is active")


def _set_state(tenant: str, state: State, told: str) -> None:
    with customer_named(tenant) as (_, engine, customer):
        customer_changes.set_state(engine, customer, state)
    click.echo(f"{customer.email} {told}.")


@tenant.command()
@tenant_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(tenant: str, yes: bool) -> None:
    """Close an account and remove all its data for good. Backups keep theirs.

    Example: python syncapp.py tenant delete asha@example.com
    """
    with customer_named(tenant) as (_, engine, customer):
        if not yes:
            confirm(f"Remove {customer.email} ({customer.id}) and all its data for good?")
        ended = customer_changes.delete(Tenants(engine), customer)
    click.echo(f"{customer.email} is removed; {counted(ended, 'session')} ended.")


@click.command()
@tenant_argument
@click.option("--to", type=click.Path(path_type=Path), required=True, help="The archive to write, a new file.")
def export(tenant: str, to: Path) -> None:
    """Write all that is held of a customer into a ZIP archive: lines of JSON, and a database of SQLite's.

    Example: python syncapp.py export asha@example.com --to asha.zip
    """
    with customer_named(tenant) as (_, engine, customer):
        customer_changes.record_export(engine, customer, done_by())
        counts = exporting.export(engine, customer, to)
    for name, count in counts.items():
        progress(f"{name}: {counted(count, 'line')}")
    click.echo(str(to))


# --- the record ------------------------------------------------------------------------------------------------------


@click.command()
@as_json_option
@click.option("--tenant", metavar="TENANT", help="Only of this tenant, by ID, also of one that is gone, or by address.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, help="At most so many; 100 if not given.")
def actions(as_json: bool, tenant: str | None, limit: int) -> None:
    """List what operators did, the newest first: to whom, and whether by a command or in the console.

    Example: python syncapp.py actions --limit 20
    """
    with storage() as (_, engine):
        tenant_id = None if tenant is None else tenant_list.id_of(engine, tenant)
        found = engine.directory.read(lambda: operator_actions.actions(tenant_id, limit))
    shown = [tenant_list.described_action(one) for one in found]
    if as_json:
        print_json(shown)
    else:
        head = ("WHEN", "ACTION", "TENANT", "ABOUT", "BY")
        print_table(head, [[value or "-" for value in one.values()] for one in shown])


# --- output ----------------------------------------------------------------------------------------------------------


def print_json(value: object) -> None:
    """Print a value as JSON, in ASCII, where no terminal finds a command."""
    click.echo(json.dumps(value, indent=2))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as they need to be; names and the like may be from outside."""
    shown = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def shown_time(seconds: int) -> str:
    """Write a time that is stored in seconds."""
    return format_time(seconds * 1000)
