"""The operator's commands about mail: try the mail server, look at what waits, have it tried again.

Knows: the command line. Must not know: SMTP, SQL, engines.
"""

from __future__ import annotations

import time
from typing import Any

import click

import settings as environment
from accounts import letters
from accounts.account_fields import FieldReader
from operations import smtp_server
from operations.commands.command_line import counted, failures, progress, storage
from operations.commands.tenant_commands import as_json_option, print_json, print_table, shown_time
from operations.smtp_server import CanNotSend, MailRefused
from storage import outbox
from storage.outbox import Mail

_NO_SERVER = "No mail is sent: SMTP_URL is not set (docs/mail.md)."


@click.group()
def mail() -> None:
    """Try the mail server, and see which mails wait.

    Example: python syncapp.py mail test me@example.com
    """


@mail.command()
@click.argument("address")
def test(address: str) -> None:
    """Send a mail to ADDRESS at once, past the outbox, and say whether the mail server took it.

    Example: python syncapp.py mail test me@example.com
    """
    with failures():
        settings = environment.load()
        fields = FieldReader({"email": address})
        recipient = fields.email()
        fields.check()
    if not settings.smtp_url:
        raise click.ClickException(_NO_SERVER)
    try:
        smtp_server.deliver(settings, letters.trial_letter(settings, recipient))
    except (CanNotSend, MailRefused) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"The mail server took a mail to {recipient}. Look whether it arrives, and where.")


@mail.command()
@as_json_option
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, help="At most so many; 100 if not given.")
def queue(as_json: bool, limit: int) -> None:
    """List the mails that wait or could not be sent, the oldest first, with why.

    Example: python syncapp.py mail queue
    """
    with storage() as (settings, engine):
        found = engine.directory.read(lambda: [_shown(one) for one in outbox.listed(limit)])
    if as_json:
        print_json(found)
        return
    head = ("ADDED", "KIND", "TO", "STATE", "TRIED", "NEXT", "WHY NOT")
    print_table(head, [["-" if value is None else str(value) for value in one.values()] for one in found])
    if found and not settings.smtp_url:
        progress(_NO_SERVER)


def _shown(mail: Mail) -> dict[str, Any]:
    has_failed = mail.failed_at is not None
    return {
        "addedAt": shown_time(mail.created_at),
        "kind": mail.kind,
        "to": mail.recipient,
        "state": "failed" if has_failed else "waiting",
        "attempts": mail.attempts,
        "nextAt": None if has_failed else shown_time(mail.next_at),
        "error": mail.error,
    }


@mail.command()
def retry() -> None:
    """Have a running server try all mails of the queue now, also those that failed.

    Example: python syncapp.py mail retry
    """
    with storage() as (settings, engine):
        count = engine.directory.write(lambda: outbox.retry(int(time.time())))
    click.echo(f"{counted(count, 'mail')} will be tried.")
    if count and not settings.smtp_url:
        progress(_NO_SERVER)
