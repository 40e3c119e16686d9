"""How a transaction begins: whose rows it sees, and how its statements are planned.

Knows: settings of PostgreSQL, which of them hold for a transaction. Must not know: pools, queues, who asks.

All is said anew in each transaction, in the batch that begins it, and nothing by session: between a pooler and PostgreSQL
(PgBouncer in transaction mode) the next transaction may run in another's session.
"""

from __future__ import annotations

from collections.abc import Callable

from storage import moving
from storage.positions import POSITION
from storage.postgres import statements
from storage.postgres.connection import Connection
from storage.postgres.known_answers import ALL_DIGESTS, KnownAnswers
from storage.postgres.known_rows import KnownRows
from storage.postgres.rows import Rows
from storage.postgres.statements import Rewritten

TENANTS, DIRECTORY = "public", "syncapp"
"""The schemas of the tenants' tables and of the directory's: a declared table may have the name of one of ours."""

LOCK = 0x73796E63
"""Of advisory locks, the directory's; the next number is that of changes of the schema."""

SCHEMA_LOCK = LOCK + 1

_LOCAL = {
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "15s",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
"""A statement is planned once, by its keys and never by what the statistics say: a table that was empty then is read to
its end for ever (ARCHITECTURE.md, trap 31). What is planned in spite of ``enable_…`` has a cost by which PostgreSQL would
compile it, anew each time. Of a process that stands still or was cut off the server frees the locks."""


def _turning_to(schema: str, tenant: str) -> bytes:
    """Write the statement that has the following ones see a schema and a tenant. One column is read faster than nine."""
    settings = [
        ("search_path", f"'{schema}'"),
        ("app.tenant", tenant),
        *((name, f"'{_LOCAL[name]}'") for name in _LOCAL),
    ]
    calls = ", ".join(f"set_config('{name}', {value}, true)" for name, value in settings)
    return f"SELECT concat({calls})".encode()


_TENANT, _DIRECTORY = _turning_to(TENANTS, "$1"), _turning_to(DIRECTORY, "''")
_POSITION = POSITION.encode()
_NUMBER = "pg_current_xact_id()::text"
_LOCKED_POSITION = POSITION.replace(" FROM", f", moved_to, {_NUMBER} FROM").encode() + b" FOR UPDATE"
_DIRECTORY_NUMBER = f"SELECT ({moving.DIRECTORY}), {_NUMBER}".encode()
_READ, _WRITE = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"


def begin_read(connection: Connection, tenant_id: str | None) -> Rows:
    """Begin to read one committed state of a tenant, or of the directory; what is given has a row if that is there."""
    connection.start(_words(tenant_id))
    connection.send(_READ)
    turn_to(connection, tenant_id)
    if tenant_id is None:
        return connection.send(b"SELECT 1")
    found = connection.send(_POSITION)
    connection.known = KnownAnswers(found)
    return found


def begin_write(connection: Connection, tenant_id: str | None) -> tuple[Rows, Rows]:
    """Begin to write, alone; gives the same, and a row that ends with where this moved and the number of the transaction.

    In READ COMMITTED each statement sees what was committed before it: so the first one after the lock does.
    """
    connection.start(_words(tenant_id))
    connection.send(_WRITE)
    turn_to(connection, tenant_id)
    if tenant_id is None:
        found = connection.send(b"SELECT pg_advisory_xact_lock($1)", (LOCK,))
        number = connection.send(_DIRECTORY_NUMBER)
    else:
        found = number = connection.send(_LOCKED_POSITION)
        connection.known = KnownAnswers(found, connection.send(ALL_DIGESTS), KnownRows(connection.ask))
    connection.section += 1  # What fails of this is no error of the first work alone.
    return found, number


def turn_to(connection: Connection, tenant_id: str | None) -> None:
    """Have the statements from here on see a tenant, or the directory."""
    connection.send_due()
    connection.rewrite, connection.known = _words(tenant_id), None
    if tenant_id is None:
        connection.send(_DIRECTORY)
    else:
        connection.send(_TENANT, (tenant_id,))


def turn_to_locked_directory(connection: Connection) -> None:
    """Turn to the directory for a write, as nobody else does meanwhile."""
    turn_to(connection, None)
    connection.send(b"SELECT pg_advisory_xact_lock($1)", (LOCK,))


def undo_part(connection: Connection, tenant_id: str | None) -> None:
    """Undo a part of the transaction, and with it what that turned to."""
    connection.undo_part()
    connection.rewrite = _words(tenant_id)


def _words(tenant_id: str | None) -> Callable[[str], Rewritten]:
    return statements.in_directory if tenant_id is None else statements.in_tenant


def start_alone(connection: Connection, lock: int) -> None:
    """Begin a transaction in the directory that waits for no other of the same ``lock``, in all processes."""
    connection.start(statements.in_directory)
    connection.answer_seconds = None
    connection.send(_WRITE)
    connection.send(b"SELECT pg_advisory_xact_lock($1)", (lock,))
    turn_to(connection, None)


def end_alone(connection: Connection) -> None:
    """Commit it."""
    answer = connection.send(b"COMMIT")
    connection.settle()
    connection.is_clean = answer.tag == "COMMIT"
