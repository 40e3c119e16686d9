"""Makes the OpenAPI 3.1 document of the routes that are served.

Knows: how OpenAPI describes an endpoint, a header, an error. Must not know: what bodies look like (``schemas``), which
endpoint takes which (``endpoints``), what an endpoint does. An address comes from the route, its summary from the view's
docstring, an error from its class. ``completeness`` refuses a start with a route that is not described.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from api.docs import schemas
from api.docs.endpoints import CALLS, Call
from api.docs.json_schema import COUNT, NAME, TENANT, TEXT, TIME, Schema, ref, table_name
from api.request_headers import IDEMPOTENCY_KEY
from protocol import errors
from protocol.errors import Problem
from settings import Settings

_ALWAYS = (errors.Problem, errors.RateLimited, errors.Busy)
_TOKEN = (
    errors.Unauthorized,
    errors.TokenExpired,
    errors.TenantSuspended,
    errors.InvalidTenantId,
    errors.TenantMismatch,
    errors.TenantNotFound,
)
_BODY = (
    errors.InvalidJson,
    errors.ValidationError,
    errors.RequestTimeout,
    errors.UnsupportedMediaType,
    errors.PayloadTooLarge,
)
_DEVICE = (errors.ValidationError,)
_ONCE = (
    errors.ValidationError,
    errors.StillRunning,
    errors.IdempotencyMismatch,
    errors.QuotaExceeded,
    errors.TenantReadOnly,
    errors.UnderMaintenance,
)
_JSON = "application/json"
_TAGS = {
    "customers": "Customers and their sessions",
    "lost_passwords": "Forgotten passwords, and addresses that are confirmed",
    "account": "A customer's sessions and data",
    "sync": "Push, pull and what goes with them",
    "review": "History, conflicts and devices",
    "pages": "The server itself",
}
_ABOUT = (
    "Devices of many businesses push and pull rows; each business has a database of its own, and only its token opens it."
    ' Every answer is JSON. Success is `{"success": true, …}`, failure has a sentence and a `code` to rely on. The events'
    " of Socket.IO are in `/asyncapi.json`."
)


def document(app: Flask, settings: Settings, version: str) -> dict[str, Any]:
    """Describe the API as this server serves it, with its own limits."""
    described = [(rule, CALLS[rule.endpoint]) for rule in app.url_map.iter_rules() if is_described(rule)]
    paths: dict[str, dict[str, Any]] = {}
    used: dict[str, Schema] = {}
    for rule, call in sorted(described, key=lambda pair: list(CALLS).index(pair[0].endpoint)):
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            operation = _operation(rule, method, call, app.view_functions[rule.endpoint].__doc__ or "", used)
            paths.setdefault(address(rule.rule), {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "syncapp",
            "version": version,
            "summary": "A multi-tenant sync server",
            "description": _about(settings),
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas_by_name(settings),
            "responses": used,
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def schemas_by_name(settings: Settings) -> dict[str, Schema]:
    """Give every schema that an endpoint may name."""
    return schemas.components(settings) | _SCHEMAS


def address(rule: str) -> str:
    """Write a route's address as OpenAPI does."""
    return re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule)


def is_described(rule: Rule) -> bool:
    """Tell whether a route belongs into the document."""
    return not is_internal(rule) and (rule.rule.startswith("/api/") or rule.endpoint in CALLS)


def is_internal(rule: Rule) -> bool:
    """Tell whether a route is of the operator's console: its pages alone call it, and any version may change it."""
    return rule.rule == "/admin" or rule.rule.startswith("/admin/")


def _about(settings: Settings) -> str:
    origins = ", ".join(settings.cors_origins) or "none"
    return f"{_ABOUT} Registration is {settings.registration}. Other origins whose pages may call: {origins}."


# --- one call --------------------------------------------------------------------------------------------------------


