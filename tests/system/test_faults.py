"""Broken, locked and protected files, a wrong clock, too few descriptors.

A fault is put where it hurts most, and then looked at from outside: other tenants go on, and a broken file is neither
removed nor overwritten. The faults named below were put into a copy of the server; the tests named with them failed there.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from storage.sqlite import files
from tests.conftest import JSON, WAIT_SECONDS, Server, Tenant, needs, wait_for
from tests.pushed_rows import ROW, names, push_of
from tests.refusals import refused, shaped

pytestmark = pytest.mark.slow


# --- a disk that loses power -----------------------------------------------------------------------------------------


@pytest.mark.files("one that can grow no further")
def test_file_that_can_grow_no_further_refuses_in_one_shape_and_keeps_what_was_answered(tmp_path: Path) -> None:
    """The kernel refuses it (RLIMIT_FSIZE), to the write-ahead log or to a checkpoint, whichever comes first."""
    command = ["bash", "-c", f"ulimit -f 1200; exec {sys.executable} syncapp.py"]
    server = Server(tmp_path / "data", command=command).start()
    tenant, other = server.register(), server.register()
    answered, refusals = set[str](), 0
    for number in range(60):
        row = {"id": f"r{number}", "name": f"r{number}", "note": os.urandom(15_000).hex()}
        answer = tenant.device().push_raw({"changes": {"end_user": [row]}})
        if answer.ok:
            answered.add(f"r{number}")
        else:
            refusals += bool(is_refused(answer))
    assert answered and refusals
    assert names(tenant.device()) == answered
    other.device().push(ROW)
    server.stop()
    server.command = [sys.executable, "syncapp.py"]
    server.start()
    assert names(tenant.device()) == answered
    tenant.device().push(push_of("goes-on"))
    assert server.stop() == 0
    assert files.faults_of(tenant.path) == []


# --- files that are broken, locked or protected ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that holds one tenant open, so that another's file is closed as soon as this one's is used."""
    server = Server(tmp_path_factory.mktemp("small") / "data", {"OPEN_TENANTS": "1"}).start()
    yield server
    assert server.stop() == 0, server.log_path.read_text()[-2000:]


@pytest.fixture
def other(small: Server) -> Tenant:
    return small.register()


@pytest.fixture
def victim(small: Server, other: Tenant) -> Tenant:
    """A tenant with rows whose file is closed, and its log taken in: it was large."""
    victim = small.register()
    rows = [{"id": f"r{number}", "name": f"{number}", "note": os.urandom(300).hex()} for number in range(400)]
    victim.device().push({"changes": {"end_user": rows}})
    other.device().create(name="of another")
    wait_for(lambda: not Path(f"{victim.path}-wal").exists(), "the log to be taken in")
    return victim


def check_others(small: Server, other: Tenant) -> None:
    before = len(other.device().rows())
    other.device().create(name="goes on")
    assert len(other.device().rows()) == before + 1
    assert requests.get(f"{small.url}/health", timeout=WAIT_SECONDS).json()["status"] in ("ok", "degraded")


def is_refused(answer: Any) -> JSON:
    """Check that an answer is a failure of the server's, said in the one shape."""
    assert answer.status_code >= 500, (answer.status_code, answer.text[:300])
    body = shaped(answer.json())
    assert body["requestId"] == answer.headers["X-Request-ID"]
    return body


