"""Heads of requests: what a reader in front might read otherwise is refused. The rules themselves: ``test_rfc9112``."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import HeadTooLarge, Problem
from server.http import request_head
from server.http.request_head import Request

FIRST = b"POST /a%20b?c=%41&d HTTP/1.1"


def head(*lines: bytes, first: bytes = FIRST) -> Request:
    found = request_head.parse([line + b"\r\n" for line in (first, b"Host: a", *lines)])
    assert found == request_head.read(io.BytesIO(b"\r\n".join([first, b"Host: a", *lines, b"", b""])))
    return found


def test_head_becomes_what_a_wsgi_environ_holds_of_it() -> None:
    found = head(b"X-One:1", b"Content-Type: text/plain; x=\xe4", b"X-Empty:", b"Content-Length: 007")
    assert found.environ == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=%41&d",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "a",
        "HTTP_X_ONE": "1",
        "CONTENT_TYPE": "text/plain; x=ä",
        "HTTP_X_EMPTY": "",
        "CONTENT_LENGTH": "007",
    }
    assert found[2:] == (7, False, False, False) and found.line == FIRST.decode()


def test_headers_of_a_name_are_joined_in_their_order() -> None:
    found = head(
        b"X-One:1", b"x-one:  2 \t", b"Cookie: a=1", b"COOKIE: b=2", b"Content-Type: a", b"Content-Type: b"
    ).environ
    assert (found["HTTP_X_ONE"], found["HTTP_COOKIE"], found["CONTENT_TYPE"]) == ("1,2", "a=1; b=2", "a")


def test_name_that_could_pass_for_another_does_not_reach_the_application() -> None:
    """Fault: underscores let through: ``X_Tenant_Id`` was read as ``X-Tenant-Id``."""
    assert (
        head(b"X_Tenant_Id: a", b"X-Tenant-Id: c", b"Content_Length: 5").environ.keys()
        == head(b"X-Tenant-Id:").environ.keys()
    )


def test_head_ends_at_the_empty_line_and_leaves_the_body() -> None:
    file = io.BytesIO(FIRST + b"\r\nHost: a\r\n\r\nB: 2\r\n\r\n")
    found = request_head.read(file)
    assert found and "HTTP_B" not in found.environ and file.read() == b"B: 2\r\n\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"no colon",
        b"A : 1",
        b" A: 1",
        b"\tfolded",
        b": no name",
        "ä: 1".encode(),
        b"A: 1\rB: 2",
        b"A: \0",
        b"A\0: 1",
        b"(comment): 1",
        b"Content-Length: 1_0",
        b"Content-Length: \xb2",
        b"Content-Length: \xa01",
        b"Content-Length: " + b"1" * 101,
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"content-length: 5\r\nCONTENT-LENGTH: 5",
        b"A: 1\r\n" * 101,
    ],
)
def test_line_that_others_may_read_otherwise_is_refused(line: bytes) -> None:
    """Fault: the pattern's name ``.+``: taken."""
    with pytest.raises(Problem):
        head(*line.split(b"\r\n"))
    assert request_head.parse_cached(FIRST + b"\r\nHost: a\r\n" + line + b"\r\n\r\n") is None


@pytest.mark.parametrize("cut", range(1, 22))
def test_head_that_ends_in_its_middle_is_refused(cut: int) -> None:
    with pytest.raises(Problem):
        request_head.read(io.BytesIO(b"GET / HTTP/1.1\r\nHost: a\r\nB: 2\r\n\r\n"[:-cut]))


def test_end_of_a_connection_is_no_request() -> None:
    assert request_head.read(io.BytesIO()) is None


def test_head_without_end_is_read_no_further_than_its_lines_may_be() -> None:
    file = io.BytesIO(FIRST + b"\r\n" + b"A: 1\r\n" * 10_000)
    with pytest.raises(HeadTooLarge):
        request_head.read(file)
    assert file.tell() < 1_000


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_a_head_or_refused(lines: list[bytes]) -> None:
    try:
        found = request_head.read(io.BytesIO(b"\r\n".join([FIRST, b"Host: a", *lines, b"", b""])))
    except Problem:
        return
    assert found and len(found.environ) <= len(lines) + 6


NAMES = [b"Host", b"content-length", b"Content-Type", b"X-A", b"X_A", b"Connection", b"Expect", b"Transfer-Encoding"]
LINES = st.tuples(st.sampled_from(NAMES), st.sampled_from([b":", b": ", b" :", b""]), st.binary(max_size=6))


@given(st.lists(LINES.map(b"".join), max_size=5), st.sampled_from([b"\r\n", b"\n", b"\r"]))
def test_what_is_taken_whole_is_what_is_read_line_by_line(lines: list[bytes], end: bytes) -> None:
    """Fault: a line's end that is not looked at."""
    data = FIRST + b"\r\n" + b"".join(line + end for line in lines) + b"\r\n"
    taken = request_head.parse_cached(data) if data.count(b"\r\n\r\n") == 1 else None
    if taken is None:
        return
    file = io.BytesIO(data)
    assert request_head.read(file) == taken and not file.read()


def test_handshakes_do_not_displace_the_heads_that_come_again() -> None:
    """Fault: each took a place for good, since no other has its key: after 1,024 none of the others was left."""
    usual = FIRST + b"\r\nHost: usual\r\n\r\n"
    kept = request_head.parse_cached(usual)
    for number in range(1_100):
        key = b"Sec-WebSocket-Key: %d\r\n" % number
        request = request_head.parse_cached(FIRST + b"\r\nHost: a\r\n" + key + b"\r\n")
        assert request and request.environ["HTTP_SEC_WEBSOCKET_KEY"] == str(number)
    assert request_head.parse_cached(usual) is kept