def _operation(rule: Rule, method: str, call: Call, doc: str, used: dict[str, Schema]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": rule.endpoint,
        "tags": [rule.endpoint.partition(".")[0]],
        "summary": doc.strip().partition("\n")[0].rstrip("."),
        "parameters": _parameters(rule, call),
        "responses": {str(call.status): _answer(call), **_error_responses(_errors(rule, method, call), used)},
        "security": [{"bearer": []}] if call.needs_token else [],
    }
    if rule.endpoint == "pages.health":  # Its 503 has the body of a success.
        operation["responses"]["503"] = {
            "description": "The server is ending, or its disk is full.",
            **_content("Health"),
            "headers": _headers(200),
        }
    if call.body:
        examples = {name: {"value": value} for name, value in call.examples.items()}
        operation["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": ref(call.body), "examples": examples}},
        }
    return operation


def _content(schema: str) -> dict[str, Any]:
    return {"content": {_JSON: {"schema": ref(schema)}}}


def _answer(call: Call) -> dict[str, Any]:
    headers = _headers(call.status) | (
        {"Idempotent-Replayed": _head("Idempotent-Replayed")} if call.is_idempotent else {}
    )
    links = {name.replace(".", "_"): {"operationId": name, **link} for name, link in call.links.items()}
    content = {"content": {call.media: {"schema": ref(call.answer)}}}
    return {"description": "Done.", "headers": headers, **content, **({"links": links} if links else {})}


def _errors(rule: Rule, method: str, call: Call) -> Iterable[type[Problem]]:
    """Collect the errors of this endpoint, and of all of its kind."""
    found = [*_ALWAYS, *call.errors]
    found += [*_TOKEN] if call.needs_token else []
    found += [*_BODY] if call.body else []
    found += [*_ONCE] if call.is_idempotent else []
    found += [*_DEVICE] if call.names_device else []
    found += [errors.NotFound] if rule.arguments else []
    found += [errors.Moved, errors.OutcomeUnknown, errors.StorageFull] if method != "GET" or call.needs_token else []
    return dict.fromkeys(found)


def _error_responses(problems: Iterable[type[Problem]], used: dict[str, Schema]) -> dict[str, Schema]:
    """Describe the errors of each status once, in ``used``, and refer to them."""
    by_status: dict[int, list[type[Problem]]] = {}
    for problem in problems:
        by_status.setdefault(problem.status, []).append(problem)
    responses = {}
    for status, those in sorted(by_status.items()):
        codes = sorted({problem.code for problem in those})
        used[name := ".".join([str(status), *codes])] = _error_response(
            status, codes, [problem.sentence for problem in those]
        )
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return responses


def _error_response(status: int, codes: list[str], sentences: list[str]) -> Schema:
    schema = {"allOf": [ref("Error"), {"type": "object", "properties": {"code": {"enum": codes}}}]}
    return {
        "description": " ".join(dict.fromkeys(sentences)),
        "headers": _headers(status),
        "content": {_JSON: {"schema": schema}},
    }


# --- headers and parameters ------------------------------------------------------------------------------------------

_HEADERS: dict[str, Schema] = {
    "X-Request-ID": {"description": "The request's name in the log.", "required": True, "schema": TEXT},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "RateLimit-Policy": {"description": "What may be used, and in how many seconds.", "schema": TEXT},
    "RateLimit": {"description": "What is left of it, and in how many seconds all is back.", "schema": TEXT},
    "WWW-Authenticate": {
        "description": "Bearer, with an error if a token came and does not open.",
        "required": True,
        "schema": {"enum": ["Bearer", 'Bearer error="invalid_token"']},
    },
    "Idempotent-Replayed": {"description": "The stored answer of the first request.", "schema": {"const": "true"}},
}

