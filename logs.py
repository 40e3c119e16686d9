"""How the log looks: one JSON object a line, or a quiet line for a person at a terminal.

Knows: formatting. Must not know: what is logged; who logs must leave out secrets, tokens and rows.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def install(log_format: str) -> None:
    """Send everything from INFO up to standard error, in the form that fits where it goes."""
    human = log_format == "human" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(Human() if human else Json())
    logging._srcfile = None  # No line names its place in the code. Source: Python's Logging HOWTO, Optimization.
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """Give what was said beside the message, without what is empty."""
    said = vars(record).items()
    return {name: value for name, value in said if name not in _STANDARD and value is not None}


class Json(logging.Formatter):
    """One object a line; JSON itself keeps a line break or an escape sequence from becoming one in the log."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record as one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{moment}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage(), **_extra(record)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Human(logging.Formatter):
    """Time, level if it matters, message, and the rest as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record as one line."""
        level = "" if record.levelno < logging.WARNING else f"{record.levelname} "
        hidden = {"request_id", "method", "path", "status", "address"}
        rest = " ".join(f"{name}={value}" for name, value in _extra(record).items() if name not in hidden)
        line = f"{time.strftime('%H:%M:%S')} {level}{record.getMessage()} {rest}".rstrip()
        safe = "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)
        return f"{safe}\n{self.formatException(record.exc_info)}" if record.exc_info else safe
