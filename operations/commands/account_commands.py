"""The operator's commands about how a customer comes in: registration, passwords, links and sessions.

Knows: the command line. Must not know: SQL, engines, how passwords are hashed.
"""

from __future__ import annotations

import json
import time

import click

import settings as environment
from accounts.passwords import Passwords
from accounts.registration import create_customer
from operations import customer_changes, tenant_list
from operations.commands.command_line import counted, failures, password_asked, progress, storage
from operations.commands.tenant_commands import (
    as_json_option,
    customer_named,
    print_json,
    print_table,
    shown_time,
    tenant_argument,
)
from storage import operator_actions
from storage.account_links import Purpose
from tenants import Tenants


@click.group()
def account() -> None:
    """Help a customer to log in, or end sessions. TENANT is its ID or the customer's e-mail address.

    Example: python syncapp.py account reset-link asha@example.com
    """


@account.command("set-password")
@tenant_argument
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking.")
def set_password(tenant: str, password_stdin: bool) -> None:
    """Replace the password of a customer who forgot it, and end all sessions.

    Example: python syncapp.py account set-password asha@example.com
    """
    password = password_asked(password_stdin)
    with customer_named(tenant) as (settings, engine, customer):
        ended = customer_changes.set_password(engine, Passwords(settings.bcrypt_rounds), customer, password)
    click.echo(f"{customer.email} has a new password; {counted(ended, 'session')} ended.")


_hours_option = click.option(
    "--hours", type=click.IntRange(1, 24 * 30), default=24, help="How long the link counts; 24 if not given."
)


@account.command("reset-link")
@tenant_argument
@_hours_option
@as_json_option
def reset_link(tenant: str, hours: int, as_json: bool) -> None:
    """Make a link by which a customer sets a new password, once: send it on a way that only the customer reads.

    Example: python syncapp.py account reset-link asha@example.com
    """
    _make_link(tenant, "reset", hours, as_json)


@account.command("confirm-link")
@tenant_argument
@_hours_option
@as_json_option
def confirm_link(tenant: str, hours: int, as_json: bool) -> None:
    """Make a link by which a customer confirms its e-mail address: send it to that address.

    Example: python syncapp.py account confirm-link asha@example.com
    """
    _make_link(tenant, "confirm", hours, as_json)


def _make_link(tenant: str, purpose: Purpose, hours: int, as_json: bool) -> None:
    ends_at = int(time.time()) + hours * 3600
    with customer_named(tenant) as (settings, engine, customer):
        link = customer_changes.make_link(engine, settings, customer, purpose, hours * 3600)
    if as_json:
        print_json({"link": link, "email": customer.email, "expiresAt": shown_time(ends_at)})
        return
    click.echo(link)
    progress(f"It is for {customer.email}, works once, and until {shown_time(ends_at)}.")
    if not settings.public_url:
        progress("PUBLIC_URL is not set: put the address of this server in place of the beginning of the link.")


@account.command()
@tenant_argument
@as_json_option
def sessions(tenant: str, as_json: bool) -> None:
    """List a customer's sessions: each is one log-in, and shows the devices that came with it last.

    Example: python syncapp.py account sessions asha@example.com
    """
    with customer_named(tenant) as (_, engine, customer):
        found = tenant_list.sessions(engine, customer.id, int(time.time()))
    if as_json:
        print_json(found)
        return
    rows = [(one["id"], one["createdAt"], one["expiresAt"], ", ".join(one["devices"]) or "-") for one in found]
    print_table(("SESSION", "LOGGED IN", "EXPIRES", "DEVICES"), rows)


@account.command("end-sessions")
@tenant_argument
@click.option("--session", metavar="SESSION", help="Only this one.")
def end_sessions(tenant: str, session: str | None) -> None:
    """End all sessions of a customer, or one: of a device that was lost. Who knows the password may log in again.

    Example: python syncapp.py account end-sessions asha@example.com
    """
    with customer_named(tenant) as (_, engine, customer):
        ended = customer_changes.end_sessions(engine, customer, session)
        if session is not None and not ended:
            raise click.ClickException(
                f"{customer.email} has no session {json.dumps(session)}: account sessions lists them."
            )
    click.echo(f"{counted(ended, 'session')} of {customer.email} ended.")


@click.command()
@click.option("--first-name", required=True, help="First name of who is responsible.")
@click.option("--last-name", required=True, help="Last name of who is responsible.")
@click.option("--email", required=True, help="The address to log in with.")
@click.option("--phone", help="A telephone number, in any form.")
@click.option("--company-name", help="Name of the business.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking.")
def register(password_stdin: bool, **account: str | None) -> None:
    """Register a customer and create its database, also while registration is closed; prints the tenant's ID.

    Example: python syncapp.py register --first-name Asha --last-name Rao --email asha@example.com
    """
    password = password_asked(password_stdin)
    names = {"first_name": "firstName", "last_name": "lastName", "company_name": "companyName"}
    body = {names.get(name, name): value for name, value in account.items()} | {"password": password}
    with failures():
        may_begin = environment.load().expect_data == "no"
    with storage(creates=may_begin) as (settings, engine):
        customer = create_customer(Tenants(engine), Passwords(settings.bcrypt_rounds), body)
        engine.directory.write(lambda: operator_actions.record("register", customer.id, int(time.time())))
    click.echo(customer.id)
