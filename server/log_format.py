"""The format of the log: one JSON object per line, or a short line for a person at a terminal.

Knows: formatting, and a fast path for the line of each request and socket. Must not know: what is logged; callers must
leave out secrets, tokens and rows.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TextIO

import gevent
import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


Line = tuple[int, str]
"""A level and a text."""


class Lines(logging.Handler):
    """Takes every line of the log as JSON, whatever the form on standard error is."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(Json())

    def emit(self, record: logging.LogRecord) -> None:
        """Take the line of a record."""
        try:
            self.take([(record.levelno, self.format(record))])
        except Exception:
            self.handleError(record)

    def take(self, lines: Sequence[Line]) -> None:
        """Take lines, in ASCII and without their ends. It must not wait, nor log by itself."""
        raise NotImplementedError


_fast: list[logging.Handler] = []
"""The handlers that may get lines without a record, while they are those of the root logger; none if people read it."""

_lines_to: tuple[Lines, ...] = ()


def install(log_format: str, others: Sequence[Lines] = ()) -> None:
    """Send everything from INFO up to standard error, in the form that fits where it goes, and to ``others``."""
    global _lines_to
    human = log_format == "human" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(Human() if human else Json())
    logging._srcfile = None  # No record looks up its caller. Source: Python's Logging HOWTO, Optimization.
    root = logging.getLogger()
    root.handlers[:] = [handler, *others]
    _fast[:], _lines_to = [] if human else root.handlers, tuple(others)
    root.setLevel(logging.INFO)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """Return the extra fields of a record that are not None."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and value is not None}


def write_line(logger: logging.Logger, level: int, message: str, about: dict[str, Any]) -> None:
    """Log the line of a request or a socket; as JSON without a record of ``logging``, which costs five times as much.

    Nothing in ``about`` is None.
    """
    handlers = logging.root.handlers
    if not _fast or handlers != _fast:
        return logger.log(level, message, extra=about)
    if not _lines:  # The lines of one round of the event loop are written together.
        gevent.get_hub().loop.run_callback(_write, handlers[0].stream)  # type: ignore[attr-defined]
    _lines.append((level, _encode(_line(time.time(), level, logger.name, message) | about)))
    return None


_lines: list[Line] = []
"""Lines that are still to be written."""


def _write(stream: TextIO) -> None:
    lines = _lines[:]
    _lines.clear()
    for other in _lines_to:
        other.take(lines)
    try:
        stream.write("".join([f"{text}\n" for _, text in lines]))
        stream.flush()
    except (OSError, ValueError):  # The reader of the log is gone; requests must not fail for it.
        pass


def _line(created: float, level: int, logger: str, message: str) -> dict[str, Any]:
    moment = f"{_second(int(created))}.{int(created % 1 * 1000):03d}Z"
    return {"time": moment, "level": _name_of(level), "logger": logger, "message": message}


@lru_cache(maxsize=2)
def _second(since_1970: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_1970))


@lru_cache(maxsize=16)
def _name_of(level: int) -> str:
    return logging.getLevelName(level).lower()


def _encode(line: dict[str, Any]) -> str:
    """Encode JSON in ASCII only: other characters could be escape sequences of a terminal."""
    try:
        text = msgspec.json.encode(line, enc_hook=str)
    except ValueError:  # A lone surrogate, which ``json`` can encode.
        return json.dumps(line, default=str)
    return text.decode() if text.isascii() else json.dumps(line, default=str)


class Json(logging.Formatter):
    """One JSON object per line, which escapes line breaks and terminal escape sequences."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record as one line."""
        line = _line(record.created, record.levelno, record.name, record.getMessage()) | _extra(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class Human(logging.Formatter):
    """Time, level from WARNING up, message, and the extra fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record as one line."""
        level = "" if record.levelno < logging.WARNING else f"{record.levelname} "
        hidden = {"request_id", "method", "path", "status", "address"}
        rest = " ".join(f"{name}={value}" for name, value in _extra(record).items() if name not in hidden)
        line = f"{time.strftime('%H:%M:%S')} {level}{record.getMessage()} {rest}".rstrip()
        safe = printable(line)
        return f"{safe}\n{self.formatException(record.exc_info)}" if record.exc_info else safe


def printable(text: str) -> str:
    """Escape whatever could be more to a terminal than a character in a line."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
