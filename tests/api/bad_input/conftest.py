"""Whom hostile requests must not harm, and the application in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw
import pytest
from flask import Flask

import assembly
from protocol.codec import has_null
from settings import Settings
from tests.api.bad_input.hostile import CUSTOMERS, REGISTRATION
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
    """The application in this process, on a database that refuses U+0000 in what a statement is given, as some do."""

    def refuse(_: object, __: str, values: Any) -> bool:
        assert not has_null(list(values.values() if isinstance(values, dict) else values or ()))
        return True

    def watch(connection: apsw.Connection) -> None:
        connection.exec_trace = refuse

    apsw.connection_hooks.append(watch)
    unlimited = "100000 per second"
    app = assembly.build(
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
    apsw.connection_hooks.remove(watch)


@pytest.fixture(scope="module")
def token(app: Flask) -> str:
    """The token of a customer of ``app``."""
    answer = app.test_client().post(f"{CUSTOMERS}/register", json=REGISTRATION, buffered=True)
    return str(answer.get_json()["data"]["token"])
