"""Runs the operator's commands for the console: each in a process of its own, so that a server is not slowed by it.

Knows: where a job keeps its output, when it is removed. Must not know: what a command does, who asked for it, requests.
All of a job is in a folder, so that any process of this machine can tell how it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import gevent

_PROGRAM = Path(__file__).resolve().parent.parent / "syncapp.py"
_KEPT_SECONDS = 3600
_LEAST_PRIORITY = 19
_MOST_SHOWN_BYTES = 256 * 1024
_JOB_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
DONE_BY = "CONSOLE_SESSION"
"""The variable that tells a command who had it run, for the record."""


class JobState(NamedTuple):
    """How a job is: its exit code once it has ended, the end of what it printed; -1 if it ended without a word."""

    exit_code: int | None
    output: str
    errors: str


class CommandJobs:
    """The jobs of an installation on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._remove_old()
        if any(folder.glob("*")):  # Of an earlier process, which can't remove them any more.
            self._remove_later()

    def start(self, done_by: str, *arguments: str) -> str:
        """Run a command, in the folder of the job if it writes there (``result_of``); give the ID of the job."""
        self._remove_old()
        job_id = secrets.token_hex(16)
        folder = self._folder / job_id
        folder.mkdir(mode=0o700, parents=True)
        words = [argument.replace("{result}", str(folder / "result")) for argument in arguments]
        with ExitStack() as files:
            output, errors = (files.enter_context((folder / name).open("wb")) for name in ("output", "errors"))
            fcntl.flock(output, fcntl.LOCK_EX)  # The command has it, too, and keeps it if this process ends.
            process = subprocess.Popen(  # noqa: S603 -- our own program; no shell reads the arguments
                [sys.executable, str(_PROGRAM), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, DONE_BY: done_by},
            )
            gevent.spawn(self._note_end, process, folder, files.pop_all())
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _LEAST_PRIORITY)
        (folder / "begun").touch()
        return job_id

    def _note_end(self, process: subprocess.Popen[bytes], folder: Path, files: ExitStack) -> None:
        """Note the exit code; from now on the folder counts as old one day, and a customer's data may be in it."""
        with files:
            code = process.wait()
            part = folder / "code.part"
            part.write_text(str(code))
            part.rename(folder / "code")
        self._remove_later()

    def state(self, job_id: str) -> JobState | None:
        """Tell how a job is; None if it is not known, or not any more."""
        folder = self._folder / job_id
        if not _JOB_ID.fullmatch(job_id) or not (folder / "begun").is_file():
            return None
        exit_code = None if _is_running(folder / "output") else -1  # Before the look at its code, which comes first.
        if (code := folder / "code").is_file():
            exit_code = int(code.read_text())
        return JobState(exit_code, _end_of(folder / "output"), _end_of(folder / "errors"))

    def output_of(self, job_id: str) -> Path | None:
        """Give the file that has all that a job printed; None if it is not known."""
        return self._file(job_id, "output")

    def result_of(self, job_id: str) -> Path | None:
        """Give the file that a job made where ``{result}`` was in its arguments; None if there is none."""
        return self._file(job_id, "result")

    def _file(self, job_id: str, name: str) -> Path | None:
        path = self._folder / job_id / name
        return path if _JOB_ID.fullmatch(job_id) and path.is_file() else None

    def _remove_later(self) -> None:
        gevent.spawn_later(_KEPT_SECONDS + 1, self._remove_old)

    def _remove_old(self) -> None:
        for folder in self._folder.glob("*"):
            with contextlib.suppress(OSError):  # Another process removed it meanwhile.
                if time.time() - folder.stat().st_mtime > _KEPT_SECONDS and self._is_over(folder.name):
                    shutil.rmtree(folder, ignore_errors=True)

    def _is_over(self, job_id: str) -> bool:
        try:
            state = self.state(job_id)
        except (OSError, ValueError):  # A crash left it half made.
            return True
        return state is None or state.exit_code is not None


def _is_running(output: Path) -> bool:
    """Tell whether a command holds the lock on its output: its process ID may be another's after a restart."""
    with output.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _MOST_SHOWN_BYTES))
        return file.read().decode("utf-8", "replace")
