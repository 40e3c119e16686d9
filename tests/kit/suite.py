"""What a scenario works with: accounts, devices, their networks, and the server if it is ours.

Knows: how these are made, and what must hold in the end. Must not know: which client is tested, what happens in between.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .driver import Driver, DriverError
from .proxy import Proxy
from .server import LocalServer
from .truth import JSON, TABLES, Account, differences, log_in, register

SYNC_SECONDS = 60.0


class LeftOut(Exception):
    """Why a scenario can't run here."""


@dataclass
class Device:
    """A client on a replica of its own; what it says that it kept counts as typed."""

    driver: Driver
    account: Account
    name: str
    url: str
    instance: str | None = None
    session: tuple[str, str] | None = None
    sends_states: bool = False
    app: JSON = field(default_factory=dict)
    """How this version of the app opens the client: ``tables``, ``lacks``, ``timeoutSeconds``, ``clockOffsetMs``."""

    def open(self) -> Device:
        """Open the client, the first time with a session of its own."""
        self.session = self.session or self.account.device_session()
        about = {"url": self.url, "folder": str(self.driver.folder), "tables": list(TABLES), "deviceId": self.name}
        self.ask("open", **about | self.app, **_credentials(self.account, self.session))
        self.driver.instances.add(self.instance)
        return self

    def reopen(self, **app: Any) -> Device:
        """Open the client again on its replica, as another version of the app does."""
        self.app = app
        return self.open()

    def log_in(self, account: Account) -> str | None:
        """Let somebody log in on this device, and sync once; give the code of what refused it."""
        try:
            self.ask("login", **_credentials(account, account.session()))
        except DriverError as error:
            return error.code
        return self.try_sync()

    def ask(self, do: str, **about: Any) -> Any:
        """Ask the driver. Raises: DriverError."""
        return self.driver.ask(do, **about | ({"instance": self.instance} if self.instance else {}))

    def put(self, row_id: str, table: str = TABLES[0], **fields: Any) -> None:
        """Edit a row as the app would."""
        row = {"id": row_id, **fields}
        assert self.ask("put", table=table, row=row)["id"] == row_id
        if self.sends_states:
            self.account.replaced(self.name, table, row)
        self.account.note(table, row)

    def delete(self, row_id: str, table: str = TABLES[0]) -> None:
        """Delete a row as the app would."""
        self.ask("delete", table=table, rowId=row_id)
        if self.sends_states:
            self.account.replaced(self.name, table, {"id": row_id}, is_deleted=True)

    def rows(self, table: str = TABLES[0]) -> dict[str, JSON]:
        """Give the rows as the app sees them, by id."""
        return {row["id"]: row for row in self.ask("rows", table=table)}

    def sync(self, seconds: float = SYNC_SECONDS) -> None:
        """Sync until the client says that it is done."""
        give_up = time.monotonic() + seconds
        while True:
            try:
                self.ask("sync")
                return
            except DriverError as error:
                if time.monotonic() > give_up:
                    raise AssertionError(
                        f"{self.name} does not get its sync done: {error}\n{self.driver.log}"
                    ) from error
                time.sleep(0.1)

    def try_sync(self) -> str | None:
        """Sync once; give the code of the error, None if it was done."""
        try:
            self.ask("sync")
        except DriverError as error:
            return error.code
        return None

    def kill(self) -> None:
        """End the client at once and start it anew on what it kept."""
        self.driver.kill()
        self.driver.restart()
        self.open()


def _credentials(account: Account, session: tuple[str, str]) -> JSON:
    token, refresh_token = session
    return {"token": token, "refreshToken": refresh_token, "email": account.email, "password": account.password}


