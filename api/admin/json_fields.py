"""Reads the JSON that the console's pages send.

Knows: forms of fields. Must not know: what is done with them.
"""

from __future__ import annotations

from typing import Any

from protocol.codec import whole_number
from protocol.errors import invalid


def text_of(body: dict[str, Any], name: str) -> str:
    """Give a text that must be there.

    Raises: ValidationError.
    """
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(name, "must be a text")
    return value


def whole_of(body: dict[str, Any], name: str, default: int | None = None) -> int:
    """Give a whole number from 0 to 2^53, as sequences have; it must be there unless there is a default.

    Raises: ValidationError.
    """
    value = whole_number(body.get(name, default))
    if value is None or not 0 <= value <= 2**53:
        raise invalid(name, "must be a whole number")
    return value
