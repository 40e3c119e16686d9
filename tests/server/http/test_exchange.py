"""What is the same for every endpoint: request IDs, origins, compression, headers, the line in the log."""

from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.conftest import JSON, Device, Server, Tenant, wait_for
from tests.refusals import refused, say

SYNC = "/api/client/sync"
FOREIGN = "https://evil.example"


def line_of(server: Server, request_id: str) -> JSON:
    """Find the log line of a request."""

    def found() -> JSON | None:
        lines = [line for line in server.log if line.get("request_id") == request_id]
        return lines[0] if lines else None

    line: JSON = wait_for(found, f"the log line of {request_id}")
    return line


# --- request IDs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", ["a", "req-1.2:3_4", "x" * 128, str(uuid.uuid4())])
@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/", 200), ("/nope", 404), (f"{SYNC}/push", 405)])
def test_sane_request_id_is_echoed(server: Server, stated: str, path: str, status: int) -> None:
    answer = server.call("GET", path, X_Request_ID=stated)
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (status, stated)


@pytest.mark.parametrize(
    "stated",
    ["", " ", "x" * 129, "a b", "a/b", "<script>", "é", "a\tb", "a;b", '"a"', "a\x0bb", "${jndi:x}"],
)
def test_request_id_that_is_not_sane_is_replaced(server: Server, stated: str) -> None:
    head = f"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: {stated}\r\n\r\n"
    answer = say(server, head.encode("latin-1"))
    (given,) = re.findall(rb"X-Request-ID: (.*)\r\n", answer)
    assert answer.startswith(b"HTTP/1.1 200") and uuid.UUID(given.decode())


def test_request_ids_made_by_the_server_differ(server: Server) -> None:
    assert len({server.call("GET", "/health").headers["X-Request-ID"] for _ in range(5)}) == 5


# --- origins ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "origin", "is_allowed"),
    [
        ("sync.example.com", "https://sync.example.com", True),
        ("sync.example.com", "http://sync.example.com", True),
        ("sync.example.com", "https://SYNC.example.com", True),
        ("sync.example.com", "https://app.example.com", True),
        ("sync.example.com", "https://app.example.com.evil.example", False),
        ("sync.example.com", "https://evil.example?https://app.example.com", False),
        ("sync.example.com", "http://app.example.com", False),
        ("sync.example.com", "https://sync.example.com:8443", False),
        ("sync.example.com", "http://localhost:5000", False),
        ("sync.example.com", FOREIGN, False),
        ("sync.example.com", "null", True),
        ("sync.example.com", "capacitor://localhost", True),
        ("sync.example.com", "ionic://localhost", False),
        ("sync.example.com", "chrome-extension://abcdef", True),
        ("sync.example.com", "chrome-extension://other", False),
        ("sync.example.com", "file://", True),
        ("sync.example.com", "*", False),
        ("localhost:3000", "http://localhost:5000", True),
        ("127.0.0.1:3000", "http://localhost:5000", True),
        ("[::1]:3000", "http://127.0.0.1", True),
        ("localhost:3000", "http://localhost.evil.example", False),
        ("localhost:3000", FOREIGN, False),
    ],
)
def test_pages_of_allowed_origins_only_may_read_answers(
    configured: Server, host: str, origin: str, is_allowed: bool
) -> None:
    """The same for an answer, an error, a preflight and Socket.IO."""
    about = {"Host": host, "Origin": origin}
    expected = origin if is_allowed else None
    for path in ("/health", "/nope", f"{SYNC}/push"):
        answer = configured.call("GET", path, **about)
        assert answer.headers.get("Access-Control-Allow-Origin") == expected, path
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
    preflight = configured.call("OPTIONS", f"{SYNC}/push", Access_Control_Request_Method="POST", **about)
    assert preflight.headers.get("Access-Control-Allow-Origin") == expected
    assert preflight.status_code == (204 if is_allowed else 403)
    polling = configured.call("GET", "/socket.io/?EIO=4&transport=polling", **about)
    assert polling.status_code == (200 if is_allowed else 403)
    assert polling.headers.get("Access-Control-Allow-Origin") == expected


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = Server(
        tmp_path_factory.mktemp("configured") / "data",
        {"CORS_ORIGINS": "https://app.example.com/,null,capacitor://localhost,chrome-extension://abcdef,file://"},
    ).start()
    yield server
    server.stop()


