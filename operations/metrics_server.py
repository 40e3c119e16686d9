"""Serves ``/metrics`` on a port of its own, to whoever reaches it.

Knows: its port. Must not know: what is measured, the API.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from gevent.pywsgi import LoggingLogAdapter, WSGIServer

from server.http.listening import listen

log = logging.getLogger("syncapp.server")


class MetricsServer:
    """The server of metrics."""

    def __init__(self, host: str, port: int, render: Callable[[str], tuple[bytes, str]]) -> None:
        """``render`` gives the metrics and their media type, by an ``Accept`` header."""
        self._host, self._port, self._render = host, port, render

    def start(self) -> None:
        """Listen until the process ends, so that also a long shutdown can be watched.

        Raises: CannotListen.
        """
        quiet = LoggingLogAdapter(log, level=logging.WARNING)
        listener = listen(self._host, self._port, "METRICS_")
        WSGIServer(listener, self._answer, log=None, error_log=quiet).start()
        log.info("metrics on %s:%d", *listener.getsockname()[:2])

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics" or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "26")])
            return [b"Here is only GET /metrics\n"]
        body, media_type = self._render(environ.get("HTTP_ACCEPT", ""))
        start_response("200 OK", [("Content-Type", media_type), ("Content-Length", str(len(body)))])
        return [body]
