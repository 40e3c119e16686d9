"""The formats that client and server share: rows, times, ids, digests.

Knows: how they are written. Must not know: how they are stored or sent.
Source: the server's docs/api.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

Row = dict[str, Any]
JSON = dict[str, Any]

SERVER_FIELDS = frozenset({"id", "sync_status", "version", "server_synced", "createdAt", "updatedAt"})
"""Fields that the server sets; what an app writes to them is no edit."""


def encode(value: Any) -> str:
    """Write JSON of what was checked."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def format_time(milliseconds: int) -> str:
    """Write a time as ``2025-06-29T23:45:26.002Z``."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC).isoformat().removesuffix("+00:00")
    return f"{moment}.{milliseconds % 1000:03d}Z"


def parse_time(text: object) -> int | None:
    """Read a time as milliseconds, UTC if it names no zone; None if it is none."""
    try:
        moment = datetime.fromisoformat(str(text))
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def digest_of(rows: Iterable[tuple[str, int]]) -> JSON:
    """Give count and hash of rows, as id and version, as the server's digest has them."""
    count, whole = 0, 0
    for row_id, version in rows:
        count += 1
        whole ^= int.from_bytes(hashlib.sha256(f"{row_id}:{version}".encode()).digest()[:8], "big")
    return {"count": count, "hash": f"{whole:016x}"}


def content_of(row: Mapping[str, Any]) -> Row:
    """Give what a row says, without what the server sets, what describes the edit, and fields that are empty."""
    return {name: value for name, value in row.items() if value is not None and name not in _NOT_CONTENT}


_NOT_CONTENT = SERVER_FIELDS | {"last_updated", "device_id"}
