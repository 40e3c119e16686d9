"""Requests are read as RFC 9112 and RFC 9110 say: one row a rule, with its section, on both ways to serve.

Behind each request stands another. If the connection is to go on, that is answered; if not, no byte of it is ever read as
one. Each answer that ends the connection says so, and each refusal is in the one shape and a line of the log.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from functools import partial

import pytest
import requests

from tests.conftest import Server, Tenant, wait_for
from tests.raw_http import converse
from tests.refusals import complaints, shaped
from tests.server.http.test_lifecycle import procfile_command

pytestmark = pytest.mark.server

END, ON = False, True
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
PULL = (
    b"POST /api/client/sync/pull HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n"
    b"Content-Type: application/json\r\n"
)
OLD, OLD_PULL = GET.replace(b"1.1", b"1.0"), PULL.replace(b"1.1", b"1.0")
CHUNKED = PULL + b"Transfer-Encoding: chunked\r\n"
SIZED = PULL + b"Content-Length: 2\r\n"
BAD_TOKEN, BAD_TOKEN_SIZED = CHUNKED.replace(b"TOKEN", b"x"), SIZED.replace(b"TOKEN", b"x")
WHOLE = b"2\r\n{}\r\n0\r\n\r\n"
SOCKET = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
)
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


Rule = tuple[str, str, bytes, int | list[int], bool]
"""Its section, what it is about, what is sent, with which status that is answered, whether the connection goes on."""


def line(first: bytes) -> bytes:
    return first + b"\r\nHost: x\r\n\r\n"


def host(*values: bytes, version: bytes = b"1.1") -> bytes:
    return b"GET /health HTTP/" + version + b"\r\n" + b"".join(b"Host:" + one + b"\r\n" for one in values) + b"\r\n"


RULES: list[Rule] = [
    # RFC 9112, section 2: the message
    ("9112 2.2", "an empty line before a request", b"\r\n" + GET + b"\r\n", 200, ON),
    ("9112 2.2", "a few empty lines", b"\r\n\n\r\n" + GET + b"\r\n", 200, ON),
    ("9112 2.2", "an empty line after a body", SIZED + b"\r\n{}\r\n" + GET + b"\r\n", [200, 200], ON),
    ("9112 2.2", "empty lines without end", b"\r\n" * 50 + GET + b"\r\n", 400, END),
    ("9112 2.2", "CR alone before a request", b"\r" + GET + b"\r\n", 400, END),
    ("9112 2.2", "LF alone ends a line", (GET + b"\r\n").replace(b"\r\n", b"\n"), 200, ON),
    ("9112 2.2", "CR alone in a header", GET + b"A: 1\rB: 2\r\n\r\n", 400, END),
    ("9112 2.2", "a space before the first header", b"GET /health HTTP/1.1\r\n Host: x\r\n\r\n", 400, END),
    ("9110 2.5", "a later version of HTTP/1", line(b"GET /health HTTP/1.7"), 200, ON),
    ("9110 15.6.6", "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, END),
    ("9110 15.6.6", "HTTP/0.9 by its name", line(b"GET /health HTTP/0.9"), 505, END),
    ("9112 2.3", "no version", line(b"GET /health"), 400, END),
    ("9112 2.3", "the version in lower case", line(b"GET /health http/1.1"), 400, END),
    ("9112 2.3", "a version of three digits", line(b"GET /health HTTP/1.10"), 400, END),
    ("9112 2.3", "a version without a dot", line(b"GET /health HTTP/1"), 400, END),
    # RFC 9112, section 3: the request line
    ("9112 3", "two spaces", line(b"GET  /health HTTP/1.1"), 400, END),
    ("9112 3", "a tab", line(b"GET\t/health HTTP/1.1"), 400, END),
    ("9112 3", "a space at its end", line(b"GET /health HTTP/1.1 "), 400, END),
    ("9112 3", "no address", line(b"GET HTTP/1.1"), 400, END),
    ("9112 3", "an address of 10,000 bytes", line(b"GET /" + b"a" * 10_000 + b" HTTP/1.1"), 414, END),
    ("9110 9.1", "a method in lower case", line(b"get /health HTTP/1.1"), 501, END),
    ("9110 9.1", "a method in mixed case", line(b"Get /health HTTP/1.1"), 501, END),
    ("9110 9.1", "a push in lower case", PULL.replace(b"POST", b"post") + b"\r\n", 501, END),
    ("9110 9.1", "a method that nobody knows", line(b"BREW /health HTTP/1.1"), 405, ON),
    ("9110 9.1", "a method that is no token", line(b"G(T /health HTTP/1.1"), 400, END),
    ("9110 9.3.6", "CONNECT", line(b"CONNECT x:80 HTTP/1.1"), 501, END),
    ("9110 9.3.7", "OPTIONS of the whole server", line(b"OPTIONS * HTTP/1.1"), 204, ON),
    ("9112 3.2.1", "an address without a slash", line(b"GET health HTTP/1.1"), 400, END),
    ("9112 3.2.4", "an asterisk where none may stand", line(b"GET * HTTP/1.1"), 400, END),
    ("9112 3.2.2", "an absolute address", line(b"GET http://x/health HTTP/1.1"), 200, ON),
    ("9112 3.2.2", "its scheme in capitals, a port", line(b"GET HTTP://a.example:81/health?b HTTP/1.1"), 200, ON),
    ("9112 3.2.2", "an absolute address with https", line(b"GET https://[::1]:3000/health HTTP/1.1"), 200, ON),
    ("9112 3.2.2", "an absolute address without a path", line(b"GET http://x HTTP/1.1"), 200, ON),
    ("9112 3.2.2", "an absolute push", SIZED.replace(b"POST ", b"POST http://x") + b"\r\n{}", 200, ON),
    ("9112 3.2.2", "an absolute address without a Host", b"GET http://x/health HTTP/1.1\r\n\r\n", 400, END),
    ("9110 4.2.1", "an absolute address without a host in it", line(b"GET http:///health HTTP/1.1"), 400, END),
    ("9110 4.2.4", "a name and a password in the address", line(b"GET http://a:b@x/health HTTP/1.1"), 400, END),
    ("9112 3.2", "another scheme", line(b"GET ftp://x/health HTTP/1.1"), 400, END),
    # RFC 9112, section 3.2: Host
    ("9112 3.2", "no Host", host(), 400, END),
    ("9112 3.2", "no Host, HTTP/1.0", host(version=b"1.0"), 200, END),
    ("9112 3.2", "two", host(b" x", b" x"), 400, END),
    ("9112 3.2", "two, HTTP/1.0", host(b" x", b" y", version=b"1.0"), 400, END),
    ("9112 3.2", "two in one", host(b" x, y"), 400, END),
    ("9112 3.2", "an empty one", host(b" "), 400, END),
    ("9112 3.2", "a port alone", host(b" :3000"), 400, END),
    ("9112 3.2", "a port that is no number", host(b" x:http"), 400, END),
    ("9112 3.2", "an address in it", host(b" http://x"), 400, END),
    ("9112 3.2", "a user in it", host(b" a@x"), 400, END),
    ("9112 3.2", "a path in it", host(b" x/y"), 400, END),
    ("9112 3.2", "IPv6 without brackets", host(b" ::1"), 400, END),
    ("9112 3.2", "bytes that are no ASCII", host(b" \xc3\xa4"), 400, END),
    ("9112 3.2", "malformed, HTTP/1.0", host(b" x y", version=b"1.0"), 400, END),
    ("9112 3.2", "good ones", host(b"a_b.example:80") + host(b" [::1]:3000") + host(b" 1.2.3.4:"), [200] * 3, ON),
    # RFC 9112, section 5: headers
    ("9112 5.1", "a space before the colon", GET + b"A : 1\r\n\r\n", 400, END),
    ("9112 5.2", "a folded line", GET + b"A: 1\r\n 2\r\n\r\n", 400, END),
    ("9110 5.5", "NUL in a value", GET + b"A: \0\r\n\r\n", 400, END),
    ("9110 5.4", "100 header lines", GET + b"A: 1\r\n" * 99 + b"\r\n", 200, ON),
    ("9110 5.4", "101 header lines", GET + b"A: 1\r\n" * 100 + b"\r\n", 431, END),
    ("9110 5.4", "10,000 header lines", GET + b"A: 1\r\n" * 10_000 + b"\r\n", 431, END),
    ("9110 5.4", "a header of 200,000 bytes", GET + b"A: " + b"x" * 200_000 + b"\r\n\r\n", 431, END),
    # RFC 9112, section 6: where the body ends
    ("9112 6.1", "an unknown coding", PULL + b"Transfer-Encoding: gzip\r\n\r\n" + WHOLE, 501, END),
    ("9112 6.1", "an unknown coding under chunked", PULL + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + WHOLE, 501, END),
    ("9112 6.1", "identity", PULL + b"Transfer-Encoding: identity\r\n\r\n" + WHOLE, 501, END),
    ("9112 6.1", "chunked twice", PULL + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + WHOLE, 400, END),
    ("9112 6.1", "chunked in two lines", CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n" + WHOLE, 400, END),
    ("9112 6.1", "no coding", PULL + b"Transfer-Encoding:\r\n\r\n" + WHOLE, 400, END),
    ("9112 6.1", "a coding that is no token", PULL + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + WHOLE, 400, END),
    ("9112 6.1", "chunked in capitals", PULL + b"Transfer-Encoding: CHUNKED\r\n\r\n" + WHOLE, 200, ON),
    ("9112 6.1", "chunked in HTTP/1.0", OLD_PULL + b"Transfer-Encoding: chunked\r\n\r\n" + WHOLE, 400, END),
    ("9112 6.3", "a length beside chunked", CHUNKED + b"Content-Length: 12\r\n\r\n" + WHOLE, 400, END),
    ("9112 6.3", "chunked beside a length", SIZED + b"Transfer-Encoding: chunked\r\n\r\n" + WHOLE, 400, END),
    ("9112 6.3", "two lengths", SIZED + b"Content-Length: 60\r\n\r\n{}", 400, END),
    ("9112 6.3", "the same length twice", SIZED + b"Content-Length: 2\r\n\r\n{}", 400, END),
    ("9112 6.3", "two lengths in one", PULL + b"Content-Length: 2, 2\r\n\r\n{}", 400, END),
    ("9112 6.3", "a negative length", PULL + b"Content-Length: -2\r\n\r\n{}", 400, END),
    ("9112 6.3", "a length with a sign", PULL + b"Content-Length: +2\r\n\r\n{}", 400, END),
    ("9112 6.3", "a length in hexadecimal", PULL + b"Content-Length: 0x2\r\n\r\n{}", 400, END),
    ("9112 6.3", "an empty length", PULL + b"Content-Length: \r\n\r\n{}", 400, END),
    ("9112 6.3", "a length with zeros before it", PULL + b"Content-Length: 0002\r\n\r\n{}", 200, ON),
    ("9112 6.3", "no length, no body", PULL + b"\r\n", 400, ON),
    ("9110 9.3.2", "HEAD, with a body", GET.replace(b"GET", b"HEAD") + b"Content-Length: 2\r\n\r\n{}", 200, ON),
    ("9110 9.3.2", "HEAD of nothing", GET.replace(b"GET /health", b"HEAD /nothing") + b"\r\n", 404, ON),
    ("9110 9.3.1", "a body of GET", GET + b"Content-Length: 2\r\n\r\n{}", 200, ON),
    ("9110 9.3.1", "chunks of GET", GET + b"Transfer-Encoding: chunked\r\n\r\n" + WHOLE, 200, ON),
    # RFC 9112, section 7.1: chunks
    ("9112 7.1", "chunks", CHUNKED + b"\r\n1\r\n{\r\n01\r\n}\r\n000\r\n\r\n", 200, ON),
    ("9112 7.1", "chunks that nobody reads", BAD_TOKEN + b"\r\n" + WHOLE, 401, ON),
    ("9112 7.1", "a size that is no number", CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "an empty size", CHUNKED + b"\r\n\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "a negative size", CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "a size with 0x", CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "a size with an underscore", CHUNKED + b"\r\n0_2\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "a size with a space", CHUNKED + b"\r\n2 \r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "a size beyond 64 bits", CHUNKED + b"\r\n10000000000000002\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "a size in digits of another script", CHUNKED + b"\r\n\xd9\xa2\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "LF alone after a size", CHUNKED + b"\r\n2\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "LF alone after a chunk", CHUNKED + b"\r\n2\r\n{}\n0\r\n\r\n", 400, END),
    ("9112 7.1", "nothing after a chunk", CHUNKED + b"\r\n2\r\n{}0\r\n\r\n", 400, END),
    ("9112 7.1", "a chunk longer than its size", CHUNKED + b"\r\n1\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1", "LF alone at the very end", CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\n", 400, END),
    ("9112 7.1.1", "extensions", CHUNKED + b'\r\n2;a=1 ; b="c"\r\n{}\r\n0;d\r\n\r\n', 200, ON),
    ("9112 7.1.1", "LF alone in an extension", CHUNKED + b"\r\n2;a\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1.1", "NUL in an extension", CHUNKED + b"\r\n2;\0\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1.1", "an extension of 5,000 bytes", CHUNKED + b"\r\n2;" + b"a" * 5_000 + b"\r\n{}\r\n0\r\n\r\n", 400, END),
    ("9112 7.1.1", "many extensions", CHUNKED + b"\r\n" + (b"1;" + b"a" * 3_000 + b"\r\n \r\n") * 6 + WHOLE, 400, END),
    ("9112 7.1.2", "trailers", CHUNKED + b"\r\n2\r\n{}\r\n0\r\nA: 1\r\nB:\r\n\r\n", 200, ON),
    ("9112 7.1.2", "a trailer that is none", CHUNKED + b"\r\n2\r\n{}\r\n0\r\nA 1\r\n\r\n", 400, END),
    ("9112 7.1.2", "LF alone after a trailer", CHUNKED + b"\r\n2\r\n{}\r\n0\r\nA: 1\n\r\n", 400, END),
    ("9112 7.1.2", "a trailer too long", CHUNKED + b"\r\n2\r\n{}\r\n0\r\nA: " + b"a" * 9_000 + b"\r\n\r\n", 431, END),
    ("9112 7.1.2", "trailers without end", CHUNKED + b"\r\n2\r\n{}\r\n0\r\n" + b"A: 1\r\n" * 2_000 + b"\r\n", 431, END),
    ("9112 6.3", "malformed chunks that nobody reads", GET + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 200, END),
    ("9112 6.3", "malformed chunks behind a refusal", BAD_TOKEN + b"\r\nzz\r\n", 401, END),
    ("9112 6.3", "malformed after good chunks", CHUNKED + b"\r\n2\r\n{}\r\nx\r\n", 400, END),
    ("9112 6.3", "a request as a chunk's size", BAD_TOKEN + b"\r\n" + GET + b"\r\n", 401, END),
    # RFC 9112, section 9: the connection
    ("9112 9.3", "HTTP/1.1", GET + b"\r\n", 200, ON),
    ("9112 9.3", "keep-alive in HTTP/1.1", GET + b"Connection: keep-alive\r\n\r\n", 200, ON),
    ("9112 9.6", "close", GET + b"Connection: close\r\n\r\n", 200, END),
    ("9112 9.6", "close in capitals", GET + b"CONNECTION: CLOSE\r\n\r\n", 200, END),
    ("9112 9.6", "close in a list", GET + b"Connection: TE, ,\tClose , foo\r\n\r\n", 200, END),
    ("9112 9.6", "close in a second line", GET + b"Connection: TE\r\nConnection: close\r\n\r\n", 200, END),
    ("9112 9.6", "close beside keep-alive", GET + b"Connection: keep-alive, close\r\n\r\n", 200, END),
    ("9112 9.6", "close with a good body", SIZED + b"Connection: close\r\n\r\n{}", 200, END),
    ("9112 9.6", "a word that only holds close", GET + b"Connection: closed\r\n\r\n", 200, ON),
    ("9112 9.3", "HTTP/1.0", line(b"GET /health HTTP/1.0"), 200, END),
    ("9112 9.3", "keep-alive in HTTP/1.0", OLD + b"Connection: Keep-Alive\r\n\r\n", 200, ON),
    ("9112 9.3", "keep-alive in a list in HTTP/1.0", OLD + b"Connection: a, keep-alive\r\n\r\n", 200, ON),
    ("9112 9.3", "keep-alive and close in HTTP/1.0", OLD + b"Connection: keep-alive, close\r\n\r\n", 200, END),
    ("9112 9.3", "a body in HTTP/1.0", OLD_PULL + b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}", 200, ON),
    # RFC 9110, section 10.1.1: Expect
    ("9110 10.1.1", "100-continue", SIZED + b"Expect: 100-continue\r\n\r\n{}", [100, 200], ON),
    ("9110 10.1.1", "100-continue in capitals", SIZED + b"expect: 100-CONTINUE\r\n\r\n{}", [100, 200], ON),
    ("9110 10.1.1", "100-continue with chunks", CHUNKED + b"Expect: 100-Continue\r\n\r\n" + WHOLE, [100, 200], ON),
    ("9110 10.1.1", "the answer instead", BAD_TOKEN_SIZED + b"Expect: 100-continue\r\n\r\n{}", 401, END),
    ("9110 10.1.1", "100-continue without a body", GET + b"Expect: 100-continue\r\n\r\n", 200, ON),
    ("9110 10.1.1", "in HTTP/1.0", OLD_PULL + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}", 200, END),
    ("9110 10.1.1", "an unknown one in HTTP/1.0", OLD + b"Expect: a\r\n\r\n", 200, END),
    ("9110 10.1.1", "an unknown one", SIZED + b"Expect: a-miracle\r\n\r\n{}", 417, END),
    ("9110 10.1.1", "an unknown one beside it", SIZED + b"Expect: 100-continue, b=c\r\n\r\n{}", 417, END),
    # RFC 9110, section 7.8, and RFC 6455, section 4.2.1: Upgrade
    ("9110 7.8", "an upgrade without Connection", GET + b"Upgrade: websocket\r\n\r\n", 200, ON),
    ("9110 7.8", "an unknown upgrade", GET + b"Upgrade: h2c\r\nConnection: upgrade\r\n\r\n", 200, ON),
    ("9110 7.8", "an upgrade in HTTP/1.0", OLD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", 200, END),
    ("9110 7.8", "a body beside an upgrade", SIZED + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n{}", 200, ON),
    ("6455 4.2.1", "no key", SOCKET + b"\r\n", 400, ON),
    ("6455 4.2.1", "a key that is no Base64", SOCKET + b"Sec-WebSocket-Key: !!!\r\n\r\n", 400, ON),
    ("6455 4.2.1", "a key of 15 bytes", SOCKET + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n\r\n", 400, ON),
    ("6455 4.2.1", "a body of the handshake", SOCKET + KEY + b"Content-Length: 2\r\n\r\n{}", 400, ON),
]  # fmt: skip


@pytest.fixture(scope="module", params=["python syncapp.py", "Procfile"])
def tenant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """A tenant of a server of either kind."""
    command = procfile_command() if request.param == "Procfile" else [sys.executable, "syncapp.py"]
    server = Server(tmp_path_factory.mktemp("rules") / "data", {}, command).start()
    yield server.register()
    assert server.stop() == 0
    assert complaints(server) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule[0]} {rule[1]}")
def test_request_is_read_as_the_rule_says(tenant: Tenant, rule: Rule) -> None:
    *_, data, statuses, is_to_go_on = rule
    before = len(tenant.server.log)
    answers, goes_on = converse(tenant.server, data.replace(b"TOKEN", tenant.token.encode()))
    assert [answer.status for answer in answers] == (statuses if isinstance(statuses, list) else [statuses])
    assert goes_on == is_to_go_on
    assert [answer.says_close for answer in answers] == [False] * (len(answers) - 1) + [not is_to_go_on]
    for answer in answers:
        if answer.status >= 400 and answer.body:
            body = shaped(json.loads(answer.body))
            assert answer.headers["content-type"] == "application/json" and "date" in answer.headers
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-request-id"] == body["requestId"]
            wait_for(partial(is_logged, tenant.server, before, body["code"]), "its line of the log")


def is_logged(server: Server, before: int, code: str) -> bool:
    return code in [line.get("code") for line in server.log[before:]]


def test_absolute_address_says_which_host_is_meant(tenant: Tenant) -> None:
    """RFC 9112 section 3.2.2: its host counts, and not that of ``Host``: here for whose pages may read the answer."""
    head = b"GET http://b.example/health HTTP/1.1\r\nHost: a.example\r\nOrigin: http://%b.example\r\n\r\n"
    answers, _ = converse(tenant.server, head % b"a" + head % b"b")
    readers = [answer.headers.get("access-control-allow-origin") for answer in answers]
    assert readers == [None, "http://b.example"]


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_answer_to_http_1_0_has_an_end(tenant: Tenant, coding: str) -> None:
    """RFC 9112 section 6.3: chunks are not for HTTP/1.0. Streamed and compressed answers end with the connection.

    Fault, before: they said keep-alive, and nothing of where they end.
    """
    tenant.device().push({"changes": {"end_user": [{"id": f"r{n}", "note": "x" * 1_000} for n in range(200)]}})
    body = b'{"table": "end_user"}'
    head = b"Connection: keep-alive\r\nAccept-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(body))
    (answer,), goes_on = converse(tenant.server, OLD_PULL.replace(b"TOKEN", tenant.token.encode()) + head + body)
    assert answer.says_close and not goes_on and "transfer-encoding" not in answer.headers
    said = gzip.decompress(answer.body) if coding == "gzip" else answer.body
    assert len(json.loads(said)["data"]["end_user"]) == 200


def test_chunks_reach_a_session_that_polls(tenant: Tenant) -> None:
    """Fault, before: the library looks for ``Content-Length`` only: 200, and the packets were dropped."""
    address = "/socket.io/?EIO=4&transport=polling"
    opened = requests.get(tenant.server.url + address, timeout=10).text
    address += f"&sid={json.loads(opened[1:])['sid']}"
    said = f'40{{"token": "{tenant.token}"}}'.encode()
    sent = requests.post(tenant.server.url + address, data=iter([said[:9], said[9:]]), timeout=10)
    assert sent.status_code == 200
    heard = ""
    while "authenticated" not in heard:
        heard = requests.get(tenant.server.url + address, timeout=10).text
    head = f"POST {address} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    (answer,), goes_on = converse(tenant.server, head + b"1\r\n2x\r\n")
    assert (answer.status, answer.says_close, goes_on) == (400, True, False)
