"""Tells somebody that a backup failed or is overdue.

Knows: the form of what is sent, and where to. Must not know: when something is told, what a backup is.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from protocol.codec import format_time
from protocol.errors import Problem
from settings import Settings
from storage import outbox
from storage.engine import Engine
from storage.positions import now_ms

_TRIES, _WAIT_SECONDS, _PAUSE_SECONDS = 3, 10.0, 2.0
Event = Literal["backup_failed", "backup_incomplete", "backup_overdue"]
_SUBJECTS: dict[Event, str] = {
    "backup_failed": "A backup failed",
    "backup_incomplete": "A backup needs attention",
    "backup_overdue": "A backup is overdue",
}
log = logging.getLogger("syncapp.backups")


def tell(
    settings: Settings, engine: Engine, event: Event, message: str, report: Callable[[str], object] = log.warning
) -> None:
    """Send it to BACKUP_ALERT_URL and BACKUP_ALERT_MAIL, if they are set. What can't be sent is reported, not raised."""
    text = f"syncapp on {socket.gethostname()}: {message}"
    if settings.backup_alert_mail:
        try:
            add = partial(outbox.add, settings.backup_alert_mail, _SUBJECTS[event], f"{text}\n", int(time.time()))
            engine.directory.write(add)
        except Problem as error:
            report(f"no mail could be written: {error}")
    if settings.backup_alert_url:  # Chats know what to show by ``text``.
        body = {"event": event, "text": text, "message": message, "at": format_time(now_ms())}
        _post(settings.backup_alert_url, json.dumps(body).encode(), report)


def _post(url: str, body: bytes, report: Callable[[str], object]) -> None:
    from urllib.request import (  # noqa: PLC0415 -- 2 MB that a server without a fault does not need
        HTTPRedirectHandler,
        Request,
        build_opener,
    )

    class Staying(HTTPRedirectHandler):
        """Goes nowhere else: whom to tell, the setting says, not who answers there."""

        def redirect_request(self, *_: object) -> None:
            """Follow nothing, so that it is an error, which is reported."""

    opener = build_opener(Staying)
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 -- the setting takes no other
    for left in reversed(range(_TRIES)):
        try:
            opener.open(request, timeout=_WAIT_SECONDS).close()
            return
        except (OSError, ValueError) as error:  # The address is a secret: it is not in the report.
            if not left:
                report(f"the alert could not be sent to BACKUP_ALERT_URL: {type(error).__name__}: {_said(error)}")
                return
        time.sleep(_PAUSE_SECONDS)


def _said(error: Exception) -> str:
    return str(getattr(error, "reason", "") or getattr(error, "code", "") or "no answer")