@pytest.mark.parametrize("path", [f"{SYNC}/push", "/api/customers/me", "/nope"])
def test_preflight_allows_what_clients_send(configured: Server, path: str) -> None:
    answer = configured.call(
        "OPTIONS",
        path,
        Origin="https://app.example.com",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization, content-type",
    )
    assert (answer.status_code, answer.content) == (204, b"")
    allowed = {name.lower() for name in answer.headers["Access-Control-Allow-Headers"].split(", ")}
    assert allowed >= {"authorization", "content-type", "x-request-id", "x-device-id", "x-tenant-id", "idempotency-key"}
    assert set(answer.headers["Access-Control-Allow-Methods"].split(", ")) >= {"GET", "POST", "PATCH", "DELETE"}
    assert int(answer.headers["Access-Control-Max-Age"]) > 0


def test_page_may_read_the_headers_that_clients_need(configured: Server) -> None:
    answer = configured.call("GET", "/health", Origin="https://app.example.com")
    assert {"X-Request-ID", "Retry-After"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))


def test_preflight_of_a_foreign_origin_is_refused_in_the_one_shape(server: Server) -> None:
    answer = server.call("OPTIONS", f"{SYNC}/push", Origin=FOREIGN, Access_Control_Request_Method="POST")
    refused(answer, 403, "origin_not_allowed")


def test_request_without_an_origin_gets_no_word_about_origins(server: Server) -> None:
    assert not [name for name in server.call("GET", "/health").headers if name.startswith("Access-Control")]


# --- compression, streams --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stocked(server: Server) -> Device:
    """A device of a tenant with enough rows for many slices and pieces."""
    device = server.register().device()
    rows = [{"id": f"r{number}", "name": f"Name {number}", "note": "ä" * 300} for number in range(1200)]
    device.push({"changes": {"end_user": rows}})
    return device


def pull(device: Device, encoding: str, body: JSON) -> Any:
    """Pull without a library that inflates by itself."""
    answer = requests.post(
        f"{device.tenant.server.url}{SYNC}/pull",
        json=body,
        headers={"Authorization": f"Bearer {device.tenant.token}", "Accept-Encoding": encoding},
        stream=True,
        timeout=30,
    )
    with answer:
        return answer, answer.raw.read(decode_content=False)


@pytest.mark.parametrize(
    "body",
    [
        {"cursor": None},
        {"cursor": None, "limit": 10},
        {"table": "end_user"},
        {"lastSyncTimestamp": "1970-01-01T00:00:00Z"},
    ],
)
def test_compressed_and_streamed_answers_equal_plain_ones(stocked: Device, body: JSON) -> None:
    plain_answer, plain = pull(stocked, "identity", body)
    packed_answer, packed = pull(stocked, "gzip", body)
    assert "Content-Encoding" not in plain_answer.headers and packed_answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == plain and len(packed) < len(plain)
    assert "Accept-Encoding" in plain_answer.headers["Vary"] and "Accept-Encoding" in packed_answer.headers["Vary"]
    rows = json.loads(plain)["data"]["end_user"]
    assert [row["id"] for row in rows] == [f"r{number}" for number in range(body.get("limit", 1200))][: len(rows)]
    assert len(rows) == (body.get("limit") or (1000 if "cursor" in body else 1200))


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [
        ("gzip", True),
        ("gzip, br", True),
        ("br;q=1, gzip;q=0.5", True),
        ("*", True),
        ("identity", False),
        ("br", False),
        ("", False),
        ("gzip;q=0", False),
        ("gzip;q=nonsense", False),
        ("\xff", False),
    ],
)
def test_answer_is_compressed_only_if_the_client_asks(stocked: Device, accepted: str, is_packed: bool) -> None:
    answer, content = pull(stocked, accepted, {"cursor": None, "limit": 50})
    assert (answer.headers.get("Content-Encoding") == "gzip") is is_packed
    assert json.loads(gzip.decompress(content) if is_packed else content)["success"]


def test_small_answer_is_sent_plain_with_its_length(stocked: Device) -> None:
    answer, content = pull(stocked, "gzip", {"table": "interactions"})
    assert "Content-Encoding" not in answer.headers
    assert int(answer.headers["Content-Length"]) == len(content)


def test_pages_of_a_pull_together_equal_the_stream(stocked: Device) -> None:
    streamed = stocked.pull({"table": "end_user"})["data"]["end_user"]
    paged = stocked.tenant.device().catch_up(limit=97)["end_user"]
    assert paged == streamed


def test_client_that_leaves_within_an_answer_harms_nobody(stocked: Device) -> None:
    server = stocked.tenant.server
    for _ in range(3):
        answer = requests.post(
            f"{server.url}{SYNC}/pull",
            json={"table": "end_user"},
            headers={"Authorization": f"Bearer {stocked.tenant.token}"},
            stream=True,
            timeout=30,
        )
        next(answer.iter_content(100))
        answer.close()
    assert len(stocked.rows()) == 1200


# --- headers, methods ------------------------------------------------------------------------------------------------

ADDRESSES = [("/", 200), ("/websocket-test.html", 200), ("/health", 200), ("/api/limits", 200), ("/nope", 404)]


