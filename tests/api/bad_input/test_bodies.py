"""Bodies that can't be read, are too large or framed in odd ways: the right refusal in the one shape, never a 500."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api.bad_input.hostile import CUSTOMERS, SYNC, TAKING_BODIES, send
from tests.conftest import JSON, Device, Server, Tenant
from tests.refusals import (
    complaints,
    nothing_changes,
    paths,
    peak_kilobytes,
    refused,
    request_bytes,
    say,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits."""
    limits = {"MAX_BODY_BYTES": "4096", "MAX_PUSH_ROWS": "5", "MAX_PULL_ROWS": "5"}
    server = Server(tmp_path_factory.mktemp("small") / "data", limits).start()
    yield server
    server.stop()


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


# --- anything --------------------------------------------------------------------------------------------------------


def test_server_took_all_this_without_a_bug(server: Server, small: Server, lines_before: int) -> None:
    """Runs last in this module: whatever happened above, the log of either server tells of no bug."""
    assert complaints(server, lines_before) == [] and complaints(small) == []