_PARAMETERS: dict[str, Schema] = {
    name: {"name": name, "in": "header", "required": False, "schema": schema, "description": description}
    for name, schema, description in (
        ("X-Request-ID", TEXT, "A name for this request; one that is not 1 to 128 of A-Z a-z 0-9 _ . : - is replaced."),
        ("X-Tenant-Id", TENANT, "The tenant that the caller means."),
        ("X-Device-Id", NAME, "The device that asks: the server then knows how far it has pulled."),
        (
            "Idempotency-Key",
            TEXT | {"pattern": f"^{IDEMPOTENCY_KEY.pattern}$"},
            "For 24 h the same request gets the same answer.",
        ),
    )
}

PATH_VARIABLES: dict[str, tuple[Callable[[], Schema], Any, str]] = {
    "table": (table_name, "end_user", "A synced table."),  # Asked late: an app declares tables of its own before.
    "row_id": (lambda: NAME, "u1", "The row's id."),
    "device_id": (lambda: NAME, "tablet-1", "The device's X-Device-Id."),
    "session_id": (lambda: TEXT, "0f0bf43e-ed76-46a2-930e-78666aa5a0d6", "The session's sessionId."),
    "number": (lambda: COUNT | {"maximum": 2**53 - 1}, 1, "The conflict's conflictId."),
}

_SCHEMAS: dict[str, Schema] = {
    "SyncHealth": {
        "type": "object",
        "required": ["success", "message", "timestamp"],
        "properties": {"success": {"const": True}, "message": TEXT, "timestamp": TIME},
    },
    "Health": {
        "type": "object",
        "required": ["status", "version", "uptimeSeconds", "timestamp", "connectedClients", "forwardedFor"],
        "properties": {
            "status": {"enum": ["ok", "degraded", "storage_full", "ending"]},
            "version": TEXT,
            "uptimeSeconds": COUNT,
            "timestamp": TIME,
            "connectedClients": COUNT,
            "forwardedFor": {
                "type": "object",
                "required": ["addresses", "trusted"],
                "properties": {"addresses": COUNT, "trusted": COUNT},
            },
            "isDiskLow": {"const": True},
            "maintenance": {
                "type": "object",
                "required": ["since", "message"],
                "properties": {"since": TIME, "message": {"type": ["string", "null"]}},
            },
            "processes": {
                "type": "object",
                "required": ["count", "names", "versions", "over", "connected"],
                "properties": {
                    "count": COUNT,
                    "names": {"type": "array", "items": TEXT},
                    "versions": {"type": "array", "items": TEXT},
                    "over": TEXT,
                    "connected": {"type": "boolean"},
                },
            },
            "backups": {
                "type": "object",
                "required": ["state", "lastGood", "nextDue"],
                "properties": {
                    "state": {"enum": ["ok", "failed", "incomplete", "overdue", "none"]},
                    "lastGood": {"anyOf": [TIME, {"type": "null"}]},
                    "nextDue": TIME,
                },
            },
        },
    },
    "Document": {"type": "object", "required": ["info"]},
}


def _head(name: str) -> Schema:
    return {"$ref": f"#/components/headers/{name}"}


def _headers(status: int) -> dict[str, Schema]:
    names = ["X-Request-ID", "RateLimit-Policy", "RateLimit"] + (["WWW-Authenticate"] if status == 401 else [])
    names += ["Retry-After"] if status in (409, 429, 503) else []
    return {name: _head(name) for name in names}


def _parameters(rule: Rule, call: Call) -> list[Schema]:
    names = ["X-Request-ID"] + (["X-Tenant-Id"] if call.needs_token else [])
    names += (["X-Device-Id"] if call.names_device else []) + (["Idempotency-Key"] if call.is_idempotent else [])
    found = [_in_path(name) for name in re.findall(r"{(\w+)}", address(rule.rule))]
    found += [{"name": name, "in": "query", "schema": schema} for name, schema in call.queries.items()]
    return found + [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _in_path(name: str) -> Schema:
    schema_of, example, description = PATH_VARIABLES[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": schema_of(),
        "example": example,
        "description": description,
    }
