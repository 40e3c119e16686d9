"""What the processes of an installation share beside tenants and customers: leases, and how often something was tried.

Knows: the two tables, and PostgreSQL's clock, which is one for all processes. Must not know: what is leased, what is tried.

Each is one statement and a transaction of its own: no lock is held, so that a process that dies, or stands behind a pooler,
holds up nobody. A lease that is not renewed ends by time.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from storage.postgres.errors import ConnectionLost, StatementFailed, problem_of
from storage.postgres.pool import Pool
from storage.postgres.statements import in_directory
from storage.postgres.transactions import DIRECTORY

_FORGET_SECONDS = 600.0

TABLES = (
    'CREATE TABLE IF NOT EXISTS leases (name text COLLATE "C" PRIMARY KEY, holder text NOT NULL,'
    " ends timestamptz NOT NULL)",
    'CREATE TABLE IF NOT EXISTS attempts (key text COLLATE "C" PRIMARY KEY, times timestamptz[] NOT NULL,'
    " ends timestamptz NOT NULL)",
)
"""What makes the tables, in the schema of the directory."""

_IN = "make_interval(secs => $2::double precision)"
_LEASE = (
    f"INSERT INTO {DIRECTORY}.leases AS l (name, ends, holder) VALUES ($1, now() + {_IN}, $3) ON CONFLICT (name) DO UPDATE"
    " SET holder = excluded.holder, ends = excluded.ends WHERE l.holder = excluded.holder OR l.ends < now() RETURNING 1"
).encode()
_TIMES = f"FROM unnest(a.times) AS t WHERE t > now() - {_IN}"
_TRY = (
    f"INSERT INTO {DIRECTORY}.attempts AS a (key, times, ends) VALUES ($1, ARRAY[now()], now() + {_IN})"
    f" ON CONFLICT (key) DO UPDATE SET times = ARRAY(SELECT t {_TIMES}) || now(), ends = excluded.ends"
    f" WHERE (SELECT count(*) {_TIMES}) < $3::bigint RETURNING 1"
).encode()
_WINDOW = (
    f"SELECT extract(epoch FROM now() - min(t))::double precision, count(t) FROM {DIRECTORY}.attempts AS a"
    f" CROSS JOIN LATERAL (SELECT t {_TIMES}) AS w WHERE a.key = $1"
).encode()
_FORGET = f"DELETE FROM {DIRECTORY}.attempts WHERE ends < now()".encode()


def run(pool: Pool, text: bytes, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run a statement as a transaction of its own, and give its rows.

    Raises: ConnectionLost, StatementFailed, Busy.
    """
    connection = pool.take()
    try:
        connection.start(in_directory)
        answer = connection.send(text, values)
        connection.settle()
        connection.is_clean = True
        return answer.rows
    finally:
        pool.give_back(connection)


class Shared:
    """Leases and attempts of one process."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self._holder = pool, secrets.token_hex(8)
        self._forget_at = time.monotonic() + _FORGET_SECONDS

    def lease(self, name: str, seconds: float) -> bool:
        """See ``storage.engine.Engine.lease``."""
        return bool(self._run(_LEASE, (name, seconds, self._holder)))

    def acquire_entry(self, key: str, limit: int, expiry: int) -> bool:
        """See ``storage.engine.AttemptCounts``."""
        return bool(self._run(_TRY, (key, expiry, limit)))

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """See ``storage.engine.AttemptCounts``."""
        ((age_seconds, count),) = self._run(_WINDOW, (key, expiry))
        return time.time() - (age_seconds or 0.0), count

    def forget(self) -> None:
        """Forget now and then which windows have ended."""
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + _FORGET_SECONDS
            self._run(_FORGET)

    def _run(self, text: bytes, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return run(self._pool, text, values)
        except (ConnectionLost, StatementFailed) as error:
            raise problem_of(error) from error
