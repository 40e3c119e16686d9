"""Load shedding: refuses requests of a tenant over its limit before they cost anything.

Knows: request heads. Must not know: what endpoints do, rules, Flask, connections. It refuses only what would be refused
further in, where a refusal costs about as much as a push; requests with a token that it does not know pass.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Mapping

from protocol.errors import Problem
from server.metrics import REFUSALS

log = logging.getLogger("syncapp.request")


class LoadShedding:
    """Finds the requests of tenants that have too many in flight and waiting."""

    def __init__(
        self,
        paths: Container[str],
        tenant_of: Callable[[str], str | None],
        refusal: Callable[[str], Problem | None],
    ) -> None:
        """``tenant_of`` returns the tenant of a token that was verified before. ``refusal`` returns why no more of it may
        begin, when it is time to say so.

        ``paths``: the hot paths, whose requests all count as in flight; those to some others do not, even with a token.
        """
        self._paths, self._tenant_of, self._refusal = paths, tenant_of, refusal
        self._refused, self._logged_at = 0, 0.0
        self.under_way = 0
        """Requests that are about to be refused."""

    def refusal(self, environ: Mapping[str, str]) -> Problem | None:
        """Return why a request is to be refused unread; those of web pages pass, to get an error with CORS headers."""
        if environ["PATH_INFO"] not in self._paths or environ["REQUEST_METHOD"] != "POST" or "HTTP_ORIGIN" in environ:
            return None
        tenant_id = self._tenant_of(environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2])
        if not tenant_id:
            return None
        self.under_way += 1
        try:
            problem = self._refusal(tenant_id)
        finally:
            self.under_way -= 1
        if problem:
            REFUSALS[problem.code,] += 1
            self._log(tenant_id)
        return problem

    def _log(self, tenant_id: str) -> None:
        """Log refusals once a second, since a log line each would cost more than the refusal."""
        self._refused += 1
        now = time.monotonic()
        if now - self._logged_at >= 1:
            log.warning(
                "%d requests were shed: the tenant has too many in flight",
                self._refused,
                extra={"tenant": tenant_id},
            )
            self._refused, self._logged_at = 0, now
