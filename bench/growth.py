"""How the cost of a request grows: with rows, rows in a push, history, tenants; the disk with rows and changes; metrics.

In-process, through the WSGI application: no network, no client. Run it with a checkout's Python in that checkout:
``python bench/growth.py [PART…]``. Prints tables of microseconds of CPU, the
median of several measurements with the least and the most.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import syncapp  # noqa: I001, F401 - first of all: it patches the standard library.

import contextlib
import dataclasses
import gc
import io
import itertools
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from typing import Any

import apsw

import assembly
from settings import Settings

PUSH, PULL = "/api/client/sync/push", "/api/client/sync/pull"
MEASUREMENTS = 5
numbers = itertools.count()


def row(row_id: str, round_: int = 0) -> dict[str, Any]:
    """Give a row as an app has it: 20 fields, about 500 bytes of JSON; the one of ``lib/rows.mjs``."""
    return {
        "id": row_id,
        "Unique_id": f"u-{row_id}",
        "firstName": "Asha",
        "lastName": "Kulkarni",
        "name": "Asha Kulkarni",
        "email": f"{row_id}@example.in",
        "phone": "+91 98200 11223",
        "whatsapp": "+91 98200 11223",
        "gender": "female",
        "bloodGroup": "O+",
        "dob": "1990-04-17",
        "phoneModel": {"brand": "Samsung", "model": "A54"},
        "bankList": ["HDFC", "SBI"],
        "gstNo": "27AAPFU0939F1ZV",
        "companyName": "Kulkarni Traders Pvt Ltd",
        "branchId": "pune-1",
        "status": "lead",
        "active": 1,
        "note": f"call back, round {round_}",
        "last_updated": "2025-11-23T10:00:00.000Z",
    }


def new_ids(count: int) -> list[str]:
    """Name rows that are not there yet."""
    return [f"r-{next(numbers):09d}" for _ in range(count)]


class Server:
    """The application, called as pywsgi would call it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        wide: dict[str, Any] = {
            f.name: "1000000000 per minute" for f in dataclasses.fields(Settings) if " per " in str(f.default)
        }
        self.app = assembly.build(dataclasses.replace(Settings(data_dir=Path(folder), bcrypt_rounds=4), **wide))

    def tenant(self) -> str:
        """Make a tenant, and give its token."""
        name = f"t{next(numbers)}"
        body = {"firstName": "A", "lastName": "B", "email": f"{name}@example.com", "password": "password-1"}
        answer = self.app.test_client().post("/api/customers/register", json=body, buffered=True)
        return str(answer.get_json()["data"]["token"])

    def call(self, token: str, path: str, body: object) -> Any:
        """Post, and give the answer."""
        return json.loads(self.post(token, path, json.dumps(body, separators=(",", ":")).encode()))

    def post(self, token: str, path: str, raw: bytes) -> bytes:
        """Post bytes, and give those of the answer."""
        said: list[str] = []
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(raw)),
            "HTTP_AUTHORIZATION": f"Bearer {token}",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.input": io.BytesIO(raw),
        }

        def start(status: str, *_: Any) -> Any:
            said.append(status)

        parts: Any = self.app.wsgi_app(environ, start)
        answer = b"".join(parts)
        parts.close()
        assert said == ["200 OK"], answer
        return answer

    def push(self, token: str, ids: list[str], round_: int = 0) -> None:
        """Push rows."""
        self.call(token, PUSH, {"changes": {"end_user": [row(one, round_) for one in ids]}})


def microseconds(work: Callable[[], object], times: int) -> float:
    """Give the CPU time of one of ``times`` works."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times * 1e6


def tell(what: str, of: Callable[[], float]) -> None:
    """Measure several times, and print a line."""
    of()
    found = [of() for _ in range(MEASUREMENTS)]
    print(f"| {what} | {statistics.median(found):,.1f} ({min(found):,.1f} to {max(found):,.1f}) |", flush=True)


def title(text: str, unit: str = "µs of CPU") -> None:
    """Begin a table."""
    print(f"\n| {text} | {unit} |\n|---|--:|")


def push_time(server: Server, token: str, pushes: list[bytes]) -> float:
    """Give the time of one of some pushes that are ready."""
    each = iter(pushes)
    return microseconds(lambda: server.post(token, PUSH, next(each)), len(pushes))


def bodies(lists: list[list[str]], round_: int = 0) -> list[bytes]:
    """Write pushes."""
    return [
        json.dumps({"changes": {"end_user": [row(i, round_) for i in ids]}}, separators=(",", ":")).encode()
        for ids in lists
    ]


def by_batch(server: Server) -> None:
    """Rows in a push."""
    title("a row of a push of … rows")
    rounds = itertools.count(1)
    for count in (1, 10, 100, 1000):
        token, some = server.tenant(), max(2, 400 // count)
        tell(f"{count} new", lambda: push_time(server, token, bodies([new_ids(count) for _ in range(some)])) / count)
        lists = [new_ids(count) for _ in range(some)]
        for ids in lists:
            server.push(token, ids)
        tell(f"{count} changed", lambda: push_time(server, token, bodies(lists, next(rounds))) / count)


def by_rows(server: Server) -> None:
    """Rows in the table."""
    token, there = server.tenant(), 0
    title("with … rows in the table")
    for count in (1_000, 10_000, 100_000):
        while there < count:
            server.push(token, new_ids(1_000))
            there += 1_000
        cursor = everything(server, token)
        tell(
            f"{count:,}: a push of one new row",
            lambda: push_time(server, token, bodies([new_ids(1) for _ in range(100)])),
        )
        there += 600
        server.push(token, new_ids(100))
        body = json.dumps({"cursor": everything(server, token, 100), "limit": 1000}).encode()
        tell(
            f"{count:,}: a pull of the last 100",
            lambda: microseconds(lambda: server.post(token, PULL, body) and None, 50),
        )
        body = json.dumps({"cursor": None, "limit": 1000}).encode()
        tell(
            f"{count:,}: the first page of 1,000",
            lambda: microseconds(lambda: server.post(token, PULL, body) and None, 20),
        )
        assert cursor


def everything(server: Server, token: str, but: int = 0) -> str:
    """Give the cursor at which nothing is missing, or the last ``but`` changes."""
    answer = server.call(token, PULL, {"table": "interactions"})
    epoch, sequence = str(answer["cursor"]).split("-")[:2]
    return f"{epoch}-{int(sequence) - but}"


def by_ids(server: Server) -> None:
    """Where in the index new rows come to lie, in a table that has more pages than SQLite's cache."""
    title("a new row of a push of 1,000, with 50,000 rows in the table")
    kinds: dict[str, Callable[[], list[str | None]]] = {
        "ids in order": lambda: list(new_ids(1000)),
        "random ids: UUIDs of version 4": lambda: [str(uuid.uuid4()) for _ in range(1000)],
        "ids made by the server": lambda: [None] * 1000,
    }
    for kind, ids_of in kinds.items():
        token = server.tenant()

        def pushes(count: int, ids_of: Callable[[], list[str | None]] = ids_of) -> list[bytes]:
            rows = [[row(f"x{next(numbers)}") | {"id": one} for one in ids_of()] for _ in range(count)]
            return [json.dumps({"changes": {"end_user": some}}).encode() for some in rows]

        push_time(server, token, pushes(50))
        tell(kind, lambda: push_time(server, token, pushes(3)) / 1000)


