"""The overview: how the server is now, and how it was in the last hour and day.

Knows: what of a server its operator looks at first. Must not know: how it is measured, how it is drawn.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from accounts.operator_sign_in import Operator
from api.admin.console import Route
from api.admin.server_parts import ServerParts
from operations.samples import full_in_seconds, memory_bytes
from server.http.exchange import Reply, answer
from storage import main_database, usage

_MOST_FAULTS, _MOST_BUSY = 20, 5
_DAY_SECONDS = 86_400


class Overview:
    """The call of the overview."""

    def __init__(self, server: ServerParts) -> None:
        self._server, self._monitor = server, server.monitor

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "GET", "/api/overview", self.overview

    def overview(self, _: Operator) -> Reply:
        """Give all of it."""
        server = self._server
        hour, day = server.samples.hour.columns(), server.samples.day.columns()
        return answer(
            {
                "health": server.state(),
                "tenants": server.tenants.directory.read(main_database.count_customers),
                "requests": server.quotas.admission.in_flight(),
                "memoryBytes": memory_bytes(),
                "disk": self._disk(day),
                "faults": self._faults(),
                "busiest": server.tenants.directory.read(partial(_busiest, int(time.time()) // _DAY_SECONDS)),
                "hour": hour,
                "day": day,
            }
        )

    def _disk(self, day: dict[str, Any]) -> dict[str, Any] | None:
        """Describe the disk of the data; None if that is PostgreSQL's."""
        if self._monitor is None:
            return None
        found = shutil.disk_usage(self._server.settings.data_dir)
        return {"freeBytes": found.free, "sizeBytes": found.total, "fullInSeconds": full_in_seconds(day)}

    def _faults(self) -> dict[str, Any]:
        """Give the tenants whose files are missing or damaged: how many, and what is wrong with the first of them."""
        faults = self._monitor.faults if self._monitor else {}
        return {"count": len(faults), "first": dict(sorted(faults.items())[:_MOST_FAULTS])}


def _busiest(day: int) -> list[dict[str, Any]]:
    """Give the tenants that used most on a day, by UTC; bound to the directory by the caller."""
    found = usage.busiest(day, _MOST_BUSY)
    emails = main_database.emails_of([one.tenant_id for one in found])
    return [one._asdict() | {"email": emails[one.tenant_id]} for one in found if one.tenant_id in emails]
