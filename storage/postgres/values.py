"""Values on their way to PostgreSQL and back: parameters as text, results in binary form.

Knows: which types of Python and of PostgreSQL there are here. Must not know: statements, connections.

Results come in binary, since a text is then the bytes that were stored and a float the very float. Parameters go as text,
so that PostgreSQL finds each one's type by where it stands, as in SQLite.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from protocol.codec import encode

_SMALL, _INTEGER, _LARGE, _FLOAT, _SINGLE = (struct.Struct(form) for form in (">h", ">i", ">q", ">d", ">f"))


class UnknownType(TypeError):
    """A statement gives a type that nobody here reads. Cast it: numeric to bigint, a time to text."""


class TextArray(str):
    """A list of ``texts`` as PostgreSQL takes it."""

    texts: Sequence[str]

    def __new__(cls, texts: Sequence[str]) -> TextArray:
        """Write the array.

        Source: postgresql.org/docs, "Arrays", section "Array Input and Output Syntax".
        """
        said = encode(texts).decode()[1:-1]
        if "\\" in said:  # Both have the same quotes, but JSON has more that it quotes.
            said = ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
        self = super().__new__(cls, "{" + said + "}")
        self.texts = texts
        return self


def array(values: Iterable[str]) -> TextArray:
    """Make a parameter of a list of texts."""
    return TextArray(tuple(values))


def encoded(values: Sequence[Any]) -> tuple[list[bytes | None], list[int] | None]:
    """Write parameters as libpq takes them, and which of them are in binary form, if any is.

    Raises: ValueError for a text with U+0000, at which libpq would cut it; TypeError for a type that is none of ours.
    """
    try:
        texts = [_WRITERS[type(value)](value) for value in values]
    except KeyError as error:
        raise TypeError(f"PostgreSQL is given a {error}") from None
    if _BINARY.isdisjoint(map(type, values)):
        return texts, None
    return texts, [int(type(value) in _BINARY) for value in values]


def _text(value: str) -> bytes:
    if "\0" in value:
        raise ValueError("PostgreSQL holds no text with U+0000")
    return value.encode()


def _number(value: float) -> bytes:
    return repr(value).encode()


_BINARY = {bytes, bytearray, memoryview}
_WRITERS: dict[type, Callable[[Any], bytes | None]] = {
    str: _text,
    TextArray: _text,
    int: _number,
    float: _number,
    bool: lambda value: b"1" if value else b"0",
    type(None): lambda _: None,
    **dict.fromkeys(_BINARY, bytes),
}


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
