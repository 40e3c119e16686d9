"""Heads of requests: what a reader in front might read otherwise is refused."""

from __future__ import annotations

import io

import pytest
from conftest import Server
from hypothesis import given
from hypothesis import strategies as st
from test_connections import connect, refusal

from heads import Head


def head(*lines: bytes) -> Head:
    return Head(io.BytesIO(b"".join(line + b"\r\n" for line in (*lines, b""))))


def test_headers_are_found_in_any_case_and_kept_in_order() -> None:
    found = head(b"Host: a", b"X-One:1", b"x-one:  2 \t", b"Content-Type: text/plain; x=\xe4", b"X-Empty:")
    assert found.status == "" and found.environ[1:3] == [("HTTP_X_ONE", "1"), ("HTTP_X_ONE", "2")]
    assert (found.get("HOST"), found.getheader("x-one"), found.get("X-Empty"), found.get("no")) == ("a", "1", "", None)
    assert found.typeheader == "text/plain; x=ä"


def test_head_ends_at_the_empty_line_and_leaves_the_body() -> None:
    file = io.BytesIO(b"A: 1\r\n\r\nB: 2\r\n\r\n")
    assert Head(file).environ == [("HTTP_A", "1")] and file.read() == b"B: 2\r\n\r\n"


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
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Content-Length: 1_0",
        b"Content-Length: +1",
        b"Content-Length: -0",
        b"Content-Length: \xb2",
        b"Content-Length: \xa01",
        b"Content-Length:",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"A: " + b"x" * 65_536,
    ],
)
def test_line_that_others_may_read_otherwise_is_refused(line: bytes) -> None:
    """Fault: the pattern's name ``.+``: taken."""
    assert head(b"Host: a", line).status != ""


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length", b"HOST", b"Transfer-Encoding"])
def test_header_that_frames_the_request_may_stand_there_once(name: bytes) -> None:
    value = b"chunked" if name == b"Transfer-Encoding" else b"5"
    assert head(name + b": " + value).status == ""
    assert head(name + b": " + value, name.lower() + b": " + value).status != ""


@pytest.mark.parametrize("count", [100, 101])
def test_number_of_lines_is_bounded(count: int) -> None:
    assert bool(head(*[b"A: 1"] * count).status) == (count > 100)


def test_head_that_ends_in_its_middle_is_refused() -> None:
    assert Head(io.BytesIO(b"A: 1\r\nB: 2")).status and Head(io.BytesIO(b"A: 1\r\n")).status


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_a_head_or_refused(lines: list[bytes]) -> None:
    found = head(*lines)
    assert found.status or len(found.environ) <= len(lines)


def test_name_that_could_pass_for_another_does_not_reach_the_application() -> None:
    """Fault: underscores let through: ``X_Tenant_Id`` was read as ``X-Tenant-Id``."""
    found = head(b"X_Tenant_Id: a", b"Content-Length: 1", b"Content-Type: b", b"X-Tenant-Id: c")
    assert found.environ == [("HTTP_X_TENANT_ID", "c")]


@pytest.mark.parametrize("line", ["A : 1", "Content-Length: 1\r\nContent-Length: 2", "Transfer-Encoding: x", " folded"])
def test_server_refuses_such_a_head_in_the_one_shape(server: Server, line: str) -> None:
    with connect(server, f"GET /health HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode()) as connection:
        status, body = refusal(b"".join(iter(lambda: connection.recv(65_536), b"")))
    assert (status, body["code"]) == (400, "validation_error")
