"""An upgrade, and the way back: the version before this one and this one on the same data (docs/deployment.md).

The version before runs out of git. Where a checkout has neither its tag nor its commit, this version still serves what that
one once wrote (``tests/recorded``).
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from tests import forking, older_version, postgres
from tests.backing_up import operating
from tests.conftest import ROOT, Server, Tenant, all_closed, wait_for
from tests.kit.suite import Device as App
from tests.kit.suite import Kit
from tests.kit.truth import Account, register
from tests.older_version import BEFORE, NOW, needs_its_code
from tests.ports import free_port
from tests.record_version import SECRET

_PYTHON = ROOT / "clients" / "python"
CLIENTS = {
    "python": ["env", f"PYTHONPATH={_PYTHON / 'src'}", sys.executable, str(_PYTHON / "tests" / "driver.py")],
    "js": ["node", str(ROOT / "clients" / "js" / "kit" / "node.mjs"), "indexeddb"],
}
HAS_JS_CLIENT = (ROOT / "clients" / "js" / "node_modules").is_dir()
THERE_AND_BACK = (BEFORE, NOW, BEFORE, NOW)


class Installation:
    """A data folder and a port, at which one version serves after the other."""

    def __init__(self, folder: Path) -> None:
        self.data, self.port = folder / "data", free_port()
        self.running: Server | None = None

    def stop(self) -> None:
        if self.running:
            assert self.running.stop() == 0
        self.running = None

    def serve(self, version: str) -> Server:
        """Start a version in the place of the one that serves."""
        self.stop()
        command = older_version.command() if version == BEFORE else forking.PLAIN
        self.running = Server(self.data, {}, command, self.port).start()
        assert requests.get(f"{self.running.url}/health", timeout=30).json()["version"] == version
        return self.running

    def tenant(self, account: Account) -> Tenant:
        assert self.running
        return Tenant(self.running, account.id, account.email, account.password, account.token, "")

    def operate(self, *arguments: str) -> str:
        done = forking.run([*arguments], operating(self.data))
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path)
    yield installation
    if installation.running:
        installation.running.kill()


@pytest.fixture
def new_kit(tmp_path: Path) -> Iterator[Callable[[str, str], Kit]]:
    """Give the kit of a client, by its name, on the server at an address."""
    yield from all_closed(lambda name, url: Kit(CLIENTS[name], tmp_path / name, random.Random(1), url), Kit.close)


def all_have(devices: list[App], ids: set[str]) -> bool:
    return all(ids <= device.rows().keys() for device in devices)


@needs_its_code
def test_devices_go_on_through_an_upgrade_a_rollback_and_the_next_upgrade(
    installation: Installation, new_kit: Callable[[str, str], Kit]
) -> None:
    """Both clients listen all the time, and type while no server is there; another one pulls by its cursor alone."""
    url = installation.serve(BEFORE).url
    account = register(url)
    kits = [new_kit(name, url) for name in CLIENTS if name != "js" or HAS_JS_CLIENT]
    devices = [kit.device(account) for kit in kits]
    for device in devices:
        device.ask("live", on=True)
    plain = installation.tenant(account).device(Idempotency_Key="same-in-each-version")
    first_answer = plain.push({"changes": {"end_user": [{"id": "once", "name": "once"}]}})
    plain.catch_up()
    for turn, version in enumerate(THERE_AND_BACK):
        if turn:
            installation.stop()
        typed = {f"{turn}-{number}" for number, _ in enumerate(devices)} | {"of-all"}
        for number, device in enumerate(devices):
            device.put(f"{turn}-{number}", name="typed while no server is there")
            device.put("of-all", **{("phone", "email")[number]: f"turn {turn}"})
        if turn:
            installation.serve(version)
        wait_for(functools.partial(all_have, devices, typed), f"what was typed, at {version}")
        kits[0].check(account, *devices)
        assert {row["id"] for row in plain.catch_up()["end_user"]} == typed, "a cursor brings what is new, and no more"
        assert plain.push({"changes": {"end_user": [{"id": "once", "name": "once"}]}}) == first_answer
    assert len(account.rows()[0]) == 2 + len(devices) * len(THERE_AND_BACK)


def is_suspended(tenant: Tenant) -> bool:
    return bool(tenant.device().pull_raw({"cursor": None}).json().get("code") == "tenant_suspended")


@needs_its_code
def test_what_the_version_before_does_not_know_is_kept_through_it(installation: Installation) -> None:
    """Fault: nobody could register with it, since it gave no value for the column of the newer one."""
    early = installation.serve(NOW).register()
    installation.operate("tenant", "suspend", early.email)
    wait_for(functools.partial(is_suspended, early), "the suspension")
    early.server = installation.serve(BEFORE)
    early.device().create(id="a", name="meanwhile")
    late = early.server.register()
    late.device().create(id="b", name="of the version before")
    early.server = late.server = installation.serve(NOW)
    assert is_suspended(early)
    assert [row["id"] for row in late.device().rows()] == ["b"]
    installation.operate("tenant", "suspend", late.email)
    installation.operate("tenant", "resume", early.email)
    wait_for(lambda: is_suspended(late) and not is_suspended(early), "both changes")
    assert [row["id"] for row in early.device().rows()] == ["a"]


@pytest.mark.files("recorded as files")
def test_data_that_the_version_before_wrote_is_served_as_it_was(tmp_path: Path) -> None:
    older_version.restore(tmp_path / "data")
    ages = {"HISTORY_DAYS": "36500", "DEVICE_IDLE_DAYS": "36500"}  # It was recorded long ago.
    server = Server(tmp_path / "data", {"JWT_SECRET_KEY": SECRET, **ages}).start()
    known = older_version.notes()
    who = {"email": known["email"], "password": known["password"]}
    token = server.post("/api/customers/login", who).json()["data"]["token"]
    tenant = Tenant(server, known["tenant"], known["email"], known["password"], token, "")
    device = tenant.device(X_Device_Id="first")
    assert {table: device.rows(table) for table in known["rows"]} == known["rows"]
    device.cursor = known["cursor"]
    assert device.catch_up() == {"end_user": [], "interactions": []}
    repeated = device.push({"operations": [known["operation"]]})
    assert repeated["results"][0]["version"] == 1 and repeated["cursor"] == known["cursor"]
    device.update(id="a", name="of this version")
    assert [row["id"] for row in device.catch_up()["end_user"]] == ["a"]
    history = server.call("GET", "/api/client/sync/history/end_user/a", token=token).json()["data"]
    assert [entry["row"]["name"] for entry in history] == ["of this version", "of the second", "of the first", "Asha"]
    conflicts = server.call("GET", "/api/client/sync/conflicts", token=token).json()["data"]
    assert [one["id"] for one in conflicts] == ["a"]
    assert server.stop() == 0


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Start processes of either version on one database of PostgreSQL."""
    env = {"DATABASE_URL": postgres.address_of(tmp_path / "shared")}

    def start(version: str) -> Server:
        command = older_version.command() if version == BEFORE else forking.PLAIN
        return Server(tmp_path / f"{version}-{len(list(tmp_path.iterdir()))}", env, command).start()

    def end(server: Server) -> None:
        if server.process and server.process.poll() is None:
            assert server.stop() == 0

    yield from all_closed(start, end)
    postgres.drop_those_in(tmp_path)


