"""Whatever comes in over HTTP: the right refusal in the one shape, never a 500, and nothing of it stored."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import syncapp
from models import synced_tables
from protocol.codec import has_null
from settings import Settings
from tests.conftest import JSON, ROOT, Device, Server, Tenant
from tests.refusals import (
    ANYTHING,
    complaints,
    customers,
    dump,
    nothing_changes,
    paths,
    peak_kilobytes,
    refused,
    request_bytes,
    say,
    shaped,
    wrong,
)

CUSTOMERS, SYNC = "/api/customers", "/api/client/sync"
TAKING_BODIES = [
    ("POST", f"{CUSTOMERS}/register"),
    ("POST", f"{CUSTOMERS}/login"),
    ("POST", f"{CUSTOMERS}/refresh"),
    ("PATCH", f"{CUSTOMERS}/me"),
    ("DELETE", f"{CUSTOMERS}/me"),
    ("POST", f"{CUSTOMERS}/me/password"),
    ("POST", f"{SYNC}/push"),
    ("POST", f"{SYNC}/pull"),
    ("POST", f"{SYNC}/pull-pending"),
    ("POST", f"{SYNC}/history/end_user/kept/revert"),
    ("POST", f"{SYNC}/conflicts/1/resolve"),
    ("POST", "/api/client/notifications/test"),
    ("PATCH", "/api/client/devices/kept"),
]
WITHOUT_BODIES = {
    ("POST", f"{CUSTOMERS}/logout"),
    ("DELETE", "/api/client/devices/kept"),
}
REGISTRATION = {"firstName": "A", "lastName": "B", "email": "a@example.com", "password": "password123"}


@pytest.fixture(scope="module")
def victim(server: Server, lines_before: int) -> Tenant:
    """A tenant with a row and a device that hostile requests must not harm."""
    tenant = server.register()
    tenant.device(X_Device_Id="kept").create(id="kept", name="Asha")
    return tenant


@pytest.fixture(scope="module")
def device(victim: Tenant) -> Device:
    return victim.device()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits."""
    limits = {"MAX_BODY_BYTES": "4096", "MAX_PUSH_ROWS": "5", "MAX_PULL_ROWS": "5"}
    server = Server(tmp_path_factory.mktemp("small") / "data", limits).start()
    yield server
    server.stop()


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


def send(tenant: Tenant, method: str, path: str, data: bytes | None = None, **headers: str) -> Any:
    """Send bytes as a body, as JSON with the tenant's token unless the headers say otherwise."""
    named = {"Content-Type": "application/json", "Authorization": f"Bearer {tenant.token}"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in named.items() if value}
    return tenant.server.checked(
        requests.request(method, tenant.server.url + path, data=data, headers=kept, timeout=30)
    )


# --- bodies that can't be read ---------------------------------------------------------------------------------------

