"""The operator's commands: ``python syncapp.py COMMAND``.

Knows: the command line. Must not know: rules; each command calls what the server calls. They may run beside a running
server: a file's lock is waited for.
"""

from __future__ import annotations

import sys

import click

import settings as environment
from accounts.passwords import Passwords
from accounts.registration import create_customer
from operations import backup_commands, probe, trial_start
from operations import doctor as doctor_checks
from operations.command_line import data_folder, progress
from server import connections
from storage.declarations import compatibility
from storage.engine import Engine
from tenants import Tenants


@click.group(help="Without a command: serve. Settings come from the environment (docs/settings.md).")
def commands() -> None:
    """Group of the operator's commands."""


commands.add_command(backup_commands.backup)
commands.add_command(backup_commands.restore)


@commands.command()
@click.option("--first-name", required=True, help="First name of who is responsible.")
@click.option("--last-name", required=True, help="Last name of who is responsible.")
@click.option("--email", required=True, help="The address to log in with.")
@click.option("--phone", help="A telephone number, in any form.")
@click.option("--company-name", help="Name of the business.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking.")
def register(password_stdin: bool, **account: str | None) -> None:
    """Create a customer and its database, also while registration is closed."""
    password = _read("password") if password_stdin else _ask()
    names = {"first_name": "firstName", "last_name": "lastName", "company_name": "companyName"}
    body = {names.get(name, name): value for name, value in account.items()} | {"password": password}
    with data_folder(creates=True) as (settings, engine):
        customer = create_customer(Tenants(engine), Passwords(settings.bcrypt_rounds), body)
    click.echo(customer.id)


def _read(what: str) -> str:
    try:
        return sys.stdin.buffer.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.ClickException(f"The {what} must be UTF-8.") from None


def _ask() -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is here to be asked for the password: say --password-stdin.")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@commands.command()
@click.option("--check", is_flag=True, help="Only say what would be done, also beside a running server.")
@click.option("--retire", multiple=True, metavar="TABLE", help="Let a table go from the declaration; its rows stay.")
def migrate(check: bool, retire: tuple[str, ...]) -> None:
    """Make every tenant's database what this version and the declared tables need, while no server runs."""
    with data_folder(is_server=not check) as (_, engine):
        _say_migration(engine, retire) if check else _migrate(Tenants(engine, retire))


def _say_migration(engine: Engine, retire: tuple[str, ...]) -> None:
    found = compatibility.compare(engine, retire)
    for difference in found.differences:
        click.echo(difference.sentence)
    waiting = sum(not engine.is_current(tenant_id) for tenant_id in engine.tenant_ids())
    if found.offences:
        raise click.ClickException(found.refusal())
    click.echo(f"{_tenants(waiting)} would be migrated.")


def _migrate(tenants: Tenants) -> None:
    migrated, failed = tenants.migrate(progress)
    click.echo(f"{_tenants(migrated)} migrated.")
    if failed:
        raise click.ClickException(f"{_tenants(failed)} can't be migrated.")


def _tenants(count: int) -> str:
    return f"{count:,} tenant" if count == 1 else f"{count:,} tenants"


@commands.command()
@click.option("--url", metavar="URL", help="Look at a running deployment instead, from outside.")
@click.option("--token-stdin", is_flag=True, help="With --url: read an access token, and wait for a ping with it.")
def doctor(url: str | None, token_stdin: bool) -> None:
    """Look at this machine as a start does, and say what to do; exit code 1 if a start would be refused."""
    if url is not None:
        probe.run(url, _read("token") if token_stdin else "")
    elif token_stdin:
        raise click.UsageError("--token-stdin is of use with --url only.")
    else:
        _look_here()


def _look_here() -> None:
    try:
        settings = environment.load()
    except environment.SettingError as error:
        for line in str(error).splitlines():
            click.echo(f"refused: {line}")
        raise SystemExit(1) from None
    place = doctor_checks.here(settings)
    new = " (no data is there: a start would begin anew)" if place.is_new else ""
    click.echo(f"data folder: {place.folder}{new}")
    found = []
    for what, finding in trial_start.looked(place):
        found.append(finding)
        kind = "ok: looked" if finding is None else "refused:" if finding.refuses else "warning:"
        click.echo(f"{kind} {finding or what}")
    for name, value in environment.effective(connections.fitted_to_open_files(settings)):
        click.echo(f"{name}={value}{'' if place.environ.get(name) else ' (default)'}")
    refusals = sum(finding.refuses for finding in found if finding)
    warnings = sum(not finding.refuses for finding in found if finding)
    click.echo(f"{len(found)} checks, {refusals} refusals, {warnings} warnings.")
    if refusals:
        raise SystemExit(1)
