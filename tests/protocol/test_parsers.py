"""All parsers of what clients send, with random input: each gives a value or an error of ours, and nothing else.

Also that schemas and parsers agree: a schema takes whatever its parser takes, and what it takes beyond that is listed.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema_rs
import jwt
import pytest
from flask import Flask
from geventwebsocket.exceptions import ProtocolError, WebSocketError
from hypothesis import assume, given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

import assembly
import settings
from accounts import tokens
from api.docs import json_schema, schemas
from api.request_headers import device_id_header, idempotency_key_header
from models import synced_tables
from protocol.codec import decode, decode_push, edit_time, encode, format_time, parse_cursor, parse_time
from protocol.errors import Problem, Unauthorized, ValidationError
from protocol.identifiers import parse_device_id
from protocol.messages import Change, Limits
from protocol.pull_parser import parse_pending, parse_pull
from protocol.push_parser import parse_push
from protocol.row_decoder import TypedRow
from server.http import exchange as http_exchange
from server.quotas import Quotas
from server.scheduler import Scheduler
from setting_values import rates_of
from settings import SettingError, Settings
from tests.api.bad_input.strategies import ANY_JSON, PULL, PUSH, TEXT
from tests.fuzzing import EXAMPLES
from tests.server.websocket.test_frames import frame, websocket

TABLES = {name: table.rules for name, table in synced_tables().items()}
LIMITS = Limits(push_rows=10_000, pull_rows=10_000, row_bytes=65_536, name_characters=64)
NOW = 1_800_000_000_000
COMPONENTS = {"schemas": schemas.components(Settings())}
pytestmark = pytest.mark.timeout(120 + EXAMPLES // 5)
HEADER = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40)


def arrived(value: Any) -> Any:
    """Give a value as a parser gets it, which is after ``decode``: that refuses half of a surrogate pair."""
    try:
        return decode(json.dumps(value))
    except Problem:
        assume(False)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = assembly.build(Settings(data_dir=tmp_path_factory.mktemp("parsers") / "data", shutdown_seconds=1))
    yield app
    app.extensions["lifecycle"].end()


BYTES = ANY_JSON.map(json.dumps).map(str.encode)


def schema(name: str) -> Any:
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": COMPONENTS})


PUSH_SCHEMA, PULL_SCHEMA, PENDING_SCHEMA = schema("Push"), schema("Pull"), schema("PullPending")


# --- push and pull ---------------------------------------------------------------------------------------------------


def faults_of_push(body: Any) -> list[str]:
    """Give the paths that a push is at fault at, none if all of it would be taken."""
    try:
        push = parse_push(body, TABLES, LIMITS, NOW)
        changes = list(push.changes)
    except Problem as problem:
        return [detail["path"] for detail in problem.details] or [problem.code]
    assert len(changes) == push.count and push.tables >= {change.table.name for change in changes if change.table}
    for change in changes:
        _check(change)
    problems = [problem for change in changes if change.unknown_table is None for problem in change.problems]
    if push.is_atomic_stated or not push.tables:
        problems += push.unknown_tables.values()
    return [problem["path"] for problem in problems]


@given(PUSH | ANY_JSON, st.booleans())
def test_push_is_read_row_by_row_to_the_same_changes(body: Any, is_whole: bool) -> None:
    """Fault: unknown names let through (``forbid_unknown_fields=False``): two forms in one body were taken."""
    raw = json.dumps(body).encode()[: None if is_whole else -1]
    assert read_push(raw, decode_push) == read_push(raw, decode)


def read_push(raw: bytes, decode: Callable[[bytes], Any]) -> Any:
    """Give all that a push's body says, or the code of what is wrong with it."""
    try:
        push = parse_push(decode(raw), TABLES, LIMITS, NOW)
        changes = [one.change() if isinstance(one, TypedRow) else one for one in push.changes]
        return changes, push.count, push.tables, push.atomic, push.base
    except Problem as problem:
        return problem.code, problem.details


def _check(change: Change) -> None:
    assert change.edited_at <= NOW
    assert change.table is not None or change.problems
    assert change.problems or change.row_id is None or re.fullmatch("[A-Za-z0-9_.:-]{1,64}", change.row_id)
    assert all(problem.keys() == {"path", "error"} for problem in change.problems)
    encode(change.fields)  # What is taken can be stored.


