"""Engine.IO protocol 4: the cases of its official suite, by their names, and what its text demands beside them.

Written anew from the protocol's text. The suite wants a server that echoes; here an event is acknowledged instead.
``APART`` are the cases in which this server departs from it, with what it does then; ``docs/api.md`` tells why.
Seen to fail on python-engineio's own way: no transport named, a packet that is none, two polls or two POSTs at a time, a
session whose client closed it, ``OK`` for ``ok``, a noop left over after the upgrade.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.by_hand import SEPARATOR, TEXT, UPGRADE, Frame, Poller, Raw, Suite, address, frame, get
from tests.conftest import ROOT, Server, Tenant, wait_for
from tests.refusals import refused

pytestmark = pytest.mark.server

APART = {
    "polling: fails with an invalid request method": "405 for a method that there is not",
    "polling: closes the session upon duplicate poll requests": "the first is answered by noop",
    "polling: sends and receives a payload containing plain text and binary packets": "400, the session ends",
    "websocket: sends and receives a binary packet": "the connection ends",
}
suite = Suite()


@pytest.fixture
def poller(hasty_server: Server) -> Poller:
    return Poller(hasty_server)


def join(poller: Poller, account: Tenant) -> Poller:
    return poller.join(account)


# --- handshake -------------------------------------------------------------------------------------------------------


@suite.case("polling: successfully opens a session")
def test_polling_opens_a_session(poller: Poller) -> None:
    opened = poller.opened
    assert opened == {
        "sid": opened["sid"],
        "upgrades": ["websocket"],
        "pingInterval": 1000,
        "pingTimeout": 1000,
        "maxPayload": 1_048_576,
    }
    assert len(opened["sid"]) >= 20


@suite.case("websocket: successfully opens a session")
def test_websocket_opens_a_session(hasty_server: Server) -> None:
    with Raw(hasty_server) as raw:
        opened = raw.packet()
        assert '"upgrades":[]' in opened and '"pingInterval":1000' in opened and '"maxPayload":1048576' in opened


@suite.case("polling: fails with an invalid 'EIO' query parameter")
@suite.case("polling: fails with an invalid 'transport' query parameter")
@pytest.mark.parametrize("wrong", [{"EIO": None}, {"EIO": "abc"}, {"EIO": 3}, {"transport": None}, {"transport": "x"}])
def test_polling_with_a_wrong_query_is_400(hasty_server: Server, wrong: dict[str, Any]) -> None:
    refused(get(hasty_server, **({"transport": "polling"} | wrong)), 400, "validation_error")


@suite.case("websocket: fails with an invalid 'EIO' query parameter")
@suite.case("websocket: fails with an invalid 'transport' query parameter")
@pytest.mark.parametrize("wrong", [{"EIO": None}, {"EIO": "abc"}, {"EIO": 3}, {"transport": None}, {"transport": "x"}])
def test_websocket_with_a_wrong_query_is_400_before_it_is_one(hasty_server: Server, wrong: dict[str, Any]) -> None:
    refused(get(hasty_server, UPGRADE, **({"transport": "websocket"} | wrong)), 400, "validation_error")


@suite.case("polling: fails with an invalid request method")
def test_polling_with_a_wrong_method_is_refused(hasty_server: Server) -> None:
    at = address(hasty_server, transport="polling")
    refused(requests.post(at, timeout=60), 400, "validation_error")
    refused(requests.put(at, timeout=60), 405, "method_not_allowed")


# --- message ---------------------------------------------------------------------------------------------------------


@suite.case("polling: sends and receives a payload containing one plain text packet")
@suite.case("polling: sends and receives a payload containing several plain text packets")
@pytest.mark.parametrize("count", [1, 3, 100])
def test_polling_takes_packets_together(poller: Poller, account: Tenant, count: int) -> None:
    join(poller, account)
    sent = poller.post(*(f'42{number}["ping","h\u00e9llo"]' for number in range(count)))
    assert (sent.status_code, sent.text) == (200, "ok")
    heard: list[str] = []
    while len(heard) < count:
        heard += [packet for packet in poller.packets() if packet.startswith("43")]
    assert heard == [f'43{number}[{{"success":true}}]' for number in range(count)]


@suite.case("websocket: sends and receives a plain text packet")
def test_websocket_takes_a_packet(raw: Raw, account: Tenant) -> None:
    raw.join(account).say('427["ping","h\u00e9llo"]')
    assert raw.until("43") == '437[{"success":true}]'


@suite.case("polling: sends and receives a payload containing plain text and binary packets")
def test_polling_with_binary_ends_the_session(poller: Poller, account: Tenant) -> None:
    refused(join(poller, account).post('427["ping"]', "bAQIDBA=="), 400, "validation_error")
    assert poller.is_over()


@suite.case("websocket: sends and receives a binary packet")
def test_websocket_with_binary_ends_the_connection(raw: Raw, account: Tenant) -> None:
    raw.join(account).send(frame(b"\x01\x02\x03\x04", 2))
    assert raw.is_over()


@suite.case("polling: closes the session upon invalid packet format")
def test_polling_with_what_is_no_packet_ends_the_session(poller: Poller) -> None:
    refused(poller.post("abc"), 400, "validation_error")
    assert poller.is_over()


@suite.case("websocket: closes the session upon invalid packet format")
def test_websocket_with_what_is_no_packet_ends_the_session(raw: Raw) -> None:
    raw.say("abc")
    assert raw.is_over()


@suite.case("polling: closes the session upon duplicate poll requests")
def test_two_polls_at_a_time_end_the_session(poller: Poller) -> None:
    poller.packets()  # Whatever is there.
    with ThreadPoolExecutor(2) as pool:
        answers = [each.result() for each in [pool.submit(requests.get, poller.address, timeout=20) for _ in range(2)]]
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    assert [answer.text for answer in answers if answer.ok] in (["6"], ["2"])
    assert poller.is_over()


def test_two_posts_at_a_time_end_the_session(poller: Poller) -> None:
    """Protocol, "Sending data". The first waits for the rest of its body."""
    arrives = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"3"
        arrives.wait(20)
        yield b"\x1e3"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(requests.post, poller.address, data=slow(), timeout=20)
        second = wait_for(lambda: (answer := poller.post("3")).status_code != 200 and (answer,), "400")[0]
        arrives.set()
        assert first.result().status_code == 400
    refused(second, 400, "validation_error")
    assert poller.is_over()


# --- heartbeat: all at once, since they take seconds -----------------------------------------------------------------


def pinged_poller(server: Server) -> bool:
    poller = Poller(server)
    for _ in range(3):
        assert poller.get().text == "2" and poller.post("3").text == "ok"
    return True


def pinged_websocket(server: Server) -> bool:
    with Raw(server) as raw:
        raw.packet()
        for _ in range(3):
            assert raw.frame() == Frame(TEXT, b"2")
            raw.say("3")
    return True


def silent_poller(server: Server) -> bool:
    """The time is the case's: one interval and one time-out."""
    poller = Poller(server)
    time.sleep(2.1)
    return poller.is_over()