@needs_its_code
@postgres.not_pooled
@pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING)
def test_both_versions_serve_side_by_side_on_postgresql(deploy: Callable[[str], Server]) -> None:
    """As while a deploy rolls, and as it is taken back: what one commits, devices at the other hear and pull."""
    here = deploy(BEFORE).register()
    here.device().create(name="before the deploy")
    there = replace(here, server=deploy(NOW))
    again = replace(here, server=deploy(BEFORE))  # It starts on what the newer one has prepared.
    tenants = [here, there, again]
    listeners = [tenant.device().listen() for tenant in tenants]
    reader = here.device()
    reader.catch_up()
    for number, pushing in enumerate(tenants):
        row = pushing.device().create(name=f"push {number}")
        for listener in listeners:
            listener.wait_note("sync_complete", number + 1)
        reader.tenant = tenants[number - 1]
        assert [one["id"] for one in reader.catch_up()["end_user"]] == [row["id"]]
    late = again.server.register()
    assert replace(late, server=there.server).device().create(id="a")["version"] == 1
    for listener in listeners:
        listener.close()
    assert there.server.stop() == 0
    assert len(here.device().rows()) == len(again.device().rows()) == 4
    assert [line for line in [*here.server.log, *there.server.log, *again.server.log] if "exception" in line] == []
