"""What takes longer than a request: the operator's commands, run beside the server, and asked for how far they are.

Knows: the calls about a job. Must not know: what a command does.
"""

from __future__ import annotations

from collections.abc import Iterable

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

    def result(self, _: Operator, job_id: str) -> Response:
        """Give the file that a job made."""
        path = self._jobs.result_of(job_id)
        if path is None:
            raise NotFound(_UNKNOWN)
        return send_file(path, "application/zip", as_attachment=True, download_name=f"syncapp-export-{job_id[:8]}.zip")
