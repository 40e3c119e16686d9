"""Encodes and decodes what is on the wire: JSON, times, cursors.

Knows: how bytes become checked values and back. Must not know: pushes, tables, Flask, files, the clock.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from protocol.errors import InvalidJson, invalid

MAX_DEPTH = 64
"""Levels of nesting that a body may have, far below what breaks an encoder."""

_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_NUMBER = re.compile(r"-?[0-9]{1,17}(\.[0-9]{1,9})?", re.ASCII)
_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999  # Years 1 to 9999, which is all that can be written.
CURSOR = re.compile(r"([0-9a-f]{12})-([0-9]{1,18})(?:-([0-9]{1,18}))?", re.ASCII)

Row = dict[str, Any]
"""A row as clients see it: the table's columns, and fields that the table does not know."""

encode = msgspec.json.Encoder().encode

encode_sorted = msgspec.json.Encoder(order="sorted").encode
"""The same with the names of each object sorted, for comparisons."""

decode_stored = msgspec.json.Decoder(Row).decode
"""Parse JSON that this server wrote, without checks."""

decode_rows = msgspec.json.Decoder(list[Row]).decode
"""The same for a list of rows."""

decode_any = msgspec.json.Decoder().decode
"""The same for any value."""


def decode(body: bytes | str) -> Any:
    """Parse strict JSON (RFC 8259: no NaN, no Infinity, valid UTF-8), whole numbers of any size exactly.

    Raises: InvalidJson, which names line and column.
    """
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise InvalidJson(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJson(f"The body is not valid JSON: {_position_of(body, error)}.") from None
    if deeper_than(value, MAX_DEPTH):
        raise InvalidJson(f"The body is nested deeper than {MAX_DEPTH} levels.")
    return value


_Scalar = str | int | float | bool | msgspec.UnsetType | None


class _PushBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of a push in any of its forms; its rows stay bytes."""

    table: str | msgspec.UnsetType = msgspec.UNSET
    operation: str | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    timestamp: _Scalar = msgspec.UNSET
    baseVersion: _Scalar = msgspec.UNSET
    opId: _Scalar = msgspec.UNSET
    changes: dict[str, list[msgspec.Raw]] | msgspec.UnsetType = msgspec.UNSET
    operations: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    atomic: bool | msgspec.UnsetType = msgspec.UNSET
    baseCursor: str | msgspec.UnsetType | None = msgspec.UNSET
    tenantId: str | msgspec.UnsetType | None = msgspec.UNSET


_decode_push_body = msgspec.json.Decoder(_PushBody).decode


def decode_push(body: bytes) -> Any:
    """Parse the body of a push as ``decode`` does, but leave its rows as bytes, for ``decode_row`` or their own types.

    A thousand rows as objects take megabytes, which no processor cache holds, and making them blocks the event loop for
    milliseconds. A body that may have U+0000 in a text is decoded at once, since the general path refuses that.
    """
    if b"\\" in body and b"\\u0000" in body:  # Twice, since a single byte is found ten times as fast.
        return decode(body)
    try:
        fields = msgspec.structs.asdict(_decode_push_body(body))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return decode(body)
    return {name: value for name, value in fields.items() if value is not msgspec.UNSET}


def decode_row(row: object, level: int) -> object:
    """Parse a row or an operation that ``decode_push`` left as bytes, ``level`` levels within its body."""
    if type(row) is not msgspec.Raw:
        return row
    try:
        value = msgspec.json.decode(row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidJson from None  # The caller has the whole body and can tell the line.
    if deeper_than(value, MAX_DEPTH - level):
        raise InvalidJson(f"The body is nested deeper than {MAX_DEPTH} levels.")
    return value


def deeper_than(value: Any, levels: int) -> bool:
    """Tell whether a value as ``decode`` gives it has more than ``levels`` levels of objects and lists."""
    level = [value] if type(value) in _CONTAINERS else []
    while level and levels:
        inner = [one.values() if type(one) is dict else one for one in level]
        level = [item for items in inner for item in items if type(item) in _CONTAINERS]
        levels -= 1
    return bool(level)


_CONTAINERS = {dict, list}


NO_NULL = "must have no U+0000, which not every database can store; remove it"


def has_null(value: Any) -> bool:
    """Tell whether a text or a name in a value has U+0000. PostgreSQL has no such text; for SQLite's functions, and for
    programs in C, the text ends there."""
    if type(value) is str:
        return "\0" in value
    if type(value) is dict:
        return any(map(has_null, value)) or any(map(has_null, value.values()))
    return type(value) is list and any(map(has_null, value))


def _position_of(body: bytes | str, error: Exception) -> str:
    """Say where the standard library's parser fails, since msgspec tells the byte at best.

    For values that only msgspec refuses, and without a position, say what is wrong instead.
    """
    try:
        text = body if isinstance(body, str) else body.decode()
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as failure:
        return f"line {failure.lineno}, column {failure.colno}"
    except UnicodeDecodeError as failure:
        offset: int | None = failure.start
    except RecursionError:
        return f"it is nested deeper than {MAX_DEPTH} levels"
    except ValueError:
        offset = _byte_offset(error)
    else:
        offset = _byte_offset(error)
    if offset is None:
        return "a number is out of range" if "range" in str(error) else "half of a surrogate pair is no character"
    before = (body.encode() if isinstance(body, str) else body)[:offset].decode("utf-8", "replace")
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _byte_offset(error: Exception) -> int | None:
    """Give the position that msgspec's message names."""
    byte = re.search(r"byte (\d+)", str(error))
    return int(byte[1]) if byte else None


def _refuse_constant(word: str) -> None:
    raise ValueError(word)


_EXACT = 2**53
"""Up to here a whole number is the same as an integer and as a float (IEEE 754, binary64)."""


def whole_number(value: object) -> int | None:
    """Read a whole number, which some write as ``2.0``; None for anything else.

    Everything that takes a whole number uses this. A float beyond 2^53 may have been rounded, so it is refused.
    """
    if type(value) is float and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    return value if type(value) is int else None


def parse_time(text: object, path: str) -> int:
    """Read an ISO 8601 time as milliseconds since 1970; without a zone it is UTC.

    Raises: ValidationError that names ``path``.
    """
    milliseconds = _milliseconds(text)
    if milliseconds is None:
        raise invalid(path, "must be an ISO 8601 time such as 2025-06-29T23:45:26.002Z")
    return milliseconds


def has_zone(text: str) -> bool:
    """Tell whether a time names its zone."""
    return datetime.fromisoformat(text).tzinfo is not None


def is_exact(value: object) -> bool:
    """Tell whether a device's edit time has milliseconds, not perhaps only whole seconds."""
    time = edit_time(value)
    return time is not None and time % 1000 != 0


def edit_time(value: object) -> int | None:
    """Read when a device says that it edited a row; None if that can't be read.

    Devices write ISO 8601, or a number since 1970 whose size tells its unit: seconds below 10^11, which is the year 5138,
    milliseconds below 10^14, microseconds below 10^17. A time that can't be read must not fail the row.
    """
    if type(value) is not str or value[4:5] == "-" or not _NUMBER.fullmatch(value):  # Most begin with a year.
        return _milliseconds(value)
    size = abs(number := float(value))
    return _clamped(round(number * 1000 if size < 1e11 else number if size < 1e14 else number / 1000))


def _milliseconds(text: object) -> int | None:
    if type(text) is not str or len(text) > 40:
        return None
    try:
        moment = datetime.fromisoformat(text)
        milliseconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None
    return milliseconds if _FIRST <= milliseconds <= _LAST else _clamped(milliseconds)


def _clamped(milliseconds: int) -> int:
    """Move a time into the years that can be written."""
    return min(max(milliseconds, _FIRST), _LAST)


@lru_cache(maxsize=64)
def format_time(milliseconds: int) -> str:
    """Write a time as ``2025-06-29T23:45:26.002Z``."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_format_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=64)
def _format_second(since_1970: int) -> str:
    """Write a time to its second, which many rows share."""
    return (_EPOCH + timedelta(seconds=since_1970)).isoformat().removesuffix("+00:00")


class Cursor(NamedTuple):
    """A position in a tenant's commit order.

    ``epoch`` names the incarnation of the database. ``first_until`` is set during the pages of a first pull: tombstones
    up to it belong to rows that this device never had.
    """

    epoch: str
    sequence: int
    first_until: int = 0

    def __str__(self) -> str:
        tail = f"-{self.first_until}" if self.first_until > self.sequence else ""
        return f"{self.epoch}-{self.sequence}{tail}"


def parse_cursor(text: object, path: str = "cursor") -> Cursor:
    """Parse a cursor from an earlier answer.

    Raises: ValidationError if no server can have sent it.
    """
    match = CURSOR.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise invalid(path, "must be a cursor from an earlier answer, or null")
    return Cursor(match[1], int(match[2]), int(match[3] or 0))
