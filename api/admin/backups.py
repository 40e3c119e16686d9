"""The backups that look after themselves, in the console: runs, what is kept, verification, a tenant out of one.

Knows: which commands do it. Must not know: how a backup is made, where it is. What is kept may be far away, so that each of
these is a process of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from accounts.operator_sign_in import Operator
from api.admin.console import Route
from api.admin.customers import customer_of
from api.admin.jobs import Jobs
from api.admin.json_fields import text_of, whole_of
from api.admin.server_parts import ServerParts
from operations.backups import status
from protocol.codec import format_time
from protocol.errors import ValidationError, invalid
from server.http.exchange import Reply, answer, read_object
from settings import effective
from storage import backup_runs, operator_actions
from storage.backup_runs import BackupRun
from storage.main_database import Customer

_SHOWN_RUNS, _PAGE_ROWS = 50, 50
_NAME = re.compile(r"\w[\w.:+-]{0,99}", re.ASCII)


class Backups:
    """The calls about backups."""

    def __init__(self, server: ServerParts, jobs: Jobs) -> None:
        self._server, self._jobs, self._directory = server, jobs, server.tenants.directory
        self._since = int(time.time())

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "GET", "/api/backups", self.runs
        yield "POST", "/api/backups/run", self.run
        yield "POST", "/api/backups/list", self.listed
        yield "POST", "/api/backups/verify", self.verify
        yield "POST", "/api/backups/restore", self.restore
        yield "POST", "/api/backups/compare", self.compare
        yield "POST", "/api/backups/rows", self.rows
        yield "POST", "/api/backups/rewind", self.rewind

    def runs(self, _: Operator) -> Reply:
        """Tell how it stands, and list the runs, the newest first."""
        settings, now = self._server.settings, int(time.time())
        shown = dict(effective(settings))
        found = self._directory.read(lambda: backup_runs.runs(_SHOWN_RUNS))
        asked = settings.backup_to, settings.backup_every, self._since, now
        standing = self._directory.read(lambda: status.read(*asked))
        return answer(
            {
                "to": shown["BACKUP_TO"],
                "everySeconds": settings.backup_every,
                "keep": shown["BACKUP_KEEP"],
                "isEncrypted": bool(settings.backup_key),
                "status": standing.shown() if settings.backup_every else None,
                "runs": [_described(one) for one in found],
            }
        )

    def run(self, operator: Operator) -> Reply:
        """Begin a backup now."""
        self._must_have_a_place()
        self._record(operator, "backup-run")
        return self._jobs.begin(operator, "backup", "run", "--quiet")

    def listed(self, operator: Operator) -> Reply:
        """Begin to list the backups that are kept."""
        self._must_have_a_place()
        return self._jobs.begin(operator, "backup", "list", "--json")

    def verify(self, operator: Operator) -> Reply:
        """Begin to verify a backup, by a restore of all of it into a scratch folder."""
        self._must_have_a_place()
        name = _name_in(read_object())
        self._record(operator, "backup-verify", f"of {name}")
        return self._jobs.begin(operator, "backup", "verify", "--from", name)

    def restore(self, operator: Operator) -> Reply:
        """Begin to put one tenant back from a backup; what it has now is replaced."""
        _, name, customer = self._asked_of_tenant()
        self._record(operator, "restore", f"from {name}", customer.id)
        return self._jobs.begin(operator, "restore", "--from", name, "--tenant", customer.id, "--yes")

    def compare(self, operator: Operator) -> Reply:
        """Begin to count in which rows a tenant differs from what a backup has of it; none of them is shown."""
        _, name, customer = self._asked_of_tenant()
        return self._jobs.begin(operator, "rewind", "--from", name, "--json", "--counts", "--", customer.id)

    def rows(self, operator: Operator) -> Reply:
        """Begin to list rows of what was counted, with what they are and were, unless the tenant was changed since; the
        command records that."""
        body, name, customer = self._asked_of_tenant()
        page = ("--skip", str(whole_of(body, "first", 0)), "--limit", str(_PAGE_ROWS))
        return self._jobs.begin(
            operator, "rewind", "--from", name, "--seen", _seen_in(body), "--json", *page, "--", customer.id
        )

    def rewind(self, operator: Operator) -> Reply:
        """Begin to take back what was counted, as a new change, unless the tenant was changed since."""
        body, name, customer = self._asked_of_tenant()
        seen = _seen_in(body)
        self._record(operator, "rewind", f"from {name}", customer.id)
        words = ("rewind", "--from", name, "--seen", seen, "--json", "--counts", "--yes", "--", customer.id)
        return self._jobs.begin(operator, *words)

    def _asked_of_tenant(self) -> tuple[dict[str, Any], str, Customer]:
        """Give what was sent, and the backup and the tenant that it names."""
        self._must_have_a_place()
        body = read_object()
        return body, _name_in(body), customer_of(self._server, text_of(body, "tenant"))

    def _record(self, operator: Operator, action: str, about: str | None = None, tenant_id: str = "") -> None:
        now = int(time.time())
        self._directory.write(lambda: operator_actions.record(action, tenant_id, now, about, operator.name))

    def _must_have_a_place(self) -> None:
        if not self._server.settings.backup_to:
            raise ValidationError("BACKUP_TO is not set, so that there are no such backups (docs/backups.md).")


def _name_in(body: dict[str, Any]) -> str:
    """Give the name of a backup; one that could be an option is none."""
    name = text_of(body, "name")
    if not _NAME.fullmatch(name):
        raise invalid("name", "must be the name of a backup")
    return name


def _seen_in(body: dict[str, Any]) -> str:
    """Give the cursor that a comparison gave."""
    seen = text_of(body, "seen")
    if not _NAME.fullmatch(seen):
        raise invalid("seen", "must be what the comparison gave as from.cursor")
    return seen


def _described(run: BackupRun) -> dict[str, Any]:
    return {
        "startedAt": format_time(run.started_at * 1000),
        "seconds": None if run.ended_at is None else run.ended_at - run.started_at,
        "state": run.state,
        "name": run.name,
        "tenants": run.tenants,
        "changed": run.changed,
        "storedBytes": run.stored_bytes,
        "error": run.error,
    }
