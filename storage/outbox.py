"""The outbox: mails that are to be sent, kept in the main database until they are, so that a restart loses none.

Knows: the statements on it, bound by the caller; when a mail is tried again, and when that ends. Must not know: SMTP, what
mails say, which engine.

Who wants to send a mail adds it here, in the transaction of what it is about if there is one. A server sends it soon
(``operations.mail_sender``), if it has a mail server: whether it has (``SMTP_URL``), the caller must ask first.
"""

from __future__ import annotations

import secrets
import time

from peewee import IntegerField, TextField, fn

from models import Bound
from protocol.errors import Busy

TEXT = "text"
"""The kind of mails whose words are here."""

TRIED_FOR_SECONDS = 86_400
"""For so long a mail is tried. One that is older, as in a copy that was restored, is not sent any more."""

_KEPT_SECONDS = 7 * 86_400
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 60, 3_600
_MOST_ERROR_CHARACTERS = 300
_MOST_ASKED_FOR = 10_000
"""Anybody may ask for a mail to any address: so many may wait, while a mail server is down."""


class Mail(Bound):
    """A mail that is still to be sent, or could not be (``failed_at``). Times in seconds since 1970.

    One of kind ``text`` has its words; others are written as they are sent, so that no secret waits here.
    """

    id = TextField(primary_key=True)
    kind = TextField()
    recipient = TextField()
    tenant_id = TextField(null=True)
    subject = TextField(null=True)
    body = TextField(null=True)
    created_at = IntegerField()
    next_at = IntegerField()
    attempts = IntegerField(default=0)
    error = TextField(null=True)
    failed_at = IntegerField(null=True)

    class Meta:
        table_name = "outbox"


def add(recipient: str, subject: str, body: str, now: int, tenant_id: str | None = None) -> None:
    """Add a mail. It is removed with its tenant, if it has one."""
    _add(TEXT, recipient, now, tenant_id=tenant_id, subject=subject, body=body)


def ask_for(kind: str, recipient: str, now: int, tenant_id: str | None = None) -> None:
    """Add a mail that is written when it is sent. It replaces one that waits: of this kind, to the same address, for the
    same tenant.

    Raises: Busy if too many wait already.
    """
    if counts()["waiting"] >= _MOST_ASKED_FOR:
        raise Busy("Too many mails wait to be sent just now. Try again later.", retry_after_seconds=60)
    withdraw(kind, recipient, tenant_id)
    _add(kind, recipient, now, tenant_id=tenant_id)


def withdraw(kind: str, recipient: str, tenant_id: str | None = None) -> None:
    """Remove the mails of a kind to an address that were not sent; another tenant's to the same address stay."""
    mine = (Mail.kind == kind) & (Mail.recipient == recipient) & (Mail.tenant_id == tenant_id)
    Mail.delete().where(mine).execute()


def withdraw_links(tenant_id: str) -> None:
    """Remove the mails of a tenant that were not sent and would have a link."""
    Mail.delete().where((Mail.tenant_id == tenant_id) & (Mail.kind != TEXT)).execute()


def withdraw_all(tenant_id: str) -> None:
    """Remove the mails that are about a tenant."""
    Mail.delete().where(Mail.tenant_id == tenant_id).execute()


def _add(kind: str, recipient: str, now: int, **rest: str | None) -> None:
    Mail.delete().where(Mail.failed_at < now - _KEPT_SECONDS).execute()
    name = f"{time.time_ns():016x}{secrets.token_hex(8)}"  # In the order in which they came, also within a second.
    Mail.create(id=name, kind=kind, recipient=recipient, created_at=now, next_at=now, **rest)


def counts() -> dict[str, int]:
    """Count the mails that wait and those that failed."""
    waiting, failed = (Mail.failed_at.is_null(), Mail.failed_at.is_null(False))
    return {
        name: int(Mail.select(fn.COUNT(Mail.id)).where(which).scalar())
        for name, which in (("waiting", waiting), ("failed", failed))
    }


def listed(limit: int) -> list[Mail]:
    """List mails that were not sent, the oldest first."""
    return list(Mail.select().order_by(Mail.created_at, Mail.id).limit(limit))


def due(now: int, limit: int) -> list[Mail]:
    """List mails that are to be tried now."""
    is_due = Mail.failed_at.is_null() & (Mail.next_at <= now)
    return list(Mail.select().where(is_due).order_by(Mail.next_at, Mail.id).limit(limit))


def claim(mail: Mail, now: int) -> bool:
    """Note that a mail is being tried, and when to try again unless it is done by then; False if another process tries it.

    Before it is sent: so nobody else sends it meanwhile, and one that ends its process is not tried again at once.
    """
    seconds = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2**mail.attempts)
    mine = (Mail.id == mail.id) & (Mail.next_at == mail.next_at) & (Mail.attempts == mail.attempts)
    return bool(Mail.update(next_at=now + seconds, attempts=mail.attempts + 1).where(mine).execute())


def remove(mail_id: str) -> None:
    """Remove a mail that was sent, or is not wanted."""
    Mail.delete().where(Mail.id == mail_id).execute()


def note_error(mail_id: str, error: str, failed_at: int | None = None) -> None:
    """Note why a mail was not sent, and with ``failed_at`` that it is not tried again."""
    Mail.update(error=error[:_MOST_ERROR_CHARACTERS], failed_at=failed_at).where(Mail.id == mail_id).execute()


def retry(now: int) -> int:
    """Have all mails tried now, also those that failed; give how many they are."""
    again = {"next_at": now, "attempts": 0, "created_at": now, "failed_at": None}
    return int(Mail.update(**again).execute())
