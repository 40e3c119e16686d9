"""Serves the pages for people, their files, the descriptions of the API, and ``/health``.

Knows: templates, static files, where the pages get their JavaScript from. Must not know: tenants' data.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, render_template, request, send_from_directory

from api import reference
from models import synced_tables
from protocol import errors
from protocol.codec import format_time
from protocol.errors import NotFound
from server.disk_space import room
from server.http.exchange import Reply, answer, current_exchange
from server.http.lifecycle import Lifecycle
from server.maintenance import maintenance
from storage.positions import now_ms
from tenants import Tenants

_ROOT = Path(__file__).resolve().parent.parent
_OUR_CLIENT = _ROOT / "clients" / "js" / "src"
_SOCKET_IO = _ROOT / "node_modules" / "socket.io-client" / "dist"
_SOCKET_IO_FILE = "socket.io.min.js"
CDN = "https://cdn.jsdelivr.net"
CLIENT_VERSION = "4.8.4"
CLIENT_INTEGRITY = "sha384-fBrXvbDtHoeKWJ/hcA6M+YGueiDW+h45I7V6F2kD1S8bOkrF9rZYPLVkCR6BLR/1"
"""The hash of that file in the npm package; a test compares them."""

_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'{cdn}; style-src 'self'; img-src 'self' data:; connect-src {connects};"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ANYWHERE = "'self' http: https: ws: wss:"
"""Where the test pages may connect: they take the address of any server."""

_HOST = re.compile(r"[a-z0-9.-]+(:[0-9]+)?", re.ASCII | re.IGNORECASE)


Describe = Callable[[], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Pages:
    """The pages, their files, the API's descriptions and ``/health``.

    ``connected`` counts the sockets that listen, ``processes`` describes those that tell each other, ``backups`` how it
    stands with those that look after themselves, if any are asked for. ``trusted_proxies`` is the setting; ``openapi`` and
    ``asyncapi`` give the documents that describe requests and events.
    """

    version: str
    tenants: Tenants
    has_file_faults: Callable[[], bool]
    lifecycle: Lifecycle
    connected: Callable[[], int]
    processes: Callable[[], dict[str, Any] | None]
    backups: Callable[[], dict[str, Any] | None]
    trusted_proxies: int
    openapi: Describe
    asyncapi: Describe
    sends_mail: bool
    started_at: float = field(default_factory=time.monotonic)

    def blueprint(self) -> Blueprint:
        """Give the routes."""
        routes = Blueprint("pages", __name__)
        routes.app_context_processor(lambda: {"sends_mail": self.sends_mail})  # For every template.
        views: list[tuple[str, Callable[..., Response | Reply]]] = [
            ("/", self.index),
            ("/websocket-test.html", self.websocket_test),
            ("/test-multi-app-sync.html", self.multi_app),
            ("/console", self.console),
            ("/forgotten-password", self.forgotten_password),
            ("/reset-password", self.reset_password),
            ("/confirm-email", self.confirm_email),
            ("/docs", self.docs),
            ("/openapi.json", self.openapi_document),
            ("/asyncapi.json", self.asyncapi_document),
            ("/static/<path:name>", self.static),
            ("/static/client/<name>", self.our_client),
            ("/static/socket.io.min.js", self.socket_io_client),
            ("/health", self.health),
        ]
        for path, view in views:
            routes.add_url_rule(path, view.__name__, view)
        return routes

    # --- pages -------------------------------------------------------------------------------------------------------

    def index(self) -> Response:
        """Name the service and link the rest."""
        return _page("index.html", version=self.version)

    def websocket_test(self) -> Response:
        """Serve the page on which one connection is tried."""
        return _page("websocket-test.html", _ANYWHERE, client=_client_script(), tables=list(synced_tables()))

    def multi_app(self) -> Response:
        """Serve the page with three apps side by side."""
        return _page("test-multi-app-sync.html", _ANYWHERE, client=_client_script())

    def console(self) -> Response:
        """Serve the page on which customers see and edit their own data."""
        return _page("console.html", _here_with_sockets(), client=_client_script())

    def forgotten_password(self) -> Response:
        """Serve the page on which a link for a new password is asked for."""
        return _page("forgotten-password.html")

    def reset_password(self) -> Response:
        """Serve the page to which such a link leads. Opening it changes nothing."""
        return _page("reset-password.html")

    def confirm_email(self) -> Response:
        """Serve the page on which an address is confirmed. Opening it changes nothing."""
        return _page("confirm-email.html")

    def docs(self) -> Response:
        """Show the API's description to people."""
        calls, events = self.openapi(), self.asyncapi()
        return _page(
            "docs.html",
            calls=calls,
            events=events,
            schemas=events["components"]["schemas"] | calls["components"]["schemas"],
            reference=reference.calls(),
            sentences=errors.sentences(),
            as_text=_as_text,
        )

    def openapi_document(self) -> Reply:
        """Describe every call, for programs."""
        return answer(self.openapi())

    def asyncapi_document(self) -> Reply:
        """Describe every event, for programs."""
        return answer(self.asyncapi())

    # --- files -------------------------------------------------------------------------------------------------------

    def static(self, name: str) -> Response:
        """Serve a script, a style or an image of the pages."""
        return _revalidated(send_from_directory(_ROOT / "static", name))

    def our_client(self, name: str) -> Response:
        """Serve a module of our JavaScript client, which the page with three apps uses."""
        return _revalidated(send_from_directory(_OUR_CLIENT, name))

    def socket_io_client(self) -> Response:
        """Serve the Socket.IO client that npm installed."""
        if not _is_client_installed():
            raise NotFound("The Socket.IO client is not installed here; the pages take it from the CDN.")
        return _revalidated(send_from_directory(_SOCKET_IO, _SOCKET_IO_FILE))

    # --- health ------------------------------------------------------------------------------------------------------

    def health(self) -> Reply:
        """Tell an orchestrator whether to send requests here."""
        body = self.state()
        body["forwardedFor"] = {"addresses": _forwarded_addresses(), "trusted": self.trusted_proxies}
        return answer(body, 200 if body["status"] in ("ok", "degraded") else 503)

    def state(self) -> dict[str, Any]:
        """Tell how the server is."""
        uptime_seconds = int(time.monotonic() - self.started_at)
        body: dict[str, Any] = {"status": self._status(), "version": self.version, "uptimeSeconds": uptime_seconds}
        body |= {"timestamp": format_time(now_ms()), "connectedClients": self.connected()}  # As the older API had it.
        if processes := self.processes():
            body["processes"] = processes
        with suppress(errors.Busy):  # The directory does not answer, which the status tells.
            if backups := self.backups():
                body["backups"] = backups
        if room.is_low:
            body["isDiskLow"] = True
        if notice := maintenance.notice:
            body["maintenance"] = {"since": format_time(notice.since * 1000), "message": notice.message}
        return body

    def _status(self) -> str:
        """Give the server's status, the worst that applies."""
        if self.lifecycle.is_ending:
            return "ending"
        if not self.tenants.engine.has_room():
            return "storage_full"
        is_degraded = room.is_low or self.has_file_faults() or not self.tenants.engine.is_intact()
        return "degraded" if is_degraded else "ok"


