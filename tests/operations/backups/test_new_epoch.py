"""New epochs of all tenants, for storage that was put back as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import postgres
from tests.backing_up import names
from tests.conftest import Run, Server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()


def test_devices_that_were_ahead_of_what_was_put_back_pull_from_the_start(
    server: Server, operate: Run, tmp_path: Path
) -> None:
    """Main.db went back too, so that nothing tells. Fault: no new epoch: 200, and one of the rows that came since."""
    tenants = [server.register() for _ in range(2)]
    devices = [tenant.device() for tenant in tenants]
    for device in devices:
        device.create(id="a", name="then")
    assert server.stop() == 0
    snapshot = tmp_path / "snapshot"
    if not postgres.IS_UNDER_TEST:
        shutil.copytree(server.data, snapshot)
    server.start()
    for device in devices:
        device.create(id="b", name="lost")
        device.catch_up()
    assert server.stop() == 0
    if not postgres.IS_UNDER_TEST:
        shutil.rmtree(server.data)
        snapshot.rename(server.data)
    assert "--yes" in operate("new-epoch", code=2).stderr
    assert operate("new-epoch", "--yes").stdout == "2 tenants begun anew. The server may start now.\n"
    server.start()
    for device in devices:
        device.create(id="c", name="since")
        device.create(id="d", name="since")
        refused = device.pull_raw({"cursor": device.cursor})
        assert (refused.status_code, refused.json()["code"]) == (410, "resync_required")
    assert server.stop() == 0
    operate("new-epoch", "--yes", "--tenant", tenants[0].email)
    server.start()
    assert {"then", "since"} <= names(devices[0])


def test_new_epoch_is_refused_for_who_is_not_there_and_beside_a_server_of_files(server: Server, operate: Run) -> None:
    tenant = server.register()
    told = operate("new-epoch", "--yes", "--tenant", "nobody@example.com", code=1).stderr
    assert "There is no customer" in told
    if not postgres.IS_UNDER_TEST:
        assert "stop it first" in operate("new-epoch", "--yes", "--tenant", tenant.id, code=1).stderr
