"""How each process of an installation reaches PostgreSQL and Redis, and how one is cut off from either.

``Relays`` are there everywhere. ``Namespaces`` are networks of the kernel's own, one a process, for who is root on Linux:
what is cut there loses packets, and both sides hear nothing of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Protocol

from tests.needs import where
from tests.relay import Relay

Target = Literal["postgres", "redis"]
_LINKS = ("front", "postgres", "redis")


class Network(Protocol):
    """What connects processes, numbered from 0, with what they use."""

    addresses: list[str]
    """Where PostgreSQL and Redis must listen."""

    def begin(self, ports: Mapping[Target, int]) -> None:
        """Connect them. ``ports``: where PostgreSQL and Redis listen."""

    def command(self, number: int) -> list[str]:
        """Give what a process is begun with, before its own command."""

    def host(self, number: int) -> str:
        """Give the address that a process is found at."""

    def way(self, number: int, target: Target) -> str:
        """Give host and port by which a process reaches a target."""

    def cut(self, number: int, target: Target, *, silently: bool) -> contextlib.AbstractContextManager[None]:
        """Cut a process off meanwhile."""

    def end(self) -> None:
        """Remove it."""


class Relays:
    """A relay a process and target."""

    def __init__(self, processes: int) -> None:
        self.addresses: list[str] = []
        self._processes = processes
        self._relays: dict[tuple[int, Target], Relay] = {}

    def begin(self, ports: Mapping[Target, int]) -> None:
        """See ``Network``."""
        for number in range(self._processes):
            self._relays |= {(number, target): Relay(("127.0.0.1", port)) for target, port in ports.items()}

    def command(self, number: int) -> list[str]:
        """See ``Network``."""
        return []

    def host(self, number: int) -> str:
        """See ``Network``."""
        return "127.0.0.1"

    def way(self, number: int, target: Target) -> str:
        """See ``Network``."""
        return f"127.0.0.1:{self._relays[number, target].port}"

    def cut(self, number: int, target: Target, *, silently: bool) -> contextlib.AbstractContextManager[None]:
        """See ``Network``."""
        relay = self._relays[number, target]
        return relay.holding() if silently else relay.away()

    @contextlib.contextmanager
    def losing(self, number: int) -> Iterator[Callable[[], bool]]:
        """Lose messages of Redis to a process meanwhile; gives what tells whether one was lost."""
        relay = self._relays[number, "redis"]
        before = relay.lost
        with relay.losing():
            yield lambda: relay.lost > before

    def end(self) -> None:
        """See ``Network``."""
        for relay in self._relays.values():
            relay.close()


class Namespaces:
    """A network namespace a process, with a link each to its callers, PostgreSQL and Redis."""

    def __init__(self, processes: int) -> None:
        self._name = f"c{random.randrange(16**6):06x}"
        self._net = f"10.{random.randrange(128, 255)}.{random.randrange(128, 255)}"
        self._processes = processes
        self._ports: Mapping[Target, int] = {}
        for number in range(processes):
            _ip("netns", "add", f"{self._name}{number}")
            _ip("-n", f"{self._name}{number}", "link", "set", "lo", "up")
            for link in _LINKS:
                self._join(number, link)
        self.addresses = [self._address(number, link) for number in range(processes) for link in _LINKS[1:]]

    def _join(self, number: int, link: str) -> None:
        outside, inside, space = self._device(number, link), f"i{link}", f"{self._name}{number}"
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
        _ip("addr", "add", f"{self._address(number, link)}/30", "dev", outside)
        _ip("-n", space, "addr", "add", f"{self._address(number, link, 2)}/30", "dev", inside)
        _ip("link", "set", outside, "up")
        _ip("-n", space, "link", "set", inside, "up")

    def _device(self, number: int, link: str) -> str:
        return f"{self._name}{number}{link[0]}"

    def _address(self, number: int, link: str, side: int = 1) -> str:
        return f"{self._net}.{4 * (number * len(_LINKS) + _LINKS.index(link)) + side}"

    def begin(self, ports: Mapping[Target, int]) -> None:
        """See ``Network``."""
        self._ports = ports

    def command(self, number: int) -> list[str]:
        """See ``Network``."""
        return [str(where("ip")), "netns", "exec", f"{self._name}{number}"]

    def host(self, number: int) -> str:
        """See ``Network``."""
        return self._address(number, "front", 2)

    def way(self, number: int, target: Target) -> str:
        """See ``Network``."""
        return f"{self._address(number, target)}:{self._ports[target]}"

    @contextlib.contextmanager
    def cut(self, number: int, target: Target, *, silently: bool) -> Iterator[None]:
        """See ``Network``; it is always silent."""
        _ip("link", "set", self._device(number, target), "down")
        try:
            yield
        finally:
            _ip("link", "set", self._device(number, target), "up")

    def end(self) -> None:
        """See ``Network``."""
        for number in range(self._processes):
            _ip("netns", "del", f"{self._name}{number}")


def _ip(*arguments: str) -> None:
    subprocess.run([str(where("ip")), *arguments], check=True, capture_output=True)


def has_namespaces() -> bool:
    """Tell whether networks of the kernel's own can be made here."""
    if os.geteuid() != 0 or where("ip") is None:
        return False
    try:
        Namespaces(1).end()
    except subprocess.CalledProcessError:
        return False
    return True
