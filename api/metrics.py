"""Serves ``/metrics`` to who has the operator's token.

Knows: the token. Must not know: what is measured, in which form it is written.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from flask import Blueprint

from protocol.errors import NoToken, Unauthorized
from server.http.exchange import Reply, current_exchange

Render = Callable[[str], tuple[bytes, str]]
"""Gives the metrics and their media type, by an ``Accept`` header."""


class Metrics:
    """The endpoint of metrics."""

    def __init__(self, token: str, render: Render) -> None:
        self._token, self._render = token.encode(), render

    def blueprint(self) -> Blueprint:
        """Give the route."""
        routes = Blueprint("metrics", __name__)
        routes.get("/metrics")(self.metrics)
        return routes

    def metrics(self) -> Reply:
        """Give the metrics of this process.

        Raises: Unauthorized.
        """
        exchange = current_exchange()
        scheme, _, token = (exchange.header("Authorization") or "").partition(" ")
        if not token:
            raise NoToken("Metrics need the operator's token: Authorization: Bearer <METRICS_TOKEN>.")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), self._token):
            raise Unauthorized("This is not the token in METRICS_TOKEN.")
        body, media_type = self._render(exchange.header("Accept") or "")
        return Reply(body, headers=[("Content-Type", media_type)])
