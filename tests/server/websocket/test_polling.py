"""Polling: bursts are taken to the last packet, nothing dropped is answered by OK, and half an upgrade costs nothing.

Faults that the tests were seen to find, the library's: more than sixteen packets of a body dropped, a body in chunks not
read, a malformed packet ignored, each answered by 200 OK; a poll that asks for an upgrade too ended the session; a
WebSocket that stays silent after its handshake kept all packets back.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import requests

from tests.by_hand import SEPARATOR, UPGRADE, Poller, Raw, address, frame, hello
from tests.conftest import Server, Tenant, wait_for
from tests.refusals import complaints, refused

MAX_BYTES = 65_536


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes little at once, from sockets that emit as much as they like."""
    env = {"MAX_FRAME_BYTES": str(MAX_BYTES), "SOCKET_EVENTS": "100000 per minute"}
    server = Server(tmp_path_factory.mktemp("polling") / "data", env).start()
    yield server
    assert server.stop() == 0 and complaints(server) == []


@pytest.fixture
def poller(server: Server, tenant: Tenant) -> Poller:
    return Poller(server).join(tenant)


def acknowledged(packets: list[str]) -> list[int]:
    return [int(found[1]) for packet in packets if (found := re.match(r"43(\d+)\[", packet))]


def pings(count: int) -> list[str]:
    return [f'42{number}["ping"]' for number in range(1, count + 1)]


# --- bursts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [17, 41, 2_000])
def test_burst_in_one_body_is_acknowledged_to_the_last(poller: Poller, count: int) -> None:
    """Fault too: the answers counted as a listener's that fell behind, which ended the session at 1,024."""
    answers: list[requests.Response] = []
    posting = threading.Thread(target=lambda: answers.append(poller.post(*pings(count))))
    posting.start()
    numbers: list[int] = []
    while len(numbers) < count:
        numbers += acknowledged(poller.packets())
    posting.join()
    assert numbers == list(range(1, count + 1))
    assert (answers[0].status_code, answers[0].text) == (200, "ok")


@pytest.mark.parametrize("count", [40, 1_500])
@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_burst_of_the_python_client_is_acknowledged_to_the_last(tenant: Tenant, transport: str, count: int) -> None:
    with closing(tenant.device().listen(transport)) as listener:
        answers: list[Any] = []
        for _ in range(count):
            listener.client.emit("ping", callback=answers.append)
        wait_for(lambda: len(answers) == count, lambda: f"{count} answers, not {len(answers)}")
        assert all(answer == {"success": True} for answer in answers) and not listener.is_gone.is_set()


def test_burst_whose_answers_nobody_takes_waits_and_ends_with_the_session(poller: Poller) -> None:
    """Fault: it waited for ever, and held up a stop of the server."""
    answers: list[requests.Response] = []
    posting = threading.Thread(target=lambda: answers.append(poller.post(*pings(2_000))))
    posting.start()
    while 8 not in acknowledged(poller.packets()):
        pass
    assert poller.post('42["ping"]').status_code == 400  # A second POST at a time: the session ends.
    posting.join()
    refused(answers[0], 400, "validation_error")


def test_body_over_the_limit_is_413_and_ends_the_session(server: Server, tenant: Tenant) -> None:
    """Faults: 400 without a word; a session that goes on with a part of what was sent."""
    poller = Poller(server).join(tenant)
    body = SEPARATOR.join(['421["ping"]', f'422["ping","{"x" * MAX_BYTES}"]'])
    refusal = refused(poller.post(body), 413, "payload_too_large")
    assert "65,536" in refusal["error"] and poller.is_over()
    poller = Poller(server).join(tenant)
    exact = '421["ping","' + "x" * (MAX_BYTES - 14) + '"]'
    assert len(exact) == MAX_BYTES and poller.post(exact).text == "ok" and acknowledged(poller.packets()) == [1]


def test_client_is_told_how_much_it_may_send_at_once(server: Server) -> None:
    assert Poller(server).opened["maxPayload"] == MAX_BYTES


def test_body_in_chunks_is_taken(poller: Poller) -> None:
    """As proxies send it that do not wait for the whole. Fault: no length, nothing read, OK."""
    body = SEPARATOR.join(pings(30)).encode()
    sent = poller.post(data=iter([body[:7], body[7:100], body[100:]]))
    assert sent.text == "ok"
    numbers: list[int] = []
    while len(numbers) < 30:
        numbers += acknowledged(poller.packets())
    assert numbers == list(range(1, 31))


@pytest.mark.parametrize(
    "bad",
    ["", "x", "b!!!", "bQUJD", b"\xff", "0", "4", "4x", "42{}", '42x["ping"]', '4{"a":1}', "4null", "47", '44"x"'],
    ids=repr,
)
def test_body_that_holds_what_is_no_packet_is_400_and_ends_the_session(poller: Poller, bad: str | bytes) -> None:
    """What came before it was done. Fault: 200 OK."""
    refused(poller.post('421["ping"]', bad, '422["ping"]'), 400, "validation_error")
    assert poller.is_over()


