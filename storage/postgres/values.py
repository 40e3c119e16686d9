"""Values on their way to PostgreSQL and back: parameters as text, results in binary form.

Knows: which types of Python and of PostgreSQL there are here. Must not know: statements, connections.

Results come in binary, since a text is then the bytes that were stored and a float the very float. Parameters go as text,
so that PostgreSQL finds each one's type by where it stands, as in SQLite.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

_SMALL, _INTEGER, _LARGE, _FLOAT, _SINGLE = (struct.Struct(form) for form in (">h", ">i", ">q", ">d", ">f"))


class UnknownType(TypeError):
    """A statement gives a type that nobody here reads. Cast it: numeric to bigint, a time to text."""


def encoded(values: Iterable[Any]) -> tuple[list[bytes | None], list[int]]:
    """Write parameters as libpq takes them, and which of them are in binary form.

    Raises: ValueError for a text with U+0000, at which libpq would cut it; TypeError for a type that is none of ours.
    """
    texts: list[bytes | None] = []
    formats: list[int] = []
    for value in values:
        if type(value) is bytes or isinstance(value, bytearray | memoryview):
            texts.append(bytes(value))
            formats.append(1)
        else:
            texts.append(_text(value))
            formats.append(0)
    return texts, formats


def _text(value: Any) -> bytes | None:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("PostgreSQL holds no text with U+0000")
        return value.encode()
    if value is None:
        return None
    if isinstance(value, bool):
        return b"1" if value else b"0"
    if isinstance(value, int | float):
        return repr(value).encode()
    raise TypeError(f"PostgreSQL is given a {type(value).__name__}")


def array(values: Iterable[str]) -> str:
    """Write a list of texts as the text of an array.

    Source: postgresql.org/docs, "Arrays", section "Array Input and Output Syntax".
    """
    return "{" + ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "}"


def _unpacked(form: struct.Struct) -> Callable[[bytes], Any]:
    unpack = form.unpack
    return lambda value: unpack(value)[0]


def _decode(value: bytes) -> str:
    return value.decode()


_READERS: dict[int, Callable[[bytes], Any]] = {
    16: lambda value: value == b"\1",
    17: bytes,
    18: _decode,
    19: _decode,
    20: _unpacked(_LARGE),
    21: _unpacked(_SMALL),
    23: _unpacked(_INTEGER),
    25: _decode,
    26: _unpacked(struct.Struct(">I")),
    700: _unpacked(_SINGLE),
    701: _unpacked(_FLOAT),
    705: _decode,
    1043: _decode,
    2278: lambda _: None,
    2950: lambda value: _uuid(value.hex()),
}
"""By the number of a type in ``pg_type``, what reads it: bool, bytea, "char", name, int8, int2, int4, text, oid, float4,
float8, unknown, varchar, void, uuid."""


def _uuid(digits: str) -> str:
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def reader_of(type_number: int) -> Callable[[bytes], Any]:
    """Give what reads the values of a type.

    Raises: UnknownType.
    """
    try:
        return _READERS[type_number]
    except KeyError:
        raise UnknownType(f"type {type_number} of pg_type is not read here") from None
