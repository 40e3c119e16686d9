"""The two documents in which a server describes itself: valid, complete, and made from what it does.

``contract`` sees to it that each answer and event of the whole suite is as they say; ``test_api_schema`` has what
schemathesis makes of them.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest
import requests
from flask import Flask
from openapi_spec_validator import validate

import assembly
from api import reference
from models import synced_tables
from protocol import errors
from settings import Settings
from tests.conftest import JSON, ROOT, Listener, Server, Tenant
from tests.contract import FAULTS, Contract, check_event
from tests.refusals import kinds_of_error
from tests.test_docs import _examples, emitted_events

ASYNCAPI_SCHEMA = ROOT / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
BEFORE_ROUTES = {"method_not_allowed", "origin_not_allowed", "address_too_long", "head_too_large"}
BEFORE_ROUTES |= {"expectation_failed", "not_implemented", "http_version_not_supported"}
"""Codes of requests that reach no endpoint: another method, a preflight, a head that is not read."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("openapi") / "data",
        shutdown_seconds=1,
        max_push_rows=77,
        registration="closed",
        cors_origins=("https://app.example.com",),
    )
    app = assembly.build(settings)
    yield app
    app.extensions["lifecycle"].end()


@pytest.fixture(scope="module")
def contract(app: Flask) -> Contract:
    client = app.test_client()
    return Contract(*(client.get(f"/{name}.json", buffered=True).get_json() for name in ("openapi", "asyncapi")))


def operations(contract: Contract) -> dict[str, JSON]:
    return {said["operationId"]: said for item in contract.openapi["paths"].values() for said in item.values()}


# --- valid and complete ----------------------------------------------------------------------------------------------


def test_openapi_document_is_valid(contract: Contract) -> None:
    validate(contract.openapi)
    assert contract.openapi["openapi"].startswith("3.1")


@pytest.mark.skipif(
    not ASYNCAPI_SCHEMA.exists() and os.environ.get("CI") != "true", reason="needs node_modules: npm ci"
)
def test_asyncapi_document_is_valid(contract: Contract) -> None:
    jsonschema_rs.Draft7Validator(json.loads(ASYNCAPI_SCHEMA.read_text())).validate(contract.asyncapi)
    assert contract.asyncapi["asyncapi"] == "3.0.0"


@pytest.mark.parametrize("document", ["openapi", "asyncapi"])
def test_every_reference_leads_somewhere(contract: Contract, document: str) -> None:
    whole = getattr(contract, document)
    for place in set(re.findall(r'"\$ref": "#/(.*?)"', json.dumps(whole))):
        found = whole
        for part in place.split("/"):
            found = found[part]


@pytest.mark.parametrize("document", ["openapi", "asyncapi"])
def test_every_schema_is_a_schema_of_both_drafts(contract: Contract, document: str) -> None:
    components = getattr(contract, document)["components"]
    for name in components["schemas"]:
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        jsonschema_rs.Draft202012Validator(schema)
        jsonschema_rs.Draft7Validator(schema)


def test_every_endpoint_under_api_is_described_in_the_words_of_its_view(app: Flask, contract: Contract) -> None:
    described = operations(contract)
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/"):
            doc = app.view_functions[rule.endpoint].__doc__ or ""
            assert described[rule.endpoint]["summary"] == doc.splitlines()[0].rstrip(".")


def test_every_link_leads_to_an_operation_and_names_what_it_takes(contract: Contract) -> None:
    described = operations(contract)
    links = [link for said in described.values() for link in _answer(said).get("links", {}).values()]
    assert len(links) > 10
    for link in links:
        target = described[link["operationId"]]
        taken = {one["name"] for one in target["parameters"] if "name" in one}
        assert set(link.get("parameters", {})) <= taken
        assert "requestBody" in target or "requestBody" not in link


def _answer(said: JSON) -> JSON:
    found: JSON = next(answer for status, answer in said["responses"].items() if status.startswith("2"))
    return found


