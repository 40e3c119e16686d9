"""Answers that come before a body was read reach their client, whatever that is still sending; then the connection ends.

RFC 9112 section 9.6. Fault, before: the connection was closed with bytes unread, which resets it: a client that sends all
before it reads got a broken pipe, and no 413.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import urllib3

from tests.conftest import Server, Tenant
from tests.raw_http import PROBE, connect, read_answer
from tests.refusals import complaints, peak_kilobytes, shaped
from tests.server.http.test_lifecycle import procfile_command

pytestmark = pytest.mark.server

MEBIBYTE = 1_048_576
LARGE = b" " * (20 * MEBIBYTE)
PUSH = "/api/client/sync/push"
SETTINGS = {
    "MAX_BODY_BYTES": "1048576",
    "MAX_TENANT_BODY_BYTES": "1048576",
    "STALL_SECONDS": "5",
    "TENANT_REQUESTS": "20 per minute",
}
JSON_HEADERS = {"Content-Type": "application/json"}


@pytest.fixture(scope="module", params=["python syncapp.py", "Procfile"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    command = procfile_command() if request.param == "Procfile" else [sys.executable, "syncapp.py"]
    server = Server(tmp_path_factory.mktemp("early") / "data", SETTINGS, command).start()
    yield server
    assert server.stop() == 0
    assert {line.get("code") for line in complaints(server)} <= {"busy"}


@pytest.fixture
def tenant(server: Server) -> Tenant:
    return server.register()


# --- each client gets its 413, and goes on ---------------------------------------------------------------------------


def by_requests(url: str, token: str) -> list[tuple[int, bytes]]:
    with requests.Session() as session:
        session.headers.update({**JSON_HEADERS, "Authorization": f"Bearer {token}"})
        answers = [session.post(url, data=body, timeout=30) for body in (LARGE, iter([LARGE]), b'{"changes": {}}')]
    return [(answer.status_code, answer.content) for answer in answers]


def by_urllib3(url: str, token: str) -> list[tuple[int, bytes]]:
    with urllib3.PoolManager(headers={**JSON_HEADERS, "Authorization": f"Bearer {token}"}, retries=False) as pool:
        answers = [pool.request("POST", url, body=body) for body in (LARGE, iter([LARGE]), b'{"changes": {}}')]
    return [(answer.status, answer.data) for answer in answers]


def by_http_client(url: str, token: str) -> list[tuple[int, bytes]]:
    parts = urllib3.util.parse_url(url)
    found = []
    with closing(http.client.HTTPConnection(str(parts.host), parts.port, timeout=30)) as connection:
        for body in (LARGE, iter([LARGE]), b'{"changes": {}}'):
            connection.request("POST", url, body, {**JSON_HEADERS, "Authorization": f"Bearer {token}"})
            with connection.getresponse() as answer:
                found.append((answer.status, answer.read()))
    return found


def by_httpx(url: str, token: str) -> list[tuple[int, bytes]]:
    with httpx.Client(headers={**JSON_HEADERS, "Authorization": f"Bearer {token}"}, timeout=30) as client:
        answers = [client.post(url, content=body) for body in (LARGE, iter([LARGE]), b'{"changes": {}}')]
    return [(answer.status_code, answer.content) for answer in answers]


AIOHTTP = """
import aiohttp, asyncio, io, json, sys
async def in_parts():
    yield b" " * 20 * 1048576
async def call(url, token):
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + token}
    async with aiohttp.ClientSession(headers=headers) as session:
        for body in (io.BytesIO(b" " * 20 * 1048576), in_parts(), b'{"changes": {}}'):
            async with session.post(url, data=body) as answer:
                yield answer.status, await answer.text()
async def main():
    print(json.dumps([one async for one in call(*sys.argv[1:])]))
