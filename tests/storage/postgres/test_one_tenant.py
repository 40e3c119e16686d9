"""Every statement is about one tenant, or about the directory: read in PostgreSQL's own log, while the product is used.

So that a database that is distributed by tenant can send each to where that tenant is (docs/postgresql.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests import postgres
from tests.conftest import JSON, Server, Tenant

_LINE = re.compile(r"^(\d+) (?:LOG:  execute [^:]*: (?P<text>.*)|DETAIL:  parameters: (?P<values>.*))$")
_TURN = re.compile(
    r"SELECT (?:concat\()?set_config\('search_path', '(\w+)', true\), set_config\('app\.tenant', (\$1|'')"
)
_NAMES_NOTHING = re.compile(
    r"BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SELECT pg_advisory_xact_lock\(\$1\)|SELECT pg_current_xact_id|SELECT 1$"
)
_OF_CONNECTION = re.compile(
    r"SELECT current_setting\('server_version|SELECT system_identifier|SELECT set_config\('tcp_|LISTEN|SELECT pg_notify"
)
_LAYS_OUT = re.compile("CREATE|ALTER|DROP")
"""The tables of all tenants are made or changed at once, and then the rows of each (``installation``)."""
_IN_DIRECTORY = re.compile(r"(INSERT INTO|DELETE FROM|SELECT .* FROM) syncapp\.\w+")
"""Statements that are a transaction each (``shared``)."""
_IN_BOTH = re.compile(
    r"SELECT fingerprint FROM syncapp\.prepared|INSERT INTO syncapp\.tenants \(id, epoch\) SELECT \$1"
)
"""On the directory amid a tenant's work: for which tables all were prepared, and that the tenant begins anew."""


@dataclass
class Transaction:
    """What one transaction sent: each statement with whose rows it sees ("" for the directory, None for nobody's)."""

    statements: list[tuple[str | None, str]] = field(default_factory=list)

    @property
    def tenants(self) -> set[str]:
        return {tenant for tenant, _ in self.statements if tenant}

    @property
    def is_over(self) -> bool:
        return bool(self.statements) and self.statements[-1][1] in ("COMMIT", "ROLLBACK")

    @property
    def is_of_all(self) -> bool:
        return any(_LAYS_OUT.match(text) for _, text in self.statements)


class StatementLog:
    """PostgreSQL's log of the statements on one database."""

    def __init__(self, server: postgres.Server, database: str) -> None:
        self._path = server.folder / "log"
        self._start = self._path.stat().st_size
        for name, value in {
            "log_statement": "all",
            "log_min_messages": "log",
            "log_parameter_max_length": "64",
        }.items():
            server.ask(f"ALTER DATABASE {database} SET {name} = '{value}'")

    def transactions(self) -> Iterator[Transaction]:
        """Give what was sent since, transaction by transaction of each session."""
        sessions: dict[str, tuple[str | None, Transaction]] = {}
        for process, text, tenant in self._statements():
            seen, current = sessions.get(process, (None, Transaction()))
            if text.startswith("BEGIN") or current.is_over:
                yield current
                seen, current = None, Transaction()
            if turn := _TURN.match(text):
                seen = tenant if turn[1] == "public" else ""
            current.statements.append((seen, text))
            sessions[process] = (seen, current)
        yield from (current for _, current in sessions.values())

    def _statements(self) -> Iterator[tuple[str, str, str]]:
        """Give each statement with its session and its first parameter; a line that goes on is part of the one before."""
        lines = re.sub(r"\n\t", " ", self._path.read_bytes()[self._start :].decode()).splitlines()
        found = [match for line in lines if (match := _LINE.match(line))]
        for match, following in zip(found, [*found[1:], None], strict=True):
            if match["text"] is not None:
                values = following["values"] if following and following[1] == match[1] and following["values"] else ""
                first = re.match(r"\$1 = '([^']*)'", values)
                yield match[1], match["text"], first[1] if first else ""


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Iterator[tuple[Server, StatementLog]]:
    if not postgres.is_there():
        pytest.skip(postgres.MISSING)
    name = postgres.server().new_database()
    log = StatementLog(postgres.server(), name)
    yield start_server(DATABASE_URL=postgres.server().address(name)), log
    postgres.server().drop(name)


def use(tenant: Tenant) -> None:
    """Do what devices do: push in each form, conflict, repeat, pull, look back, listen."""
    one, two = tenant.device(X_Device_Id="one"), tenant.device(X_Device_Id="two", Idempotency_Key="k")
    listener = two.listen()
    one.push(
        {
            "changes": {
                "end_user": [{"id": f"r{n}", "Unique_id": f"u{n}"} for n in range(60)],
                "interactions": [{"id": "i"}],
            }
        }
    )
    one.update(id="r1", name="A")
    theirs = {
        "table": "end_user",
        "operation": "update",
        "data": {"id": "r1", "name": "B"},
        "baseVersion": 1,
        "opId": "o",
    }
    for _ in range(2):
        two.push({"operations": [theirs]})
    one.delete(id="r2")
    one.create(id="r2", name="again")
    two.catch_up(limit=20)
    two.rows(), two.pull({"cursor": two.cursor, "digest": True})
    one.raw("sync/pull-pending", {"table": "end_user"})
    for path in ("sync/history/end_user/r1", "sync/conflicts", "devices"):
        tenant.server.call("GET", f"/api/client/{path}", token=tenant.token)
    tenant.server.call("POST", "/api/client/sync/conflicts/1/resolve", {"resolution": "other"}, tenant.token)
    listener.close()


def test_each_statement_names_or_implies_one_tenant(server: tuple[Server, StatementLog]) -> None:
    """Fault: a transaction that turned to another tenant amid its work: two tenants in one transaction."""
    running, log = server
    tenants = [running.register() for _ in range(2)]
    for tenant in tenants:
        use(tenant)
    body: JSON = {"password": tenants[0].password}
    assert running.call("DELETE", "/api/customers/me", body, tenants[0].token).ok
    assert running.stop() == 0
    counts = {tenant.id: 0 for tenant in tenants}
    for transaction in log.transactions():
        if transaction.is_of_all:
            continue
        assert len(transaction.tenants) <= 1, transaction
        for seen, text in transaction.statements:
            if seen is None:
                assert (
                    _NAMES_NOTHING.match(text)
                    or _OF_CONNECTION.match(text)
                    or _TURN.match(text)
                    or _IN_DIRECTORY.match(text)
                ), text
            elif seen:
                assert _IN_BOTH.search(text) or "syncapp." not in text, text
                counts[seen] += 1
            else:
                assert "public." not in text, text
    assert counts.keys() == {tenant.id for tenant in tenants} and min(counts.values()) > 100, counts
