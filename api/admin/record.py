"""The record of what operators did, in the console.

Knows: how much of it a page has. Must not know: SQL, engines.
"""

from __future__ import annotations

from collections.abc import Iterable

from flask import request

from accounts.operator_sign_in import Operator
from api.admin.console import Route
from operations.tenant_list import described_action
from server.http.exchange import Reply, answer
from storage import operator_actions
from tenants import Tenants, parse_tenant_id

_MOST_ENTRIES = 200


class Record:
    """The calls about the record."""

    def __init__(self, tenants: Tenants) -> None:
        self._directory = tenants.directory

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "GET", "/api/record", self.entries

    def entries(self, _: Operator) -> Reply:
        """List the newest entries, of one tenant or all."""
        text = request.args.get("tenant", "")
        tenant_id = parse_tenant_id(text) if text else None
        found = self._directory.read(lambda: operator_actions.actions(tenant_id, _MOST_ENTRIES))
        return answer({"entries": [described_action(one) for one in found], "most": _MOST_ENTRIES})