INVALID_JSON: dict[str, tuple[bytes | None, str]] = {
    "none": (None, "line 1, column 1"),
    "empty": (b"", "line 1, column 1"),
    "space": (b" \n ", "line 2, column 2"),
    "words": (b"hello", "line 1, column 1"),
    "a form": (b"email=a&password=b", "line 1, column 1"),
    "cut off": (b'{\n "email": "a",', "line 2, column 15"),
    "cut off in a text": (b'{"email": "a', "line 1, column 11"),
    "comma at the end": (b'{"a":\n 1,}', "line 2, column 4"),
    "more behind it": (b"{} {}", "line 1, column 4"),
    "single quotes": (b"{'a': 1}", "line 1, column 2"),
    "NaN": (b'{"a": NaN}', "line 1, column 7"),
    "Infinity": (b'{"a": [Infinity]}', "line 1, column 8"),
    "minus Infinity": (b'{"a": -Infinity}', "line 1, column"),
    "leading zero": (b'{"a": 01}', "line 1, column"),
    "number beyond every float": (b'{"a": 1e400}', "a number is out of range"),
    "number of 5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "a number is out of range"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "surrogate"),
    "swapped surrogates": (b'{"a": "\\udc00\\ud800"}', "line 1, column"),
    "half a surrogate pair as bytes": (b'{"a": "\xed\xa0\x80"}', "line 1, column 8"),
    "Latin-1": ('{"a": "é"}'.encode("latin-1"), "line 1, column 8"),
    "overlong UTF-8": (b'{"a": "\xc0\xaf"}', "line 1, column 8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "line 1, column 1"),
    "byte order mark": (b"\xef\xbb\xbf{}", "line 1, column 1"),
    "raw line break in a text": (b'{"a": "x\ny"}', "line 1, column"),
    "NUL": (b"\x00", "line 1, column 1"),
    "65 levels": (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "deeper than 64 levels"),
    "100,000 levels": (b"[" * 100_000 + b"]" * 100_000, "deeper than 64 levels"),
    "100,000 levels of objects": (b'{"a":' * 100_000, "deeper than 64 levels"),
}


@pytest.mark.parametrize("name", INVALID_JSON)
def test_body_that_is_no_json_is_refused_with_its_place(victim: Tenant, name: str) -> None:
    data, place = INVALID_JSON[name]
    with nothing_changes(victim):
        for method, path in TAKING_BODIES:
            body = refused(send(victim, method, path, data), 400, "invalid_json")
            assert place in body["error"], (path, body)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/xml",
        "json",
        "\xff",
    ],
)
def test_body_of_another_type_is_refused(victim: Tenant, content_type: str) -> None:
    with nothing_changes(victim):
        for method, path in TAKING_BODIES:
            refused(send(victim, method, path, b"{}", Content_Type=content_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"])
def test_body_of_json_by_another_name_is_taken(device: Device, content_type: str) -> None:
    assert send(device.tenant, "POST", f"{SYNC}/pull", b"{}", Content_Type=content_type).status_code == 200


@pytest.mark.parametrize("value", [None, True, False, 0, 1.5, "text", [], [{}], [[]]])
def test_body_that_is_no_object_is_refused(victim: Tenant, value: Any) -> None:
    data = json.dumps(value).encode()
    with nothing_changes(victim):
        for method, path in TAKING_BODIES:
            refused(send(victim, method, path, data), 400, "validation_error")


@pytest.mark.parametrize("data", [b"{}", b'{"nonsense": 1}', b'{"": 1, "__proto__": {"a": 1}, "constructor": null}'])
def test_object_without_what_is_needed_is_refused(victim: Tenant, data: bytes) -> None:
    content_with_nothing = {f"{SYNC}/pull", f"{SYNC}/pull-pending", "/api/client/notifications/test"}
    with nothing_changes(victim):
        for method, path in TAKING_BODIES:
            answer = send(victim, method, path, data)
            if path in content_with_nothing or (path == f"{CUSTOMERS}/me" and method == "PATCH" and data == b"{}"):
                assert answer.status_code == 200, (path, answer.text)
            else:
                refused(answer, 400, "validation_error")


def test_last_of_two_equal_keys_counts(device: Device) -> None:
    data = (
        b'{"table": "nope", "table": "end_user", "operation": "create", "data": {"id": "twice", "note":1, "note":"b"}}'
    )
    answer = send(device.tenant, "POST", f"{SYNC}/push", data)
    assert answer.json()["data"][0]["note"] == "b"


def test_numbers_of_any_size_come_back_exactly(device: Device) -> None:
    numbers = [2**53 + 1, 2**63, -(2**64), 10**300, -1, 0, 1e308, 5e-324, 0.1]
    row = device.create(id="numbers", bankList=numbers, unknown=numbers)
    assert row["bankList"] == row["unknown"] == numbers
    assert next(row for row in device.rows() if row["id"] == "numbers")["unknown"] == numbers


# --- sizes, compression, framing -------------------------------------------------------------------------------------

PUSH_OF_NOTHING = b'{"changes": {}}'
OVER = b'{"changes": {}, "x": "' + b"x" * 4096 + b'"}'
LIMITED = [
    pytest.param(PUSH_OF_NOTHING, "", 200, "", id="plain"),
    pytest.param(PUSH_OF_NOTHING, "identity", 200, "", id="named plain"),
    pytest.param(gzip.compress(PUSH_OF_NOTHING), "gzip", 200, "", id="gzip"),
    pytest.param(gzip.compress(PUSH_OF_NOTHING), "GZip", 200, "", id="gzip in capitals"),
    pytest.param(OVER, "", 413, "payload_too_large", id="over the limit"),
    pytest.param(gzip.compress(OVER), "gzip", 413, "payload_too_large", id="over the limit after inflating"),
    pytest.param(gzip.compress(b" " * 3_000_000), "gzip", 413, "payload_too_large", id="bomb"),
    pytest.param(gzip.compress(PUSH_OF_NOTHING)[:-9], "gzip", 400, "invalid_json", id="gzip cut off"),
    pytest.param(gzip.compress(PUSH_OF_NOTHING)[:-1], "gzip", 400, "invalid_json", id="gzip without its checksum"),
    pytest.param(gzip.compress(PUSH_OF_NOTHING)[:-8] + b"x" * 8, "gzip", 400, "invalid_json", id="wrong checksum"),
    pytest.param(gzip.compress(PUSH_OF_NOTHING) + b"x", "gzip", 400, "invalid_json", id="more behind gzip"),
    pytest.param(b"no gzip", "gzip", 400, "invalid_json", id="no gzip"),
    pytest.param(b"", "gzip", 400, "invalid_json", id="empty gzip"),
    pytest.param(gzip.compress(gzip.compress(PUSH_OF_NOTHING)), "gzip", 400, "invalid_json", id="gzip in gzip"),
    pytest.param(gzip.compress(gzip.compress(PUSH_OF_NOTHING)), "gzip, gzip", 415, "unsupported_media_type", id="two"),
    pytest.param(PUSH_OF_NOTHING, "br", 415, "unsupported_media_type", id="brotli"),
    pytest.param(PUSH_OF_NOTHING, "deflate", 415, "unsupported_media_type", id="deflate"),
    pytest.param(PUSH_OF_NOTHING, "x" * 1000, 415, "unsupported_media_type", id="long nonsense"),
]


@pytest.fixture(scope="module")
def small_tenant(small: Server) -> Tenant:
    return small.register()


@pytest.mark.parametrize(("data", "encoding", "status", "code"), LIMITED)
def test_body_is_bounded_before_and_after_inflating(
    small_tenant: Tenant, data: bytes, encoding: str, status: int, code: str
) -> None:
    with nothing_changes(small_tenant):
        answer = send(small_tenant, "POST", f"{SYNC}/push", data, Content_Encoding=encoding)
        if status == 200:
            assert answer.status_code == 200
        else:
            refused(answer, status, code)


def test_bomb_costs_no_more_memory_than_the_limit(victim: Tenant) -> None:
    bomb = gzip.compress(b" " * 200_000_000, compresslevel=1)
    before = peak_kilobytes(victim.server)
    refused(send(victim, "POST", f"{SYNC}/push", bomb, Content_Encoding="gzip"), 413, "payload_too_large")
    assert peak_kilobytes(victim.server) - before < 60_000


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = "Transfer-Encoding: chunked"
FRAMED = [
    pytest.param(chunk(b'{"chan') + chunk(b'ges": {}}') + chunk(b""), [CHUNKED], 200, id="chunked"),
    pytest.param(chunk(b" " * 3000) * 3 + chunk(b""), [CHUNKED], 413, id="chunked over the limit"),
    pytest.param(b"zz\r\n{}\r\n0\r\n\r\n", [CHUNKED], 400, id="bad chunk size"),
    pytest.param(b"-5\r\n{}\r\n0\r\n\r\n", [CHUNKED], 400, id="negative chunk size"),
    pytest.param(b"ffffffffffffffff\r\n{}", [CHUNKED], 400, id="huge chunk announced"),
    pytest.param(b"5\r\n{}", [CHUNKED], 400, id="chunk cut off"),
    pytest.param(b'{"changes": {}}', ["Content-Length: 4000"], 400, id="body shorter than its length"),
    pytest.param(b'{"changes": {}}', ["Content-Length: 99999999999999999999"], 413, id="huge length announced"),
    pytest.param(b'{"changes": {}}', ["Content-Length: 5"], 400, id="body longer than its length"),
    pytest.param(b'{"changes": {}}', ["Content-Length: -5"], 400, id="negative length"),
    pytest.param(b'{"changes": {}}', ["Content-Length: five"], 400, id="length that is no number"),
    pytest.param(b'{"changes": {}}', [], 400, id="no length"),
]


@pytest.mark.parametrize(("data", "headers", "status"), FRAMED)
def test_body_framed_in_odd_ways_is_answered_in_time(
    small_tenant: Tenant, data: bytes, headers: list[str], status: int
) -> None:
    with nothing_changes(small_tenant):
        request = request_bytes(f"{SYNC}/push", data, *headers, token=small_tenant.token)
        answer = say(small_tenant.server, request)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "data",
    [b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", os.urandom(300)],
    ids=["words", "TLS", "HTTP 9.9", "random"],
)
def test_bytes_that_are_no_http_end_the_connection(server: Server, data: bytes) -> None:
    assert b"200 OK" not in say(server, data)
    assert server.is_up()


def test_request_line_without_end_is_refused(server: Server) -> None:
    assert say(server, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 414")


def test_head_without_end_is_refused_and_is_one_line_of_the_log(start_server: Callable[..., Server]) -> None:
    server = start_server()
    for head in (b"X: y\r\n" * 100_000, b"X: " + b"y" * 100_000):
        assert b"200 OK" not in say(server, b"GET /health HTTP/1.1\r\n" + head + b"\r\n\r\n")
    assert complaints(server) == []


def test_push_of_too_many_rows_is_refused(small_tenant: Tenant) -> None:
    with nothing_changes(small_tenant):
        bodies: list[JSON] = [{"changes": {"end_user": [{}] * 6}}, {"operations": [{}] * 6}]
        for body in bodies:
            assert "5 rows" in refused(small_tenant.device().push_raw(body), 413, "payload_too_large")["error"]


def test_row_over_64_kib_is_refused_by_itself(device: Device) -> None:
    big = {"id": "big", "note": "ä" * 33_000}
    body = refused(device.push_raw({"changes": {"end_user": [{"id": "beside"}, big]}}), 400, "validation_error")
    assert paths(body) == ["changes.end_user[1]"] and "65,536" in body["details"][0]["error"]
    slowly = device.push({"changes": {"end_user": [{"id": "grown", "note": "x" * 40_000}]}})
    assert slowly["results"][0]["status"] == "created"
    grown = {"changes": {"end_user": [{"id": "grown", "image": "x" * 40_000}]}}
    refused(device.push_raw(grown), 400, "validation_error")
    assert not {"big", "beside"} & {row["id"] for row in device.rows()}


# --- fields of the wrong type ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("firstName", wrong("x")),
        ("lastName", wrong("x")),
        ("lastName", ["x" * 101, " ", "\n", "a\0b", "a\rb", "\x1b[31m", "\x7f", "\x85"]),
        ("email", wrong()),
        (
            "email",
            ["a", "@", "a@", "@b", "a b@c", "a@b@c", "a@b c", "a\n@b", "a@b\0", "a" * 65 + "@b", "a@" + "b" * 191],
        ),
        ("password", wrong()),
        ("password", ["x" * 7, "x" * 73, "é" * 37, "😀", "日" * 25]),
        ("phone", wrong(None, "", "x")),
        ("companyName", wrong(None, "", "x")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_registration_with_a_bad_field_names_it_and_creates_nobody(
    victim: Tenant, field: str, values: list[Any]
) -> None:
    with nothing_changes(victim):
        for value in values:
            answer = victim.server.post(f"{CUSTOMERS}/register", REGISTRATION | {field: value})
            assert paths(refused(answer, 400, "validation_error")) == [field], value


def test_registration_names_every_bad_field_at_once(victim: Tenant) -> None:
    with nothing_changes(victim):
        answer = victim.server.post(f"{CUSTOMERS}/register", {"email": 5, "phone": []})
    assert paths(refused(answer, 400, "validation_error")) == ["firstName", "lastName", "email", "password", "phone"]


@pytest.mark.parametrize(
    ("path", "field"), [("login", "email"), ("login", "password"), ("refresh", "refreshToken"), ("me", "password")]
)
def test_bad_type_in_a_proof_is_refused_and_a_wrong_text_is_401(victim: Tenant, path: str, field: str) -> None:
    body = {"email": "nobody@example.com", "password": "password123"}
    method = "DELETE" if path == "me" else "POST"
    with nothing_changes(victim):
        for value in ANYTHING:
            answer = victim.server.call(method, f"{CUSTOMERS}/{path}", body | {field: value}, victim.token)
            if isinstance(value, str) and value:
                refused(answer, 401, "unauthorized" if path == "refresh" else "invalid_credentials")
            else:
                assert paths(refused(answer, 400, "validation_error")) == [field]


@pytest.mark.parametrize(
    "field", ["firstName", "lastName", "phone", "companyName", "email", "id", "subscriptionPlan", "x"]
)
def test_profile_takes_no_bad_value_and_no_other_field(victim: Tenant, field: str) -> None:
    right = [None, "", "x"] if field in ("phone", "companyName") else ["x"] if field.endswith("Name") else []
    with nothing_changes(victim):
        for value in wrong(*right):
            answer = victim.server.call("PATCH", f"{CUSTOMERS}/me", {field: value}, victim.token)
            assert paths(refused(answer, 400, "validation_error")) == [field]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("table", [*ANYTHING, "End_User", "end_user ", "_changes", "_meta", "customers", "sqlite_master", "../main"]),
        ("table", ['end_user"; DROP TABLE end_user; --', "end_user--", "<script>", "\u202eend_user"]),
        ("operation", [*ANYTHING, "CREATE", "upsert", "drop"]),
        ("data", wrong({}, {"x": None})),
        ("timestamp", wrong(None)),
        ("tenantId", wrong(None)),
        ("atomic", wrong(True, False)),
        ("baseCursor", wrong(None)),
        ("operations", [[]]),
        ("changes", [{}]),
    ],
)
def test_push_of_one_row_with_a_bad_field_is_refused(device: Device, field: str, values: list[Any]) -> None:
    body = {"table": "end_user", "operation": "update", "data": {"id": "new"}}
    with nothing_changes(device.tenant):
        for value in values:
            code = "invalid_tenant_id" if field == "tenantId" else "validation_error"
            refused(device.push_raw(body | {field: value}), 400, code)


@pytest.mark.parametrize("form", ["operations", "changes"])
def test_push_of_many_rows_takes_no_other_shape(device: Device, form: str) -> None:
    inner = [{form: {"end_user": value}} for value in wrong([])] if form == "changes" else []
    rows = [{form: {"end_user": [value]}} if form == "changes" else {form: [value]} for value in wrong({}, {"x": None})]
    with nothing_changes(device.tenant):
        right: list[Any] = [{}] if form == "changes" else [[]]
        for body in [{form: value} for value in wrong(*right)] + inner + rows:
            refused(device.push_raw(body), 400, "validation_error")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("baseVersion", wrong(None, 0, 10**40)),
        ("opId", [*wrong(None, "x"), "a b", "a/b", "x" * 65, "ä"]),
        ("timestamp", wrong(None)),
        ("table", ANYTHING),
        ("operation", ANYTHING),
        ("data", wrong({}, {"x": None})),
    ],
)
def test_operation_with_a_bad_field_is_named_by_its_place(device: Device, field: str, values: list[Any]) -> None:
    good = {"table": "end_user", "operation": "update", "data": {"id": "new"}}
    with nothing_changes(device.tenant):
        operations = [good] + [good | {field: value} for value in values]
        body = refused(device.push_raw({"operations": operations}), 400, "validation_error")
    assert paths(body) == [f"operations[{index + 1}].{field}" for index in range(len(values))]


