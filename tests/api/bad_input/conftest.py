"""Whom hostile requests must not harm, and the application in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

import syncapp
from settings import Settings
from tests.conftest import Device, Server, Tenant
from tests.refusals import complaints, customers


@pytest.fixture(scope="module")
def victim(server: Server, lines_before: int) -> Iterator[Tenant]:
    """A tenant with a row and a device that hostile requests must not harm; in the end the log tells of no bug."""
    tenant = server.register()
    tenant.device(X_Device_Id="kept").create(id="kept", name="Asha")
    yield tenant
    assert complaints(server, lines_before) == []
    kept = next(row for row in tenant.device().rows() if row["id"] == "kept")
    assert (kept["name"], kept["version"]) == ("Asha", 1)
    assert (tenant.id, tenant.email) in {(row[0], row[2]) for row in customers(server)}


@pytest.fixture(scope="module")
def device(victim: Tenant) -> Device:
    return victim.device()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The application in this process."""
    unlimited = "100000 per second"
    app = syncapp.build(
        Settings(
            data_dir=tmp_path_factory.mktemp("app"),
            bcrypt_rounds=8,
            rate_limit_login=unlimited,
            rate_limit_register=unlimited,
            shutdown_seconds=1,
        )
    )
    yield app
    app.extensions["lifecycle"].end()
