"""The words that client and server share: rows, times, ids, digests.

Knows: how they are written. Must not know: how they are stored or sent.
Source: the server's docs/api.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

Row = dict[str, Any]
JSON = dict[str, Any]

SERVER_FIELDS = frozenset({"id", "sync_status", "version", "server_synced", "createdAt", "updatedAt"})
"""Fields that the server sets; what an app writes to them is no edit."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)


def checked_id(row_id: object) -> str:
    """Give a row's id.

    Raises: ValueError if the server would not take it as one.
    """
    if isinstance(row_id, str) and _ID.fullmatch(row_id):
        return row_id
    raise ValueError(f"an id is a text of 1 to 64 characters from A-Z a-z 0-9 _ . : -, not {row_id!r}")


def encode(value: Any) -> str:
    """Write JSON.

    Raises: ValueError for what is no JSON (NaN, half of a surrogate pair), TypeError for what has no JSON at all.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()  # Half of a surrogate pair would make the whole push unreadable.
    return text


def format_time(milliseconds: int) -> str:
    """Write a time as ``2025-06-29T23:45:26.002Z``."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC).isoformat().removesuffix("+00:00")
    return f"{moment}.{milliseconds % 1000:03d}Z"


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