BAD_VALUES = {
    "text": [True, False, [], {}, ["x"]],
    "flag": ["", "x", "1", 2, -1, 1.5, 10**40, [], {}],
    "type": ["", "Email", "email ", 0, True, [], {}, ["email"]],
    "status": ["", "done", 1, False, [], {}],
}


def bad_cells(table: str) -> list[tuple[str, Any]]:
    """Pair each column of a table with each value that it must refuse."""
    cells = []
    for name, column in synced_tables()[table].rules.columns.items():
        if name in synced_tables()[table].json_columns:
            continue
        is_choice = table == "interactions" and name in ("type", "status")
        kind = name if is_choice else "flag" if isinstance(column.default, int) else "text"
        cells += [(name, value) for value in BAD_VALUES[kind]]
    return cells


@pytest.mark.parametrize("table", ["end_user", "interactions"])
def test_every_bad_cell_of_a_push_is_named_and_none_of_it_is_stored(device: Device, table: str) -> None:
    cells = bad_cells(table)
    rows = [{"id": "good"}] + [{"id": f"bad-{index}", name: value} for index, (name, value) in enumerate(cells)]
    with nothing_changes(device.tenant):
        body = refused(device.push_raw({"changes": {table: rows}}), 400, "validation_error")
    assert paths(body) == [f"changes.{table}[{index + 1}].{name}" for index, (name, _) in enumerate(cells)]
    assert len(cells) > 20


