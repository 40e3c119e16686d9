"""The pages for people: what is served, where the Socket.IO client comes from, whether the server is well.

Knows: templates, static files and the modules of our JavaScript client. Must not know: tenants' data.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, render_template, send_from_directory

from api import reference
from models import synced_tables
from protocol import errors
from protocol.codec import format_time
from protocol.errors import NotFound
from server.disk_space import room
from server.http.exchange import Reply, answer, current_exchange
from server.http.lifecycle import Lifecycle
from tenants import Tenants, now_ms

_HERE = Path(__file__).resolve().parent.parent
_OURS = _HERE / "clients" / "js" / "src"
_CLIENT = _HERE / "node_modules" / "socket.io-client" / "dist"
_CLIENT_FILE = "socket.io.min.js"
CDN = "https://cdn.jsdelivr.net"
CLIENT_VERSION = "4.8.4"
CLIENT_INTEGRITY = "sha384-fBrXvbDtHoeKWJ/hcA6M+YGueiDW+h45I7V6F2kD1S8bOkrF9rZYPLVkCR6BLR/1"
"""Of that file in the npm package; a test compares them."""

_SELF_POLICY = (
    "default-src 'none'; script-src 'self'{cdn}; style-src 'self'; img-src 'self' data:; connect-src 'self' http: https:"
    " ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


Describe = Callable[[], dict[str, Any]]


def blueprint(
    version: str,
    tenants: Tenants,
    has_file_faults: Callable[[], bool],
    lifecycle: Lifecycle,
    connected: Callable[[], int],
    trusted_proxies: int,
    openapi: Describe,
    asyncapi: Describe,
) -> Blueprint:
    """Lay the pages out; ``connected`` counts the sockets that listen, ``trusted_proxies`` is how many proxies are
    believed, ``openapi`` and ``asyncapi`` give the documents that describe calls and events."""
    routes = Blueprint("pages", __name__)
    began = time.monotonic()

    @routes.get("/")
    def index() -> Response:
        """Name the service and link the rest."""
        return _page("index.html", version=version)

    @routes.get("/websocket-test.html")
    def websocket_test() -> Response:
        """Serve the page on which one connection is tried."""
        return _page("websocket-test.html", client=_client_script(), tables=list(synced_tables()))

    @routes.get("/test-multi-app-sync.html")
    def multi_app() -> Response:
        """Serve the page with three apps side by side."""
        return _page("test-multi-app-sync.html", client=_client_script())

    _describe(routes, openapi, asyncapi)
    _serve_files(routes)

    @routes.get("/health")
    def health() -> Reply:
        """Tell an orchestrator whether to send requests here."""
        status = _status(tenants, has_file_faults(), lifecycle)
        body = {"status": status, "version": version, "uptimeSeconds": int(time.monotonic() - began)}
        body |= {"timestamp": format_time(now_ms()), "connectedClients": connected()}  # As the older API had it.
        body["forwardedFor"] = {"addresses": _forwarded(), "trusted": trusted_proxies}
        return answer(body, 200 if status in ("ok", "degraded") else 503)

    return routes


def _forwarded() -> int:
    """Count the addresses that proxies, or the caller, say the request came by."""
    said = current_exchange().header("X-Forwarded-For")
    return said.count(",") + 1 if said else 0


def _serve_files(routes: Blueprint) -> None:
    @routes.get("/static/<path:name>")
    def static(name: str) -> Response:
        """Serve a script, a style or an image of the pages."""
        return _cached(send_from_directory(_HERE / "static", name))

    @routes.get("/static/client/<name>")
    def our_client(name: str) -> Response:
        """Serve a module of our JavaScript client as it is: the page with three apps runs on it."""
        return _cached(send_from_directory(_OURS, name))

    @routes.get("/static/socket.io.min.js")
    def socket_io_client() -> Response:
        """Serve the Socket.IO client that npm installed."""
        if not (_CLIENT / _CLIENT_FILE).is_file():
            raise NotFound("The Socket.IO client is not installed here; the pages take it from the CDN.")
        return _cached(send_from_directory(_CLIENT, _CLIENT_FILE))


def _status(tenants: Tenants, has_file_faults: bool, lifecycle: Lifecycle) -> str:
    """Say how the server is, the worst first."""
    if lifecycle.is_ending:
        return "ending"
    if not room.look(tenants.folder):
        return "storage_full"
    return "degraded" if has_file_faults or not tenants.directory.is_in_place else "ok"


def _describe(routes: Blueprint, openapi: Describe, asyncapi: Describe) -> None:
    @routes.get("/docs")
    def docs() -> Response:
        """Show the API's description to people."""
        calls, events = openapi(), asyncapi()
        every = events["components"]["schemas"] | calls["components"]["schemas"]
        return _page(
            "docs.html",
            calls=calls,
            events=events,
            schemas=every,
            reference=reference.calls(),
            sentences=errors.sentences(),
            as_text=_as_text,
        )

    @routes.get("/openapi.json")
    def openapi_document() -> Reply:
        """Describe every call, for programs."""
        return answer(openapi())

    @routes.get("/asyncapi.json")
    def asyncapi_document() -> Reply:
        """Describe every event, for programs."""
        return answer(asyncapi())


def _as_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _page(name: str, **values: object) -> Response:
    response = Response(render_template(name, **values), mimetype="text/html")
    cdn = "" if _is_client_here() else f" {CDN}"
    response.headers["Content-Security-Policy"] = _SELF_POLICY.format(cdn=cdn)
    return response


def _cached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-cache"  # Kept, but asked about each time: an update shows at once.
    return response


def _is_client_here() -> bool:
    return (_CLIENT / _CLIENT_FILE).is_file()


def _client_script() -> dict[str, str]:
    """Say where pages get the Socket.IO client: from us if npm installed it, else pinned from the CDN."""
    if _is_client_here():
        return {"src": "/static/socket.io.min.js", "integrity": ""}
    path = f"/npm/socket.io-client@{CLIENT_VERSION}/dist/{_CLIENT_FILE}"
    return {"src": CDN + path, "integrity": CLIENT_INTEGRITY}
