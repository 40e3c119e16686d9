"""The settings in force, and the checks of ``doctor``.

Knows: what of a setting is shown. Must not know: secrets, what a check looks at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from accounts.operator_sign_in import Operator
from api.admin.console import Route
from api.admin.jobs import Jobs
from api.admin.server_parts import ServerParts
from server.http.exchange import Reply, answer
from settings import Settings, effective, load, source_of


class Inspection:
    """The calls about settings and checks."""

    def __init__(self, server: ServerParts, jobs: Jobs) -> None:
        self._settings, self._jobs = server.settings, jobs

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "GET", "/api/settings", self.settings
        yield "POST", "/api/checks", self.check

    def settings(self, _: Operator) -> Reply:
        """List the settings as they apply, with where each is from; of secrets only their size is shown."""
        about = {field.name.upper(): field.metadata["doc"] for field in fields(Settings)}
        given = dict(effective(load()))
        shown = [
            {"name": name, "value": value, "source": _source(name, value, given[name]), "about": about[name]}
            for name, value in effective(self._settings)
        ]
        return answer({"settings": shown})

    def check(self, operator: Operator) -> Reply:
        """Begin the checks that ``doctor`` makes beside a server."""
        return self._jobs.begin(operator, "doctor")


def _source(name: str, value: str, given: str) -> str:
    return source_of(name) if value == given else f"{source_of(name)}, lowered to what the limit of open files allows"
