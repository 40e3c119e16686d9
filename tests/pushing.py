"""A tenant in this process, with the calls that tests of pushes read best with."""

from __future__ import annotations

import json
from typing import Any

from models import connection
from protocol.messages import PushResult
from protocol.seen_rows import Evidence
from tenants import Tenants
from tests import inside
from tests.conftest import JSON

NOW = 1_800_000_000_000


class Tenant:
    """One tenant in this process, with the calls these tests read best with."""

    def __init__(self, tenants: Tenants, tenant_id: str) -> None:
        self.tenants, self.id, self.now = tenants, tenant_id, NOW
        self.told: list[PushResult] = []

    def push(self, body: JSON, **options: Any) -> PushResult:
        self.now += 1000
        return inside.push(self.tenants, self.id, body, self.now, after=self.told.append, **options)

    def do(self, operation: str, table: str = "end_user", /, about: JSON | None = None, **data: Any) -> JSON:
        """Push one change, and give its result with the row under ``row``."""
        return self.results({"operations": [op(operation, table, about, **data)]})[0]

    def results(self, body: JSON, **options: Any) -> list[JSON]:
        applied = self.push(body, **options)
        assert len(applied.rows) == len(applied.results)
        return [
            result | {"row": row and json.loads(row)} for result, row in zip(applied.results, applied.rows, strict=True)
        ]

    def statuses(self, body: JSON, **options: Any) -> list[str]:
        return [result["status"] for result in self.results(body, **options)]

    def row(self, row_id: str) -> JSON:
        (found,) = [row for row in self.all() if row["id"] == row_id]
        return found

    def all(self, table: str = "end_user") -> list[JSON]:
        """Every row as it stands, tombstones too."""
        sql = f'SELECT c.row FROM "{table}" JOIN _changes AS c ON c.seq = _seq ORDER BY _seq'
        return self.tenants.read(self.id, lambda: [json.loads(row[0]) for row in connection().execute(sql)])

    def seen_all(self) -> Evidence:
        return inside.seen_all(self.tenants, self.id)

    @property
    def sequence(self) -> int:
        return self.tenants.read(
            self.id, lambda: int(connection().execute("SELECT sequence FROM _meta").fetchall()[0][0])
        )


def op(operation: str, table: str = "end_user", /, about: JSON | None = None, **data: Any) -> JSON:
    return {"table": table, "operation": operation, "data": data} | (about or {})


LATER, EARLIER, FUTURE = "2026-06-02T00:00:00Z", "2026-05-01T00:00:00Z", "2099-01-01T00:00:00Z"
