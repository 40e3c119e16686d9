"""More comes than a tenant may have done at once: some wait, the others are told when to come back, nobody is left without
an answer.

A push whose last byte does not come is under way until it does. Seen to fail with: nobody let in when one ends; no
deadline; a refusal that leaves the body behind; a stop that does not let those in who wait; events that do not wait.
"""

from __future__ import annotations

import json
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.conftest import WAIT_SECONDS, Server, Tenant, wait_for
from tests.raw_http import Answer, connect, read_answer
from tests.raw_sockets import raw_socket
from tests.refusals import complaints, shaped
from tests.system.test_soak import counts

pytestmark = pytest.mark.server

RUNNING, WAITING = 2, 3
LIMITS = {"MAX_TENANT_REQUESTS": str(RUNNING), "MAX_TENANT_WAITING": str(WAITING), "TENANT_WAIT_MS": "60000"}
"""Those who wait do so for as long as a test takes."""


def body_of(number: int) -> str:
    return json.dumps({"table": "end_user", "operation": "create", "data": {"id": f"r{number}"}})


class Pushes:
    """Pushes of a tenant, each on a connection of its own; the first ones stay under way."""

    def __init__(self, tenant: Tenant, stack: ExitStack) -> None:
        self._tenant, self._stack, self._connections = tenant, stack, list[Any]()
        self.send(RUNNING, lacking=1)
        self.wait_for_in_flight(RUNNING)

    def _bytes_of(self, number: int) -> bytes:
        body = body_of(number)
        head = ["POST /api/client/sync/push HTTP/1.1", "Host: x", f"Authorization: Bearer {self._tenant.token}"]
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", body]
        return "\r\n".join(head).encode()

    def send(self, count: int, lacking: int = 0) -> None:
        """Send so many more, whole or without their last byte."""
        for number in range(len(self._connections), len(self._connections) + count):
            data = self._bytes_of(number)
            connection = connect(self._tenant.server, data[: len(data) - lacking])
            self._connections.append(self._stack.enter_context(connection))

    def send_again(self, number: int) -> None:
        self._connections[number].sendall(self._bytes_of(number))

    def end_running(self) -> None:
        for connection in self._connections[:RUNNING]:
            connection.sendall(b"}")

    def leave(self, number: int) -> None:
        self._connections[number].close()

    def answer(self, number: int) -> Answer:
        with self._connections[number].makefile("rb") as file:
            answer = read_answer(file)
        assert answer is not None, f"push {number} got no answer"
        return answer

    def wait_for_in_flight(self, count: int) -> None:
        wait_for(lambda: counts(self._tenant.server)["in_flight"] == count, f"{count} to be in flight")

    def rows(self) -> list[str]:
        return sorted(row["id"] for row in self._tenant.device().rows())


@pytest.fixture
def pushes(start_server: Callable[..., Server]) -> Iterator[Callable[..., tuple[Tenant, Pushes]]]:
    """Fill a tenant of a server of its own: as many of its pushes run as may."""
    with ExitStack() as stack:

        def fill(**settings: str) -> tuple[Tenant, Pushes]:
            tenant = start_server(**LIMITS | settings).register()
            tenant.device().create(id="first")
            return tenant, Pushes(tenant, stack)

        yield fill


MakePushes = Callable[..., tuple[Tenant, Pushes]]


def check_refused(answer: Answer) -> None:
    assert (answer.status, shaped(json.loads(answer.body))["code"], answer.says_close) == (503, "busy", False)
    assert answer.headers["retry-after"] in ("1", "2", "3")


def test_pushes_beyond_the_limit_wait_and_one_more_is_told_to_come_back(pushes: MakePushes) -> None:
    tenant, some = pushes()
    some.send(WAITING)
    some.wait_for_in_flight(RUNNING + WAITING)
    some.send(3)
    for number in (5, 6, 7):
        check_refused(some.answer(number))
    some.end_running()
    assert [some.answer(number).status for number in range(5)] == [200] * 5
    some.send_again(6)
    assert some.answer(6).status == 200, "the connection of one that was refused is no longer good"
    assert some.rows() == ["first", "r0", "r1", "r2", "r3", "r4", "r6"]
    assert complaints(tenant.server) == []


def test_tenant_at_its_limit_makes_no_other_wait(pushes: MakePushes) -> None:
    tenant, some = pushes()
    some.send(WAITING + 20)
    device = tenant.server.register().device()
    with closing(device.listen()) as listener:
        for number in range(10):
            device.create(id=f"o{number}")
            listener.wait_note("sync_complete", number + 1)
    assert len(device.rows()) == 10
    some.end_running()
    assert [some.answer(number).status for number in range(5)] == [200] * 5


def test_push_that_waited_for_as_long_as_it_may_is_refused(pushes: MakePushes) -> None:
    _, some = pushes(TENANT_WAIT_MS="50")
    some.send(1)
    check_refused(some.answer(RUNNING))
    some.send_again(RUNNING)
    check_refused(some.answer(RUNNING))
    some.end_running()
    assert [some.answer(number).status for number in range(RUNNING)] == [200] * RUNNING
    some.send_again(RUNNING)
    assert some.answer(RUNNING).status == 200
    assert some.rows() == ["first", "r0", "r1", "r2"]


def test_client_that_leaves_while_it_waits_leaves_no_place_taken(pushes: MakePushes) -> None:
    tenant, some = pushes()
    some.send(WAITING)
    some.wait_for_in_flight(RUNNING + WAITING)
    for number in range(RUNNING, RUNNING + WAITING):
        some.leave(number)
    some.end_running()
    assert [some.answer(number).status for number in range(RUNNING)] == [200] * RUNNING
    some.wait_for_in_flight(0)
    tenant.device().create(id="after")
    assert "after" in some.rows() and complaints(tenant.server) == []


def test_server_that_stops_answers_those_who_wait(pushes: MakePushes) -> None:
    tenant, some = pushes()
    some.send(WAITING)
    some.wait_for_in_flight(RUNNING + WAITING)
    some.send(1)
    check_refused(some.answer(RUNNING + WAITING))
    assert tenant.server.process is not None
    tenant.server.process.send_signal(signal.SIGTERM)
    some.end_running()
    assert [some.answer(number).status for number in range(RUNNING + WAITING)] == [200] * (RUNNING + WAITING)
    assert tenant.server.process.wait(60) == 0 and complaints(tenant.server) == []


def test_push_by_event_waits_and_is_refused_as_one_over_http(pushes: MakePushes) -> None:
    tenant, some = pushes()
    with ExitStack() as stack:
        sockets = {number: stack.enter_context(raw_socket(tenant)) for number in range(10, 11 + WAITING)}
        for number, one in sockets.items():
            one.send(f'42{number}["sync_push",{body_of(number)}]')
        readable, _, _ = select.select(list(sockets.values()), [], [], WAIT_SECONDS)
        [refused] = [number for number, one in sockets.items() if one in readable]
        answer = acknowledged(sockets.pop(refused), refused)
        assert (answer["success"], answer["code"]) == (False, "busy") and answer["retryAfterSeconds"] in (1, 2, 3)
        some.end_running()
        assert all(acknowledged(one, number)["success"] for number, one in sockets.items())
    assert some.rows() == ["first", "r0", "r1", *(f"r{number}" for number in sockets)]


def acknowledged(connection: Any, number: int) -> dict[str, Any]:
    """Read to the acknowledgement of an event, and give what it says."""
    said, begin = connection.recv(), f"43{number}["
    while not said.startswith(begin):
        said = connection.recv()
    answer: dict[str, Any] = json.loads(said.removeprefix(begin).removesuffix("]"))
    return answer
