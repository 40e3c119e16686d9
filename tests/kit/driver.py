"""A client under test, as the suite sees it: a child process that answers questions, and may be killed.

Knows: the protocol of README.md. Must not know: which client it is, what a scenario wants.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

JSON = dict[str, Any]
ANSWER_SECONDS = 60.0


class DriverError(Exception):
    """An answer that says what went wrong."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Driver:
    """One child process."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.command, self.folder = command, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.instances: set[str | None] = set()
        """The clients that are open in it."""
        self._log = folder.with_name(folder.name + ".log")
        self._number, self._left = 0, b""
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0)

    @property
    def log(self) -> str:
        """The last of what it wrote to stderr."""
        return self._log.read_text()[-2000:]

    def ask(self, do: str, **about: Any) -> Any:
        """Ask and wait for the answer. Raises: DriverError, AssertionError if there is none."""
        self.send(do, **about)
        return self.receive()

    def send(self, do: str, **about: Any) -> None:
        """Ask, and go on; ``receive`` gives the answer."""
        self._number += 1
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": self._number, "do": do, **about}).encode() + b"\n")

    def receive(self) -> Any:
        """Give the answer to the last question. Raises: DriverError."""
        answer: JSON = json.loads(self._line())
        assert answer["id"] == self._number, f"the driver answered {answer['id']} where {self._number} was asked"
        if "error" in answer:
            raise DriverError(answer["error"]["code"], answer["error"]["message"])
        return answer["ok"]

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        give_up = time.monotonic() + ANSWER_SECONDS
        while b"\n" not in self._left:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, give_up - time.monotonic()))
            part = os.read(self._process.stdout.fileno(), 1 << 20) if ready else b""
            assert part, f"the driver {'ended' if ready else 'gave no answer'}; its log:\n{self.log}"
            self._left += part
        line, _, self._left = self._left.partition(b"\n")
        return line

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()
        self._end()

    def is_dead(self) -> bool:
        """Tell whether it has ended."""
        return self._process.poll() is not None

    def leave(self) -> bool:
        """Have it close its clients, so that it may be another device; tell whether it did."""
        try:
            for instance in self.instances:
                self.ask("close", **({"instance": instance} if instance else {}))
        except (DriverError, AssertionError, OSError):
            return False
        self.instances = set()
        return True

    def move(self, folder: Path) -> None:
        """Be a new device in another folder."""
        self.folder = folder
        folder.mkdir(parents=True)

    def restart(self) -> None:
        """Start it anew on the same folder."""
        self._number, self._left, self.instances = 0, b"", set()
        self._process = self._start()

    def close(self) -> None:
        """End it in good order."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self.kill()

    def _end(self) -> None:
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
