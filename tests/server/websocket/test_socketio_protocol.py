"""Socket.IO protocol 5: the cases of its official suite, by their names, and what its text demands beside them.

Written anew from the protocol's text. Half of its 32 cases are Engine.IO's, on the address of Socket.IO, which here is
the only one: ``server/websocket/test_engineio_protocol.py`` has them. ``APART`` are the cases in which this server
departs from it, with what it does then; ``docs/api.md`` tells why. Seen to fail on python-socketio's own way: each
packet that is none was ignored, the connection went on; the reason why a namespace is refused was nothing that
socket.io-client shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.by_hand import Poller, Raw, Suite, frame, hello
from tests.conftest import ROOT, Server, Tenant

pytestmark = pytest.mark.server

INVALID = '{"message":"Invalid namespace"}'
APART = {
    "should allow connection to a custom namespace": "refused: there is the main one",
    "should allow connection to a custom namespace with a payload": "refused: there is the main one",
    "should connect then disconnect from a custom namespace": "refused: there is the main one",
    "should send a packet with binary attachments": "refused by the event `error`",
    "should send a packet with binary attachments and an ack": "refused by its acknowledgement",
}
suite = Suite()


@pytest.fixture
def joined(raw: Raw, account: Tenant) -> Raw:
    """One to the main namespace."""
    return raw.join(account)


def answers(raw: Raw) -> bool:
    raw.say('4299["ping"]')
    return raw.until("4399[") == '4399[{"success":true}]'


def one_event(packet: str) -> tuple[str, Any]:
    event, body = json.loads(packet.removeprefix("42"))
    return event, body


# --- connect ---------------------------------------------------------------------------------------------------------


@suite.case("should allow connection to the main namespace")
def test_main_namespace_connects(raw: Raw) -> None:
    raw.say("40")
    connected = json.loads(raw.packet().removeprefix("40"))
    assert connected.keys() == {"sid"} and len(connected["sid"]) >= 20


@suite.case("should allow connection to the main namespace with a payload")
def test_main_namespace_connects_with_a_payload(raw: Raw, account: Tenant) -> None:
    raw.say(hello(account))
    assert json.loads(raw.packet().removeprefix("40")).keys() == {"sid"}
    event, body = one_event(raw.packet())
    assert (event, body["tenantId"]) == ("authenticated", account.id)


@suite.case("should allow connection to a custom namespace")
@suite.case("should allow connection to a custom namespace with a payload")
@pytest.mark.parametrize("packet", ["40/custom,", '40/custom,{"token":"abc"}'])
def test_other_namespace_is_refused_and_the_main_one_goes_on(joined: Raw, packet: str) -> None:
    joined.say(packet)
    assert joined.packet() == f"44/custom,{INVALID}"
    assert answers(joined)


@suite.case("should disallow connection to an unknown namespace")
@pytest.mark.parametrize("packet", ["40/random", "40/random,", '40/random,{"a":1}', "40/random?token=x,"])
def test_unknown_namespace_is_refused_with_a_message(raw: Raw, packet: str) -> None:
    raw.say(packet)
    assert raw.packet() == f"44/random,{INVALID}"


@suite.case("should disallow connection with an invalid handshake")
@pytest.mark.parametrize("packet", ["4abc", "4", "40{", "4[]", "4null", '4"x"', '4{"a":1}'])
def test_what_is_no_connection_ends_it(raw: Raw, packet: str) -> None:
    raw.say(packet)
    assert raw.is_over()


@pytest.fixture(scope="module", autouse=True)
def silent(hasty_server: Server) -> Iterator[Future[list[str]]]:
    """A client that answers pings, and says nothing else, until it is ended; begun at once, since that takes seconds."""

    def wait() -> list[str]:
        heard: list[str] = []
        with Raw(hasty_server) as raw:
            while (found := raw.frame()).opcode != 8:
                heard.append(found.payload.decode())
                if heard[-1] == "2":
                    raw.say("3")
        return heard

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(wait)


@suite.case("should close the connection if no handshake is received")
def test_connection_without_a_handshake_is_closed(silent: Future[list[str]]) -> None:
    opened, *pings = silent.result()
    assert opened.startswith("0{") and set(pings) == {"2"}


@pytest.mark.parametrize("packet", ['42["ping"]', '421["sync_push",{}]', '451-["ping",{"_placeholder":true,"num":0}]'])
def test_event_before_the_connection_ends_it(raw: Raw, packet: str) -> None:
    """Protocol, "Connection to a namespace"."""
    raw.say(packet)
    assert raw.is_over()


def test_second_connection_to_the_namespace_ends_it(joined: Raw) -> None:
    joined.say("40")
    assert joined.is_over()


# --- disconnect ------------------------------------------------------------------------------------------------------


@suite.case("should disconnect from the main namespace")
def test_main_namespace_disconnects_and_engine_io_goes_on(joined: Raw) -> None:
    """The next that comes is a ping; and the namespace may be joined again."""
    joined.say("41")
    assert joined.frame().payload == b"2"
    joined.say("3", "40")
    assert joined.packet().startswith("40{")


@suite.case("should connect then disconnect from a custom namespace")
def test_goodbye_to_another_namespace_leaves_the_main_one(joined: Raw) -> None:
    joined.say("40/custom", "41/custom", "41/custom,")
    assert joined.packet() == f"44/custom,{INVALID}"
    assert answers(joined)


# --- message ---------------------------------------------------------------------------------------------------------


@suite.case("should send a plain-text packet")
def test_event_without_an_acknowledgement_is_served(joined: Raw) -> None:
    joined.say('42["ping",1,"2",{"3":[true]}]')
    assert one_event(joined.packet())[0] == "pong"


@suite.case("should send a plain-text packet with an ack")
@pytest.mark.parametrize("number", ["456", "0", "9007199254740991"])
def test_event_with_an_acknowledgement_is_served(joined: Raw, number: str) -> None:
    joined.say(f'42{number}["sync_status_update",{{"status":"x"}},"2",{{"3":[false]}}]')
    assert joined.until("43") == f'43{number}[{{"success":true}}]'


@suite.case("should send a packet with binary attachments")
@suite.case("should send a packet with binary attachments and an ack")
@pytest.mark.parametrize(("number", "said"), [("", '42["error",'), ("789", "43789[")])
def test_event_with_binary_is_refused_and_the_connection_goes_on(joined: Raw, number: str, said: str) -> None:
    joined.say(f'452-{number}["ping",{{"_placeholder":true,"num":0}},{{"_placeholder":true,"num":1}}]')
    joined.send(frame(b"\x01\x02\x03", 2), frame(b"\x04\x05\x06", 2))
    refusal = joined.packet()
    assert refusal.startswith(said) and "Base64" in refusal
    assert answers(joined)


@suite.case("should close the connection upon invalid format (unknown packet type)")
@pytest.mark.parametrize("packet", ["4abc", "47", "49[]", "4x"])
def test_unknown_packet_type_ends_the_connection(joined: Raw, packet: str) -> None:
    joined.say(packet)
    assert joined.is_over()


@suite.case("should close the connection upon invalid format (invalid payload format)")
@pytest.mark.parametrize("packet", ["42{}", "42", "421", "42null", '42"ping"', "43{", "40[", "44{}"])
def test_payload_that_is_no_list_ends_the_connection(joined: Raw, packet: str) -> None:
    joined.say(packet)
    assert joined.is_over()


@suite.case("should close the connection upon invalid format (invalid ack id)")
@pytest.mark.parametrize("packet", ['42abc["ping"]', '42-1["ping"]', '421x["ping"]', "42" + "9" * 200 + '["ping"]'])
def test_number_that_is_none_ends_the_connection(joined: Raw, packet: str) -> None:
    joined.say(packet)
    assert joined.is_over()


def test_acknowledgement_that_nobody_asked_for_is_no_fault(joined: Raw) -> None:
    joined.say('4312["bar"]', "4313[]")
    assert answers(joined)


def test_what_ends_a_connection_ends_a_session_that_polls(hasty_server: Server, account: Tenant) -> None:
    poller = Poller(hasty_server).join(account)
    assert poller.post("42{}").status_code == 400 and poller.is_over()


# --- the suite -------------------------------------------------------------------------------------------------------


def test_each_case_of_the_suite_has_its_test_and_the_docs_tell_where_this_server_departs() -> None:
    """The other sixteen are Engine.IO's."""
    assert len(suite) == 16 and APART.keys() <= suite
    said = (ROOT / "docs" / "api.md").read_text()
    assert all(f"| {name} | {here} |" in said for name, here in APART.items())