def test_bad_rows_are_rejected_one_by_one_if_the_push_says_so(device: Device) -> None:
    rows: list[Any] = [{"id": "n1"}, {"id": "n2", "dob": []}, None, {"id": "../n4"}, {"id": "n5", "active": 1}]
    body = {"changes": {"end_user": rows, "nope": [{"id": "n6"}], "interactions": [{"id": "n7"}]}, "atomic": False}
    answer = device.push(body)
    assert [result["status"] for result in answer["results"]] == ["created"] + ["rejected"] * 3 + ["created"] + [
        "rejected",
        "created",
    ]
    assert [result.get("error", "").partition(" ")[0] for result in answer["results"]] == [
        "",
        "changes.end_user[1].dob",
        "changes.end_user[2]",
        "changes.end_user[3].id",
        "",
        "changes.nope[0]",
        "",
    ]
    assert [row and row["id"] for row in answer["data"]] == ["n1", None, None, None, "n5", None, "n7"]
    assert {"n1", "n5"} <= {row["id"] for row in device.rows()}


@pytest.mark.parametrize("flag", ["is_deleted", "isDeleted"])
def test_null_as_mark_of_deletion_means_not_deleted(device: Device, flag: str) -> None:
    row = device.push({"changes": {"end_user": [{"id": f"null-{flag}", "name": "A", flag: None}]}})["data"][0]
    assert row["is_deleted"] == 0


