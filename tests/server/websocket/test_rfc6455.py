"""The cases of RFC 6455 against the server as it runs, each with its section.

Above the WebSocket it speaks Engine.IO: what a client says comes back as a pong, or as the acknowledgement of an event.
Seen to fail on the library's own reading of frames: text that is no UTF-8 refused with its last piece only, codes of a
close that are of nobody (5000) echoed and such that are registered (1012) refused, a reason cut in a character echoed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from tests.by_hand import CLOSE, PING, PONG, TEXT, UPGRADE, Frame, Raw, frame, get
from tests.conftest import Server, Tenant
from tests.refusals import refused

CONTINUATION, BINARY = 0x0, 0x2
_numbers = itertools.count(1)

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def account(server: Server) -> Tenant:
    return server.register()


@pytest.fixture
def raw(server: Server, account: Tenant) -> Iterator[Raw]:
    with Raw(server) as raw:
        yield raw.join(account)


def event(size: int) -> tuple[str, str]:
    """Make an event of so many bytes, and the start of what acknowledges it."""
    number = next(_numbers)
    head = f'42{number}["ping","'
    return head + "x" * (size - len(head) - 2) + '"]', f"43{number}["


def is_open(raw: Raw) -> bool:
    said, answered = event(30)
    raw.say(said)
    return bool(raw.until(answered))


def closes_with(raw: Raw, code: int, *data: bytes) -> None:
    raw.send(*data)
    assert raw.closed().code == code
    assert raw.is_over()


# --- 4.2: the handshake ----------------------------------------------------------------------------------------------


def test_handshake_is_answered_as_the_example_of_section_1_3(server: Server) -> None:
    with Raw(server) as raw:
        lines = raw.answer.splitlines()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        assert lines[0].startswith("HTTP/1.1 101 ")
        assert headers["upgrade"].lower() == "websocket" and headers["connection"].lower() == "upgrade"
        assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "offer",
    [
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"Sec-WebSocket-Protocol": "chat, superchat"},
    ],
    ids=["9.1: extensions", "4.2.2: subprotocols"],
)
def test_what_is_offered_and_not_spoken_is_not_agreed_to(
    server: Server, account: Tenant, offer: dict[str, str]
) -> None:
    """permessage-deflate too (RFC 7692 section 5): a frame that is compressed all the same has a reserved bit."""
    with Raw(server, **offer) as raw:
        assert not any(name.lower() in raw.answer.lower() for name in offer)
        raw.join(account)
        closes_with(raw, 1002, frame("4", first=0xC1))


@pytest.mark.parametrize(
    "change",
    [
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": "AAAA"},
        {"Connection": "keep-alive"},
        {"Upgrade": None},
    ],
    ids=str,
)
def test_section_4_2_1_handshake_that_is_none_is_400(server: Server, change: dict[str, str | None]) -> None:
    headers = {name: value for name, value in (UPGRADE | change).items() if value is not None}
    answer = get(server, headers, transport="websocket")
    refused(answer, 400, "validation_error")
    said = answer.headers.get("Sec-WebSocket-Version")
    assert said == ("13" if "Sec-WebSocket-Version" in change else None), "section 4.2.2: which is spoken"


# --- 5.2: sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [125, 126, 127, 128, 65_535, 65_536, 65_537, 1_048_576])
def test_section_5_2_message_of_each_form_of_length_is_taken(raw: Raw, size: int) -> None:
    said, answered = event(size)
    assert len(said) == size
    raw.say(said)
    assert raw.until(answered)


@pytest.mark.parametrize("size", [10, 200, 70_000])
def test_section_5_2_what_the_server_says_has_the_shortest_form_of_length(raw: Raw, account: Tenant, size: int) -> None:
    """By hand: ``Raw.frame`` reads any. Section 5.1: and no mask."""
    account.device().push({"changes": {"end_user": [{"id": f"s{size}", "note": "x" * min(size, 60_000)}]}})
    raw.say('4299["sync_pull",{"table":"end_user"}]')
    while True:
        first, second = raw._read(2)
        assert first == 0x80 | TEXT and second < 0x80
        length = int.from_bytes(raw._read({126: 2, 127: 8}.get(second, 0))) if second > 125 else second
        assert second == (length if length < 126 else 126 if length < 65_536 else 127)
        if raw._read(length).startswith(b"4399["):
            return


@pytest.mark.parametrize("size", [1_048_577, 2**31, 2**63 - 1])
def test_section_7_4_1_message_too_big_is_1009_by_its_header_alone(raw: Raw, size: int) -> None:
    closes_with(raw, 1009, b"\x81\xff" + size.to_bytes(8) + bytes(4))


def test_section_7_4_1_fragments_too_big_together_are_1009(raw: Raw) -> None:
    half = b"x" * 600_000
    closes_with(raw, 1009, frame(half, fin=False), frame(half, CONTINUATION)[:14])


# --- 5.4: pieces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[1], [5, 5], [0], [1, 2, 3, 4, 5, 6, 7], [20]])
def test_section_5_4_fragmented_message_is_one(raw: Raw, cuts: list[int]) -> None:
    """Also empty ones, one after the other and in one packet of TCP."""
    said, answered = event(21)
    places = [0, *cuts, len(said)]
    pieces = [said[start:end] for start, end in itertools.pairwise(places)]
    raw.send(
        *(
            frame(piece, CONTINUATION if index else TEXT, fin=index == len(pieces) - 1)
            for index, piece in enumerate(pieces)
        )
    )
    assert raw.until(answered)


def test_section_5_4_message_may_come_byte_by_byte(raw: Raw) -> None:
    said, answered = event(40)
    for byte in frame(said):
        raw.send(bytes([byte]))
    assert raw.until(answered)


def test_section_5_4_control_frames_between_fragments_are_answered_at_once(raw: Raw) -> None:
    said, answered = event(30)
    raw.send(frame(said[:9], fin=False), frame("one", PING))
    assert raw.frame() == Frame(PONG, b"one")
    raw.send(frame(said[9:20], CONTINUATION, fin=False), frame("two", PING), frame("unasked", PONG))
    assert raw.frame() == Frame(PONG, b"two")
    raw.send(frame(said[20:], CONTINUATION))
    assert raw.until(answered)


def test_section_5_4_close_between_fragments_is_answered(raw: Raw) -> None:
    raw.send(frame("42[", fin=False))
    closes_with(raw, 1001, frame((1001).to_bytes(2), CLOSE))


@pytest.mark.parametrize(
    "data",
    [
        frame("4", fin=False) + frame("4"),
        frame("4", fin=False) + frame("4", BINARY),
        frame("4", CONTINUATION),
        frame("4", CONTINUATION, fin=False),
        frame("42[]", fin=False) + frame("", CONTINUATION) + frame("4", CONTINUATION),
    ],
    ids=[
        "text in text",
        "binary in text",
        "continues nothing",
        "continues nothing and goes on",
        "continues a whole one",
    ],
)
def test_section_5_4_fragments_that_do_not_belong_together_are_1002(raw: Raw, data: bytes) -> None:
    closes_with(raw, 1002, data)


# --- 5.1, 5.2: what a frame may be -----------------------------------------------------------------------------------


def test_section_5_1_frame_without_a_mask_is_1002(raw: Raw) -> None:
    closes_with(raw, 1002, b"\x81\x012")


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, PING, CLOSE])
def test_section_5_2_reserved_bits_are_1002(raw: Raw, bits: int, opcode: int) -> None:
    closes_with(raw, 1002, frame(b"", first=0x80 | bits << 4 | opcode))


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"x" * 100])
def test_section_5_2_reserved_kinds_are_1002(raw: Raw, opcode: int, payload: bytes) -> None:
    closes_with(raw, 1002, frame(payload, opcode))


# --- 5.5: control frames ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"x", b"\x00\xff\xfe", b"x" * 125], ids=len)
def test_section_5_5_2_ping_is_answered_by_its_payload(raw: Raw, payload: bytes) -> None:
    raw.send(frame(payload, PING))
    assert raw.frame() == Frame(PONG, payload)


def test_section_5_5_2_pings_are_answered_in_order(raw: Raw) -> None:
    raw.send(*(frame(b"%d" % number, PING) for number in range(50)))
    assert [raw.frame() for _ in range(50)] == [Frame(PONG, b"%d" % number) for number in range(50)]


def test_section_5_5_3_pong_that_nobody_asked_for_is_no_fault(raw: Raw) -> None:
    raw.send(frame("", PONG), frame("x" * 125, PONG))
    assert is_open(raw)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("data", ["long", "pieces"])
def test_section_5_5_control_frame_that_is_long_or_fragmented_is_1002(raw: Raw, opcode: int, data: str) -> None:
    closes_with(raw, 1002, frame(b"\x03\xe8" + b"x" * 124, opcode) if data == "long" else frame(b"", opcode, fin=False))


# --- 5.5.1, 7: the close ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *[(code, "") for code in (1000, 1003, 1007, 1008, 1009, 1010, 1012, 1013, 1014, 3999, 4999)],
        *[(1001, "the tab is gone"), (1011, "schlafen gegängen"), (3000, "x" * 123), (4000, "日本")],
    ],
)
def test_section_5_5_1_close_is_answered_by_its_code_and_reason(raw: Raw, code: int, reason: str) -> None:
    payload = code.to_bytes(2) + reason.encode()
    raw.send(frame(payload, CLOSE))
    assert raw.closed().payload == payload
    assert raw.is_over()


def test_section_7_1_5_close_without_a_code_is_answered(raw: Raw) -> None:
    closes_with(raw, 1000, frame(b"", CLOSE))


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_section_7_4_code_that_no_close_may_have_is_1002(raw: Raw, code: int) -> None:
    closes_with(raw, 1002, frame(code.to_bytes(2) + b"why", CLOSE))


def test_section_5_5_1_close_of_one_byte_is_1002(raw: Raw) -> None:
    closes_with(raw, 1002, frame(b"\x03", CLOSE))


@pytest.mark.parametrize("reason", [b"\xff", b"ok \xce\xba\xe1\xbd", b"\xed\xa0\x80"])
def test_section_5_5_1_reason_that_is_no_utf_8_is_1007(raw: Raw, reason: bytes) -> None:
    closes_with(raw, 1007, frame(b"\x03\xe8" + reason, CLOSE))


def test_section_5_5_1_nothing_is_taken_after_a_close(raw: Raw, account: Tenant) -> None:
    row = {"table": "end_user", "operation": "create", "data": {"id": "late"}}
    raw.send(frame(b"\x03\xe8", CLOSE), frame("421" + json.dumps(["sync_push", row])), frame("x", PING))
    assert raw.frame().code == 1000
    assert raw.is_over()
    assert all(found["id"] != "late" for found in account.device().rows())


def test_section_7_1_1_server_closes_tcp_first_once_the_client_has_answered(server: Server, raw: Raw) -> None:
    """Whoever begins: here it is the server, for what is no packet of Engine.IO's."""
    raw.say("no packet")
    assert raw.closed().code == 1000
    raw.send(frame(b"\x03\xe8", CLOSE))
    assert raw.is_over()