def damage(path: Path, kind: str) -> bytes:
    """Break a file, and give its bytes before."""
    whole = path.read_bytes()
    broken = {
        "random bytes": os.urandom(len(whole)),
        "cut to half": whole[: len(whole) // 8192 * 4096],
        "cut amid a page": whole[:5000],
        "cut amid the header": whole[:50],
        "header destroyed": bytes(100) + whole[100:],
        "text": b"this is no database. " * 1000,
        "empty": b"",
    }
    path.write_bytes(broken[kind])
    return whole


KINDS = ["random bytes", "cut to half", "cut amid a page", "cut amid the header", "header destroyed", "text", "empty"]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_file_is_an_error_for_its_tenant_alone_and_stays_as_it_is(
    small: Server, other: Tenant, victim: Tenant, kind: str
) -> None:
    """Fault: an empty file was taken for a new tenant's, and devices were told that all rows are gone."""
    whole, device = damage(victim.path, kind), victim.device()
    broken = victim.path.read_bytes()
    try:
        for answer in (device.pull_raw({"cursor": None}), device.push_raw(push_of("b")), device.raw("sync/pull", {})):
            is_refused(answer)
        check_others(small, other)
        is_refused(device.push_raw(push_of("c")))
        assert victim.path.read_bytes() == broken or kind == "empty"  # SQLite writes the head of a file of nothing.
    finally:
        other.device().rows()
        for suffix in ("-wal", "-shm"):
            Path(f"{victim.path}{suffix}").unlink(missing_ok=True)
        victim.path.write_bytes(whole)
    assert len(device.rows()) == 400


def test_pull_that_meets_broken_pages_never_looks_like_a_whole_answer(
    small: Server, other: Tenant, victim: Tenant
) -> None:
    whole = victim.path.read_bytes()
    middle = len(whole) // 2 // 4096 * 4096
    victim.path.write_bytes(whole[:middle] + os.urandom(len(whole) - middle))
    try:
        answer = victim.device().pull_raw({"cursor": None})
        assert answer.status_code >= 500, "broken rows were sent as if they were good"
        shaped(answer.json())
    except requests.exceptions.ChunkedEncodingError:
        pass  # It was under way: the answer is cut off, and no client takes it for a whole one.
    check_others(small, other)


def test_server_starts_beside_a_broken_file_and_leaves_it_alone(start_server: Callable[..., Server]) -> None:
    server = start_server()
    victim, other = server.register(), server.register()
    assert server.stop() == 0
    damage(victim.path, "random bytes")
    broken = victim.path.read_bytes()
    server.start()
    is_refused(victim.device().push_raw(push_of("a")))
    check_others(server, other)
    assert server.stop() == 0
    assert victim.path.read_bytes() == broken


def test_server_ends_well_though_a_device_of_a_broken_file_was_here(start_server: Callable[..., Server]) -> None:
    """Fault: saving visits ended at the first tenant that failed, and with it the end: no file was closed."""
    server = start_server(OPEN_TENANTS="1")
    victim, other = server.register(), server.register()
    other.device().create(name="closes the first")
    damage(victim.path, "random bytes")
    is_refused(victim.device(X_Device_Id="tablet").push_raw(push_of("a")))
    other.device(X_Device_Id="phone").create(name="b")
    assert server.stop() == 0
    assert not list(victim.path.parent.glob("*-wal")), "a database was not closed"


HOLD_LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA locking_mode = " + sys.argv[2])
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def locked(path: Path, mode: str) -> Iterator[None]:
    command = [sys.executable, "-c", HOLD_LOCK, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"locked\n"
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["normal", "exclusive"])
def test_locked_file_is_busy_with_a_time_to_come_back_while_other_tenants_go_on(
    start_server: Callable[..., Server], mode: str
) -> None:
    """Normal: others may read the file. Exclusive: nobody else may even open it."""
    server = start_server(OPEN_TENANTS="1" if mode == "exclusive" else "256")
    victim, other = server.register(), server.register()
    victim.device().push(ROW)
    other.device().create(name="a")
    answers: list[Any] = []
    with locked(victim.path, mode):
        pushing = threading.Thread(target=lambda: answers.append(victim.device().push_raw(push_of("b"))))
        pushing.start()
        for _ in range(20):
            check_others(server, other)
        pushing.join()
        if mode == "normal":
            assert names(victim.device()) == {"then"}
    assert refused(answers[0], 503, "busy") and answers[0].headers["Retry-After"] == "1"
    victim.device().push(push_of("c"))
    assert names(victim.device()) == {"then", "c"}


@contextlib.contextmanager
def protected(path: Path) -> Iterator[None]:
    """Forbid to change a file or folder, even to root."""
    if subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("chattr +i does not work here: it needs root and a file system that knows it")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


@needs("chattr")
def test_file_that_may_not_be_written_is_an_error_for_its_tenant_alone(
    small: Server, other: Tenant, victim: Tenant
) -> None:
    with protected(victim.path):
        is_refused(victim.device().push_raw(push_of("b")))
        check_others(small, other)
    victim.device().push(push_of("b"))
    assert len(victim.device().rows()) == 401


@needs("chattr")
def test_folder_that_may_not_be_written_refuses_registrations_and_leaves_no_customer(
    small: Server, other: Tenant
) -> None:
    person = {"firstName": "A", "lastName": "B", "email": f"{uuid.uuid4()}@example.com", "password": "password123"}
    with protected(small.data / "tenants"):
        is_refused(small.post("/api/customers/register", person))
        assert requests.get(f"{small.url}/health", timeout=WAIT_SECONDS).ok
    assert small.post("/api/customers/register", person).status_code == 201
    check_others(small, other)


# --- a clock that is wrong -------------------------------------------------------------------------------------------


WRONG_CLOCK = """
import os, time
from pathlib import Path
original, offset = time.time_ns, Path(os.environ["DATA_DIR"] + ".years")
time.time_ns = lambda: original() + int(offset.read_text() or 0) * 31_536_000 * 10**9
import syncapp
syncapp.main()
"""


def test_clock_that_jumps_by_years_gives_rising_times_and_misses_nothing(tmp_path: Path) -> None:
    """Fault: ``now`` for ``max(now, clock + 1)``."""
    years = tmp_path / "data.years"
    years.write_text("0")
    server = Server(tmp_path / "data", command=[sys.executable, "-c", WRONG_CLOCK]).start()
    tenant = server.register()
    pusher, by_cursor, held, last_sync = tenant.device(), tenant.device(), set[str](), None
    times: list[str] = []
    for number, jump in enumerate([0, -20, 30, -5, 0, 40, -1, 0]):
        years.write_text(str(jump))
        times.append(pusher.create(id=f"r{number}", name=f"r{number}")["updatedAt"])
        assert f"r{number}" in {row["id"] for row in by_cursor.catch_up()["end_user"]}
        page = pusher.pull({"table": "end_user", "lastSync": last_sync})
        held |= {row["id"] for row in page["data"]["end_user"]}
        last_sync = page["syncTimestamp"]
        assert held == {f"r{known}" for known in range(number + 1)}
        if number == 4:
            assert server.stop() == 0
            server.start()
    assert times == sorted(set(times))
    assert server.stop() == 0


# --- too few descriptors ---------------------------------------------------------------------------------------------


@pytest.mark.files("each takes a descriptor")
def test_too_few_descriptors_are_an_error_that_ends_when_connections_do(tmp_path: Path) -> None:
    """The server's own bounds keep room, so the limit is lowered under it, to what it holds at that moment."""
    server = Server(tmp_path / "data", {"OPEN_TENANTS": "4"}).start()
    assert server.process is not None
    tenants = [server.register() for _ in range(8)]
    with requests.Session() as session, contextlib.ExitStack() as idle:
        assert session.get(f"{server.url}/health", timeout=10).ok
        for _ in range(80):
            idle.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        wait_for(lambda: descriptors(server) >= 80, "all to be connected")
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (descriptors(server) + 1,) * 2)
        assert [check_without_descriptors(session, tenant) for tenant in tenants].count(False) >= 4
        assert session.get(f"{server.url}/health", timeout=20).ok
    for tenant in tenants:
        tenant.device().push(push_of("after"))
        assert "after" in names(tenant.device())
    assert server.stop() == 0


def descriptors(server: Server) -> int:
    assert server.process is not None
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def check_without_descriptors(session: requests.Session, tenant: Tenant) -> bool:
    """Push over a connection that stands, and tell whether it was stored or refused in the one shape."""
    headers = {"Authorization": f"Bearer {tenant.token}"}
    url = f"{tenant.server.url}/api/client/sync/push"
    answer = session.post(url, json=push_of("amid"), headers=headers, timeout=20)
    if not answer.ok:
        is_refused(answer)
    return bool(answer.ok)