def test_every_error_is_described_and_no_other(contract: Contract) -> None:
    classes: list[type[errors.Problem]] = [errors.Problem, *kinds_of_error()]
    described = set()
    for name, response in contract.openapi["components"]["responses"].items():
        codes = response["content"]["application/json"]["schema"]["allOf"][1]["properties"]["code"]["enum"]
        described |= {(int(name.partition(".")[0]), code) for code in codes}
    real = {(one.status, one.code) for one in classes}
    of_nothing = {code for _, code in real - described} - BEFORE_ROUTES
    assert described <= real and not of_nothing, (
        f"api/docs/endpoints.py must name {of_nothing} among the errors of an endpoint, or BEFORE_ROUTES here its code"
    )


def test_events_described_are_those_that_are_heard_and_told(app: Flask, contract: Contract) -> None:
    handlers = set(app.extensions["socketio"].server.handlers["/"]) - {"connect", "disconnect"}
    named = [name.rsplit(".", 1) for name in contract.asyncapi["components"]["messages"]]
    assert {event for event, kind in named if kind == "sent"} == handlers
    complete = "_SERVER_EVENTS in api/docs/asyncapi.py must have each event that the server emits, and no other"
    assert {event for event, kind in named if kind == "received"} == emitted_events(), complete
    assert {event for event, kind in named if kind == "acknowledged"} == handlers - {"authenticate"}


def test_both_documents_share_their_schemas(contract: Contract) -> None:
    one, other = (document["components"]["schemas"] for document in (contract.openapi, contract.asyncapi))
    assert all(one[name] == other[name] for name in one.keys() & other.keys())
    assert {"Push", "Pull", "PushAnswer", "PullAnswer", "Notification", "Error"} <= one.keys() & other.keys()


# --- made from what is -----------------------------------------------------------------------------------------------


def test_columns_of_rows_are_those_of_the_models(contract: Contract) -> None:
    schemas = contract.openapi["components"]["schemas"]
    for table in synced_tables().values():
        columns = {name for name in table.columns if not name.startswith("_")}
        assert set(schemas[table.model.__name__]["properties"]) == columns
        edited = set(schemas[f"{table.model.__name__}Edit"]["properties"])
        assert edited == set(table.rules.columns) | {"id", "isDeleted"}


def test_document_has_the_settings_of_its_server(app: Flask, contract: Contract) -> None:
    schemas = contract.openapi["components"]["schemas"]
    assert schemas["PushOperations"]["properties"]["operations"]["maxItems"] == 77
    limits = app.test_client().get("/api/limits", buffered=True).get_json()
    assert contract.validator("openapi", "#/components/schemas/Limits").is_valid(limits)
    about = contract.openapi["info"]["description"]
    assert "Registration is closed" in about and "https://app.example.com" in about


def test_examples_are_what_their_schemas_take(contract: Contract) -> None:
    for said in operations(contract).values():
        content = said.get("requestBody", {}).get("content", {}).get("application/json")
        if content:
            assert content["examples"]
            for example in content["examples"].values():
                contract.validator("openapi", content["schema"]["$ref"]).validate(example["value"])


