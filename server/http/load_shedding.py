"""Refuses what there is no room for before it costs anything, so that a crowd does not hold up those who are in.

Knows: heads of requests. Must not know: what endpoints do, rules, Flask. It refuses nothing that would be served further
in, where a refusal costs about as much as a push; what comes with a token that it does not know, it lets pass.
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


class Admission:
    """Wraps the WSGI application."""

    def __init__(
        self,
        wrapped: Wsgi,
        crowded: Container[str],
        tenant_of: Callable[[str], str | None],
        is_full: Callable[[str], bool],
    ) -> None:
        """``tenant_of`` tells whose a token is that was verified before, ``is_full`` if no more of a tenant fits in.

        ``crowded``: the addresses that crowds ask for. Some others take no room of a tenant, even if a token comes with
        the request.
        """
        self._wrapped, self._crowded, self._tenant_of, self._is_full = wrapped, crowded, tenant_of, is_full
        self._refused, self._told_at = 0, 0.0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        tenant_id = self._without_room(environ)
        if tenant_id is None:
            return self._wrapped(environ, start_response)
        self._count(tenant_id)
        return refuse(start_response, Busy("Too many requests of this tenant are under way. Try again soon."), environ)

    def _without_room(self, environ: dict[str, Any]) -> str | None:
        """Tell for whose request there is no room; a page's goes further in, to be told in a way that it may read."""
        if environ["PATH_INFO"] not in self._crowded or "HTTP_ORIGIN" in environ:
            return None
        tenant_id = self._tenant_of(environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2])
        return tenant_id if tenant_id and self._is_full(tenant_id) else None

    def _count(self, tenant_id: str) -> None:
        """Log refusals once a second, since a line for each would cost more than all the rest of it."""
        self._refused += 1
        now = time.monotonic()
        if now - self._told_at >= 1:
            log.warning("%d requests were refused at the door", self._refused, extra={"tenant": tenant_id})
            self._refused, self._told_at = 0, now
