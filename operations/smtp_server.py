"""Talks to the mail server of the settings: connects with TLS, logs in, hands over a mail.

Knows: SMTP, how a mail looks on the wire, which answers are final. Must not know: the outbox, what mails say.
It is imported only where mail is set up.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import ssl
from collections.abc import Iterator
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from urllib.parse import unquote, urlsplit

from gevent import Timeout

from accounts.letters import Letter
from settings import Settings

_STEP_SECONDS = 20.0
"""How long the server may take for each answer."""

_WHOLE_SECONDS = 45.0
"""How long it may take for a mail, from the connection on; less than passes until a mail is tried again."""

_GOODBYE_SECONDS = 2.0
_POLICY = SMTP.clone(max_line_length=300)  # A link stays in one line.
_MOST_SAID_CHARACTERS = 200


class CanNotSend(RuntimeError):
    """The mail server can't be used now; as text it says why."""


class MailRefused(RuntimeError):
    """The server did not take a mail; as text it says why. ``is_final``: it will not take it later either."""

    def __init__(self, sentence: str, is_final: bool) -> None:
        super().__init__(sentence)
        self.is_final = is_final


def masked(address: str) -> str:
    """Write an address so that the log does not tell whose it is."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}…@{domain}"


def try_out(settings: Settings) -> None:
    """Connect and log in, and send nothing.

    Raises: CanNotSend.
    """
    with _connected(settings):
        pass


def deliver(settings: Settings, letter: Letter) -> None:
    """Hand over a mail.

    Raises: CanNotSend, MailRefused.
    """
    try:
        message, recipient = _message(settings, letter)
    except ValueError:  # Also what the headers' library says of an address that is none.
        raise MailRefused("The address can't be written in a mail.", is_final=True) from None
    with _connected(settings) as connection:
        _send(connection, message, parseaddr(settings.mail_from)[1], recipient, letter.recipient)


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[smtplib.SMTP]:
    limit = Timeout.start_new(_WHOLE_SECONDS)
    try:
        connection = _connect(settings)
        try:
            yield connection
        finally:
            limit.close()
            _leave(connection)
    except Timeout as timeout:
        if timeout is not limit:
            raise
        raise CanNotSend(f"The mail server took more than {_WHOLE_SECONDS:.0f} s.") from None
    except (OSError, smtplib.SMTPException) as error:
        raise CanNotSend(_reason_of(error)) from None
    finally:
        limit.close()


def _connect(settings: Settings) -> smtplib.SMTP:
    """Connect with TLS, whose certificate is checked, unless the address says that there is none."""
    url, name = urlsplit(settings.smtp_url), urlsplit(settings.public_url).hostname
    host, checks = url.hostname or "", ssl.create_default_context()
    if url.scheme == "smtps":
        connection: smtplib.SMTP = smtplib.SMTP_SSL(host, url.port or 465, name, timeout=_STEP_SECONDS, context=checks)
    else:
        connection = smtplib.SMTP(host, url.port or 587, name, timeout=_STEP_SECONDS)
    try:
        if url.scheme == "smtp" and not url.query:
            connection.starttls(context=checks)
        if url.username is not None:
            connection.login(unquote(url.username), unquote(url.password or ""))
    except BaseException:
        connection.close()
        raise
    return connection


def _leave(connection: smtplib.SMTP) -> None:
    """Say goodbye, and do not mind how that is answered: a mail that was taken stays taken."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        if connection.sock is not None:
            connection.sock.settimeout(_GOODBYE_SECONDS)
            connection.quit()
    connection.close()


def _send(connection: smtplib.SMTP, message: EmailMessage, sender: str, recipient: str, address: str) -> None:
    """Send a message. ``recipient`` is the address as SMTP takes it, ``address`` as we have it; neither is said aloud.

    Raises: MailRefused; OSError, smtplib.SMTPException if the server can't be used any more.
    """
    try:
        connection.send_message(message, sender, [recipient])
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise MailRefused(_said(code, said, address, recipient), code >= 500) from None
    except smtplib.SMTPSenderRefused as error:  # MAIL_FROM is wrong, which is not the mail's fault.
        raise MailRefused(f"MAIL_FROM: {_said(error.smtp_code, error.smtp_error)}", is_final=False) from None
    except smtplib.SMTPDataError as error:
        text = _said(error.smtp_code, error.smtp_error, address, recipient)
        raise MailRefused(text, error.smtp_code >= 500) from None
    except smtplib.SMTPNotSupportedError as error:
        raise MailRefused(_reason_of(error), is_final=True) from None


def _message(settings: Settings, letter: Letter) -> tuple[EmailMessage, str]:
    """Write a mail for the wire, and its recipient's address as SMTP takes it.

    Auto-Submitted (RFC 3834) keeps absence notes from answering. Raises: ValueError.
    """
    local, _, domain = letter.recipient.rpartition("@")
    if not local or not domain:
        raise ValueError("no address")
    to = Address(username=local, domain=domain.encode("idna").decode())
    message = EmailMessage(_POLICY)
    message["From"], message["To"], message["Subject"] = settings.mail_from, to, letter.subject
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{letter.message_id}@{parseaddr(settings.mail_from)[1].rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.body)
    return message, to.addr_spec


def _reason_of(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return f"The mail server said: {_said(error.smtp_code, error.smtp_error)}"
    return f"The mail server can't be used: {_one_line(str(error) or type(error).__name__)}"


def _said(code: int, said: bytes | str, *addresses: str) -> str:
    """Write what the server answered, in one line and without the recipient's address, in each form of it."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    for address in addresses:
        text = re.sub(re.escape(address), lambda found: masked(found[0]), text, flags=re.IGNORECASE)
    return _one_line(f"{code} {text}")


def _one_line(text: str) -> str:
    line = "".join(character if character.isprintable() else " " for character in text)
    return line[:_MOST_SAID_CHARACTERS]
