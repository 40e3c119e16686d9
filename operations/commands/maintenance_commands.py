"""The operator's commands that have the server take no changes for a while.

Knows: the command line. Must not know: SQL, engines, what a server refuses (``server.maintenance``).
"""

from __future__ import annotations

import time

import click

from operations.commands.command_line import storage
from operations.commands.tenant_commands import as_json_option, print_json, shown_time
from storage import maintenance as noted

_LONGEST = 200


@click.group()
def maintenance() -> None:
    """Have the server take no changes, while devices pull and listen. It lasts until it is ended, over restarts too.

    Example: python syncapp.py maintenance on --message "Back at 14:00 UTC."
    """


@maintenance.command()
@click.option("--message", metavar="TEXT", help="What clients are told beside that, on one line.")
def on(message: str | None) -> None:
    """Refuse pushes and registrations, at all processes within a second. Devices send later what they could not.

    Example: python syncapp.py maintenance on --message "Back at 14:00 UTC."
    """
    if message is not None and (len(message) > _LONGEST or not message.isprintable()):
        raise click.UsageError(f"--message must be one line of at most {_LONGEST} characters.")
    with storage() as (_, engine):
        engine.directory.write(lambda: noted.begin(message or None, int(time.time())))
    click.echo("Pushes and registrations are refused; pulls go on.")


@maintenance.command()
def off() -> None:
    """Take changes again.

    Example: python syncapp.py maintenance off
    """
    with storage() as (_, engine):
        was_on = engine.directory.write(lambda: noted.end(int(time.time())))
    click.echo("Changes are taken." if was_on else "There was no maintenance: changes are taken.")


@maintenance.command()
@as_json_option
def status(as_json: bool) -> None:
    """Say whether changes are refused, and since when.

    Example: python syncapp.py maintenance status
    """
    with storage() as (_, engine):
        found = engine.directory.read(noted.maintenance)
    since = shown_time(found.since) if found else None
    if as_json:
        print_json({"isOn": found is not None, "since": since, "message": found.message if found else None})
    elif found:
        click.echo(f"on since {since}{f': {found.message}' if found.message else ''}")
    else:
        click.echo("off")
