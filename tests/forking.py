"""Processes of the server that are forked instead of begun anew: each is there in 20 ms, where the imports take 600.

Knows: how ``python syncapp.py`` begins and ends. Must not know: pytest, what is tested. This file is two programs: what the
tests import asks a process for others; that process has everything imported, opens nothing, and ends them with itself.
``FORKING=no pytest …`` begins each process anew, as does a setting for Python or the allocator, which would come too late.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLAIN = [sys.executable, "syncapp.py"]
CODE = "-c"
"""Stands before a program's text in place of a command's name, as with Python; the text imports ``syncapp``."""
_TOO_LATE = ("PYTHON", "MALLOC", "LD_")
_SECONDS = 120.0
_COMMANDS = "operations.commands.commands"


class Forked:
    """A forked process, with what tests use of ``subprocess.Popen``."""

    def __init__(self, arguments: list[str], environ: dict[str, str], *files: str | Path) -> None:
        """``files``: what it reads, and what it writes its results and its messages to."""
        self.returncode: int | None = None
        request = {"arguments": arguments, "environ": environ, "files": [*map(str, files)]}
        self.pid: int = _parent().ask(request)

    def poll(self) -> int | None:
        """Give the exit code, or the number of the signal below 0; None while it runs."""
        if self.returncode is None:
            self.returncode = _parent().ask(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises: subprocess.TimeoutExpired.
        """
        began = time.monotonic()
        while (code := self.poll()) is None:
            waited = time.monotonic() - began
            if timeout and waited > timeout:
                raise subprocess.TimeoutExpired("a forked syncapp.py", timeout)
            time.sleep(min(max(waited / 8, 0.002), 0.1))
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def begin(arguments: list[str], environ: dict[str, str], out: Path) -> Forked | subprocess.Popen[bytes]:
    """Begin ``python syncapp.py`` with these arguments, or a program's text; what it writes is appended to a file."""
    if _may_fork(environ):
        out.touch()  # It is there at once, as if we had opened it.
        return Forked(arguments, environ, os.devnull, out, out)
    with out.open("ab") as file:
        return subprocess.Popen(_command(arguments), cwd=ROOT, env=environ, stdout=file, stderr=file)


def run(arguments: list[str], environ: dict[str, str], typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``python syncapp.py`` with these arguments, or a program's text, to its end, as ``subprocess.run`` does.

    Raises: subprocess.TimeoutExpired.
    """
    if not _may_fork(environ):
        run = functools.partial(subprocess.run, capture_output=True, text=True, check=False, timeout=_SECONDS)
        return run(_command(arguments), cwd=ROOT, env=environ, input=typed)
    with tempfile.TemporaryDirectory() as folder:
        in_, out, err = (Path(folder, name) for name in ("in", "out", "err"))
        in_.write_text(typed)
        process = Forked(arguments, environ, in_, out, err)
        try:
            code = process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(_command(arguments), code, out.read_text(), err.read_text())


def arguments_of(command: list[str]) -> list[str] | None:
    """Give what ``begin`` takes for a command; None for one that is another program's."""
    if command[:2] == PLAIN:
        return command[2:]
    return command[1:] if command[:2] == [sys.executable, CODE] else None


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, *arguments] if arguments[:1] == [CODE] else [*PLAIN, *arguments]


def _may_fork(environ: dict[str, str]) -> bool:
    changed = {name for name in environ.keys() | os.environ.keys() if environ.get(name) != os.environ.get(name)}
    return os.environ.get("FORKING") != "no" and not any(name.startswith(_TOO_LATE) for name in changed)


class _Parent:
    """The process that forks the others, as who asks it sees it."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._answers = self._socket.makefile()
        self._numbers = itertools.count()
        atexit.register(self._socket.close)
        atexit.register(self._answers.close)

    def ask(self, what: Any) -> Any:
        """Ask, and leave out what answers an earlier one, whose asker was interrupted by the time-out of its test.

        Raises: RuntimeError if the process has ended, and all that it forked with it.
        """
        with self._asking:
            number = next(self._numbers)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # It may end at any moment.
                self._socket.sendall(json.dumps([number, what]).encode() + b"\n")
                for line in self._answers:
                    answered, answer = json.loads(line)
                    if answered == number:
                        return answer
        raise RuntimeError("The process that forks servers has ended; stderr may tell why.")


_one_begins = threading.Lock()


def _parent() -> _Parent:
    with _one_begins:  # Else two threads may begin one each, and only one of them knows a process.
        return _only_parent()


@functools.cache
def _only_parent() -> _Parent:
    return _Parent()


# --- the parent's own program --------------------------------------------------------------------------------------------


def _fork_on_demand(line: int) -> None:
    """Fork a process for each request, and tell of each number if that has ended, until nobody can ask any more.

    Nothing here may wait by way of gevent, which ``syncapp`` patched in: its loop must begin in the forked process.
    """
    sys.path[0] = str(ROOT)
    importlib.import_module("syncapp").import_server()
    monkey = importlib.import_module("gevent.monkey")
    fork, waitpid = monkey.get_original("os", ["fork", "waitpid"])
    running: set[int] = set()
    ended: dict[int, int] = {}
    own = os.getpid()
    os.set_blocking(line, True)
    gc.freeze()  # The search for cycles shall not copy what all have in common.
    try:
        with os.fdopen(line, "rb", buffering=0) as asked:
            for text in iter(asked.readline, b""):
                number, request = json.loads(text)
                if isinstance(request, int):
                    found, status = waitpid(request, os.WNOHANG) if request in running else (0, 0)
                    if found:
                        running.remove(found)
                        ended[found] = os.waitstatus_to_exitcode(status)
                    answer = ended.get(request)  # Two threads may ask for one that has ended.
                else:
                    _import_commands(request["arguments"])
                    if not (answer := fork()):
                        break
                    running.add(answer)
                    ended.pop(answer, None)
                os.write(line, json.dumps([number, answer]).encode() + b"\n")
            else:
                return
    finally:
        if os.getpid() == own:
            _end(running)
    _become(**request)


def _import_commands(arguments: list[str]) -> None:
    """Import what the operator's commands need, before the first of them is forked. A server does without."""
    if arguments and arguments[0] != CODE and _COMMANDS not in sys.modules:
        for path in (ROOT / "operations" / "commands").glob(
            "[!_]*.py"
        ):  # The program imports each when it is asked for.
            importlib.import_module(f"operations.commands.{path.stem}")
        gc.freeze()


def _end(running: set[int]) -> None:
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _become(arguments: list[str], environ: dict[str, str], files: list[str]) -> None:
    """Be ``python syncapp.py`` with these arguments, or a program's text."""
    for number, path in enumerate(files):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY, 0o644)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    gevent = importlib.import_module("gevent")
    gevent.reinit()  # An import made its loop, and two processes would hear of each other's files.
    gevent.sleep(0)  # In its first turn pools of threads begin anew, and forget what they were given before it.
    sys.argv = ["syncapp.py", *arguments]
    # Each has its own from its start.
    vars(sys.modules["server.http.exchange"])["_THIS_PROCESS"] = str(uuid.uuid4())[:23]
    if arguments[:1] == [CODE]:
        _, text, *sys.argv[1:] = arguments
        exec(text, {"__name__": "__main__"})
    else:
        vars(sys.modules["syncapp"])["main"]()


if __name__ == "__main__":
    _fork_on_demand(int(sys.argv[1]))
