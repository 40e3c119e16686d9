"""The walk by the HTTP clients of Python: ``walk.py LIBRARY URL EMAIL`` (README.md)."""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Generator
from typing import Any
from urllib.parse import urlsplit

Call = tuple[str, str, dict[str, str], bytes]
Answer = tuple[int, bytes]

SYNC = "/api/client/sync"
PUSH = {"changes": {"end_user": [{"id": f"r{n}", "name": f"Row {n}"} for n in range(3)]}}
PULL = {"cursor": None, "entityTypes": ["end_user"]}


def walk(email: str) -> Generator[Call, Answer, None]:
    """Yield each request; take its answer; print the lines."""
    person = {"firstName": "Asha", "lastName": "Rao", "email": email, "password": "password123"}
    yield from told("register", post("/api/customers/register", person))
    answer = yield from told("login", post("/api/customers/login", person))
    token = json.loads(answer[1])["data"]["token"]
    yield from told("push", post(f"{SYNC}/push", PUSH, token))
    yield from told("pull", post(f"{SYNC}/pull", PULL, token))
    yield from told("unauthorized", post(f"{SYNC}/push", " " * (5 << 20), "none"))
    yield from told("too_large", post(f"{SYNC}/push", " " * (20 << 20), token))
    yield from told("unsupported", post(f"{SYNC}/push", PUSH, token, kind="text/plain"))
    yield from told("again", post(f"{SYNC}/pull", PULL, token))


def post(path: str, body: object, token: str = "", kind: str = "application/json") -> Call:
    text = body if isinstance(body, str) else json.dumps(body)
    proof = {"Authorization": f"Bearer {token}"} if token else {}
    return "POST", path, {"Content-Type": kind, **proof}, text.encode()


def told(step: str, call: Call) -> Generator[Call, Answer, Answer]:
    status, body = yield call
    rows = json.loads(body).get("data", {}).get("end_user") if step in ("pull", "again") else None
    print(step, status, *([] if rows is None else [len(rows)]))
    return status, body


def drive(steps: Generator[Call, Answer, None], send: Callable[[Call], Answer]) -> None:
    try:
        call = next(steps)
        while True:
            call = steps.send(send(call))
    except StopIteration:
        pass


async def drive_async(steps: Generator[Call, Answer, None], send: Callable[[Call], Awaitable[Answer]]) -> None:
    try:
        call = next(steps)
        while True:
            call = steps.send(await send(call))
    except StopIteration:
        pass


def by_requests(url: str, steps: Any) -> None:
    import requests

    with requests.Session() as session:

        def send(call: Call) -> Answer:
            answer = session.request(call[0], url + call[1], headers=call[2], data=call[3], timeout=60)
            return answer.status_code, answer.content

        drive(steps, send)


def by_urllib3(url: str, steps: Any) -> None:
    import urllib3

    pool = urllib3.connection_from_url(url, maxsize=1, retries=False, timeout=60)

    def send(call: Call) -> Answer:
        answer = pool.request(call[0], call[1], headers=call[2], body=call[3])
        return answer.status, answer.data

    drive(steps, send)


def by_http_client(url: str, steps: Any) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def send(call: Call) -> Answer:
        connection.request(call[0], call[1], call[3], call[2])
        answer = connection.getresponse()
        return answer.status, answer.read()

    drive(steps, send)


def by_urllib(url: str, steps: Any) -> None:
    def send(call: Call) -> Answer:
        request = urllib.request.Request(url + call[1], call[3], call[2], method=call[0])
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    drive(steps, send)


def by_httpx(url: str, steps: Any) -> None:
    import httpx

    with httpx.Client(timeout=60) as client:

        def send(call: Call) -> Answer:
            answer = client.request(call[0], url + call[1], headers=call[2], content=call[3])
            return answer.status_code, answer.content

        drive(steps, send)


def by_aiohttp(url: str, steps: Any) -> None:
    import aiohttp

    async def all_steps() -> None:
        async with aiohttp.ClientSession() as session:

            async def send(call: Call) -> Answer:
                async with session.request(call[0], url + call[1], headers=call[2], data=call[3]) as answer:
                    return answer.status, await answer.read()

            await drive_async(steps, send)

    asyncio.run(all_steps())


LIBRARIES = {
    "requests": by_requests,
    "urllib3": by_urllib3,
    "http.client": by_http_client,
    "urllib": by_urllib,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
}

if __name__ == "__main__":
    library, url, email = sys.argv[1:]
    LIBRARIES[library](url, walk(email))
