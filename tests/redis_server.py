"""A real Redis for tests, that can be stopped, killed and started anew."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.conftest import wait_for
from tests.needs import where
from tests.ports import free_port


class Redis:
    """A Redis on a port of its own; ``options`` are of its command line."""

    def __init__(self, folder: Path, *options: str, tls: bool = False) -> None:
        self.port, self._folder = free_port(), folder
        self._options = ["--tls-port" if tls else "--port", str(self.port), *(["--port", "0"] if tls else []), *options]
        self.url = f"redis{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it accepts."""
        said = self._folder / "redis.log"
        said.touch()
        count = said.read_text().count("Ready to accept")
        command = [str(where("redis-server")), "--save", "", "--dir", str(self._folder), *self._options]
        with said.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: said.read_text().count("Ready to accept") > count, "Redis")

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have it do nothing meanwhile, with its connections open."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if self._process:
                self._process.send_signal(signal.SIGCONT)

    def subscribers(self, channel: str) -> int:
        """Count who listens to a channel."""
        with redis.Redis.from_url(self.url) as client:
            return int(client.pubsub_numsub(channel)[0][1])


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    """Give one that runs."""
    server = Redis(tmp_path)
    server.start()
    yield server
    server.kill()
