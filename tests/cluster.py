"""Three processes of the server on one PostgreSQL and one Redis, behind HAProxy, and what may befall them."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import forking, postgres
from tests.conftest import Server, wait_for
from tests.networks import Network, Relays, Target
from tests.proxy_processes import documented, running
from tests.redis_server import Redis

NAMES = ("one", "two", "three")
SETTINGS = {"TRUSTED_PROXIES": "1", "TENANT_WAIT_MS": "5000", "SOCKET_AUTH_SECONDS": "60", "MAX_PULL_ROWS": "10000"}


@dataclass
class Process(Server):
    """A server that may be in a network of its own."""

    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process
        self.process.send_signal(number)


class Cluster:
    """The processes, and what they use; ``url`` is HAProxy's."""

    def __init__(self, folder: Path, network: Network, database: postgres.Server, *, has_redis: bool) -> None:
        """``has_redis``: else they tell each other by PostgreSQL's NOTIFY."""
        self.network, self.database, self.has_redis = network, database, has_redis
        self.redis = Redis(
            folder, *(["--bind", *network.addresses, "--protected-mode", "no"] if network.addresses else [])
        )
        self.redis.start()
        network.begin({"postgres": database.port, "redis": self.redis.port})
        self.name = database.new_database()
        self.processes = [self._process(folder, number) for number in range(len(NAMES))]
        for process in self.processes:
            process.start()
        self.url = ""

    def _process(self, folder: Path, number: int) -> Process:
        env = SETTINGS | {
            "DATABASE_URL": f"postgresql://app@{self.network.way(number, 'postgres')}/{self.name}",
            "REDIS_URL": f"redis://{self.network.way(number, 'redis')}" if self.has_redis else "",
            "PROCESS_NAME": NAMES[number],
            "HOST": self.network.host(number),
        }
        command = self.network.command(number) + forking.PLAIN
        return Process(folder / NAMES[number], env, command, host=self.network.host(number))

    @contextlib.contextmanager
    def proxied(self, folder: Path) -> Iterator[None]:
        """Have HAProxy before them, as docs/proxies.md says for several processes."""
        (folder / "certificates").mkdir()
        with running("HAProxy", self.processes[0], folder, self._configuration()) as self.url:
            yield

    def _configuration(self) -> str:
        of_two = documented("Several processes", 1)
        one, lines = [line for line in of_two.splitlines() if " one" in line], []
        for name, process in zip(NAMES, self.processes, strict=True):
            where = process.url.removeprefix("http://")
            lines += [line.replace("one", name).replace("127.0.0.1:3000", where) for line in one]
        shared = [line for line in of_two.splitlines() if " one" not in line and " two" not in line]
        text = documented("HAProxy").replace("    server syncapp 127.0.0.1:3000", "\n".join(shared + lines))
        return "\n".join("    bind :80" if " bind " in line else line for line in text.splitlines()) + "\n"

    def end(self) -> None:
        for process in self.processes:
            if process.process and process.process.poll() is None:
                process.send(signal.SIGCONT)
                process.kill()
        self.redis.kill()
        self.network.end()
        self.database.drop(self.name)

    # --- what may befall them ------------------------------------------------------------------------------------------

    def kill(self, chance: random.Random, seconds: float) -> str:
        """Kill a process, and begin it anew after a while."""
        process = chance.choice(self.processes)
        process.kill()
        time.sleep(seconds)
        process.start()
        return f"kill -9 of {process.data.name}"

    def stop(self, chance: random.Random, seconds: float) -> str:
        process = chance.choice(self.processes)
        assert process.stop() == 0
        time.sleep(seconds)
        process.start()
        return f"end of {process.data.name}"

    def pause(self, chance: random.Random, seconds: float) -> str:
        process = chance.choice(self.processes)
        process.send(signal.SIGSTOP)
        time.sleep(seconds)
        process.send(signal.SIGCONT)
        return f"pause of {process.data.name}"

    def restart_database(self, chance: random.Random, seconds: float) -> str:
        how = chance.choice([signal.SIGINT, signal.SIGQUIT])
        self.database.restart(how, seconds)
        return f"restart of PostgreSQL, {'fast' if how == signal.SIGINT else 'immediate'}"

    def hang_redis(self, chance: random.Random, seconds: float) -> str:
        with self.redis.stopped():
            time.sleep(seconds)
        return "hanging Redis"

    def restart_redis(self, chance: random.Random, seconds: float) -> str:
        self.redis.kill()
        time.sleep(seconds)
        self.redis.start()
        return "restart of Redis"

    def cut_database(self, chance: random.Random, seconds: float) -> str:
        return self._cut(chance, seconds, "postgres")

    def cut_redis(self, chance: random.Random, seconds: float) -> str:
        return self._cut(chance, seconds, "redis")

    def _cut(self, chance: random.Random, seconds: float, target: Target) -> str:
        number, silently = chance.randrange(len(NAMES)), chance.random() < 0.6
        with self.network.cut(number, target, silently=silently):
            time.sleep(seconds)
        return f"{'silent ' if silently else ''}cut of {NAMES[number]} from {target}"

    def lose_messages(self, chance: random.Random, seconds: float) -> str:
        """Have messages of Redis never come to a process: its listeners pull what these told."""
        assert isinstance(self.network, Relays)
        number = chance.randrange(len(NAMES))
        with self.network.losing(number) as has_lost:
            time.sleep(seconds)
            wait_for(has_lost, "a message that is lost")
        return f"messages lost on their way to {NAMES[number]}"

    @property
    def disturbances(self) -> list[Callable[[random.Random, float], str]]:
        """All of it; each is given chance and for how many seconds, and says what it did."""
        of_redis = [self.restart_redis, self.hang_redis, self.cut_redis] if self.has_redis else []
        losing = [self.lose_messages] if self.has_redis and isinstance(self.network, Relays) else []
        return [self.kill, self.restart_database, self.cut_database, *losing, *of_redis, self.stop, self.pause]