# --- 5.6, 8.1: text is UTF-8 -----------------------------------------------------------------------------------------


def test_section_8_1_character_may_be_cut_by_fragments(raw: Raw) -> None:
    number = next(_numbers)
    said = f'42{number}["ping","ä€😀κόσμε"]'.encode()
    cut = [said[index : index + 1] for index in range(len(said))]
    raw.send(
        *(frame(byte, CONTINUATION if index else TEXT, fin=index == len(cut) - 1) for index, byte in enumerate(cut))
    )
    assert raw.until(f"43{number}[")


@pytest.mark.parametrize(
    "bad",
    [b"\xff", b"\xc0\xaf", b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"],
    ids=["never a byte", "overlong", "half a surrogate pair", "beyond Unicode", "cut at the end"],
)
def test_section_8_1_text_that_is_no_utf_8_is_1007(raw: Raw, bad: bytes) -> None:
    closes_with(raw, 1007, frame(b'42["ping","' + bad))


@pytest.mark.parametrize("bad", [b"\xff", b"\xe2\x28", b"\xed\xa0\x80"])
def test_section_8_1_it_is_refused_with_the_fragment_that_shows_it(raw: Raw, bad: bytes) -> None:
    """The last piece never comes."""
    closes_with(raw, 1007, frame(b'42["ping","' + bad, fin=False))


def test_section_8_1_character_that_the_last_fragment_cuts_is_1007(raw: Raw) -> None:
    closes_with(raw, 1007, frame(b'42["ping","', fin=False), frame(b"\xf0\x9f\x98", CONTINUATION))
