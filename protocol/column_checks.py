"""What a column of a synced table accepts, by its type: each check gives the value as it is stored.

Knows: the forms that values have in JSON. Must not know: peewee, which tables there are, where rows are stored.
Each raises ValueError, whose text goes on after the column's name: "must be …".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from typing import Any

from protocol.codec import encode, whole_number

CLOCK = r"\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?"
DATE = r"\d{4}-\d{2}-\d{2}"
TIMESTAMP = rf"{DATE}[T ]{CLOCK}(Z|[+-]\d{{2}}:\d{{2}})?"
"""Patterns of dates and times; the numbers are checked too."""


def text(value: Any) -> str:
    """Take a text, or a number as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        whole = whole_number(value)  # Apps send a phone or a code as a number; a text column keeps its digits.
        return encode(value if whole is None else whole).decode()
    raise ValueError("must be text")


def flag(value: Any) -> int:
    """Take 0, 1, true or false."""
    if isinstance(value, bool | int | float) and value in (0, 1):
        return int(value)
    raise ValueError("must be 0, 1, true or false")


def whole(value: Any) -> int:
    """Take a whole number that SQL can hold."""
    whole = whole_number(value)
    if whole is not None and abs(whole) < 2**63:
        return whole
    raise ValueError("must be a whole number of at most 63 bits")


def number(value: Any) -> float:
    """Take a number that a float holds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e308:
        raise ValueError("must be a number")
    if float(value) != value:
        raise ValueError(
            "must be a number that a float of 64 bits holds; this one has too many digits, send it as text"
        )
    return float(value)


def any_json(value: Any) -> Any:
    """Take whatever JSON has."""
    return value


def _written(form: str, read: Callable[[str], object], sentence: str) -> Callable[[Any], str]:
    is_well_formed = re.compile(form, re.ASCII).fullmatch

    def check(value: Any) -> str:
        """Take a text of this form whose numbers ``read`` takes too."""
        try:
            if isinstance(value, str) and is_well_formed(value):
                read(value)
                return value
        except ValueError:
            pass
        raise ValueError(sentence)

    return check


day = _written(DATE, date.fromisoformat, "must be a date such as 2025-06-29")
time_of_day = _written(CLOCK, time.fromisoformat, "must be a time such as 23:45 or 23:45:26")
timestamp = _written(TIMESTAMP, datetime.fromisoformat, "must be an ISO 8601 time such as 2025-06-29T23:45:26.002Z")


def one_of(choices: Sequence[Any], check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give the check of a column that has one of some values."""
    *others, last = map(str, choices)
    sentence = f"must be {', '.join(others)} or {last}" if others else f"must be {last}"

    def check_choice(value: Any) -> Any:
        """Take one of the choices."""
        if value not in choices:
            raise ValueError(sentence)
        return check(value)

    return check_choice
