"""Sends the mails of the outbox in the background, one after the other, from one process of the installation.

Knows: how often to look, what becomes of a mail that was or was not taken. Must not know: SMTP, what mails say, SQL. A mail
server that hangs or refuses holds up nothing but mails.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial

import gevent

from accounts.letters import Letter
from operations import smtp_server
from operations.smtp_server import CanNotSend, MailRefused
from protocol.errors import Busy, Moved, StorageFull
from server.metrics import MAILS
from settings import Settings
from storage import outbox
from storage.engine import Engine
from storage.outbox import Mail

log = logging.getLogger("syncapp.mail")

_LOOK_SECONDS = 0.25
_LEASE_SECONDS = 60.0
"""Longer than a mail may take; so long mails wait after the process that sent them was killed."""

_AT_ONCE = 50
_GOODBYE_SECONDS = 2.0

Write = Callable[[Mail, int], Letter | None]
"""Writes a mail whose words are not in the outbox; None if nobody is to get it any more."""


class MailSender:
    """Sends what the outbox has."""

    def __init__(self, settings: Settings, engine: Engine, write: Write) -> None:
        self._settings, self._engine, self._directory, self._write = settings, engine, engine.directory, write
        self._is_over = self._has_lease = False
        self._running: gevent.Greenlet | None = None

    def start(self) -> None:
        """Begin to look for mails."""
        self._running = gevent.spawn(self._run)

    def end(self) -> None:
        """End soon: a mail that is being sent has a moment, else it is sent once more after the next start."""
        self._is_over = True
        if self._running is not None:
            self._running.join(_GOODBYE_SECONDS)
            self._running.kill()
        if self._has_lease:
            with contextlib.suppress(Busy):
                self._engine.lease("mail", 0)  # Another process need not wait for its end.

    def _run(self) -> None:
        while not self._is_over:
            try:
                self.send_due(int(time.time()))
            except (Busy, StorageFull, Moved):  # The log has why already, or it passes by itself.
                pass
            except Exception:
                log.exception("sending mails failed; it is tried again")
            gevent.sleep(_LOOK_SECONDS)

    def send_due(self, now: int) -> None:
        """Send the mails that are due, until the mail server fails.

        Raises: Busy, StorageFull, Moved.
        """
        due = self._directory.read(lambda: outbox.due(now, _AT_ONCE))
        for position, mail in enumerate(due):
            if self._is_over or not self._take_lease():
                return
            try:
                self._send(mail, now)
            except CanNotSend as error:
                self._put_off(due[position:], str(error), now)
                return

    def _take_lease(self) -> bool:
        """Be the process that sends, or tell that another is."""
        self._has_lease = self._engine.lease("mail", _LEASE_SECONDS)
        return self._has_lease

    def _send(self, mail: Mail, now: int) -> None:
        """Try one mail. Raises: CanNotSend."""
        if not self._directory.write(partial(outbox.claim, mail, now)):
            return
        if mail.created_at + outbox.TRIED_FOR_SECONDS < now:
            self._give_up(mail, mail.error or "It is too old to be sent.", now)
            return
        letter = self._letter(mail, now)
        if letter is not None:
            try:
                smtp_server.deliver(self._settings, letter)
            except MailRefused as error:
                self._refused(mail, error, now)
                return
            MAILS["sent",] += 1
            log.info("mail sent", extra={"kind": mail.kind, "to": smtp_server.masked(mail.recipient)})
        self._directory.write(partial(outbox.remove, mail.id))

    def _letter(self, mail: Mail, now: int) -> Letter | None:
        if mail.kind == outbox.TEXT:
            return Letter(mail.recipient, mail.subject or "", mail.body or "", mail.id)
        return self._write(mail, now)

    def _refused(self, mail: Mail, error: MailRefused, now: int) -> None:
        if error.is_final:
            self._give_up(mail, str(error), now)
        else:
            self._put_off([mail], str(error), now)

    def _give_up(self, mail: Mail, why: str, now: int) -> None:
        MAILS["failed",] += 1
        self._directory.write(partial(outbox.note_error, mail.id, why, now))
        about = {"kind": mail.kind, "to": smtp_server.masked(mail.recipient), "error": why}
        log.warning("mail not sent, and not tried again", extra=about)

    def _put_off(self, mails: list[Mail], why: str, now: int) -> None:
        """Note why mails are tried later; the first is claimed already."""
        MAILS["put_off",] += 1
        first = mails[0]

        def note() -> None:
            """Claim those that nobody else does, and note it of each."""
            for mail in mails:
                if mail is first or outbox.claim(mail, now):
                    outbox.note_error(mail.id, why)

        self._directory.write(note)
        about = {"kind": first.kind, "to": smtp_server.masked(first.recipient), "error": why, "others": len(mails) - 1}
        log.warning("mail not sent; it is tried again", extra=about)