@given(PUSH | ANY_JSON)
def test_push_is_taken_only_if_its_schema_takes_it_and_else_refused(body: Any) -> None:
    beyond_schema = r"(.*\.)?(timestamp|Unique_id|baseVersion)"  # A time that is none, 256 digits, 1.0 for 1.
    body = arrived(body)
    faults = faults_of_push(body)
    if isinstance(body, dict) and "atomic" in body:
        named = body["changes"] if isinstance(body.get("changes"), dict) else {}
        tables = "|".join(re.escape(f"changes.{name[:64]}") for name in named)
        beyond_schema += rf"|{tables}|operations\[\d+\]\.table"  # All or nothing, and a table is not synced.
    if "\\u0000" in json.dumps(body):  # It is refused in names and within JSON too, of which no schema tells.
        beyond_schema = "(?s:.*)"
    if PUSH_SCHEMA.is_valid(body):
        assert all(re.fullmatch(beyond_schema, path) for path in faults), faults
    else:
        assert faults


@given(PULL | ANY_JSON)
def test_pull_is_taken_only_if_its_schema_takes_it_and_else_refused(body: Any) -> None:
    beyond_schema = {"lastSync", "lastSyncTimestamp", "limit"}  # A time that is none, 1.0 for 1.
    body = arrived(body)
    try:
        parse_pull(body, TABLES, LIMITS)
    except ValidationError as problem:
        paths = {detail["path"] for detail in problem.details}
        assert not PULL_SCHEMA.is_valid(body) or paths <= beyond_schema, paths
    else:
        assert PULL_SCHEMA.is_valid(_without_what_is_ignored(body))


def _without_what_is_ignored(body: Any) -> Any:
    """Leave out fields that mean nothing in the form that a pull has."""
    ignored = (
        {"lastSync", "lastSyncTimestamp"}
        if "cursor" in body
        else {"limit", "lastSyncTimestamp" if "table" in body else "lastSync"}
    )
    return {name: value for name, value in body.items() if name not in ignored}


@given(PULL | ANY_JSON)
def test_tables_are_named_only_as_the_schema_says(body: Any) -> None:
    body = arrived(body)
    try:
        parse_pending(body, TABLES)
    except ValidationError:
        assert not PENDING_SCHEMA.is_valid(body)
    else:
        assert PENDING_SCHEMA.is_valid(body)


@given(ANY_JSON | TEXT)
def test_device_is_named_as_the_schema_says_or_refused(name: Any) -> None:
    name = arrived(name)
    valid = jsonschema_rs.Draft202012Validator(json_schema.or_null(json_schema.NAME)).is_valid(name)
    try:
        assert parse_device_id(name, "deviceId") == name and valid
    except ValidationError:
        assert not valid


# --- the words of the wire -------------------------------------------------------------------------------------------


@given(
    st.binary(max_size=80)
    | st.text('[]{},:"\\0123456789.eE+-truefalsn\n\ud800é', max_size=40).map(
        lambda t: t.encode("utf-8", "surrogatepass")
    )
)
def test_bytes_are_json_as_the_standard_library_reads_it_or_refused(data: bytes) -> None:
    try:
        value = decode(data)
    except Problem as problem:
        assert problem.code == "invalid_json" and str(problem).endswith(".")
    else:
        assert decode(encode(value)) == value
        assert json.loads(data) == value


@given(
    ANY_JSON
    | st.datetimes(timezones=st.timezones() | st.none()).map(str)
    | st.from_regex(r"\d{1,5}-?W?\d\d-?\d\d?[T ]?[\d:.]*(Z|[+-]\d\d:?\d\d)?")
)
def test_time_is_read_and_written_back_or_refused(text: Any) -> None:
    try:
        moment = parse_time(text, "t")
    except ValidationError as problem:
        assert problem.details[0]["path"] == "t"
    else:
        assert parse_time(format_time(moment), "t") == moment
    stated = edit_time(text)
    assert stated is None or isinstance(stated, int)


@given(ANY_JSON | st.from_regex(r"[0-9a-f]{11,13}-[0-9]{1,19}(-[0-9]{1,19})?"))
def test_cursor_is_read_as_the_schema_says_and_written_back_or_refused(text: Any) -> None:
    text = arrived(text)
    valid = jsonschema_rs.Draft202012Validator(json_schema.CURSOR_TEXT).is_valid(text)
    try:
        cursor = parse_cursor(text)
    except ValidationError:
        assert not valid
    else:
        assert valid and parse_cursor(str(cursor)).sequence == cursor.sequence


# --- bodies and headers ----------------------------------------------------------------------------------------------


@contextmanager
def exchange(**request: Any) -> Iterator[None]:
    """Have a request be the running one."""
    environ = EnvironBuilder(method="POST", **request).get_environ()
    end = http_exchange.set_current(http_exchange.Exchange(environ, Quotas(Settings(), Scheduler()), 10**6, "r"))
    yield
    end()


