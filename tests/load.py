"""Devices that push without a pause to several doors of an installation, again and again until each push is answered.

Knows: which answers a client has to expect of servers that come and go. Must not know: what befalls them.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import requests
import socketio
from gevent.event import AsyncResult

from tests.conftest import JSON, Tenant
from tests.socketio_client import end, new_client

_EXPECTED = {(503, "busy"), (503, "outcome_unknown"), (409, "busy")}
_OF_PROXIES = {502, 503, 504}
_CONNECT_SECONDS, _READ_SECONDS = 3.05, 8.0
_GIVE_UP_SECONDS = 90.0


@dataclass
class Record:
    """What all devices of a tenant were told."""

    rows: dict[str, int] = field(default_factory=dict)
    """By the name of a batch, how many rows it has."""
    counters: dict[str, int] = field(default_factory=dict)
    """By the ID of a row that one device alone counts up, how far it came."""
    spans: set[tuple[str, str]] = field(default_factory=set)
    changes: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    answered: list[tuple[float, float, str]] = field(default_factory=list)
    """When each push was sent and answered, and by which door."""
    faults: list[str] = field(default_factory=list)


@dataclass
class Push:
    """One push: its body, its headers, what is noted when it is answered."""

    body: JSON
    headers: dict[str, str]
    changes: int
    note: Callable[[], None]


class Pusher:
    """One device; ``send`` gives the status and the body of an answer, or raises what a client meets."""

    def __init__(self, name: str, tenant: Tenant, doors: list[str], record: Record, chance: random.Random) -> None:
        self.name, self.tenant, self.doors, self.record, self.chance = name, tenant, doors, record, chance
        self.is_over = False
        self._numbers = itertools.count(1)

    def run(self) -> None:
        while not self.is_over and not self.record.faults:
            push = self.next_push()
            answer = self._answered(push)
            if answer is None:
                return
            push.note()
            self.record.changes += push.changes
            statuses = Counter(result["status"] for result in answer["results"])
            if statuses["created"] + statuses["updated"] != push.changes:
                self.record.faults.append(f"{self.name}: {push} was answered by {answer}")
            self.record.spans.add((answer["previousCursor"], answer["cursor"]))

    def next_push(self) -> Push:
        """Make one that is done once, however often it is sent."""
        number = next(self._numbers)
        return self.chance.choice([self._one_without_id, self._counter, self._batch])(f"{self.name}.{number}", number)

    def _operation(self, name: str, operation: str, data: JSON, note: Callable[[], None]) -> Push:
        one = {"table": "end_user", "operation": operation, "data": data}
        if self.chance.random() < 0.5:
            return Push({"operations": [one | {"opId": name}]}, {}, 1, note)
        return Push(one, {"Idempotency-Key": name}, 1, note)

    def _one_without_id(self, name: str, number: int) -> Push:
        """A repeat that is taken for another makes another row."""
        data = {"batch": name, "size": 1}
        return self._operation(name, "create", data, lambda: self.record.rows.update({name: 1}))

    def _counter(self, name: str, number: int) -> Push:
        """A repeat of an old one that is taken for new puts the row back."""
        data = {"id": self.name, "note": str(number)}
        return self._operation(name, "update", data, lambda: self.record.counters.update({self.name: number}))

    def _batch(self, name: str, number: int) -> Push:
        size = self.chance.randrange(2, 12)
        rows = [{"id": f"{name}.{index}", "batch": name, "size": size} for index in range(size)]
        changes = {"end_user": rows[: size // 2], "interactions": rows[size // 2 :]}
        return Push(
            {"changes": changes}, {"Idempotency-Key": name}, size, lambda: self.record.rows.update({name: size})
        )

    def _answered(self, push: Push) -> JSON | None:
        give_up = time.monotonic() + _GIVE_UP_SECONDS
        while time.monotonic() < give_up:
            door, sent = self.chance.choice(self.doors), time.monotonic()
            try:
                status, answer = self.send(door, push)
            except (requests.RequestException, socketio.exceptions.SocketIOError):
                self.record.statuses["no answer"] += 1
                time.sleep(0.02)
                continue
            self.record.statuses[f"{status} {answer.get('code', '')}"] += 1
            if status == 200:
                self.record.answered.append((sent, time.monotonic(), door))
                return answer
            if (status, answer.get("code")) not in _EXPECTED:
                self.record.faults.append(f"{self.name}: {status} {answer}")
                return None
            time.sleep(0.05)
        self.record.faults.append(f"{self.name}: no answer for {_GIVE_UP_SECONDS} s")
        return None

    def send(self, door: str, push: Push) -> tuple[int, JSON]:
        """Send it over HTTP; now and then by two doors at once, as a client whose network gave up too soon."""
        if self.chance.random() < 0.7:
            return self._posted(door, push)
        other = gevent.spawn(self._sent_as_well, self.chance.choice(self.doors), push)
        status, answer = self._posted(door, push)
        if status == 200 and (also := other.get()) and _results(also) != _results(answer):
            self.record.faults.append(f"{self.name}: {push} was answered by {answer} and by {also}")
        return status, answer

    def _sent_as_well(self, door: str, push: Push) -> JSON | None:
        """Send it too, and give a good answer, if there is one."""
        try:
            status, answer = self._posted(door, push)
        except requests.RequestException:
            return None
        if status != 200 and (status, answer.get("code")) not in _EXPECTED:
            self.record.faults.append(f"{self.name}: {status} {answer}")
        return answer if status == 200 else None

    def _posted(self, door: str, push: Push) -> tuple[int, JSON]:
        headers = push.headers | {"Authorization": f"Bearer {self.tenant.token}", "X-Device-Id": self.name}
        answer = requests.post(
            f"{door}/api/client/sync/push", json=push.body, headers=headers, timeout=(_CONNECT_SECONDS, _READ_SECONDS)
        )
        if answer.status_code in _OF_PROXIES and "X-Request-ID" not in answer.headers:
            raise requests.ConnectionError("the proxy has no process to give it to")
        return answer.status_code, answer.json()

    def close(self) -> None:
        """End what it keeps open."""


def _results(answer: JSON) -> list[JSON]:
    return [{name: value for name, value in one.items() if name != "replayed"} for one in answer["results"]]


class EventPusher(Pusher):
    """A device that pushes by events; these have names of operations only."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._client: socketio.Client | None = None
        self._door = ""

    def _operation(self, name: str, operation: str, data: JSON, note: Callable[[], None]) -> Push:
        one = {"table": "end_user", "operation": operation, "data": data, "opId": name}
        return Push({"operations": [one]}, {}, 1, note)

    def _batch(self, name: str, number: int) -> Push:
        size = self.chance.randrange(2, 12)
        rows = [{"id": f"{name}.{index}", "batch": name, "size": size} for index in range(size)]
        operations = [
            {"table": "interactions", "operation": "create", "data": row, "opId": str(row["id"])} for row in rows
        ]
        return Push({"operations": operations}, {}, size, lambda: self.record.rows.update({name: size}))

    def send(self, door: str, push: Push) -> tuple[int, JSON]:
        """Send it as an event, to where it is connected to, if it is."""
        try:
            if self._client is None or not self._client.connected:
                self._connect(door)
            assert self._client is not None
            answer = self._client.call("sync_push", push.body, timeout=_READ_SECONDS)
        except socketio.exceptions.SocketIOError:
            self.close()
            raise
        code = answer.get("code")
        return (200 if code is None else 503 if (503, code) in _EXPECTED else 500), answer

    def _connect(self, door: str) -> None:
        self.close()
        self._client = client = new_client(reconnection=False)
        greeted = AsyncResult()
        client.on("authenticated", greeted.set)
        client.on("authentication_error", greeted.set)
        auth = {"token": self.tenant.token, "deviceId": self.name}
        transport = self.chance.choice([["websocket"], ["polling"]])
        client.connect(door, auth=auth, transports=transport, wait_timeout=_READ_SECONDS)
        with gevent.Timeout(_READ_SECONDS, socketio.exceptions.TimeoutError):
            greeting = greeted.get()
        if greeting.get("code", "busy") != "busy":
            self.record.faults.append(f"{self.name}: {greeting}")
        if not greeting.get("success"):
            raise socketio.exceptions.ConnectionError("the server could not look into the token")

    def close(self) -> None:
        """See ``Pusher``."""
        if self._client is not None:
            end(self._client)
            self._client = None
