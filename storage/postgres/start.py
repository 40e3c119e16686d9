"""Waits at a start for a server that is not there yet, as when both are begun at once.

Knows: what may come by waiting. Must not know: tables, what is stored.
"""

from __future__ import annotations

import logging
import time

import gevent

from storage.engine import CanNotOpen
from storage.postgres.connecting import is_coming_up
from storage.postgres.errors import ConnectionLost, TooManyConnections
from storage.postgres.pool import Pool

log = logging.getLogger("syncapp.storage")

_PAUSE_SECONDS = 0.2


def must_answer(pool: Pool, url: str, wait_seconds: float) -> None:
    """Connect, or tell why it can't be done.

    ``wait_seconds``: how long a server is waited for that is not there yet.
    Raises: CanNotOpen.
    """
    give_up, is_said = time.monotonic() + wait_seconds, False
    while True:
        try:
            pool.give_back(pool.take())
            return
        except ConnectionLost as error:
            if time.monotonic() >= give_up or not _may_come(url, error):
                raise CanNotOpen(f"PostgreSQL, named by DATABASE_URL, can't be used: {error}") from None
            if not is_said:
                more = {"seconds": wait_seconds, "error": str(error)[:200]}
                log.warning("PostgreSQL is not there yet, it is waited for", extra=more)
            is_said = True
        gevent.sleep(_PAUSE_SECONDS)


def _may_come(url: str, error: ConnectionLost) -> bool:
    """Tell whether it may be possible soon; a wrong password or database will not."""
    try:
        return isinstance(error, TooManyConnections) or is_coming_up(url)
    except ConnectionLost:
        return False
