"""The overview: how the server is now, and how it was in the last hour and day.

Knows: what of a server its operator looks at first. Must not know: how it is measured, how it is drawn.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
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
                "busiest": self._busiest(),
                "hour": hour,
                "day": day,
            }
        )

    def _busiest(self) -> list[dict[str, Any]]:
        """Give the tenants that used most today, by UTC."""
        directory, today = self._server.tenants.directory, int(time.time()) // _DAY_SECONDS
        found = directory.read(lambda: usage.busiest(today, _MOST_BUSY))
        known = directory.read(lambda: {one.tenant_id: main_database.customer_by_id(one.tenant_id) for one in found})
        return [one._asdict() | {"email": customer.email} for one in found if (customer := known[one.tenant_id])]

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