class Kit:
    """One run of the suite against one client and one server."""

    def __init__(self, command: list[str], folder: Path, rng: random.Random, url: str | None = None) -> None:
        """``url``: a deployment of somebody's; without it the suite starts a server."""
        self.command, self.folder, self.rng = command, folder, rng
        self._server = None if url else LocalServer(folder / "server")
        if self._server:
            self._server.start()
        self.url = url.rstrip("/") if url else self._server.url if self._server else ""
        self._shared: Account | None = None
        self._is_given = False
        self._drivers: list[Driver] = []
        self._idle: list[Driver] = []
        self._proxies: list[Proxy] = []
        self._names = 0
        self.hello: JSON = self._driver().ask("hello")
        self.release()

    def use(self, email: str, password: str) -> None:
        """Use this account for all, instead of one that is registered."""
        self._shared, self._is_given = log_in(self.url, email, password), True

    @property
    def server(self) -> LocalServer:
        """The server, if it is ours. Raises: LeftOut."""
        if self._server is None:
            raise LeftOut("needs a server of the suite's own")
        return self._server

    @property
    def is_ours(self) -> bool:
        """Whether the server is one that the suite started."""
        return self._server is not None

    def needs(self, *features: str) -> None:
        """Raises: LeftOut if the client lacks one of these."""
        lacking = set(features) - set(self.hello["features"])
        if lacking:
            raise LeftOut(f"needs a client with {', '.join(sorted(lacking))}")

    def has(self, feature: str) -> bool:
        """Tell whether the client can do something."""
        return feature in self.hello["features"]

    def account(self) -> Account:
        """Give an account: of its own for each scenario on our server, one for all on a deployment."""
        if self._server:
            return register(self.url)
        if self._shared is None:
            self._shared = register(self.url)
            self._shared.shared = self._shared.session()
        return self._shared

    def proxy(self) -> Proxy:
        """Give a network that fails on demand. Raises: LeftOut where the server speaks TLS."""
        parts = urlsplit(self.url)
        if parts.scheme != "http":
            raise LeftOut("needs a proxy, and the address is https")
        self._proxies.append(Proxy(parts.hostname or "", parts.port or 80))
        return self._proxies[-1]

    def device(self, account: Account, url: str | None = None, **about: Any) -> Device:
        """Give a new device of an account, opened."""
        driver = about.pop("driver", None) or self._driver()
        name = f"kit-{driver.folder.name}-{self.rng.randrange(10**9)}"
        return Device(driver, account, name, url or self.url, sends_states=self.has("states"), **about).open()

    def _driver(self) -> Driver:
        self._names += 1
        folder = self.folder / f"device-{self._names}"
        if self._idle:
            driver = self._idle.pop()
            driver.move(folder)
        else:
            driver = Driver(self.command, folder)
        self._drivers.append(driver)
        return driver

    def release(self) -> None:
        """End the drivers of all devices, or keep those that can be other devices next: to start one takes long."""
        for driver in self._drivers:
            if self.has("reopens") and driver.leave():
                self._idle.append(driver)
            else:
                driver.close()
        self._drivers = []

    def second(self, device: Device) -> Device:
        """Give a second client on a device's replica: another process, or another instance in the same. Raises: LeftOut."""
        if self.has("processes"):
            driver = Driver(self.command, device.driver.folder)
            self._drivers.append(driver)
            return replace(device, driver=driver).open()
        self.needs("instances")
        return replace(device, instance="second").open()

    def check(self, account: Account, *devices: Device) -> None:
        """Hold that every device equals the server, and that nothing typed is missing."""
        for _ in range(3):  # What one sends the others have to fetch, and what it undid to send back.
            for device in devices:
                device.sync()
        rows, digests = account.rows()
        for device in devices:
            held = {table: list(device.rows(table).values()) for table in TABLES}
            found = differences(rows, digests, held, account.typed)
            assert not found, f"{device.name} differs from the server:\n  " + "\n  ".join(found[:20])
            assert device.ask("pending") == 0, f"{device.name} has something left to send"
        missing = account.missing()
        assert not missing, "typed and lost:\n  " + "\n  ".join(map(str, missing[:20]))

    def run(self, scenario: Callable[[Kit], None]) -> None:
        """Run a scenario and end what it began."""
        try:
            scenario(self)
            self.release()
        finally:
            self._end_scenario()

    def _end_scenario(self) -> None:
        for driver in self._drivers:
            driver.close()
        for proxy in self._proxies:
            proxy.close()
        self._drivers, self._proxies = [], []

    def end_drivers(self) -> None:
        """End every driver."""
        self._drivers += self._idle
        self._idle = []
        self._end_scenario()

    def close(self) -> None:
        """End the server, and close the account on somebody else's."""
        self.end_drivers()
        if self._server:
            self._server.stop()
        elif self._shared and self._is_given:
            rows = self._shared.rows()[0]
            for table in {table for table, _ in rows}:
                self._shared.delete(table, *(row_id for of, row_id in rows if of == table))
        elif self._shared:
            self._shared.close()


def pair(kit: Kit, account: Account) -> tuple[Device, Device]:
    """Give two devices that have all there is."""
    first, second = kit.device(account), kit.device(account)
    first.sync()
    second.sync()
    return first, second


def once(address: str, happens: Callable[[], object]) -> Callable[[str], str]:
    """Let something happen when the next request to an address is seen; the request is then passed on."""
    left = [happens]

    def fault_of(asked: str) -> str:
        if left and address in asked:
            left.pop()()
        return "none"

    return fault_of