def _forwarded_addresses() -> int:
    """Count the addresses in the request's X-Forwarded-For."""
    header = current_exchange().header("X-Forwarded-For")
    return header.count(",") + 1 if header else 0


def _as_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _page(name: str, connects: str = "'self'", **values: object) -> Response:
    """Give a page; ``connects`` says where its scripts may connect."""
    response = Response(render_template(name, **values), mimetype="text/html")
    cdn = f" {CDN}" if "client" in values and not _is_client_installed() else ""
    response.headers["Content-Security-Policy"] = _CONTENT_POLICY.format(cdn=cdn, connects=connects)
    return response


def _here_with_sockets() -> str:
    """Name this server for a policy, and its WebSockets, which older browsers do not take for ``'self'``."""
    host = request.host
    return f"'self' ws://{host} wss://{host}" if _HOST.fullmatch(host) else "'self'"


def _revalidated(response: Response) -> Response:
    response.headers["Cache-Control"] = (
        "no-cache"  # Cached, but revalidated each time, so that an update shows at once.
    )
    return response


def _is_client_installed() -> bool:
    return (_SOCKET_IO / _SOCKET_IO_FILE).is_file()


def _client_script() -> dict[str, str]:
    """Say where pages get the Socket.IO client: from this server if npm installed it, else from the CDN, with its hash."""
    if _is_client_installed():
        return {"src": "/static/socket.io.min.js", "integrity": ""}
    path = f"/npm/socket.io-client@{CLIENT_VERSION}/dist/{_SOCKET_IO_FILE}"
    return {"src": CDN + path, "integrity": CLIENT_INTEGRITY}
