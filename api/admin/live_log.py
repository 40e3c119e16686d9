"""The newest lines of this process's log, for who follows them.

Knows: how many lines one answer has, how long a request waits for one. Must not know: what is logged, how much is kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import gevent
from flask import request

from accounts.operator_sign_in import Operator
from api.admin.console import Route
from api.admin.server_parts import ServerParts
from protocol.errors import invalid
from server.http.exchange import Reply, answer
from server.recent_log import RECENT, Entry, level_named

_MOST_LINES = 300
_WAIT_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_OWN = "/admin/api/"


class LiveLog:
    """The call about the log."""

    def __init__(self, server: ServerParts) -> None:
        self._lifecycle = server.lifecycle

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "GET", "/api/log", self.lines

    def lines(self, _: Operator) -> Reply:
        """Give the lines after a number; if there is none yet, wait a while for one.

        Who asks again only when it has shown these is never sent more than it can show; what it misses is counted.
        """
        text = request.args.get("after", "0")
        if not _NUMBER.fullmatch(text):
            raise invalid("after", "must be a whole number")
        after, until = int(text), time.monotonic() + _WAIT_SECONDS
        newest, found = RECENT.newest, _asked_for(after)
        while after and not found and time.monotonic() < until and not self._lifecycle.is_ending:
            gevent.sleep(_LOOK_SECONDS)
            if RECENT.newest != newest:
                newest, found = RECENT.newest, _asked_for(after)
        return answer(
            {
                "lines": [one._asdict() for one in found[-_MOST_LINES:]],
                "newest": newest,
                "left": len(found[:-_MOST_LINES]),
            }
        )


def _asked_for(after: int) -> list[Entry]:
    """Find lines of a level and above, of a tenant, of a request; the console's own questions are left out.

    Raises: ValidationError.
    """
    level = request.args.get("level", "info")
    try:
        level_named(level)
    except ValueError as error:
        raise invalid("level", str(error)) from None
    tenant, request_id = request.args.get("tenant") or None, request.args.get("request") or None
    found = RECENT.since(after, level=level, tenant=tenant, request_id=request_id)
    return [one for one in found if not str(one.fields.get("path", "")).startswith(_OWN)]
