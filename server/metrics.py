"""What the server counts and times of its own work, as plain numbers until somebody asks for them.

Knows: counters, histograms, and which there are. Must not know: who reads them, in which form (``operations.openmetrics``),
and whose work it was: a label with tenants would grow without bound, and tell each reader who the customers are.
Names and units are by Prometheus' conventions. Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of what is timed: from a push on a fast disk to what clients give up on."""


class Counter(defaultdict[tuple[str | int, ...], int]):
    """How often something happened, by the values of its labels: ``REFUSALS["busy",] += 1``."""

    def __init__(self, name: str, about: str, *labels: str) -> None:
        super().__init__(int)
        self.name, self.about, self.labels = name, about, labels
        if not labels:
            self[()] = 0
        ALL.append(self)


class Observations:
    """How many observed values lie below each bound and above the one before; the last count is of those above all."""

    __slots__ = ("counts", "total")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        self.total = 0.0


class Histogram(dict[str, Observations]):
    """How values are spread, by the value of its label; one without a label has ``""`` alone."""

    def __init__(self, name: str, about: str, label: str = "", bounds: Sequence[float] = SECONDS) -> None:
        super().__init__()
        self.name, self.about, self.label, self.bounds = name, about, label, bounds
        if not label:
            self[""] = Observations(len(bounds))
        ALL.append(self)

    def observe(self, value: float, label: str = "") -> None:
        """Count a value."""
        try:
            found = self[label]
        except KeyError:
            found = self[label] = Observations(len(self.bounds))
        found.counts[bisect_left(self.bounds, value)] += 1
        found.total += value


ALL: list[Counter | Histogram] = []
"""In the order in which they are shown."""

REQUESTS = Counter("syncapp_http_requests", "Answered requests.", "endpoint", "status")
REQUEST_SECONDS = Histogram(
    "syncapp_http_request_duration_seconds", "Time from a request's head to the end of its answer.", "endpoint"
)
EVENT_SECONDS = Histogram(
    "syncapp_socket_event_duration_seconds", "Time of the handler of a socket's event, once its turn has come.", "event"
)
REFUSALS = Counter("syncapp_refusals", "Errors that clients were answered, by their code.", "code")
PUSHES = Counter("syncapp_pushes", "Pushes that were stored.")
ROWS = Counter("syncapp_pushed_rows", "Rows of stored pushes.")
CONFLICTS = Counter("syncapp_conflicts", "Edits that lost and were kept as conflicts.")
COMMIT_SECONDS = Histogram(
    "syncapp_commit_duration_seconds", "Time of a COMMIT: until the disk or PostgreSQL has the writes."
)
WRITES = Counter("syncapp_committed_writes", "Writes that were committed; several share a commit.")
TENANT_OPENS = Counter("syncapp_tenant_opens", "Times that a tenant's file had to be opened.")
TOKENS = Counter("syncapp_token_lookups", "Tokens looked up among those verified before.", "result")
LAG_SECONDS = Histogram("syncapp_event_loop_lag_seconds", "By how much the event loop woke a timer too late.")
MAILS = Counter("syncapp_mails", "Mails that were sent, put off, or given up.", "result")