def test_null_in_every_column_is_taken(device: Device) -> None:
    for table, synced in synced_tables().items():
        nulls = dict.fromkeys([*synced.rules.columns, "createdAt", "version", "sync_status", "unknown"])
        row = device.push({"changes": {table: [{"id": "nulls"} | nulls]}})["data"][0]
        assert [row[name] for name in synced.rules.columns if name != "is_deleted"] == [None] * (len(nulls) - 5)


@pytest.mark.parametrize("name", ["", "x" * 65, "ä" * 65, "\0" * 65])
def test_field_with_a_name_of_no_or_too_many_characters_is_refused(device: Device, name: str) -> None:
    with nothing_changes(device.tenant):
        body = refused(device.push_raw({"changes": {"end_user": [{"id": "n", name: 1}]}}), 400, "validation_error")
    assert "64 characters" in body["error"] + body["details"][0]["error"]


# --- identities ------------------------------------------------------------------------------------------------------

HOSTILE_TEXTS = [
    "../../etc/passwd",
    "..\\..\\windows\\system32",
    "/etc/passwd\0.png",
    "' OR 1=1 --",
    '"; DROP TABLE end_user; --',
    "1); DELETE FROM _changes; --",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{7*7}} ${7*7} %s %n {0}",
    "a\nb\r\nSet-Cookie: x=1",
    "\0",
    "a\0b",
    "\x1b[2J\x07\x7f",
    "😀👨‍👩‍👧‍👦",
    "\u202egnp.exe",
    "\ufeffBOM",
    "\uffff\U0010ffff",
    "İstanbul ß ﬁ é",
    " space around ",
    "NULL",
    "null",
    "undefined",
    "[object Object]",
    "$.a[0]",
    "%00%2e%2e%2f",
    "_seq",
]
STORED_TEXTS = [text for text in HOSTILE_TEXTS if "\0" not in text]
ILL_FORMED_IDS = [text for text in HOSTILE_TEXTS if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text)]


@pytest.mark.parametrize("row_id", [*ILL_FORMED_IDS, "x" * 65, "x" * 10_000, "a b", "é", True, False, [], {}, ["a"]])
def test_ill_formed_id_is_refused(device: Device, row_id: Any) -> None:
    with nothing_changes(device.tenant):
        for operation in ("create", "update", "delete"):
            body = {"table": "end_user", "operation": operation, "data": {"id": row_id, "name": "A"}}
            assert paths(refused(device.push_raw(body), 400, "validation_error")) == ["data.id"]


@pytest.mark.parametrize("row_id", ["", None, 0, 17, -1, 1.5, 10**40])
def test_local_id_is_replaced_by_one_of_the_server(device: Device, row_id: Any) -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", device.create(id=row_id)["id"])


@pytest.mark.parametrize("row_id", [".", "..", "a" * 64, "-", "A:b.c_d-9", "NULL", "0"])
def test_odd_but_well_formed_id_is_kept(device: Device, row_id: str) -> None:
    assert device.create(id=row_id)["id"] == row_id
    assert row_id in {row["id"] for row in device.rows()}


def test_hostile_unique_ids_are_told_apart_and_found_again(tenant: Tenant) -> None:
    device, texts = tenant.device(), [*STORED_TEXTS, "a", "A", "u" * 255]
    rows = [{"Unique_id": text, "name": text} for text in texts]
    first = device.push({"changes": {"end_user": rows}})
    again = device.push({"changes": {"end_user": rows}})
    assert {result["status"] for result in first["results"]} == {"created"}
    assert {result["status"] for result in again["results"]} == {"unchanged"}
    assert [row["Unique_id"] for row in device.rows()] == [row["Unique_id"] for row in again["data"]] == texts


def test_unique_id_of_256_characters_is_refused(device: Device) -> None:
    refused(device.push_raw({"changes": {"end_user": [{"Unique_id": "u" * 256}]}}), 400, "validation_error")


def test_hostile_texts_in_every_field_come_back_exactly_and_harm_nothing(tenant: Tenant) -> None:
    server, device = tenant.server, tenant.device()
    around, tables = sorted(server.data.parent.iterdir()), dump(tenant.path).keys()
    rows = []
    for index, text in enumerate([*STORED_TEXTS, "x" * 255]):
        columns = synced_tables()["end_user"].rules.columns.items()
        row: JSON = {name: text for name, column in columns if not isinstance(column.default, int)}
        nested = {text: [text, {text: text}]}
        row |= {"id": f"row-{index}", "phoneModel": nested, f"x{text}"[:64]: nested, "unknown": text}
        rows.append(row)
    answer = device.push({"changes": {"end_user": rows}})
    assert {result["status"] for result in answer["results"]} == {"created"}
    for stored in (answer["data"], device.rows(), device.catch_up()["end_user"]):
        assert [{name: row[name] for name in sent} for row, sent in zip(stored, rows, strict=True)] == rows
    assert sorted(server.data.parent.iterdir()) == around
    assert dump(tenant.path).keys() == tables
    assert all(re.fullmatch(r"tenant_[0-9a-f]{32}\.db(-wal|-shm)?", path.name) for path in tenant.path.parent.iterdir())


