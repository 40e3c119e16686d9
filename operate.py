"""The operator's commands: ``python syncapp.py COMMAND``.

Knows: the command line. Must not know: rules; each command calls what the server calls. They may run beside a running
server: a file's lock is waited for.
"""

from __future__ import annotations

import sys

import click

import settings as environment
from auth import create_customer
from errors import Problem
from tenants import Tenants
from tokens import Passwords


@click.group(help="Without a command: serve. Settings come from the environment (docs/settings.md).")
def commands() -> None:
    """Group of the operator's commands."""


@commands.command()
@click.option("--first-name", required=True)
@click.option("--last-name", required=True)
@click.option("--email", required=True)
@click.option("--phone")
@click.option("--company-name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking.")
def register(password_stdin: bool, **account: str | None) -> None:
    """Create a customer and its database, also while registration is closed."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else _ask()
    names = {"first_name": "firstName", "last_name": "lastName", "company_name": "companyName"}
    body = {names.get(name, name): value for name, value in account.items()} | {"password": password}
    try:
        settings = environment.load()
        tenants = Tenants(settings.data_dir, is_server=False)
        customer = create_customer(tenants, Passwords(settings.bcrypt_rounds), body)
        tenants.close()
    except (Problem, environment.SettingError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(customer.id)


def _ask() -> str:
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
