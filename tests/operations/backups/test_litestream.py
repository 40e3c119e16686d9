"""Litestream beside the server, with its real binary: what its replica restores to is what the server holds.

Fault: a restored file was put in the place of the old one by its name. Litestream follows a file: in 8 of 8 runs its
replica was a mix of pages of both, which it neither said nor healed.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Run, Server, Tenant, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.files("what Litestream follows")]
BINARY = shutil.which("litestream") or str(Path(sys.executable).with_name("litestream"))
CONFIG = """
dbs:
  - dir: {data}/tenants
    pattern: "*.db"
    watch: true
    replica: {{type: file, path: {replicas}}}
"""


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


class Litestream:
    """A running Litestream that follows every tenant of a server."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder, self.replicas = folder, folder / "replicas"
        config, self.socket = folder / "litestream.yml", folder / "socket"
        asking = f"socket: {{enabled: true, path: {self.socket}}}\n"
        config.write_text(asking + CONFIG.format(data=server.data, replicas=self.replicas))
        with (folder / "litestream.log").open("wb") as log:
            self.process = subprocess.Popen([BINARY, "replicate", "-config", str(config)], stdout=log, stderr=log)
        wait_for(self.socket.exists, "Litestream")

    def sync(self, file: Path) -> bool:
        """Have what was committed until now replicated."""
        command = [BINARY, "sync", "-wait", "-socket", str(self.socket), str(file)]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0

    def restored(self, file: Path, to: Path) -> Path:
        """Restore the replica of a file as an operator does."""
        wait_for(lambda: self.sync(file), "the replica")
        return self.restore(file, to)

    def restore(self, file: Path, to: Path) -> Path:
        """Restore what the replica of a file has."""
        url = f"file://{self.replicas / file.name}"
        subprocess.run([BINARY, "restore", "-force", "-o", str(to), url], capture_output=True, timeout=60, check=True)
        return to


@pytest.fixture
def litestream(server: Server, tmp_path: Path) -> Iterator[Litestream]:
    running = Litestream(server, tmp_path)
    yield running
    running.process.terminate()
    running.process.wait(timeout=20)


def everything_in(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(file.iterdump())


def fill(tenant: Tenant, word: str, count: int = 300) -> None:
    tenant.device().push({"changes": {"end_user": [{"id": f"r{n}", "name": f"{word} {n}"} for n in range(count)]}})


def test_replica_after_a_restore_is_exactly_what_the_server_holds(
    server: Server, tenant: Tenant, operate: Run, litestream: Litestream, tmp_path: Path
) -> None:
    fill(tenant, "then")
    made = Path(operate("backup", "--to", tmp_path / "backups").stdout.strip())
    assert everything_in(litestream.restored(tenant.path, tmp_path / "a.db")) == everything_in(tenant.path)
    fill(tenant, "now", 900)
    litestream.restored(tenant.path, tmp_path / "b.db")
    for _ in range(2):
        operate("restore", made, "--yes")
        fill(tenant, "after", 10)
        replica = everything_in(litestream.restored(tenant.path, tmp_path / "c.db"))
        assert replica == everything_in(tenant.path)
    assert len(tenant.device().rows()) == 300


def test_what_litestream_restored_is_taken_in_and_devices_that_were_ahead_start_anew(
    server: Server, tenant: Tenant, operate: Run, litestream: Litestream, tmp_path: Path
) -> None:
    fill(tenant, "then", 5)
    raw = litestream.restored(tenant.path, tmp_path / "raw.db")
    fill(tenant, "now", 10)
    device = tenant.device()
    device.catch_up()
    operate("restore", "--yes", "--file", raw, "--tenant", tenant.id)
    assert device.pull_raw({"cursor": device.cursor}).status_code == 410
    fill(tenant, "new", 8)
    assert [row["name"] for row in device.rows()] == [f"new {n}" for n in range(8)]
    assert everything_in(litestream.restored(tenant.path, tmp_path / "d.db")) == everything_in(tenant.path)


def test_litestream_restore_over_a_tenants_file_is_noticed_and_begins_anew(
    server: Server, tenant: Tenant, litestream: Litestream, tmp_path: Path
) -> None:
    """The natural way, with the server stopped: ``litestream restore`` to the file's own path keeps the epoch."""
    fill(tenant, "then", 5)
    litestream.restored(tenant.path, tmp_path / "raw.db")
    litestream.process.terminate()  # It was down, and nobody saw that.
    litestream.process.wait(timeout=20)
    fill(tenant, "now", 10)
    device = tenant.device()
    device.catch_up()
    assert server.stop() == 0
    litestream.restore(tenant.path, tenant.path)
    server.start()
    fill(tenant, "new", 12)
    assert device.pull_raw({"cursor": device.cursor}).status_code == 410
    assert any("went back by itself" in str(line["message"]) for line in server.log)


def test_closed_account_leaves_nothing_of_litestreams_beside_it(
    server: Server, tenant: Tenant, litestream: Litestream, tmp_path: Path
) -> None:
    fill(tenant, "then", 5)
    litestream.restored(tenant.path, tmp_path / "raw.db")
    beside = tenant.path.with_name(f".{tenant.path.name}-litestream")
    assert beside.is_dir()
    server.call("DELETE", "/api/customers/me", {"password": tenant.password}, tenant.token)
    assert not beside.exists() and not tenant.path.exists()
