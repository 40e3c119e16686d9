"""A bad network between real clients and the real server: each operation is done exactly once, and all end equal.

``BadNetwork`` is a TCP proxy that delays, cuts requests and answers in their middle, drops answers, and sends whole
requests twice. The seed is printed; SEED=… makes the same choices again.
Seen to fail on faults: receipts not stored and answers not kept under their key (rows twice), ``missed`` always 0 (the
listener is never told to pull).
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import requests
import socketio

from tests.conftest import JSON, Device, Listener, Server, Tenant, wait_for
from tests.kit.proxy import carry, cut, read_request, watched
from tests.storage.test_devices import digest_of

TABLES = ("end_user", "interactions")
DEVICES, BATCHES = 4, 25
GIVE_UP_SECONDS = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class BadNetwork:
    """A proxy in front of a server: each HTTP request meets a fault or none, each WebSocket is cut after a while."""

    def __init__(self, server_port: int, rng: random.Random) -> None:
        self.rng, self.met, self.is_good = rng, Counter[str](), False
        self._to = ("127.0.0.1", server_port)
        self._entry = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._entry.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._entry.close()
        self.cut_all()
        for thread in self._threads:
            thread.join(10)

    def cut_all(self) -> None:
        for one in list(self._open):
            cut(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._entry.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        """Take one request of a connection; the answer ends it."""
        with watched(self._open, client), contextlib.suppress(OSError):
            request = read_request(client)
            if request and re.search(rb"(?i)\r\nupgrade: websocket\r\n", request):
                self._tunnel(client, request)
            elif request:
                fault = "none" if self.is_good else self.rng.choice(FAULTS)
                self.met[fault] += 1
                getattr(self, f"_{fault}")(client, request)

    def _ask(self, request: bytes) -> bytes:
        with watched(self._open, socket.create_connection(self._to, 20)) as server:
            server.sendall(request)
            return b"".join(iter(lambda: server.recv(65_536), b""))

    # --- what a request may meet -------------------------------------------------------------------------------------

    def _none(self, client: socket.socket, request: bytes) -> None:
        client.sendall(self._ask(request))

    def _delayed(self, client: socket.socket, request: bytes) -> None:
        time.sleep(self.rng.uniform(0, 0.1))
        answer = self._ask(request)
        time.sleep(self.rng.uniform(0, 0.1))
        client.sendall(answer)

    def _request_cut(self, client: socket.socket, request: bytes) -> None:
        with watched(self._open, socket.create_connection(self._to, 20)) as server:
            server.sendall(request[: self.rng.randrange(len(request))])
            time.sleep(self.rng.uniform(0, 0.02))

    def _answer_cut(self, client: socket.socket, request: bytes) -> None:
        answer = self._ask(request)
        client.sendall(answer[: self.rng.randrange(1, max(2, len(answer)))])

    def _answer_dropped(self, client: socket.socket, request: bytes) -> None:
        self._ask(request)

    def _cut_while_it_runs(self, client: socket.socket, request: bytes) -> None:
        with watched(self._open, socket.create_connection(self._to, 20)) as server:
            server.sendall(request)
            time.sleep(self.rng.uniform(0, 0.01))

    def _sent_twice(self, client: socket.socket, request: bytes) -> None:
        self._ask(request)
        client.sendall(self._ask(request))

    def _sent_twice_at_once(self, client: socket.socket, request: bytes) -> None:
        first = threading.Thread(target=self._ask, args=(request,))
        first.start()
        answer = self._ask(request)
        first.join(20)
        client.sendall(answer)

    def _tunnel(self, client: socket.socket, request: bytes) -> None:
        """Carry a WebSocket both ways until it is cut."""
        with watched(self._open, socket.create_connection(self._to)) as server:
            server.sendall(request)
            back = threading.Thread(target=carry, args=(server, client))
            back.start()
            life = None if self.is_good else threading.Timer(self.rng.uniform(0.2, 0.8), cut, [server])
            if life:
                self.met["websocket"] += 1
                life.start()
            carry(client, server)
            back.join(10)


FAULTS = ["none", "delayed", *[fault for fault in vars(BadNetwork) if re.match(r"_(request|answer|cut_|sent)", fault)]]
FAULTS = [fault.removeprefix("_") for fault in FAULTS]


# --- devices ---------------------------------------------------------------------------------------------------------


@dataclass
class Phone:
    """A device behind the bad network, with its replica and the names of the rows it made."""

    name: str
    tenant: Tenant
    network: BadNetwork
    rng: random.Random
    cursor: str | None = None
    replica: dict[tuple[str, str], JSON] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    updates: int = 0
    tries: int = 0
    error: BaseException | None = None

    def run(self) -> None:
        try:
            for number in range(BATCHES):
                self.push(number)
                if self.rng.random() < 0.5:
                    self.pull(self.rng.randrange(1, 40))
        except BaseException as error:
            self.error = error

    def ask(self, path: str, body: JSON, **headers: str) -> JSON:
        """Send the same request until it is answered; an answer that can't be read whole is none."""
        url, headers = f"{self.network.url}/api/client/sync/{path}", {"X-Device-Id": self.name, **headers}
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < give_up:
            self.tries += 1
            with contextlib.suppress(requests.RequestException):
                named = {"Authorization": f"Bearer {self.tenant.token}", **headers}
                answer = requests.post(url, json=body, headers=named, timeout=20)
                found: JSON = answer.json()
                if answer.status_code == 200:
                    return found
                assert found["code"] == "busy", found
        raise AssertionError(f"{self.name} had no answer for {GIVE_UP_SECONDS} s")

    def push(self, number: int) -> None:
        """Push rows without ids, and an update of a row of all: under names of their own, or with a key for them all."""
        rows = [f"{self.name} {number} {index}" for index in range(self.rng.randrange(1, 6))]
        operations: list[JSON] = [create(self.rng.choice(TABLES), name) for name in rows]
        operations.append({"table": "end_user", "operation": "update", "data": {"id": "of-all", "note": rows[0]}})
        if self.rng.random() < 0.3:
            self.ask("push", {"operations": operations}, **{"Idempotency-Key": f"{self.name}-{number}"})
        else:
            named = [{**one, "opId": f"{self.name}-{number}-{index}"} for index, one in enumerate(operations)]
            self.ask("push", {"operations": named})
        self.made += rows
        self.updates += 1

    def pull(self, limit: int) -> None:
        """Pull page by page to the end; a page counts when it was read whole."""
        has_more = True
        while has_more:
            page = self.ask("pull", {"cursor": self.cursor, "limit": limit})
            self.replica |= {(table, row["id"]): row for table, rows in page["data"].items() for row in rows}
            self.cursor, has_more = page["cursor"], page["hasMore"]


