"""The console of somebody who has signed in: which pages and calls it has, and which part answers each.

Knows: all routes under ``/admin`` but those of the sign-in. Must not know: cookies, what a part does. The calls are the
pages' own and may change with any version; docs/operations.md lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from flask import Response, send_from_directory
from werkzeug.routing import Map, Rule

from accounts.operator_sign_in import Operator
from api.admin.gate import Served, page

_CHARTS = Path(__file__).resolve().parents[2] / "node_modules" / "uplot" / "dist"
_CHART_FILES = ("uPlot.iife.min.js", "uPlot.min.css")

PAGES = (
    ("/", "Overview"),
    ("/tenants", "Tenants"),
    ("/backups", "Backups"),
    ("/log", "Log"),
    ("/settings", "Settings"),
    ("/checks", "Checks"),
    ("/record", "Record"),
)

View = Callable[..., Served]
Route = tuple[str, str, View]
"""A method, a path behind ``/admin`` with variables, and what answers: it gets who asks, and the variables."""


class Part(Protocol):
    """What answers some of the calls."""

    def routes(self) -> Iterable[Route]:
        """Give its routes."""


class Console:
    """All pages and calls."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.routes: list[Route] = [("GET", path, self.page) for path, _ in PAGES]
        self.routes += [("GET", "/tenants/<tenant_id>", self.page), ("GET", "/uplot/<name>", self.chart_file)]
        for part in parts:
            self.routes += part.routes()
        rules = [Rule(path, methods=[method], endpoint=number) for number, (method, path, _) in enumerate(self.routes)]
        paths = Map(rules, strict_slashes=False, merge_slashes=False)
        self._paths = paths.bind("")

    def __call__(self, operator: Operator, method: str, path: str) -> Served:
        """Answer a request."""
        number, arguments = self._paths.match(path, method)
        view: View = self.routes[number][2]
        return view(operator, **arguments)

    def page(self, operator: Operator, **_: str) -> Response:
        """Give the frame of a page; what is in it, its scripts ask for."""
        shown = [("/admin" + path.rstrip("/"), name) for path, name in PAGES]
        return page("admin.html", proof=operator.proof, pages=shown, has_charts=_has_charts())

    def chart_file(self, _: Operator, name: str) -> Response:
        """Give a file of uPlot, which npm installed; without it pages show tables in place of charts."""
        response = send_from_directory(_CHARTS, name if name in _CHART_FILES else "-")
        response.headers["Cache-Control"] = "private, no-cache"
        return response


def _has_charts() -> bool:
    return all((_CHARTS / name).is_file() for name in _CHART_FILES)