def test_hostile_texts_in_a_profile_come_back_exactly(tenant: Tenant) -> None:
    for text in (text for text in HOSTILE_TEXTS if text.isprintable()):
        fields = dict.fromkeys(("firstName", "lastName", "companyName", "phone"), text)
        answer = tenant.server.call("PATCH", f"{CUSTOMERS}/me", fields, tenant.token).json()
        shown, stripped = answer["data"]["customer"], text.strip()
        assert (shown["name"], shown["companyName"], shown["phone"]) == (f"{stripped} {stripped}", stripped, stripped)


def test_field_named_like_a_column_of_the_server_changes_nothing_of_the_server(tenant: Tenant) -> None:
    device = tenant.device()
    names: JSON = {"_seq": 99, "_extra": {"a": 1}, "sequence": 7, "unknown_fields": 8, "rowid": 9, "oid": "x"}
    row = device.create(id="a", version=77, createdAt="1999", updatedAt="1999", sync_status="pending", **names)
    assert {name: row[name] for name in names} == names
    assert (row["version"], row["sync_status"]) == (1, "synced") and row["createdAt"] == row["updatedAt"] > "2020"
    assert device.rows() == [row]


# --- times, cursors, limits ------------------------------------------------------------------------------------------

BAD_TIMES = [
    "",
    "now",
    "0000-01-01",
    "10000-01-01T00:00:00Z",
    "2025-13-01",
    "2025-02-30",
    "2016-12-31T23:59:60Z",
    "2025-01-01T25:00:00Z",
    "2025-01-01T00:00:00+99:99",
    "2025-01-01T00:00:00+24:00",
    "9999-12-31T23:59:59-99:99",
    "2025-01-01T00:00:00 CET",
    "1751240726002",
    "' OR 1=1 --",
    "2025-01-01\0",
    "\u0662\u0660\u0662\u0665-\u0660\u0661-\u0660\u0661",
    "1" * 10_000,
    1_751_240_726_002,
    True,
    [],
    {},
]
EXTREME_TIMES = ["0001-01-01T00:00:00+23:59", "0001-01-01", "9999-12-31T23:59:59.999999-23:59", "9999-12-31"]


@pytest.mark.parametrize("time", BAD_TIMES, ids=lambda time: str(time)[:30])
def test_time_that_is_none_is_refused(device: Device, time: Any) -> None:
    row = {"table": "end_user", "operation": "update", "data": {"id": "timed"}, "timestamp": time}
    with nothing_changes(device.tenant):
        refused(device.push_raw(row), 400, "validation_error")
        refused(device.push_raw({"operations": [row]}), 400, "validation_error")
        if time != "":
            for body in ({"table": "end_user", "lastSync": time}, {"lastSyncTimestamp": time}):
                assert paths(refused(device.pull_raw(body), 400, "validation_error"))[0].startswith("lastSync")


@pytest.mark.parametrize("time", EXTREME_TIMES)
def test_extreme_time_is_taken_everywhere(device: Device, time: str) -> None:
    row_id = time.replace("+", "_")
    created = {"table": "end_user", "operation": "create", "data": {"id": row_id, "name": "A"}, "timestamp": time}
    device.push(created)
    device.push(created | {"operation": "update", "data": {"id": row_id, "name": "B"}})
    conflicting = {"table": "end_user", "operation": "update", "data": {"id": row_id, "name": "C"}, "baseVersion": 1}
    device.push({"operations": [conflicting | {"timestamp": time}]})
    device.update(id=row_id, last_updated=time)
    stored = device.update(id=row_id, name="D")
    assert stored["name"] == "D"
    history = device.tenant.server.call("GET", f"{SYNC}/history/end_user/{row_id}", token=device.tenant.token)
    assert all(re.match(r"\d{4}-", entry["editedAt"]) for entry in history.json()["data"])
    assert device.pull_raw({"lastSyncTimestamp": time}).status_code == 200


@pytest.mark.parametrize("time", [time for time in BAD_TIMES if type(time) in (str, int) and not has_null(time)])
def test_last_updated_that_is_no_time_costs_nobody_the_row(device: Device, time: Any) -> None:
    row = device.push({"changes": {"end_user": [{"id": "clockless", "last_updated": time, "name": str(time)}]}})
    assert row["data"][0]["last_updated"] == str(time)


BAD_CURSORS = ["", "x", 0, -1, True, [], {}, "0123456789ab", "0123456789ab-", "0123456789ab--1", "0123456789ab-1-1-1"]
BAD_CURSORS += [
    "0123456789ab-" + "9" * 19,
    "0123456789AB-1",
    "0123456789ab-1 ",
    "0123456789ab-\u0661",
    "../x-1",
    "1" * 10_000,
]


def test_cursor_that_no_server_gave_is_refused(device: Device) -> None:
    with nothing_changes(device.tenant):
        for cursor in BAD_CURSORS:
            refused(device.pull_raw({"cursor": cursor}), 400, "validation_error")
            refused(device.push_raw({"changes": {}, "baseCursor": cursor}), 400, "validation_error")


def test_cursor_of_another_database_or_beyond_the_end_asks_for_a_resync(device: Device, other_tenant: Tenant) -> None:
    epoch = device.pull({"cursor": None})["cursor"].partition("-")[0]
    foreign = other_tenant.device().create(id="kept") and other_tenant.device().pull({"cursor": None})["cursor"]
    row = {"changes": {"end_user": [{"id": "kept", "name": "hostile"}]}}
    with nothing_changes(device.tenant):
        for cursor in (foreign, f"{epoch}-{'9' * 18}", f"{epoch}-{'9' * 18}-1", "0123456789ab-0"):
            refused(device.pull_raw({"cursor": cursor}), 410, "resync_required")
            refused(device.push_raw(row | {"baseCursor": cursor}), 410, "resync_required")


