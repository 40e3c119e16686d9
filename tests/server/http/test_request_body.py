"""Bodies of requests, read to their end and not beyond. The rules themselves: ``test_rfc9112``."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Problem
from server.http.request_body import Body, ChunkedBody

NEXT = b"GET / HTTP/1.1\r\n\r\n"
SIZES = st.lists(st.integers(1, 9) | st.just(-1), min_size=1)


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x;a\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\nA: b\r\n\r\n"


def read_all(body: Body, sizes: list[int]) -> bytes:
    """Read a body in pieces of these sizes, over and over."""
    found = b""
    while body.left:
        for size in sizes:
            found += body.read(size)
    return found


@given(st.lists(st.binary(max_size=20)), SIZES)
def test_whatever_the_chunks_and_the_reads_the_body_is_the_same_and_the_rest_is_left(
    parts: list[bytes], sizes: list[int]
) -> None:
    """Fault: the end of a chunk that is not looked at when a read ends there."""
    file = io.BytesIO(chunked(parts) + NEXT)
    assert read_all(ChunkedBody(file), sizes) == b"".join(parts) and file.read() == NEXT
    file = io.BytesIO(b"".join(parts) + NEXT)
    assert read_all(Body(file, len(b"".join(parts))), sizes) == b"".join(parts) and file.read() == NEXT


@given(st.binary(max_size=60), SIZES)
def test_chunks_that_are_none_are_never_over(data: bytes, sizes: list[int]) -> None:
    body = ChunkedBody(io.BytesIO(b"1\r\na\r\n" + data.replace(b"\r\n\r\n", b"")))
    with pytest.raises((OSError, Problem)):
        read_all(body, sizes)
    assert body.left
    with pytest.raises((OSError, Problem)):  # Nor is anything behind them read as one of them.
        read_all(body, sizes)


@pytest.mark.parametrize("body", [Body(io.BytesIO(b"four"), 5), ChunkedBody(io.BytesIO(b"5\r\nfour"))])
def test_body_that_is_cut_short_is_told_and_never_over(body: Body) -> None:
    with pytest.raises(OSError, match="ended before"):
        body.read()
    assert body.left


def test_body_is_read_line_by_line_with_its_line_ends() -> None:
    for body in (Body(io.BytesIO(b"a\n\nbc" + NEXT), 5), ChunkedBody(io.BytesIO(chunked([b"a", b"\n\nb", b"c"])))):
        assert body.readline(1) == b"a" and list(body) == [b"\n", b"\n", b"bc"]
    assert Body(io.BytesIO(b"a\nb"), 3).readlines() == [b"a\n", b"b"]


@pytest.mark.parametrize(("length", "is_over"), [(10, True), (11, False), (10**30, False)])
def test_rest_is_skipped_as_far_as_it_may_be(length: int, is_over: bool) -> None:
    body = Body(io.BytesIO(b"x" * 40), length)
    body.skip(10)
    assert (body.left == 0) == is_over


def test_client_that_waits_is_invited_once_and_before_the_first_read() -> None:
    for body in (Body(io.BytesIO(b"ab"), 2), ChunkedBody(io.BytesIO(chunked([b"ab"])))):
        invited: list[int] = []
        body.send_continue = lambda invited=invited, body=body: invited.append(body.left)
        assert (body.read(1), body.read()) == (b"a", b"b") and len(invited) == 1
