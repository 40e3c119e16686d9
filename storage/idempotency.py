"""What makes retries harmless: receipts of operations and kept answers of requests.

Knows: the statements on both, bound to one tenant by the caller, who stores them in the transaction of the change that
they speak of. Must not know: Flask, sockets, engines, rules.
Source: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from models import connection
from protocol.codec import encode, encode_sorted, is_exact, whole_number
from protocol.errors import IdempotencyMismatch
from protocol.messages import Change
from storage.dialect import dialect

T = TypeVar("T")
ANSWERS_KEPT_MS = 24 * 3_600_000


class Taken(NamedTuple):
    """An operation that was taken: a digest of it, its result then, and, if there was one, the sequence of the change that
    it made and the number of its conflict."""

    mark: str
    result: dict[str, Any]
    sequence: int | None
    conflict: int | None


def mark_of(change: Change) -> str:
    """Give a digest of what an operation asks for, in whatever order its fields are."""
    return _digest(encode_sorted(_content(change)))


def is_retry(change: Change, before: Taken) -> bool:
    """Tell the retry of an operation from another one under its name; older versions kept the order of its fields."""
    return before.mark in (mark_of(change), _digest(encode(_content(change))))


def implied_name(change: Change, device_id: str | None) -> str | None:
    """Name a change that has no name of any kind, if its device can mean no other by the same content.

    They are its own number of the row, its name, all its fields, and the edit's time to the millisecond.
    """
    if change.local_id is None or change.kind == "delete" or change.problems:
        return None
    if not is_exact(change.fields.get("last_updated")):
        return None
    return "#" + _digest(encode_sorted([device_id, whole_number(change.local_id) or change.local_id, _content(change)]))


def _content(change: Change) -> list[Any]:
    assert change.table is not None
    return [change.table.name, change.kind, change.row_id, change.fields, change.base_version]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def taken(op_ids: Iterable[str]) -> dict[str, Taken]:
    """Find which of these operations were taken before."""
    words = dialect()
    sql = f"SELECT op_id, mark, result, sequence, conflict_id FROM _receipts WHERE {words.is_among('op_id')}"
    found = connection().execute(sql, (words.listed(op_ids),))
    return {op_id: Taken(mark, json.loads(result), *made) for op_id, mark, result, *made in found}


def keep_receipts(receipts: Mapping[str, Taken], now: int) -> None:
    """Store what became of operations, by their names."""
    rows = [
        (op_id, one.mark, encode(one.result).decode(), one.sequence, one.conflict, now)
        for op_id, one in receipts.items()
    ]
    connection().executemany(_INSERT_RECEIPT, rows)


_INSERT_RECEIPT = (
    "INSERT INTO _receipts (op_id, mark, result, sequence, conflict_id, taken_at) VALUES (?, ?, ?, ?, ?, ?)"
)


def mark_of_request(path: str, body: bytes) -> str:
    """Give a digest of a request."""
    return hashlib.blake2b(path.encode() + b"\n" + body, digest_size=16).hexdigest()


class AlreadyAnswered(Exception):
    """A request was answered under its key by another that ran at the same time; ``answer`` is what it was given."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.answer = answer


def write_once(key: str, mark: str, now: int, write: Callable[[], T], answer_of: Callable[[T], bytes]) -> T:
    """Write what a request asks for and keep the answer to it under its key, in the transaction of the caller.

    In there, since other requests under the key are looked for while the tenant is this write's alone: the second of two
    that come at once, be it in another process, sees what the first was answered.

    Raises: AlreadyAnswered, IdempotencyMismatch, what ``write`` raises.
    """
    kept = kept_answer(key, mark, now)
    if kept is not None:
        raise AlreadyAnswered(kept)
    written = write()
    keep_answer(key, mark, answer_of(written), now)
    return written


def kept_answer(key: str, mark: str, now: int) -> bytes | None:
    """Find the answer that a request with this key was given in the last 24 hours.

    Raises: IdempotencyMismatch if that was another request.
    """
    sql = "SELECT mark, answer FROM _answers WHERE key = ? AND answered_at > ?"
    for kept_mark, kept in connection().execute(sql, (key, now - ANSWERS_KEPT_MS)):
        if kept_mark != mark:
            raise IdempotencyMismatch
        return zlib.decompress(kept)
    return None


def keep_answer(key: str, mark: str, answer: bytes, now: int) -> None:
    """Store an answer under its request's key, and forget those that are too old."""
    connection().execute("DELETE FROM _answers WHERE answered_at <= ?", (now - ANSWERS_KEPT_MS,))
    sql = "INSERT INTO _answers (key, mark, answer, answered_at) VALUES (?, ?, ?, ?)"
    connection().execute(sql, (key, mark, zlib.compress(answer, 1), now))
