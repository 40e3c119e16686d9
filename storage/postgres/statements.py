"""Statements as PostgreSQL takes them: what the modules of ``storage`` wrote for every engine, rewritten once each.

Knows: ``?`` and ``ON CONFLICT``, the column that tells whose a row is. Must not know: connections, what statements say.
"""

from __future__ import annotations

import itertools
import re
from functools import lru_cache
from typing import NamedTuple

TENANT = "_tenant_id"
"""The column of every table of tenants that tells whose a row is; no declared column begins so."""

_ON_CONFLICT = re.compile(r"\bON CONFLICT \((?=[^)])")
_WRITES = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|WITH\b.*\b(?:INSERT|UPDATE|DELETE)\b)", re.DOTALL)
_WRITTEN = re.compile(r'\s*(?:INSERT INTO|UPDATE|DELETE FROM) "?(\w+)"?')
_MOST_TEXTS = 5_000


class Rewritten(NamedTuple):
    """A statement in PostgreSQL's words, whether it may change rows or tables, and which table if it is one."""

    text: bytes
    writes: bool
    table: str | None


@lru_cache(_MOST_TEXTS)
def in_tenant(text: str) -> Rewritten:
    """Rewrite a statement on a tenant's tables: a key has the tenant before what it has elsewhere."""
    return _rewritten(_by_keys(_ON_CONFLICT.sub(f"ON CONFLICT ({TENANT}, ", text)))


_LOG_BY_KEY = re.compile(r"\bJOIN _changes AS (\w+) ON \1\.seq = (\w+\.\w+)")
_ROW_BY_KEY = re.compile(r'(EXISTS \(SELECT 1 FROM "\w+" AS e WHERE e\._seq = \w+\.seq)\)')


def _by_keys(text: str) -> str:
    """Have each row of a join looked up by its key: OFFSET 0 keeps the look-up as it is written.

    Planned as a join, one was for each row a reading of the tenant's whole log, since most tenants have few rows and the
    plan is that of the average: a pull took 4 s (ARCHITECTURE.md, trap 31).
    """
    lookup = r"CROSS JOIN LATERAL (SELECT l.* FROM _changes AS l WHERE l.seq = \2 OFFSET 0) AS \1"
    return _ROW_BY_KEY.sub(r"\1 OFFSET 0)", _LOG_BY_KEY.sub(lookup, text))


@lru_cache(_MOST_TEXTS)
def in_directory(text: str) -> Rewritten:
    """Rewrite a statement on the directory."""
    return _rewritten(text)


def _rewritten(text: str) -> Rewritten:
    number = itertools.count(1)
    numbered = re.sub(r"\?", lambda _: f"${next(number)}", text)
    written = _WRITTEN.match(text)
    return Rewritten(numbered.encode(), _WRITES.match(text) is not None, written[1] if written else None)
