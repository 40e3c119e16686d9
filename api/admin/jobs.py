"""What takes longer than a request: the operator's commands, run beside the server, and asked for how far they are.

Knows: the calls about a job. Must not know: what a command does.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Response, send_file

from accounts.operator_sign_in import Operator
from api.admin.console import Route
from operations.command_jobs import CommandJobs
from protocol.errors import NotFound
from server.http.exchange import Reply, answer

_UNKNOWN = "There is no such job at this process any more: begin it anew."


class Jobs:
    """The calls about jobs."""

    def __init__(self, jobs: CommandJobs) -> None:
        self._jobs = jobs

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "GET", "/api/jobs/<job_id>", self.state
        yield "GET", "/api/jobs/<job_id>/output", self.output
        yield "GET", "/api/jobs/<job_id>/result", self.result

    def begin(self, operator: Operator, *arguments: str) -> Reply:
        """Run a command for somebody, and answer with the job's ID."""
        return answer({"job": self._jobs.start(operator.name, *arguments)}, 202)

    def state(self, _: Operator, job_id: str) -> Reply:
        """Tell how a job is."""
        found = self._jobs.state(job_id)
        if found is None:
            raise NotFound(_UNKNOWN)
        return answer({"exitCode": found.exit_code, "output": found.output, "errors": found.errors})

    def output(self, _: Operator, job_id: str) -> Response:
        """Give all that a job printed, of a command that prints JSON; ``state`` has only the end of it."""
        return _sent(self._jobs.output_of(job_id), "application/json")

    def result(self, _: Operator, job_id: str) -> Response:
        """Give the file that a job made."""
        name = f"syncapp-export-{job_id[:8]}.zip"
        return _sent(self._jobs.result_of(job_id), "application/zip", as_attachment=True, download_name=name)


def _sent(path: Path | None, kind: str, **options: Any) -> Response:
    """Send a file, which no browser may keep: it may have a customer's data.

    Raises: NotFound if there is none.
    """
    if path is None:
        raise NotFound(_UNKNOWN)
    response = send_file(path, kind, **options)
    response.headers["Cache-Control"] = "no-store"
    return response