@pytest.mark.parametrize("limit", [0, -1, 10_001, 10**40, 1.5, "5", True, [], {}])
def test_limit_out_of_bounds_is_refused(device: Device, limit: Any) -> None:
    assert paths(refused(device.pull_raw({"cursor": None, "limit": limit}), 400, "validation_error")) == ["limit"]


@pytest.mark.parametrize("path", ["pull", "pull-pending"])
@pytest.mark.parametrize("field", ["table", "entityTypes"])
def test_pull_of_no_such_table_is_refused(device: Device, path: str, field: str) -> None:
    names: list[Any] = ["nope", "_changes", "sqlite_master", "end_user'--", "", 5, [], {}]
    names += [["nope"], ["end_user", 5], [None], None if field == "table" else 0]
    for value in names:
        refused(device.raw(f"sync/{path}", {field: value}), 400, "validation_error")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("type", wrong(None, "data_available")),
        ("entityType", wrong(None, "x")),
        ("entityId", wrong(None, "x", "\0")),
        ("message", wrong(None, "x", "\0")),
    ],
)
def test_test_notification_with_a_bad_field_is_refused(device: Device, field: str, values: list[Any]) -> None:
    for value in values:
        if value == "\0":
            continue  # It is a text; JSON keeps it one.
        refused(device.raw("notifications/test", {field: value}), 400, "validation_error")


# --- headers, methods, addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"X_Tenant_Id": "1030070f-9824-49b3-b53b-8013e2eb363e"}, 403, "tenant_mismatch"),
        ({"X_Tenant_Id": "../../etc/passwd"}, 400, "invalid_tenant_id"),
        ({"X_Tenant_Id": "x" * 5000}, 400, "invalid_tenant_id"),
        ({"X_Tenant_Id": "{1030070f-9824-49b3-b53b-8013e2eb363e}"}, 400, "invalid_tenant_id"),
        ({"X_Device_Id": "x" * 65}, 400, "validation_error"),
        ({"X_Device_Id": "../../etc/passwd"}, 400, "validation_error"),
        ({"X_Device_Id": "\xe9"}, 400, "validation_error"),
        ({"Idempotency_Key": "x" * 256}, 400, "validation_error"),
        ({"Idempotency_Key": "a b"}, 400, "validation_error"),
        ({"Idempotency_Key": "\xe9"}, 400, "validation_error"),
        ({"Authorization": ""}, 401, "unauthorized"),
        ({"Authorization": "Bearer"}, 401, "unauthorized"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, 401, "unauthorized"),
        ({"Authorization": "Bearer \xff\xfe"}, 401, "unauthorized"),
        ({"Authorization": "Bearer a.b.c"}, 401, "unauthorized"),
        ({"Authorization": "Bearer " + "x" * 7000}, 401, "unauthorized"),
        ({"Authorization": "Bearer null"}, 401, "unauthorized"),
    ],
)
def test_bad_header_is_refused(victim: Tenant, headers: dict[str, str], status: int, code: str) -> None:
    data = json.dumps({"changes": {"end_user": [{"id": "kept", "name": "hostile"}]}}).encode()
    with nothing_changes(victim):
        body = refused(send(victim, "POST", f"{SYNC}/push", data, **headers), status, code)
    assert "etc/passwd" not in str(body)


@pytest.mark.parametrize("field", ["X_Tenant_Id", "tenantId"])
def test_own_tenant_id_is_taken_in_every_form_of_a_uuid(device: Device, field: str) -> None:
    own = device.tenant.id
    for stated in (own, own.upper(), own.replace("-", "")):
        body, headers = ({field: stated}, {}) if field == "tenantId" else ({}, {field: stated})
        assert device.tenant.device(**headers).pull_raw(body).status_code == 200


def addresses(app: Flask) -> dict[str, set[str]]:
    """Give the methods of each address, with examples for its variables."""
    examples = {"table": "end_user", "row_id": "kept", "number": "1", "device_id": "kept", "name": "nope.css"}
    found: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:[^:<>]*:)?(\w+)>", lambda variable: examples[variable[1]], rule.rule)
        found.setdefault(path, set()).update(rule.methods or ())
    return found


def test_tables_above_name_every_address_that_takes_a_body(app: Flask) -> None:
    changing = {(method, path) for path, methods in addresses(app).items() for method in methods}
    changing = {(method, path) for method, path in changing if method not in ("GET", "HEAD", "OPTIONS")}
    assert changing == set(TAKING_BODIES) | WITHOUT_BODIES