@pytest.mark.parametrize("example", _examples(), ids=lambda example: f"{example.method} {example.path}")
def test_example_of_the_reference_is_what_the_schema_takes(contract: Contract, example: Any) -> None:
    said = contract.openapi["paths"][example.path][example.method.lower()]
    if example.body is not None:
        schema = said["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        contract.validator("openapi", schema).validate(example.body)
    assert str(example.status) in said["responses"]


def test_documents_are_read_without_a_token_and_from_any_allowed_origin(server: Server) -> None:
    for name in ("openapi", "asyncapi"):
        answer = server.call("GET", f"/{name}.json", Origin="http://localhost:5000")
        assert answer.status_code == 200 and answer.headers["Access-Control-Allow-Origin"] == "http://localhost:5000"


# --- the page --------------------------------------------------------------------------------------------------------


def test_page_shows_every_call_event_and_schema_and_its_links_lead_somewhere(app: Flask, contract: Contract) -> None:
    text = app.test_client().get("/docs", buffered=True).get_data(as_text=True)
    targets = set(re.findall(r'id="([^"]+)"', text))
    assert set(operations(contract)) <= targets
    for document in (contract.openapi, contract.asyncapi):
        assert {f"schema-{name}" for name in document["components"]["schemas"]} <= targets
    assert {f"event-{name}" for name in contract.asyncapi["components"]["messages"]} <= targets
    assert set(re.findall(r'href="#([^"]+)"', text)) <= targets
    assert all(path in text for path in contract.openapi["paths"])


def test_page_says_of_each_call_what_it_answers_and_each_code_with_its_own_sentence(app: Flask) -> None:
    text = html.unescape(app.test_client().get("/docs", buffered=True).get_data(as_text=True))
    for call, described in reference.calls().items():
        assert all(example.answer.strip() in text for example in described.examples), call
    for code in ("unauthorized", "token_expired"):
        problem = next(kind for kind in kinds_of_error() if kind.code == code)
        assert re.search(rf"<code>{code}</code> <span class=\"muted\">{re.escape(problem.sentence)}</span>", text)


# --- the check itself ------------------------------------------------------------------------------------------------


def answered(contract: Contract, status: int, body: Any, **headers: str) -> None:
    """Have an answer to ``GET /api/client/devices`` checked."""
    answer = requests.Response()
    answer.status_code, answer._content = status, json.dumps(body).encode()
    answer.headers.update({"Content-Type": "application/json", "X-Request-ID": "r"} | headers)
    answer.request = requests.Request("GET", "http://x/api/client/devices").prepare()
    contract.check_answer(answer)


REFUSAL = {"success": False, "error": "No.", "message": "No.", "code": "unauthorized"}


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (418, {"success": True, "data": []}, {}),
        (200, {"success": True}, {}),
        (200, {"success": True, "data": [{"deviceId": "a"}]}, {}),
        (200, {"success": True, "data": []}, {"Content-Type": "text/html"}),
        (401, REFUSAL, {}),
        (401, REFUSAL | {"code": "not_found"}, {"WWW-Authenticate": "Bearer"}),
        (401, REFUSAL | {"extra": 1}, {"WWW-Authenticate": "Bearer"}),
    ],
)
def test_answer_that_is_not_as_described_is_found(contract: Contract, status: int, body: Any, headers: Any) -> None:
    answered(contract, 200, {"success": True, "data": []})
    answered(contract, 401, REFUSAL, **{"WWW-Authenticate": "Bearer"})
    with pytest.raises(AssertionError):
        answered(contract, status, body, **headers)


def test_event_that_is_not_as_described_is_found(contract: Contract) -> None:
    check_event(contract, "pong", {"timestamp": "2025-06-29T23:45:26.002Z"})
    assert FAULTS == []
    check_event(contract, "pong", {"timestamp": "yesterday"})
    check_event(contract, "gossip", {})
    faults, FAULTS[:] = FAULTS[:], []
    assert len(faults) == 2


def test_every_event_is_as_described(server: Server, tenant: Tenant, listen: Callable[..., Listener]) -> None:
    """One of each; every other test that listens looks too."""
    listener, other = listen(), listen(cursor="0123456789ab-7")
    row = {"table": "end_user", "operation": "create", "data": {"id": "u1", "name": "Asha"}}
    assert listener.call("sync_push", row)["success"]
    assert listener.call(
        "sync_push", row | {"operation": "update", "baseVersion": 0, "data": {"id": "u1", "name": "B"}}
    )
    assert not listener.call("sync_push", {"table": "x"})["success"]
    assert listener.call("sync_pull", {"cursor": None, "digest": True})["success"]
    assert listener.call("sync_status_update", {"status": "busy"})["success"] and other.wait("sync_status_update")
    assert listener.call("ping", None)["success"] and listener.wait("pong")
    tenant.device().push({"changes": {"end_user": [{"name": "A"}, {"name": "B"}], "interactions": [{"title": "C"}]}})
    listener.wait_note("sync_complete", 2)
    refused = Listener(server.url, auth={"token": "none"})
    refused.wait("authentication_error")
    for one in (listener, other, refused):
        assert one.contract is not None
        one.close()