asyncio.run(main())
"""


NODE = """
const [how, url, token] = process.argv.slice(1), large = Buffer.alloc(20 * 1048576, " ");
const headers = {"Content-Type": "application/json", Authorization: `Bearer ${token}`};
const agent = new (require("http").Agent)({keepAlive: true, maxSockets: 1});
const posting = {
  fetch: async (body) => {
    const answer = await fetch(url, {method: "POST", headers, body});
    return [answer.status, await answer.text()];
  },
  http: (body) => new Promise((resolve, reject) => {
    const request = require("http").request(url, {method: "POST", headers, agent}, (answer) => {
      let text = "";
      answer.on("data", (part) => text += part).on("end", () => resolve([answer.statusCode, text]));
    });
    request.on("error", reject);
    request.end(body);
  }),
}[how];
(async () => {
  const found = [];
  for (const body of [large, large, '{"changes": {}}']) found.push(await posting(body));
  console.log(JSON.stringify(found));
})();
"""


def by_script(command: list[str], url: str, token: str) -> list[tuple[int, bytes]]:
    said = subprocess.run([*command, url, token], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    return [(status, text.encode()) for status, text in json.loads(said.stdout)]


def by_curl(expect: str, url: str, token: str, folder: Path) -> list[tuple[int, bytes]]:
    large = folder / "large"
    large.write_bytes(LARGE)
    headers = ["-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {token}", "-H", expect]
    end = "\n%{http_code}\n"
    calls = [["-T", str(large), "-X", "POST"], ["--data-binary", f"@{large}"], ["-d", '{"changes": {}}']]
    command = ["curl", "-sS"]
    for number, call in enumerate(calls):
        command += [*(["--next", "-sS"] if number else []), "-w", end, *headers, *call, url]
    said = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    return [(int(status), body) for body, status in zip(lines[::2], lines[1::2], strict=True)]


CLIENTS: dict[str, Callable[[str, str, Path], list[tuple[int, bytes]]]] = {
    "requests": lambda url, token, _: by_requests(url, token),
    "urllib3": lambda url, token, _: by_urllib3(url, token),
    "http.client": lambda url, token, _: by_http_client(url, token),
    "httpx": lambda url, token, _: by_httpx(url, token),
    "aiohttp": lambda url, token, _: by_script([sys.executable, "-c", AIOHTTP], url, token),
    "node fetch": lambda url, token, _: by_script(["node", "-e", NODE, "fetch"], url, token),
    "node http": lambda url, token, _: by_script(["node", "-e", NODE, "http"], url, token),
    "curl": lambda url, token, folder: by_curl("Expect: 100-continue", url, token, folder),
    "curl without Expect": lambda url, token, folder: by_curl("Expect:", url, token, folder),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_413_reaches_a_client_that_sends_twenty_mebibytes_and_the_next_request_is_served(
    tenant: Tenant, client: str, tmp_path: Path
) -> None:
    """Twice: with a length and, where the client can, in chunks; then a good push by the same session."""
    answers = CLIENTS[client](tenant.server.url + PUSH, tenant.token, tmp_path)
    assert [status for status, _ in answers] == [413, 413, 200]
    assert [shaped(json.loads(body))["code"] for _, body in answers[:2]] == ["payload_too_large"] * 2


# --- each refusal, whenever it comes ---------------------------------------------------------------------------------

BODY = PROBE * 4_000
"""Were it read as requests, there would be answers to them."""


@contextlib.contextmanager
def crowd(tenant: Tenant) -> Iterator[None]:
    """Hold all bytes that bodies of the tenant may have under way."""
    head = (
        f"POST {PUSH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.token}\r\nContent-Type: application/json\r\n"
    )
    with connect(tenant.server, f"{head}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode()) as holder:
        assert holder.recv(100).startswith(b"HTTP/1.1 100 ")
        yield


@contextlib.contextmanager
def spent(tenant: Tenant) -> Iterator[None]:
    """Use up what a tenant may ask for."""
    while tenant.device().pull_raw({"table": "end_user"}).status_code != 429:
        pass
    yield


def token_of(tenant: Tenant) -> str:
    return f"Authorization: Bearer {tenant.token}\r\n"


REFUSALS: dict[int, Callable[[Tenant], tuple[str, Any]]] = {
    401: lambda _: ("", contextlib.nullcontext()),
    413: lambda tenant: (token_of(tenant), contextlib.nullcontext()),
    415: lambda tenant: (token_of(tenant), contextlib.nullcontext()),
    429: lambda tenant: (token_of(tenant), spent(tenant)),
    503: lambda tenant: (token_of(tenant), crowd(tenant)),
}


def framed(status: int, is_chunked: bool) -> tuple[str, bytes]:
    """Give a body as it is sent, over the limit if it shall be, and the headers that say so."""
    kind = "text/plain" if status == 415 else "application/json"
    body = BODY * (6 if status == 413 else 1)
    if is_chunked:
        return f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n", body


CASES = [(status, moment, False) for status in REFUSALS for moment in ("before", "amid", "after")]
CASES += [(status, "amid", True) for status in REFUSALS if status != 413]  # It is too large once it is there.
CASES += [(401, "before", True), (413, "after", True)]


@pytest.mark.parametrize(("status", "moment", "is_chunked"), CASES)
def test_refusal_is_heard_says_that_the_connection_ends_and_no_byte_of_the_body_is_a_request(
    server: Server, status: int, moment: str, is_chunked: bool
) -> None:
    tenant = server.register()
    token, setting = REFUSALS[status](tenant)
    headers, body = framed(status, is_chunked)
    sent = {"before": 0, "amid": len(body) // 2, "after": len(body)}[moment]
    head = f"POST {PUSH} HTTP/1.1\r\nHost: x\r\n{token}{headers}\r\n".encode()
    with setting, connect(server, head + body[:sent]) as connection, connection.makefile("rb") as file:
        answer = read_answer(file)
        assert answer and answer.status == status and answer.says_close
        connection.sendall(body[sent:] + PROBE)
        connection.shutdown(socket.SHUT_WR)
        assert file.read() == b""


def test_small_body_that_is_there_costs_no_connection(server: Server) -> None:
    head = f"POST {PUSH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 65536\r\n\r\n"
    with connect(server, (head.encode() + b" " * 65_536) * 3) as connection, connection.makefile("rb") as file:
        answers = [read_answer(file) for _ in range(3)]
    assert [(answer.status, answer.says_close) for answer in answers if answer] == [(401, False)] * 3


def test_many_who_send_without_end_hold_no_memory_and_come_to_an_end(server: Server) -> None:
    before, head = (
        peak_kilobytes(server),
        f"POST {PUSH} HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n".encode(),
    )
    sent, answers = [], []

    def send() -> None:
        with connect(server, head) as connection, connection.makefile("rb") as file:
            with contextlib.suppress(OSError):
                while True:
                    sent.append(connection.send(LARGE[:MEBIBYTE]))
            with contextlib.suppress(ConnectionResetError):
                answers.append(read_answer(file))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert sum(sent) < 8 * 64 * MEBIBYTE and peak_kilobytes(server) - before < 20_000
    assert server.is_up()