def test_body_that_breaks_off_does_nothing_and_ends_the_session(poller: Poller, server: Server) -> None:
    path = poller.address.removeprefix(server.url)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as network:
        network.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n".encode() + b'421["ping"]')
        network.shutdown(socket.SHUT_WR)
        while network.recv(65_536):
            pass
    assert poller.is_over()


# --- one request each way --------------------------------------------------------------------------------------------


def test_second_poll_at_a_time_ends_the_session(poller: Poller) -> None:
    first: list[requests.Response] = []
    polling = threading.Thread(target=lambda: first.append(poller.get()))
    polling.start()
    answers = [requests.get(poller.address, timeout=20)]
    polling.join()
    answers += first
    assert sorted(answer.status_code for answer in answers) == [200, 400] and poller.is_over()
    assert "6" in [answer.text for answer in answers]


def test_session_that_its_client_closes_is_answered_and_over(poller: Poller) -> None:
    waiting: list[str] = []
    polling = threading.Thread(target=lambda: waiting.append(poller.get().text))
    polling.start()
    assert poller.post("1").text == "ok"
    polling.join()
    assert waiting in (["6"], ["2"]) or not waiting[0].startswith("4")
    assert poller.is_over()


# --- half an upgrade -------------------------------------------------------------------------------------------------


HALF = [
    pytest.param({"Connection": None}, id="no Connection"),
    pytest.param({"Upgrade": None}, id="no Upgrade"),
    pytest.param({"Connection": "close"}, id="Connection: close"),
    pytest.param({"Upgrade": "h2c"}, id="another protocol"),
    pytest.param({"Sec-WebSocket-Key": None}, id="no key"),
    pytest.param({"Sec-WebSocket-Version": None}, id="no version"),
    pytest.param(dict.fromkeys(UPGRADE), id="none of it"),
]


@pytest.mark.parametrize("change", HALF)
def test_upgrade_of_which_a_proxy_took_a_part_is_refused_and_polling_goes_on(
    server: Server, poller: Poller, tenant: Tenant, change: dict[str, str | None]
) -> None:
    headers = {name: value for name, value in (UPGRADE | change).items() if value is not None}
    asked = requests.get(address(server, transport="websocket", sid=poller.sid), headers=headers, timeout=10)
    refused(asked, 400, "validation_error")
    tenant.device().create(id="r1")
    assert '"r1"' in poller.until('42["sync_notification"') and poller.post('427["ping"]').text == "ok"
    poller.until("437[")


@pytest.mark.parametrize("headers", [UPGRADE, {"Connection": "upgrade"}, {"Upgrade": "websocket"}], ids=repr)
def test_poll_to_which_a_proxy_added_an_upgrade_is_a_poll(
    server: Server, tenant: Tenant, headers: dict[str, str]
) -> None:
    poller = Poller(server)
    opened = requests.get(address(server, transport="polling"), headers=headers, timeout=10)
    assert opened.status_code == 200 and opened.text.startswith('0{"sid"')
    assert requests.post(poller.address, data=hello(tenant), headers=headers, timeout=10).text == "ok"
    polled = requests.get(poller.address, headers=headers, timeout=10)
    assert polled.status_code == 200 and "40{" in polled.text


@pytest.mark.parametrize("upgrade", ["WebSocket", "h2c, websocket", "websocket, h2c"])
def test_upgrade_in_another_spelling_is_one(server: Server, tenant: Tenant, upgrade: str) -> None:
    """Fault, the library's: it compares the whole header, after 101."""
    with Raw(server, Upgrade=upgrade) as raw:
        assert raw.answer.startswith("HTTP/1.1 101 ")
        raw.until("0{")
        raw.join(tenant)


@pytest.mark.parametrize(
    "first", [b"", frame("2"), frame("4x"), frame(b"", 8)], ids=["gone", "ping", "message", "close"]
)
def test_websocket_without_a_probe_leaves_the_session_to_polling(
    server: Server, poller: Poller, tenant: Tenant, first: bytes
) -> None:
    """Fault: while it was open polls were told that there is nothing, and the packets waited."""
    with Raw(server, poller.sid) as raw:
        assert raw.answer.startswith("HTTP/1.1 101 ")
        tenant.device().create(id="r1")
        assert '"r1"' in poller.until('42["sync_notification"')
        raw.send(first)
        if first:
            assert raw.is_over()
    tenant.device().create(id="r2")
    while '"r2"' not in poller.until('42["sync_notification"'):
        pass


def test_upgrade_that_breaks_off_after_the_probe_gives_the_session_back(
    server: Server, poller: Poller, tenant: Tenant
) -> None:
    with Raw(server, poller.sid) as raw:
        raw.say("2probe")
        assert raw.packet() == "3probe"
        tenant.device().create(id="r1")
        assert poller.get().text == "6"
    while '"r1"' not in (said := SEPARATOR.join(poller.packets())):
        assert said in ("6", "")


def test_session_has_one_websocket_also_while_that_probes(server: Server, poller: Poller) -> None:
    with Raw(server, poller.sid) as first, Raw(server, poller.sid) as second:
        assert second.is_over()
        first.say("2probe")
        assert first.packet() == "3probe"
