"""Shows rows of a tenant, and gives all of it as an archive, to the operator who asks; the record has that they did.

Knows: how many rows a page has. Must not know: SQL, engines, what a row says.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from accounts.operator_sign_in import Operator
from api.admin.console import Route
from api.admin.customers import customer_of
from api.admin.jobs import Jobs
from api.admin.json_fields import whole_of
from api.admin.server_parts import ServerParts
from models import synced_tables
from protocol.pull_parser import parse_table
from server.http.exchange import Reply, answer, read_object
from storage import operator_actions
from storage.newest_rows import newest_rows

PAGE_ROWS = 50
_BEYOND_ALL = 2**53


class RowView:
    """The calls that show what is in a tenant."""

    def __init__(self, server: ServerParts, jobs: Jobs) -> None:
        self._server, self._jobs = server, jobs

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "POST", "/api/tenants/<tenant_id>/rows", self.rows
        yield "POST", "/api/tenants/<tenant_id>/export", self.export

    def rows(self, operator: Operator, tenant_id: str) -> Reply:
        """Give rows of a table, those that changed last first."""
        customer, body = customer_of(self._server, tenant_id), read_object()
        table = parse_table(body.get("table"), synced_tables())
        before, now = whole_of(body, "before", _BEYOND_ALL), int(time.time())
        self._server.tenants.directory.write(
            lambda: operator_actions.record("show-rows", customer.id, now, table, operator.name)
        )
        found = self._server.tenants.read(customer.id, lambda: newest_rows(table, before, PAGE_ROWS + 1))
        return answer({"rows": found[:PAGE_ROWS], "hasMore": len(found) > PAGE_ROWS})

    def export(self, operator: Operator, tenant_id: str) -> Reply:
        """Begin to write the archive of a tenant."""
        customer = customer_of(self._server, tenant_id)
        return self._jobs.begin(operator, "export", customer.id, "--to", "{result}")
