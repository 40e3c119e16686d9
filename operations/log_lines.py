"""Reads, chooses and shows lines of the log.

Knows: what is in a line, and what journald, Docker and platforms put before it. Must not know: where lines come from, the
command line.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from server.log_format import printable

_AGO = re.compile(r"(\d{1,9})\s?(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}
_FIRST = ("time", "level", "message")
_LAST = "exception"
_SAID = {"syncapp.request": ("method", "path", "status")}
"""By logger, the fields that its messages say already."""

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which lines are wanted. What is None does not matter; ``since`` is a time as lines have it."""

    tenant: str | None = None
    request_id: str | None = None
    level: str | None = None
    since: str | None = None

    def takes(self, line: Line) -> bool:
        """Tell whether a line is wanted; one that is not of the log's form is, without a filter."""
        if "time" not in line:
            return self == Filter()
        return (
            self.tenant in (None, line.get("tenant"))
            and self.request_id in (None, line.get("request_id"))
            and (self.level is None or _LEVELS.get(str(line.get("level")), 0) >= _LEVELS[self.level])
            and (self.since is None or str(line["time"]) >= self.since)
        )


def parse(raw: bytes) -> Line:
    """Read a line, also with something before it; what is no line of the log is the message of one without a time."""
    start = raw.find(b"{")
    try:
        found = json.loads(raw[start:]) if start >= 0 else None
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and isinstance(found.get("time"), str) and "message" in found:
        return found
    return {"message": raw.decode(errors="backslashreplace").rstrip("\r\n")}


def parse_since(text: str, now: datetime) -> str:
    """Read a time, such as ``2026-11-29T14:03``, or how long ago it was, such as ``30m``; without a zone it is UTC.

    Raises: ValueError.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        moment = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) if ago else datetime.fromisoformat(text.strip())
        known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return known.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        raise ValueError(
            "must be a time such as 2026-11-29T14:03, in UTC, or how long ago it was, such as 30m"
        ) from None


def as_json(line: Mapping[str, Any]) -> str:
    """Write a line as JSON again, in ASCII, where no terminal finds a command."""
    return json.dumps(line)


def as_text(line: Mapping[str, Any]) -> str:
    """Write a line for a person: time, level, message, then the other fields; an exception's traceback is indented."""
    first = [str(line.get(name, "")) for name in _FIRST]
    first[1] = first[1].upper().ljust(7) if "level" in line else ""
    said = (*_FIRST, "logger", _LAST, *_SAID.get(str(line.get("logger")), ()))
    rest = [f"{name}={value}" for name, value in line.items() if name not in said]
    told = [printable(" ".join(part for part in [*first, *rest] if part))]
    told += [f"    {printable(part)}" for part in str(line.get(_LAST, "")).splitlines()]
    return "\n".join(told)
