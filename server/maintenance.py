"""Whether an operator has this installation take no changes for a while: pulls go on, pushes and registrations are refused.

Knows: what clients are told. Must not know: who noted it and where, requests, sockets. Each process looks twice a second
whether it was noted (``operations.housekeeping``), so that a request costs a look at one field.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from protocol.errors import UnderMaintenance

log = logging.getLogger("syncapp.maintenance")


class Notice(NamedTuple):
    """Since when, in seconds since 1970, and what the operator says about it."""

    since: int
    message: str | None


class Maintenance:
    """What this process knows of it. One line is logged when it begins, and one when it ends."""

    def __init__(self) -> None:
        self.notice: Notice | None = None

    def follow(self, notice: Notice | None) -> None:
        """Take over what was noted."""
        if notice == self.notice:
            return
        if notice is None:
            log.warning("maintenance has ended: changes are taken again")
        else:
            log.warning(
                "maintenance: pushes and registrations are refused, pulls go on", extra={"about": notice.message}
            )
        self.notice = notice

    def must_be_over(self) -> None:
        """Refuse what would change something.

        Raises: UnderMaintenance.
        """
        if self.notice is not None:
            raise UnderMaintenance(self.notice.message)


maintenance = Maintenance()
"""Of this process, which serves one installation."""