def by_history(server: Server) -> None:
    """Changes of each row before."""
    token = server.tenant()
    ids = new_ids(100)
    title("with … changes of each row before")
    rounds = itertools.count()
    for count in (1, 10, 100, 1000):
        while next(rounds) < count:
            server.push(token, ids, next(rounds))

        def of() -> float:
            return push_time(server, token, bodies([[one] for one in ids], next(rounds)))

        tell(f"{count:,}: a push that changes one row", of)
    body = {
        "table": "end_user",
        "operation": "update",
        "baseVersion": 1,
        "data": {"id": ids[0], "note": "from long ago"},
    }
    raw = json.dumps(body).encode()
    began = time.process_time()
    server.post(token, PUSH, raw)
    print(f"| a push based on version 1 of a row with {count + 600:,} | {(time.process_time() - began) * 1e6:,.0f} |")


def by_tenants(server: Server) -> None:
    """Tenants in turn, within and beyond those that stay open."""
    title("a push of one new row, of … tenants in turn (256 stay open)")
    tokens: list[str] = []
    for count in (1, 100, 250, 1000):
        tokens += [server.tenant() for _ in range(count - len(tokens))]

        def of() -> float:
            of_each = itertools.islice(itertools.cycle(tokens), max(count, 250))
            pushes = iter([(token, bodies([new_ids(1)])[0]) for token in of_each])

            def push() -> None:
                token, body = next(pushes)
                server.post(token, PUSH, body)

            return microseconds(push, max(count, 250))

        tell(f"{count:,}", of)


def by_disk(server: Server) -> None:
    """Bytes of a tenant's file once its write-ahead log is taken in."""
    there = set(server.folder.rglob("tenant_*.db"))
    token, count = server.tenant(), 10_000
    [path] = set(server.folder.rglob("tenant_*.db")) - there

    def size() -> int:
        with contextlib.closing(apsw.Connection(str(path))) as connection:
            return int(connection.pragma("page_count") * connection.pragma("page_size"))

    title(f"disk, rows of {len(json.dumps(row('r-000000000')))} bytes of JSON, {count:,} of them", "bytes")
    before, lists = size(), [new_ids(1_000) for _ in range(count // 1_000)]
    print(f"| a tenant without a row | {before:,} |")
    for round_, what in enumerate(["a new row", *["a change of each row"] * 3]):
        for ids in lists:
            server.push(token, ids, round_)
        print(f"| {what} | {(size() - before) / count:,.0f} |", flush=True)
        before = size()


def by_metrics(server: Server) -> None:
    """What a push counts and times for /metrics, be it read or not; the statements are those of the modules that do."""
    from server import metrics  # noqa: PLC0415 -- an older checkout has none

    def count() -> None:
        began = time.perf_counter()
        metrics.TOKENS["hit",] += 1
        metrics.PUSHES[()] += 1
        metrics.ROWS[()] += 1
        metrics.WRITES[()] += 1
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - began)
        metrics.REQUESTS["sync.push", 200] += 1
        metrics.REQUEST_SECONDS.observe(0.0004, "sync.push")

    token = server.tenant()
    title("a push of one new row, and what of it is counting for metrics")
    tell("the push", lambda: push_time(server, token, bodies([new_ids(1) for _ in range(400)])))
    tell("counting", lambda: microseconds(count, 100_000))


def main() -> None:
    """Measure all, or what the command line names: ``python bench/growth.py by_ids``."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent / "data") as folder:
        server = Server(folder)
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        for measure in (by_batch, by_rows, by_ids, by_history, by_tenants, by_disk, by_metrics):
            if not sys.argv[1:] or measure.__name__ in sys.argv[1:]:
                measure(server)


if __name__ == "__main__":
    main()