@pytest.mark.parametrize(("path", "status"), ADDRESSES)
def test_every_answer_has_the_headers_of_security(server: Server, path: str, status: int) -> None:
    answer = server.call("GET", path)
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Server" not in answer.headers and "Set-Cookie" not in answer.headers
    if path.endswith((".html", "/")):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(("path", "status"), ADDRESSES)
def test_head_answers_like_get_without_a_body(server: Server, path: str, status: int) -> None:
    get, head = server.call("GET", path), server.call("HEAD", path)
    assert (head.status_code, head.content) == (status, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("/health", {"GET", "HEAD", "OPTIONS"}),
        (f"{SYNC}/push", {"POST", "OPTIONS"}),
        ("/api/customers/me", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
    ],
)
def test_options_names_the_methods(server: Server, path: str, taken: set[str]) -> None:
    answer = server.call("OPTIONS", path)
    assert answer.status_code == 200 and set(answer.headers["Allow"].split(", ")) == taken


def test_limits_name_what_a_client_can_meet(server: Server) -> None:
    limits = server.call("GET", "/api/limits").json()["data"]
    assert (
        limits.items()
        >= {
            "maxBodyBytes": 16_777_216,
            "maxRowBytes": 65_536,
            "maxNameCharacters": 64,
            "maxPushRows": 10_000,
            "maxPullRows": 10_000,
            "maxFrameBytes": 1_048_576,
            "socketAuthSeconds": 10,
            "accessTokenSeconds": 86_400,
        }.items()
    )


# --- the log ---------------------------------------------------------------------------------------------------------


def test_line_of_a_request_says_who_what_and_how_long(tenant: Tenant) -> None:
    answer = tenant.device().push_raw({"table": "end_user", "operation": "create", "data": {"name": "Secret Row"}})
    line = line_of(tenant.server, answer.headers["X-Request-ID"])
    expected = {"method": "POST", "path": f"{SYNC}/push", "status": 200, "tenant": tenant.id, "address": "127.0.0.1"}
    assert line.items() >= expected.items()
    assert line["level"] == "info" and 0 < line["duration_ms"] < 60_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert "code" not in line


def test_line_of_a_refusal_names_its_code(tenant: Tenant) -> None:
    answer = tenant.device().push_raw({})
    line = line_of(tenant.server, answer.headers["X-Request-ID"])
    assert (line["status"], line["code"], line["tenant"]) == (400, "validation_error", tenant.id)


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_streams_and_files_have_their_line_when_they_are_over(stocked: Device, encoding: str) -> None:
    server = stocked.tenant.server
    pulled, _ = pull(stocked, encoding, {"table": "end_user"})
    script = server.call("GET", "/static/socket.io.min.js", Accept_Encoding=encoding)
    unchanged = server.call("GET", "/static/socket.io.min.js", If_None_Match=script.headers.get("ETag", "x"))
    for answer in (pulled, script, unchanged):
        line = line_of(server, answer.headers["X-Request-ID"])
        assert (line["status"], line["duration_ms"] > 0) == (answer.status_code, True)


def test_log_has_no_token_no_password_no_row_and_no_query(tenant: Tenant) -> None:
    device = tenant.device()
    answers = [
        device.push_raw({"table": "end_user", "operation": "create", "data": {"note": "Secret-Row"}}),
        device.push_raw({"table": "Secret-Row", "operation": "Secret-Row", "data": {}}),
        tenant.server.call("GET", f"/api/limits?token={tenant.token}&note=Secret-Row", X_Note="Secret-Row"),
        tenant.server.post("/api/customers/login", {"email": tenant.email, "password": "Secret-Row"}),
    ]
    for answer in answers:
        line_of(tenant.server, answer.headers["X-Request-ID"])
    log = tenant.server.log_path.read_text()
    assert tenant.token not in log and "Secret-Row" not in log and tenant.password not in log


@pytest.mark.parametrize("path", ["/a%0A%7B%22level%22:%22error%22%7D", "/a%1b[2J", "/%22,%22tenant%22:%22x"])
def test_hostile_address_stays_one_line_of_the_log(server: Server, path: str) -> None:
    request_id = server.call("GET", path).headers["X-Request-ID"]
    line = line_of(server, request_id)
    assert line["level"] == "info" and "tenant" not in line
    text = next(text for text in server.log_path.read_text().splitlines() if request_id in text)
    assert text.isprintable()


def test_log_for_people_is_quiet_and_safe_too(start_server: Callable[..., Server]) -> None:
    server = start_server(LOG_FORMAT="human")
    server.call("GET", "/a%0Afake%20line%1b[2J")
    server.stop()
    text = server.log_path.read_text()
    assert "\x1b" not in text and "\nfake line" not in text and r"\n" in text
