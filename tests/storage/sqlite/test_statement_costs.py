"""What a push costs in SQLite does not grow with what others have stored: its statements read their rows and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw
import pytest

from models import connection
from protocol.messages import PushResult
from tenants import Tenants
from tests.conftest import JSON
from tests.inside import push

TIME = "2026-05-04T10:20:30.123Z"


def rows(names: Sequence[str], **fields: object) -> JSON:
    return {
        "changes": {"end_user": [{"id": name, "Unique_id": f"u-{name}", "name": "Asha", **fields} for name in names]}
    }


def operations(names: Sequence[str], kind: str, **fields: object) -> JSON:
    about = {"table": "end_user", "operation": kind}
    return {"operations": [{**about, "data": {"id": name, **fields}} for name in names]}


OWN = ["a", "b", "c"]
PUSHES: dict[str, JSON] = {
    "new rows": rows(["x", "y", "z"]),
    "edits": rows(OWN, note="edited"),
    "upserts sent again after an edit, with their time": rows(OWN, last_updated=TIME),
    "upserts sent again after an edit, without": rows(OWN),
    "creates sent again": operations(OWN, "create", Unique_id="u-a", name="Asha", last_updated=TIME),
    "edits by other names": operations([f"other-{name}" for name in OWN], "update", Unique_id="u-a", note="edited"),
    "counted edits": rows(OWN, version=1, note="edited"),
    "deletes": operations(OWN, "delete"),
    "operations with a name": {
        "operations": [one | {"opId": "o"} for one in operations(["a"], "update")["operations"]]
    },
}


def steps_of(tenants: Tenants, tenant_id: str, body: JSON) -> int:
    """Push, and count the steps that SQLite's machine made for it."""
    counted: list[int] = []

    def counting(write: Callable[[], PushResult]) -> PushResult:
        sql = connection()
        sql.trace_v2(
            apsw.SQLITE_TRACE_PROFILE, lambda ran: counted.append(ran["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])
        )
        try:
            return write()
        finally:
            sql.trace_v2(0, None)

    push(tenants, tenant_id, body, around=counting)
    assert counted
    return sum(counted)


@pytest.mark.parametrize("kind", PUSHES)
def test_push_costs_the_same_beside_many_other_rows(tenants: Tenants, new_tenant: Callable[[], str], kind: str) -> None:
    steps = []
    for others in (20, 1_000):
        tenant_id = new_tenant()
        push(tenants, tenant_id, rows([f"before-{number}" for number in range(others)]))
        push(tenants, tenant_id, rows(OWN, last_updated=TIME))
        for note in ("once", "twice"):
            push(tenants, tenant_id, rows(OWN, note=note))
        push(tenants, tenant_id, rows([f"after-{number}" for number in range(others)]))
        steps.append(steps_of(tenants, tenant_id, PUSHES[kind]))
    few, many = steps
    assert many < few * 1.2
