"""Writes the log into a file, beside standard error: rotated by size, by several processes, beside logrotate.

Knows: files and their rotation, a thread. Must not know: what is logged, who reads it. The event loop only puts lines into
a queue: a disk that hangs or is full costs lines of this file and nothing else. A crash loses those of its last moment.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import queue
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent.monkey import get_original

from server.log_format import Line, Lines

log = logging.getLogger("syncapp.log_file")

_TOGETHER_SECONDS = 0.02
"""So long the thread lets lines gather: it wakes up seldom, also under load."""

_MOST_WAITING = 10_000
_RETRY_SECONDS = 5.0
_LAST_SECONDS = 2.0
"""How long the end of the process waits for the last lines."""

_sleep = get_original("time", "sleep")  # The thread is a real one, and gevent's would switch greenlets.


class RotatedFile:
    """A file that becomes ``NAME.1`` before it gets too large, ``NAME.1`` becomes ``NAME.2``, and so on.

    The lock on the newest one makes it safe with several processes: none of them appends to one that has been renamed.
    Who else renames or removes it, such as logrotate, need not tell: another one begins.
    """

    def __init__(self, path: Path, most_bytes: int, most_files: int) -> None:
        """``most_bytes``: 0 if somebody else rotates."""
        self._path, self._most_bytes, self._most_files = path, most_bytes, most_files
        self._descriptor = -1

    def append(self, data: bytes) -> None:
        """Append whole lines.

        Raises: OSError; a part of them may be written then.
        """
        while True:
            if self._descriptor < 0:
                self._descriptor = _opened(self._path)
            with _locked(self._descriptor):
                size = self._current_size()
                if size is not None and not self._is_too_large(size + len(data), size):
                    self._write(data, size)
                    return
                if size is not None:
                    self._rotate()
            self.close()

    def close(self) -> None:
        """Close the file; another ``append`` opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _current_size(self) -> int | None:
        """Give the size, None if another file has taken the place of the one that is open."""
        mine = os.fstat(self._descriptor)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return None
        return mine.st_size if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino) else None

    def _is_too_large(self, size: int, before: int) -> bool:
        return 0 < self._most_bytes < size and before > 0

    def _write(self, data: bytes, size: int) -> None:
        """Write all; the half of a line that a full disk or a crash left gets its end first."""
        if size and data and os.pread(self._descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _rotate(self) -> None:
        """Rename the files up to the first number that is free, or to the last, whose file goes."""
        numbers = range(1, self._most_files)
        free = next((number for number in numbers if not rotated(self._path, number).exists()), numbers[-1])
        for number in range(free, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                rotated(self._path, number - 1).replace(rotated(self._path, number))


def rotated(path: Path, number: int) -> Path:
    """Give the name of a file after so many rotations, 0 if it is the newest."""
    return path.with_name(f"{path.name}.{number}") if number else path


def _opened(path: Path) -> int:
    """Open a file to append to; a new one is for its owner alone. Raises: OSError, also for what is no file."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # A pipe must not be waited for.
    descriptor = os.open(path, flags, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "It is not a regular file")


@contextlib.contextmanager
def _locked(descriptor: int) -> Any:
    """Hold the lock that keeps other processes from rotating; file systems without locks have one process, hopefully."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


class LogFile(Lines):
    """A handler of ``logging`` that has a thread write the lines."""

    def __init__(self, file: RotatedFile, retry_seconds: float = _RETRY_SECONDS) -> None:
        super().__init__()
        self._file, self._retry_seconds = file, retry_seconds
        self._waiting: Any = get_original("queue", "SimpleQueue")()
        """Lines, locks that are released when all before them is written, and at the end None."""
        self._refused = 0
        """Lines for which there was no room in the queue; only the event loop and other loggers add to it."""
        self._known_refused = self._missing = 0
        self._is_failing, self._retry_at = False, 0.0
        self._loop = gevent.get_hub().loop
        self._write([])  # So that a start says at once if it can't be written.
        get_original("_thread", "start_new_thread")(self._work, ())

    def take(self, lines: Sequence[Line]) -> None:
        """Have lines written, soon."""
        for _, text in lines:
            if self._waiting.qsize() < _MOST_WAITING:
                self._waiting.put(text)
            else:
                self._refused += 1

    def flush(self) -> None:
        """Wait until all lines so far are written, for a moment at most; ``logging`` calls it at the end of the process."""
        done = get_original("_thread", "allocate_lock")()
        done.acquire()
        self._waiting.put(done)
        done.acquire(timeout=_LAST_SECONDS)

    def close(self) -> None:
        """End the thread, once it has written what there is."""
        self._waiting.put(None)
        super().close()

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            found = [self._waiting.get()]
            _sleep(_TOGETHER_SECONDS)
            with contextlib.suppress(queue.Empty):
                while True:
                    found.append(self._waiting.get_nowait())
            if lines := [one for one in found if isinstance(one, str)]:
                self._write(lines)
            for one in found:
                if one is None:
                    self._file.close()
                    return
                if not isinstance(one, str):
                    one.release()

    def _write(self, lines: list[str]) -> None:
        """Write lines, or count them as missing; tell once when that begins and once when it ends."""
        refused = self._refused
        self._missing += refused - self._known_refused
        self._known_refused = refused
        if self._is_failing and time.monotonic() < self._retry_at:
            self._missing += len(lines)
            return
        note = [_note(self._missing)] if self._missing else []
        try:
            self._file.append("".join(f"{line}\n" for line in [*note, *lines]).encode())
        except OSError as error:
            self._file.close()
            self._missing += len(lines)
            self._fail(error)
        else:
            self._recover()

    def _fail(self, error: OSError) -> None:
        self._retry_at = time.monotonic() + self._retry_seconds
        if not self._is_failing:
            self._is_failing = True
            why = error.strerror or type(error).__name__
            self._tell(logging.ERROR, f"LOG_FILE can't be written: {why}; lines go to standard error alone", {})

    def _recover(self) -> None:
        missing, self._missing = self._missing, 0
        if self._is_failing:
            self._is_failing = False
            self._tell(logging.WARNING, "LOG_FILE is written again", {"missing_lines": missing})

    def _tell(self, level: int, message: str, about: dict[str, Any]) -> None:
        """Log in the event loop, since a handler's lock is one of gevent's."""
        self._loop.run_callback_threadsafe(lambda: log.log(level, message, extra=about))


def _note(missing: int) -> str:
    """Give a line that stands for those that are missing."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    fields = {"time": moment, "level": "warning", "logger": log.name, "message": "lines are missing here"}
    return json.dumps(fields | {"missing_lines": missing})
