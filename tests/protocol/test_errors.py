"""Every error that a client may meet, provoked for real, and the one shape of them all."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest
from flask import Flask, Response

import assembly
from protocol import errors
from settings import Settings
from tests import postgres
from tests.conftest import JSON, WAIT_SECONDS, Listener, Server, Tenant, wait_for
from tests.refusals import forged, kinds_of_error, nothing_changes, refused, shaped

FOREIGN = {"Origin": "https://evil.example", "Access_Control_Request_Method": "POST"}
ROW = {"table": "end_user", "operation": "create", "data": {"id": "a", "name": "A"}}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that soon has enough: of log-ins, and of pushes that wait."""
    env = {"RATE_LIMIT_LOGIN": "1 per hour", "MAX_WAITING_PUSHES": "1"}
    server = Server(tmp_path_factory.mktemp("narrow") / "data", env).start()
    yield server
    server.stop()


@contextlib.contextmanager
def locked(tenant: Tenant) -> Iterator[None]:
    """Hold a tenant's database as another process that writes would."""
    with contextlib.closing(sqlite3.connect(tenant.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


# --- one provocation for each ----------------------------------------------------------------------------------------


def expired_token(server: Server) -> Any:
    tenant = server.register()
    past = int(time.time()) - 10
    return server.call("GET", "/api/customers/me", token=forged(tenant, iat=past - 10, nbf=past - 10, exp=past))


def registration_of_a_taken_address(server: Server) -> Any:
    body = {"firstName": "A", "lastName": "B", "email": server.register().email, "password": "password123"}
    return server.post("/api/customers/register", body)


def push_without_a_database(server: Server) -> Any:
    tenant = server.register()
    tenant.path.unlink()
    return tenant.device().push_raw(ROW)


def key_for_another_request(server: Server) -> Any:
    device = server.register().device(Idempotency_Key="one")
    device.push(ROW)
    return device.push_raw(ROW | {"operation": "update"})


def push_to(server: Server, body: Any, **headers: str) -> Any:
    return server.register().device(**headers).push_raw(body)


def pull_from(server: Server, body: Any) -> Any:
    return server.register().device().pull_raw(body)


def push_to_a_tenant_that_moved(server: Server) -> Any:
    tenant = server.register()
    with contextlib.closing(sqlite3.connect(tenant.path)) as file, file:
        file.execute("UPDATE _meta SET moved_to = 'elsewhere'")
    return tenant.device().push_raw(ROW)


def customer_that_is(state: str, server: Server) -> Tenant:
    tenant = server.register()
    if postgres.IS_UNDER_TEST:
        postgres.ask(server.data, f"UPDATE syncapp.customers SET state = '{state}' WHERE id = '{tenant.id}'")
        return tenant
    with contextlib.closing(sqlite3.connect(server.data / "main.db")) as file, file:
        file.execute("UPDATE customers SET state = ? WHERE id = ?", (state, tenant.id))
    return tenant


PROVOKED_OVER_HTTP: dict[type[errors.Problem], Callable[[Server], Any]] = {
    errors.InvalidJson: lambda server: server.call("POST", "/api/customers/login", Content_Type="application/json"),
    errors.ValidationError: lambda server: push_to(server, {}),
    errors.InvalidTenantId: lambda server: push_to(server, ROW, X_Tenant_Id="nonsense"),
    errors.Unauthorized: lambda server: server.post("/api/client/sync/push", ROW),
    errors.TokenExpired: expired_token,
    errors.InvalidCredentials: lambda server: server.post(
        "/api/customers/login", {"email": "nobody@example.com", "password": "password123"}
    ),
    errors.TenantMismatch: lambda server: push_to(server, ROW, X_Tenant_Id=server.register().id),
    errors.OriginNotAllowed: lambda server: server.call("OPTIONS", "/api/client/sync/push", **FOREIGN),
    errors.TenantSuspended: lambda server: customer_that_is("suspended", server).device().push_raw(ROW),
    errors.TenantReadOnly: lambda server: customer_that_is("read-only", server).device().push_raw(ROW),
    errors.Moved: push_to_a_tenant_that_moved,
    errors.TenantNotFound: push_without_a_database,
    errors.NotFound: lambda server: server.call("GET", "/nope"),
    errors.MethodNotAllowed: lambda server: server.call("GET", "/api/client/sync/push"),
    errors.EmailTaken: registration_of_a_taken_address,
    errors.IdempotencyMismatch: key_for_another_request,
    errors.ResyncRequired: lambda server: pull_from(server, {"cursor": "0123456789ab-1"}),
    errors.LinkInvalid: lambda server: server.post("/api/customers/email/confirm", {"token": "none"}),
    errors.NoMail: lambda server: server.post("/api/customers/password/forgotten", {"email": "a@example.com"}),
    errors.PayloadTooLarge: lambda server: push_to(server, {"changes": {"end_user": [{}] * 10_001}}),
    errors.UnsupportedMediaType: lambda server: server.call("POST", "/api/customers/login"),
}


@pytest.mark.parametrize("problem", PROVOKED_OVER_HTTP, ids=lambda problem: problem.__name__)
def test_error_is_met_over_http_with_its_status_code_and_sentence(
    server: Server, problem: type[errors.Problem]
) -> None:
    body = refused(PROVOKED_OVER_HTTP[problem](server), problem.status, problem.code)
    has_own_sentence = problem in (errors.InvalidJson, errors.ValidationError, errors.PayloadTooLarge)
    assert has_own_sentence or body["error"] == problem.sentence


def test_closed_registration_is_told(start_server: Callable[..., Server]) -> None:
    refused(start_server(REGISTRATION="closed").post("/api/customers/register", {}), 403, "registration_closed")


def test_too_many_attempts_are_told_with_the_time_to_wait(narrow: Server) -> None:
    for _ in range(2):
        answer = narrow.post("/api/customers/login", {})
    refused(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 3601


def test_request_whose_twin_is_still_running_is_told_so(server: Server) -> None:
    tenant = server.register()
    device = tenant.device(Idempotency_Key="one")
    with ThreadPoolExecutor(2) as threads, locked(tenant):
        twins = [threads.submit(device.push_raw, ROW) for _ in range(2)]
        wait_for(lambda: any(twin.done() for twin in twins), "the answer to the second")
    second, first = sorted((twin.result() for twin in twins), key=lambda answer: -answer.status_code)
    refused(second, 409, "busy")
    assert first.status_code == 200
    assert device.push(ROW) == first.json()


def test_more_pushes_than_may_wait_are_told_to_come_back_and_lose_nothing(narrow: Server) -> None:
    tenant = narrow.register()
    with ThreadPoolExecutor(6) as threads, locked(tenant):
        pushes: list[Future[Any]] = [
            threads.submit(tenant.device().push_raw, ROW | {"data": {"id": f"r{number}"}}) for number in range(6)
        ]
        wait_for(lambda: sum(push.done() for push in pushes) >= 4, "the pushes that may not wait")
    answers = [push.result() for push in pushes]
    busy = [answer for answer in answers if answer.status_code != 200]
    assert 3 <= len(busy) <= 5
    for answer in busy:
        refused(answer, 503, "busy")
        assert int(answer.headers["Retry-After"]) >= 1
    stored = {answer.json()["data"][0]["id"] for answer in answers if answer.status_code == 200}
    assert {row["id"] for row in tenant.device().rows()} == stored


@pytest.mark.slow
def test_database_that_another_process_holds_for_long_is_busy(server: Server) -> None:
    tenant, other = server.register(), server.register()
    listener = tenant.device().listen()
    with ThreadPoolExecutor(1) as threads, locked(tenant):
        push = threads.submit(tenant.device().push_raw, ROW)
        meanwhile = 0
        while not push.done():
            other.device().create()
            meanwhile += not push.done()
    assert meanwhile >= 2, "the wait for one tenant holds up no other"
    refused(push.result(), 503, "busy")
    assert int(push.result().headers["Retry-After"]) >= 1
    assert listener.wait_note("sync_error")["message"].startswith("Sync error for end_user")
    listener.close()
    assert tenant.device().push_raw(ROW).status_code == 200


def can_mount() -> bool:
    return os.name == "posix" and os.geteuid() == 0 and shutil.which("mount") is not None


@pytest.mark.files("a full disk of the folder")
@pytest.mark.skipif(not can_mount(), reason="needs root, for a small file system of its own")
def test_full_disk_is_told_stores_nothing_and_is_over_when_there_is_room_again(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    disk = tmp_path / "data"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        server = start_server()
        tenant = server.register()
        device = tenant.device()
        device.create(id="kept", name="Asha")
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with nothing_changes(tenant):
            body = {"changes": {"end_user": [{"note": "x" * 60_000} for _ in range(10)]}}
            refused(device.push_raw(body), 507, "storage_full")
        for reader in (device, tenant.device(), tenant.device(X_Device_Id="tablet-1")):  # Though it can't be noted.
            assert [row["id"] for row in reader.rows()] == ["kept"]
        ballast.unlink()
        assert device.push_raw(body).status_code == 200
        assert len(device.rows()) == 11
        assert server.call("GET", "/api/client/devices", token=tenant.token).json()["data"][0]["deviceId"] == "tablet-1"
        server.kill()
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


# --- in this process: a full file, a bug -----------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """The application in this process, with one customer."""
    app = assembly.build(Settings(data_dir=tmp_path / "data", bcrypt_rounds=8, shutdown_seconds=1))
    yield app
    app.extensions["lifecycle"].end()


@pytest.fixture
def call(app: Flask) -> Callable[..., Any]:
    """Call the application as its one customer."""
    headers: dict[str, str] = {}

    def call(method: str, path: str, body: JSON | None = None) -> Any:
        return app.test_client().open(path, method=method, json=body, headers=headers, buffered=True)

    account = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}
    registered = call("POST", "/api/customers/register", account).get_json()
    headers["Authorization"] = f"Bearer {registered['data']['token']}"
    return call


@pytest.mark.files("one that can grow no further")
def test_full_file_is_told_and_stores_nothing(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from storage.sqlite import connections, database

    connect = connections.connect

    def connect_to_a_small_file(path: Path, role: str) -> apsw.Connection:
        connection = connect(path, role)
        if role == "writer":
            connection.pragma("max_page_count", connection.pragma("page_count") + 10)
        return connection

    monkeypatch.setattr(database, "connect", connect_to_a_small_file)
    assert call("POST", "/api/client/sync/push", ROW).status_code == 200
    big = {"changes": {"end_user": [{"note": "x" * 60_000}]}}
    answer = call("POST", "/api/client/sync/push", big)
    assert answer.status_code == 507 and shaped(answer.get_json())["code"] == "storage_full"
    rows = call("POST", "/api/client/sync/pull", {"table": "end_user"}).get_json()["data"]["end_user"]
    assert [row["id"] for row in rows] == ["a"]
    assert call("POST", "/api/client/sync/push", ROW | {"operation": "delete"}).status_code == 200


def test_bug_is_told_without_a_word_about_it(
    app: Flask, call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def stumble() -> Response:
        raise RuntimeError("secret of /work/main: SELECT passwordHash FROM customers")

    app.view_functions["sync.health"] = stumble
    answer = call("GET", "/api/client/sync/health")
    body = shaped(answer.get_json())
    assert (answer.status_code, body["code"]) == (500, "internal_error")
    assert body["error"] == errors.Problem.sentence and "secret" not in answer.get_data(as_text=True)
    assert body["requestId"] == answer.headers["X-Request-ID"]
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.__dict__["request_id"] == body["requestId"]


# --- events ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "body", "code"),
    [
        ("sync_push", {}, "validation_error"),
        ("sync_push", ROW | {"tenantId": "nonsense"}, "invalid_tenant_id"),
        ("sync_push", ROW | {"tenantId": "1030070f-9824-49b3-b53b-8013e2eb363e"}, "tenant_mismatch"),
        ("sync_push", {"changes": {}, "baseCursor": "0123456789ab-1"}, "resync_required"),
        ("sync_push", {"changes": {"end_user": [{}] * 10_001}}, "payload_too_large"),
        ("sync_pull", {"cursor": "0123456789ab-1"}, "resync_required"),
    ],
)
def test_error_is_met_in_an_acknowledgement_in_the_same_shape(
    listen: Callable[..., Listener], event: str, body: JSON, code: str
) -> None:
    assert shaped(listen().call(event, body))["code"] == code


def test_event_without_a_database_is_told(server: Server) -> None:
    tenant = server.register()
    tenant.path.unlink()
    listener = Listener(server.url, auth={"token": tenant.token})
    assert listener.wait("authentication_error")["code"] == "tenant_not_found"
    assert listener.is_gone.wait(WAIT_SECONDS)


# --- the table is complete -------------------------------------------------------------------------------------------


def test_every_error_there_is_was_provoked_above() -> None:
    elsewhere = {errors.RegistrationClosed, errors.RateLimited, errors.StillRunning, errors.Busy, errors.StorageFull}
    in_test_room = {errors.QuotaExceeded}
    in_test_outcomes = {errors.OutcomeUnknown, errors.UnderMaintenance}  # The latter in test_maintenance.
    below_http = {errors.RequestTimeout, errors.AddressTooLong, errors.HeadTooLarge}  # test_connections, test_rfc9112
    below_http |= {errors.ExpectationFailed, errors.Unimplemented, errors.UnknownVersion}
    provoked = set(PROVOKED_OVER_HTTP) | elsewhere | below_http | in_test_room | in_test_outcomes
    missing = sorted(one.__name__ for one in set(kinds_of_error()) - provoked)
    assert not missing, f"tests/protocol/test_errors.py: PROVOKED_OVER_HTTP must have a request for each of {missing}"
    assert provoked <= set(kinds_of_error())


def test_codes_of_the_contract_have_their_statuses() -> None:
    promised = {
        ("invalid_json", 400),
        ("validation_error", 400),
        ("invalid_tenant_id", 400),
        ("unauthorized", 401),
        ("token_expired", 401),
        ("invalid_credentials", 401),
        ("tenant_mismatch", 403),
        ("tenant_not_found", 404),
        ("not_found", 404),
        ("method_not_allowed", 405),
        ("email_taken", 409),
        ("resync_required", 410),
        ("payload_too_large", 413),
        ("unsupported_media_type", 415),
        ("idempotency_mismatch", 422),
        ("rate_limited", 429),
        ("busy", 409),
        ("busy", 503),
        ("storage_full", 507),
        ("internal_error", 500),
    }
    problems: list[type[errors.Problem]] = [errors.Problem, *kinds_of_error()]
    there = {(problem.code, problem.status) for problem in problems}
    assert promised <= there
    beyond = {
        ("registration_closed", 403),
        ("origin_not_allowed", 403),
        ("quota_exceeded", 507),
        ("tenant_suspended", 401),
        ("tenant_read_only", 503),
        ("maintenance", 503),
        ("moved", 503),
        ("outcome_unknown", 503),
        ("link_invalid", 410),
        ("no_mail", 403),
    }
    below_http = {("request_timeout", 408), ("address_too_long", 414), ("head_too_large", 431)}
    below_http |= {("expectation_failed", 417), ("not_implemented", 501), ("http_version_not_supported", 505)}
    new = there - promised - (beyond | below_http)
    assert not new, (
        f"tests/protocol/test_errors.py: an error that the contract does not name must stand in this test: {new}"
    )
    assert beyond | below_http <= there
