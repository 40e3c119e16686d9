"""Load shedding: refuses requests of a tenant over its limit before they cost anything.

Knows: request lines and headers. Must not know: what endpoints do, rules, Flask. It refuses only what would be refused
further in, where a refusal costs about as much as a push; requests with a token that it does not know pass.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable
from typing import Any

from protocol.errors import Busy
from server.http.exchange import refuse

log = logging.getLogger("syncapp.request")

Wsgi = Callable[..., Iterable[bytes]]


class LoadShedding:
    """WSGI middleware that refuses requests of tenants that have too many in flight."""

    def __init__(
        self,
        wrapped: Wsgi,
        paths: Container[str],
        tenant_of: Callable[[str], str | None],
        is_full: Callable[[str], bool],
    ) -> None:
        """``tenant_of`` returns the tenant of a token that was verified before, ``is_full`` whether too many are in flight.

        ``paths``: the hot paths, whose requests all count as in flight; those to some others do not, even with a token.
        """
        self._wrapped, self._paths, self._tenant_of, self._is_full = wrapped, paths, tenant_of, is_full
        self._refused, self._logged_at = 0, 0.0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        tenant_id = self._full_tenant(environ)
        if tenant_id is None:
            return self._wrapped(environ, start_response)
        self._log(tenant_id)
        return refuse(start_response, Busy("Too many requests of this tenant are under way. Try again soon."), environ)

    def _full_tenant(self, environ: dict[str, Any]) -> str | None:
        """Return the tenant whose request is to be shed; those of web pages pass, to get an error with CORS headers."""
        if environ["PATH_INFO"] not in self._paths or "HTTP_ORIGIN" in environ:
            return None
        tenant_id = self._tenant_of(environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2])
        return tenant_id if tenant_id and self._is_full(tenant_id) else None

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