def create(table: str, name: str) -> JSON:
    return {"table": table, "operation": "create", "data": {"name": name}}


def whole_of(device: Device) -> tuple[dict[tuple[str, str], JSON], JSON]:
    """Pull all of a tenant straight from the server, and give its digests too."""
    page = device.pull({"cursor": None, "limit": 10_000, "digest": True})
    assert not page["hasMore"]
    return {(table, row["id"]): row for table, rows in page["data"].items() for row in rows}, page["digest"]


def digests_of(rows: dict[tuple[str, str], JSON]) -> JSON:
    return {table: digest_of(row for key, row in rows.items() if key[0] == table) for table in TABLES}


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("SEED", random.randrange(10**9)))
    print("SEED", seed)
    return random.Random(seed)


@pytest.fixture
def big_server(start_server: Callable[..., Server]) -> Server:
    return start_server(MAX_PULL_ROWS="10000")


@pytest.fixture
def network(big_server: Server, rng: random.Random) -> Iterator[BadNetwork]:
    network = BadNetwork(big_server.port, rng)
    yield network
    network.close()


def run_all(phones: list[Phone]) -> None:
    threads = [threading.Thread(target=phone.run) for phone in phones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for phone in phones:
        if phone.error:
            raise phone.error


def test_bad_network_does_each_operation_exactly_once_and_all_devices_converge(
    big_server: Server, network: BadNetwork, rng: random.Random
) -> None:
    tenant = big_server.register()
    phones = [Phone(f"phone-{number}", tenant, network, random.Random(rng.random())) for number in range(DEVICES)]
    tenant.device().create(id="of-all")
    run_all(phones)
    rows, digest = whole_of(tenant.device())
    made = Counter(name for phone in phones for name in phone.made)
    assert Counter(row["name"] for row in rows.values() if row["id"] != "of-all") == made
    assert set(made.values()) == {1} and digest == digests_of(rows)
    assert rows["end_user", "of-all"]["version"] == 1 + sum(phone.updates for phone in phones)
    for phone in phones:
        phone.pull(40)
        assert phone.replica == rows, f"{phone.name} has not converged"
    print("rows", len(made), "tries", sum(phone.tries for phone in phones), "met", dict(network.met))
    assert set(network.met) >= set(FAULTS)
    assert [line for line in big_server.log if line["level"] in ("error", "raw")] == []


# --- a listener ------------------------------------------------------------------------------------------------------


@dataclass
class Ear:
    """A listener that pulls only when it is told to: by ``missed``, or by a notification that does not follow on."""

    phone: Phone
    missed: list[int] = field(default_factory=list)
    pulls: int = 0
    adopted: int = 0
    taken: int = 0

    def connect(self) -> Listener | None:
        """Connect with the cursor, and pull if there is something to pull; None if the network cut this too."""
        auth = {"token": self.phone.tenant.token, "cursor": self.phone.cursor, "deviceId": self.phone.name}
        try:
            listener = Listener(self.phone.network.url, auth=auth)
        except socketio.exceptions.ConnectionError:
            return None
        self.taken = 0
        wait_for(lambda: listener.of("authenticated") or listener.is_gone.is_set(), "authenticated")
        for greeting in listener.of("authenticated"):
            self.missed.append(greeting["missed"])
            if greeting["missed"]:
                self.pull()
        return listener

    def pull(self) -> None:
        self.pulls += 1
        self.phone.pull(40)

    def hear(self, listener: Listener) -> None:
        """Take the notifications that came, in their order: a push is taken when its last, ``sync_complete``, is."""
        notes = listener.notes()
        for note in notes[self.taken :]:
            self.taken += 1
            if place(note["cursor"]) > place(self.phone.cursor):
                self.take(note)

    def take(self, note: JSON) -> None:
        """Take the row that a notification brings; pull if it does not follow on, or brings none."""
        if note["previousCursor"] != self.phone.cursor or (note["type"] == "data_available" and note["count"] > 1):
            self.pull()
        elif note["type"] == "data_available":
            self.phone.replica[note["entityType"], note["entityId"]] = note["data"]
        else:
            self.phone.cursor = note["cursor"]
            self.adopted += 1


def place(cursor: str | None) -> int:
    return int(cursor.split("-")[1]) if cursor else -1


def listen_while(ear: Ear, is_going: Callable[[], bool]) -> int:
    """Listen, and connect anew whenever the connection is cut; give how often that was."""
    times = 0
    while is_going():
        listener = ear.connect()
        times += 1
        while listener and is_going() and not listener.is_gone.is_set():
            ear.hear(listener)
            time.sleep(0.005)
        if listener:
            ear.hear(listener)
            listener.close()
            listener.is_gone.wait(5)
    return times


def push_rows(device: Device, count: int, rng: random.Random) -> None:
    for number in range(count):
        device.create(rng.choice(TABLES), id=f"r{rng.randrange(50)}", note=str(number))
        if rng.random() < 0.1:
            device.push(
                {
                    "changes": {
                        "end_user": [{"id": f"s{number}"}, {"id": f"t{number}"}],
                        "interactions": [{"id": f"s{number}"}],
                    }
                }
            )
        time.sleep(rng.uniform(0, 0.05))


def test_listener_that_is_cut_again_and_again_learns_that_it_has_to_pull_and_ends_equal(
    big_server: Server, network: BadNetwork, rng: random.Random
) -> None:
    tenant = big_server.register()
    ear = Ear(Phone("ear", tenant, network, random.Random(rng.random())))
    pusher = threading.Thread(target=push_rows, args=(tenant.device(), 200, random.Random(rng.random())))
    pusher.start()
    times = listen_while(ear, pusher.is_alive)
    network.is_good = True
    last = ear.connect()
    assert last is not None
    last.close()
    rows, digest = whole_of(tenant.device())
    assert ear.phone.replica == rows and digest == digests_of(ear.phone.replica)
    again = ear.connect()
    assert again is not None and ear.missed[-1] == 0
    again.close()
    print("connections", times, "missed", ear.missed, "pulls", ear.pulls, "adopted", ear.adopted, dict(network.met))
    assert times > 3 and sum(map(bool, ear.missed)) > 1 and ear.adopted > 0