def test_method_that_an_address_does_not_take_is_405_and_told_what_it_takes(app: Flask, victim: Tenant) -> None:
    for path, taken in addresses(app).items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "X"} - taken:
            answer = victim.server.call(method, path, {}, victim.token)
            refused(answer, 405, "method_not_allowed")
            assert set(answer.headers["Allow"].split(", ")) == taken, (method, path)


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/health/",
        "/api",
        "/api/client/sync",
        "/api/client/sync/push/x",
        "/API/limits",
        "/static/",
        "/static/nope.js",
        "/static/../settings.py",
        "/static/..%2fsettings.py",
        "/static/..%2f..%2f..%2fetc%2fpasswd",
        "/static/%2e%2e/settings.py",
        "/static/....//settings.py",
        "/static/..%5csettings.py",
        "/static/%00",
        "/static/client/nope.js",
        "/static/client/../settings.py",
        "/static/client/..%2fpackage.json",
        "/static/client/%2e%2e/package.json",
        "/static/x%0d%0aSet-Cookie:a=b",
        "/..%2fsettings.py",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/data/main.db",
        "/settings.py",
        "/.git/config",
        "/%ff%fe",
        "/%00",
        "/' OR 1=1 --",
        "/<script>alert(1)</script>",
        "/" + "a" * 5000,
    ],
)
def test_address_of_nothing_is_404_and_gives_no_file(server: Server, path: str) -> None:
    answer = say(server, f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404"), answer[:300]
    body = shaped(json.loads(text))
    assert body["code"] == "not_found" and b"Set-Cookie:" not in head


def test_address_of_the_project_itself_is_not_served(server: Server) -> None:
    for path in ("syncapp.py", "README.md", "requirements.txt", "templates/index.html"):
        assert (ROOT / path).exists()
        refused(server.call("GET", f"/{path}"), 404, "not_found")


# --- anything --------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(), max_size=12) | st.sampled_from([*HOSTILE_TEXTS, "end_user", "interactions", "create"])
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(2**62, 2**70)
SCALAR = st.none() | st.booleans() | NUMBER | TEXT
ANY_JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
COLUMNS = [*synced_tables()["end_user"].rules.columns, "id", "version", "isDeleted", "updatedAt", "_extra"]
ROW = st.dictionaries(st.sampled_from(COLUMNS) | TEXT, ANY_JSON, max_size=6) | ANY_JSON
TABLE = st.sampled_from(["end_user", "interactions"]) | ANY_JSON
TIME = st.datetimes().map(str) | st.sampled_from([*EXTREME_TIMES, *(str(time) for time in BAD_TIMES)]) | ANY_JSON
OPERATION = st.fixed_dictionaries(
    {"table": TABLE, "operation": st.sampled_from(["create", "update", "delete"]) | ANY_JSON, "data": ROW},
    optional={"timestamp": TIME, "baseVersion": ANY_JSON, "opId": ANY_JSON},
)
CHANGES = st.dictionaries(
    st.sampled_from(["end_user", "interactions"]) | TEXT, st.lists(ROW, max_size=4) | ANY_JSON, max_size=3
)
ABOUT_PUSH = {"atomic": st.booleans() | ANY_JSON, "baseCursor": ANY_JSON}
PUSH = (
    OPERATION
    | st.fixed_dictionaries({"changes": CHANGES}, optional=ABOUT_PUSH)
    | st.fixed_dictionaries({"operations": st.lists(OPERATION | ANY_JSON, max_size=4)}, optional=ABOUT_PUSH)
)
PULL = st.fixed_dictionaries(
    {},
    optional={
        "table": TABLE,
        "entityTypes": st.lists(TABLE, max_size=3) | ANY_JSON,
        "lastSync": TIME,
        "lastSyncTimestamp": TIME,
        "cursor": st.none() | st.from_regex(r"[0-9a-f]{12}-[0-9]{1,18}(-[0-9]{1,18})?", fullmatch=True) | ANY_JSON,
        "limit": st.integers(0, 20) | ANY_JSON,
        "digest": ANY_JSON,
    },
)
ACCOUNT = st.fixed_dictionaries(
    {}, optional=dict.fromkeys([*REGISTRATION, "phone", "companyName", "refreshToken", "newPassword"], ANY_JSON)
)
REQUEST = (
    st.tuples(st.just(f"{SYNC}/push"), PUSH | ANY_JSON)
    | st.tuples(st.just(f"{SYNC}/pull"), PULL | ANY_JSON)
    | st.tuples(st.just(f"{SYNC}/pull-pending"), PULL | ANY_JSON)
    | st.tuples(st.sampled_from([path for _, path in TAKING_BODIES[:3]]), ACCOUNT | ANY_JSON)
)
ANYTHING_GOES = settings(
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def token(app: Flask) -> str:
    answer = app.test_client().post(f"{CUSTOMERS}/register", json=REGISTRATION, buffered=True)
    return str(answer.get_json()["data"]["token"])


@pytest.mark.slow
@settings(ANYTHING_GOES, max_examples=300)
@given(REQUEST)
def test_any_json_is_answered_or_refused_in_the_one_shape(app: Flask, token: str, request: tuple[str, Any]) -> None:
    path, body = request
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = app.test_client().post(path, data=json.dumps(body), headers=headers, buffered=True)
    _check(answer.status_code, answer.get_json())


@pytest.mark.slow
@settings(ANYTHING_GOES, max_examples=40)
@given(REQUEST)
def test_any_json_over_http_is_answered_or_refused_in_the_one_shape(victim: Tenant, request: tuple[str, Any]) -> None:
    path, body = request
    answer = victim.server.post(path, body, victim.token)
    _check(answer.status_code, answer.json())


def _check(status: int, body: JSON) -> None:
    assert status < 500, body
    if status >= 400:
        assert shaped(body)["code"] != "internal_error"
    else:
        assert body["success"] is True


@settings(ANYTHING_GOES, max_examples=150)
@given(st.binary(max_size=60) | st.text('[]{},:"\\0123456789.eE+-truefalsn \n', max_size=30).map(str.encode))
def test_any_bytes_are_json_or_refused(app: Flask, token: str, data: bytes) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = app.test_client().post(f"{SYNC}/push", data=data, headers=headers, buffered=True)
    assert answer.status_code == 400 or json.loads(data).keys() & {"changes", "operations", "table"}


def test_server_took_all_this_without_a_bug(
    server: Server, small: Server, victim: Tenant, device: Device, lines_before: int
) -> None:
    """Runs last in this module: whatever happened above, the log tells of no bug and the row is as it was."""
    assert complaints(server, lines_before) == [] and complaints(small) == []
    kept = next(row for row in device.rows() if row["id"] == "kept")
    assert (kept["name"], kept["version"]) == ("Asha", 1)
    assert (victim.id, victim.email) in {(row[0], row[2]) for row in customers(server)}