def silent_websocket(server: Server) -> bool:
    with Raw(server) as raw:
        return raw.is_over()


@pytest.fixture(scope="module", autouse=True)
def beats(hasty_server: Server) -> Iterator[dict[str, Future[bool]]]:
    with ThreadPoolExecutor(4) as pool:
        kinds = (pinged_poller, pinged_websocket, silent_poller, silent_websocket)
        yield {kind.__name__: pool.submit(kind, hasty_server) for kind in kinds}


@suite.case("polling: sends ping/pong packets")
@suite.case("websocket: sends ping/pong packets")
@suite.case("polling: closes the session upon ping timeout")
@suite.case("websocket: closes the session upon ping timeout")
@pytest.mark.parametrize("kind", [pinged_poller, pinged_websocket, silent_poller, silent_websocket])
def test_session_lives_as_long_as_its_client_answers_pings(
    beats: dict[str, Future[bool]], kind: Callable[..., bool]
) -> None:
    assert beats[kind.__name__].result()


# --- close -----------------------------------------------------------------------------------------------------------


@suite.case("polling: forcefully closes the session")
def test_polling_client_closes_the_session(poller: Poller) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(requests.get, poller.address, timeout=20)
        wait_for(waiting.running, "the poll")
        closed = poller.post("1")
        assert closed.text == "ok" and (waiting.result().text == "6" or waiting.result().status_code == 400)
    assert poller.is_over()


@suite.case("websocket: forcefully closes the session")
def test_websocket_client_closes_the_session(raw: Raw) -> None:
    raw.say("1")
    assert raw.is_over()


# --- upgrade ---------------------------------------------------------------------------------------------------------


@suite.case("successfully upgrades from HTTP long-polling to WebSocket")
def test_session_upgrades(hasty_server: Server, poller: Poller, account: Tenant) -> None:
    join(poller, account)
    with Raw(hasty_server, poller.sid) as raw:
        raw.say("2probe")
        assert raw.packet() == "3probe"
        assert poller.get().text == "6"
        raw.say("5", '427["ping"]')
        assert raw.until("43") == '437[{"success":true}]'


def test_poll_that_waits_is_ended_by_the_upgrade(hasty_server: Server, poller: Poller, account: Tenant) -> None:
    """Protocol, "Upgrade": with a noop, or what there is for it."""
    join(poller, account)
    with ThreadPoolExecutor(1) as pool, Raw(hasty_server, poller.sid) as raw:
        waiting = pool.submit(poller.get)
        raw.say("2probe")
        assert raw.packet() == "3probe"
        assert waiting.result().text in ("6", "2")
        raw.say("5", '427["ping"]')
        assert raw.until("43") == '437[{"success":true}]'


def upgraded(server: Server, poller: Poller, account: Tenant) -> Raw:
    raw = Raw(server, join(poller, account).sid)
    raw.say("2probe", "5", '421["ping"]')
    raw.until("431[")
    return raw


@suite.case("ignores HTTP requests with same sid after upgrade")
def test_requests_after_the_upgrade_are_refused(hasty_server: Server, poller: Poller, account: Tenant) -> None:
    with upgraded(hasty_server, poller, account) as raw:
        refused(poller.get(), 400, "validation_error")
        refused(poller.post('421["ping"]'), 400, "validation_error")
        raw.say('427["ping"]')
        assert raw.until("43") == '437[{"success":true}]'


@suite.case("ignores WebSocket connection with same sid after upgrade")
def test_second_websocket_after_the_upgrade_is_refused(hasty_server: Server, poller: Poller, account: Tenant) -> None:
    with upgraded(hasty_server, poller, account) as raw:
        refused(get(hasty_server, UPGRADE, transport="websocket", sid=poller.sid), 400, "validation_error")
        raw.say('427["ping"]')
        assert raw.until("43") == '437[{"success":true}]'


# --- the suite -------------------------------------------------------------------------------------------------------


def test_each_case_of_the_suite_has_its_test_and_the_docs_tell_where_this_server_departs() -> None:
    assert len(suite) == 24 and APART.keys() <= suite
    said = (ROOT / "docs" / "api.md").read_text()
    assert all(f"| {name} | {here} |" in said for name, here in APART.items())


def test_packets_of_a_body_are_separated_as_the_protocol_says() -> None:
    assert chr(30) == SEPARATOR
