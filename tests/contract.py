"""Holds what a server says to what it says of itself: each answer to /openapi.json, each event to /asyncapi.json.

``conftest`` asks this of every answer and event that a test gets through ``Server`` and ``Listener``.
"""

from __future__ import annotations

import contextlib
import json
import re
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import requests

FAULTS: list[str] = []
"""What events were not as described; a fixture looks here, since listeners hear in threads of their own."""

_contracts: dict[str, Contract | None] = {}


class Contract:
    """The two documents of one server, with a validator for each answer and event, made when it is first needed."""

    def __init__(self, openapi: dict[str, Any], asyncapi: dict[str, Any]) -> None:
        self.openapi, self.asyncapi = openapi, asyncapi
        self._addresses = [(_pattern(path), item) for path, item in openapi["paths"].items()]
        self._validator = cache(self._new_validator)

    @classmethod
    def of(cls, url: str) -> Contract:
        """Read the documents of a running server."""
        names = ("openapi", "asyncapi")
        return _of_texts(*(requests.get(f"{url}/{name}.json", timeout=60).text for name in names))

    def validator(self, document: str, schema: str) -> jsonschema_rs.Draft202012Validator:
        """Give the validator of a schema, named by its place in ``components``."""
        found: jsonschema_rs.Draft202012Validator = self._validator(document, schema)
        return found

    def _new_validator(self, document: str, place: str) -> Any:
        components = getattr(self, document)["components"]
        return jsonschema_rs.Draft202012Validator(
            {"$ref": place, "components": components}, validate_formats=True, ignore_unknown_formats=False
        )

    def check_answer(self, answer: requests.Response) -> None:
        """Check status, headers, type and body of an answer, unless its address is not described."""
        request = answer.request
        operation = self._operation(str(request.method), urlsplit(str(request.url)).path)
        if operation is None or answer.status_code == 405:
            return
        said = f"{request.method} {request.url}: {answer.status_code} {answer.text[:1000]}"
        found = operation["responses"].get(str(answer.status_code))
        assert found, f"a status that /openapi.json does not have: {said}"
        response = (
            self.openapi["components"]["responses"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found
        )
        for name, header in response["headers"].items():
            required = self.openapi["components"]["headers"][name].get("required")
            assert not required or name in answer.headers, f"{name} is missing ({header}): {said}"
        (media,) = response["content"]
        assert answer.headers["Content-Type"] == media, said
        if media != "application/json":
            return
        self._check_body(response["content"]["application/json"]["schema"], answer.json(), said)

    def _check_body(self, schema: dict[str, Any], body: Any, said: str) -> None:
        for part in schema.get("allOf", [schema]):
            if "$ref" in part:
                error = _first_error(self.validator("openapi", part["$ref"]), body)
                assert error is None, f"{error}: {said}"
            else:
                assert body["code"] in part["properties"]["code"]["enum"], f"an undocumented code: {said}"

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for pattern, item in self._addresses:
            if pattern.fullmatch(path):
                found: dict[str, Any] | None = item.get(method.lower())
                return found
        return None

    def event_error(self, event: str, payload: Any, kind: str = "received") -> str | None:
        """Say what is wrong with an event, None if nothing is."""
        message = self.asyncapi["components"]["messages"].get(f"{event}.{kind}")
        if message is None:
            return f"{event} is not in /asyncapi.json"
        return _first_error(self.validator("asyncapi", f"#/components/messages/{event}.{kind}/payload"), payload)


def began(url: str) -> None:
    """Note a server that began, maybe with other settings than before at this address."""
    _contracts[url] = None


def contract_of(url: str) -> Contract | None:
    """Give the contract of a server by its address; it is read once. None if no server of ours, or none any more."""
    if url in _contracts and _contracts[url] is None:
        with contextlib.suppress(requests.RequestException):
            _contracts[url] = Contract.of(url)
    return _contracts.get(url)


def check_event(contract: Contract | None, event: str, payload: Any, kind: str = "received") -> None:
    """Note what is wrong with an event that was heard."""
    error = contract.event_error(event, payload, kind) if contract else None
    if error:
        FAULTS.append(f"{event} {kind}: {error}: {payload}")


@cache
def _of_texts(openapi: str, asyncapi: str) -> Contract:
    """Give the same contract for servers that say the same: to make its validators takes longer than to use them."""
    return Contract(json.loads(openapi), json.loads(asyncapi))


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("".join(f"({part})" if part == "[^/]+" else re.escape(part) for part in _parts(path)))


def _parts(path: str) -> list[str]:
    return ["[^/]+" if part.startswith("{") else part for part in re.split(r"({\w+})", path) if part]


def _first_error(validator: Any, value: Any) -> str | None:
    if validator.is_valid(value):
        return None
    error = next(validator.iter_errors(value))
    return f"{'/'.join(map(str, error.instance_path))}: {error.message[:500]}"
