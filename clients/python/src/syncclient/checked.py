"""Checks what an app puts: names, ids and values that every client and the server understand alike.

Knows: what can't be sent, with a message for each case. Must not know: tables' own rules, which the server has.
Source: docs/clients.md, "Edits", 4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from .wire import Row

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_NO_NAMES = frozenset({"", "__proto__", "constructor", "prototype"})
_DEEPEST = 56
"""The server takes 64 levels, of which some are around the row."""


def checked_table(table: object) -> str:
    """Give a table's name.

    Raises: ValueError if no table can have it.
    """
    if isinstance(table, str) and _TABLE.fullmatch(table):
        return table
    raise ValueError(f"a table's name is a text of 1 to 64 letters, digits and _, not {table!r}")


def checked_id(row_id: object) -> str:
    """Give a row's id.

    Raises: ValueError if the server would not take it as one.
    """
    if isinstance(row_id, str) and _ID.fullmatch(row_id):
        return row_id
    raise ValueError(f"an id is a text of 1 to 64 characters from A-Z a-z 0-9 _ . : -, not {row_id!r}")


def checked_row(row: object) -> Row:
    """Give a row that an app puts, if all of it can be sent.

    Raises: ValueError with one sentence.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row is a dict, not {type(row).__name__}")
    for name, value in row.items():
        if not isinstance(name, str) or name in _NO_NAMES:
            raise ValueError(f"{name!r} can't be the name of a field")
        if problem := _problem(name, 0) or _problem(value, 0):
            raise ValueError(f"{name!r} can't be sent: {problem}")
    return row


def _problem(value: object, depth: int) -> str | None:
    """Say what is wrong with a value, if it is none that JSON can say, or would come back as another."""
    if depth > _DEEPEST:
        return "it is nested too deeply, or in a circle"
    if isinstance(value, str):
        return _problem_of_text(value)
    if isinstance(value, dict):
        odd = [name for name in value if not isinstance(name, str)]
        return f"a name in it is no text: {odd[0]!r}" if odd else _problem_of_any((*value, *value.values()), depth)
    if isinstance(value, list | tuple):
        return _problem_of_any(value, depth)
    return _problem_of_number(value)


def _problem_of_number(value: object) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"JSON has no {value}"
    if value is None or isinstance(value, int | float):
        return None
    return f"JSON has no {type(value).__name__}; put a text or a number"


def _problem_of_any(values: Iterable[object], depth: int) -> str | None:
    return next((problem for one in values if (problem := _problem(one, depth + 1))), None)


def _problem_of_text(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a text has half of a surrogate pair"
    return "a text has U+0000" if "\0" in text else None