@given(
    data=st.binary(max_size=200) | BYTES | BYTES.map(gzip.compress),
    kind=st.sampled_from(["application/json", "application/vnd.x+json", "text/json"]) | HEADER,
    coding=st.sampled_from(["identity", "gzip", "GZIP ", "deflate"]) | HEADER,
)
def test_body_is_read_or_refused(data: bytes, kind: str, coding: str) -> None:
    headers = {"Content-Type": kind, "Content-Encoding": coding}
    with exchange(data=data, headers=headers):
        try:
            http_exchange.read_json()
        except Problem as problem:
            assert problem.status in (400, 413, 415)


@given(BYTES, st.integers(0, 9), st.integers(0, 40), st.binary(max_size=9))
def test_gzip_is_inflated_exactly_and_never_beyond_the_limit(data: bytes, level: int, cut: int, tail: bytes) -> None:
    squeezed = gzip.compress(data, level)
    assert http_exchange._inflate(squeezed, len(data)) == data
    for bad, most in (
        (squeezed[: len(squeezed) - 1 - cut], 10**6),
        (squeezed + b"\0" + tail, 10**6),
        (squeezed, len(data) - 1),
    ):
        with pytest.raises(Problem) as caught:
            http_exchange._inflate(bad, most)
        assert caught.value.status in (400, 413)


@given(st.sampled_from(["X-Device-Id", "Idempotency-Key"]), HEADER)
def test_header_is_read_as_the_document_says_or_refused(name: str, value: str) -> None:
    headers = {"X-Device-Id": device_id_header, "Idempotency-Key": idempotency_key_header}
    read = headers[name]
    with exchange(headers={name: value}):
        try:
            assert read() in (value, value.strip('"'))
        except ValidationError as problem:
            assert problem.details[0]["path"] == name


# --- tokens ----------------------------------------------------------------------------------------------------------

CLAIM = ANY_JSON | st.sampled_from(["client", "refresh", "x"]) | st.integers(0, 10**11)
CLAIMS = st.dictionaries(
    st.sampled_from(
        ["sub", "jti", "sid", "customerId", "email", "type", "exp", "iat", "nbf", "fresh", "csrf", "aud", "iss"]
    ),
    CLAIM,
)


@given(CLAIMS)
def test_token_with_any_claims_is_refused_even_under_our_key(app: Flask, claims: dict[str, Any]) -> None:
    try:
        token = jwt.encode(claims, app.config["JWT_SECRET_KEY"], "HS256")
    except (TypeError, ValueError, jwt.PyJWTError):
        return  # One that not even the library writes.
    for kind in ("client", "refresh"):
        with pytest.raises(Problem) as caught:
            tokens._claims(token, kind, [app.config["JWT_SECRET_KEY"]])
            raise Unauthorized  # Whole, and of no session.
        assert caught.value.status == 401


@given(HEADER | st.from_regex(r"[Bb]earer +[\w-]{0,9}\.[\w=-]{0,30}\.[\w-]{0,9}").filter(str.isprintable))
def test_authorization_of_any_text_opens_nothing(app: Flask, value: str) -> None:
    answer = app.test_client().get("/api/customers/me", headers={"Authorization": value}, buffered=True)
    assert answer.status_code == 401 and answer.get_json()["code"] == "unauthorized"


# --- frames ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_message_in_any_fragments_is_read_as_it_was_sent(parts: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        frames = [frame(part, 2 if not index else 0, index == len(parts) - 1) for index, part in enumerate(parts)]
        socket, _ = websocket(patch, *frames)
        assert socket.read_message() == b"".join(parts)


@given(
    st.binary(max_size=120)
    | st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**64 - 1)).map(
        lambda t: struct.pack("!BBQ", *t)
    )
)
def test_any_bytes_are_a_message_or_end_the_connection_unread(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        socket, wire = websocket(patch, data, most=100)
        try:
            message = socket.read_message()
        except (WebSocketError, ProtocolError):
            message = b""
        assert len(message or b"") <= 100
        assert wire.asked <= len(data) + 125, "no more is asked for than one frame may have"


# --- the environment -------------------------------------------------------------------------------------------------

NAMES = [field.name.upper() for field in dataclasses.fields(Settings)]
VALUE = st.text(st.characters(exclude_characters="\0"), max_size=30) | st.from_regex(
    r"[0-9]{1,20}( ?per ?|/)[0-9]{0,12} ?(second|minute|hour|day|month|year)s?([;,|][0-9]+/hour)?", fullmatch=True
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=4))
def test_environment_is_read_or_refused_in_one_sentence(environ: dict[str, str]) -> None:
    try:
        read = settings.load(environ)
    except SettingError as error:
        assert str(error).partition(" ")[0] in NAMES and str(error).endswith(".")
    else:
        assert rates_of(read.rate_limit_login) and rates_of(read.rate_limit_register)
