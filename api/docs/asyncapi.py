"""Makes the AsyncAPI 3.0 document of the Socket.IO events that are served.

Knows: how AsyncAPI describes an event, its acknowledgement and the handshake. Must not know: what other payloads look like
(``schemas``), who listens. The server refuses to start with an event that is not described here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from api.docs import schemas
from api.docs.json_schema import COUNT, CURSOR_TEXT, NAME, TENANT, TEXT, TIME, UUID, Schema, error_codes, or_null, ref
from settings import Settings

CLIENT_EVENTS: dict[str, tuple[str, Schema, tuple[str, ...]]] = {
    "authenticate": ("Show a token, unless the handshake did.", ref("Handshake"), ()),
    "ping": ("Ask for a pong.", {}, ("Done",)),
    "sync_status_update": ("Relay this device's status to the tenant's other sockets.", ref("StatusUpdate"), ("Done",)),
    "sync_push": ("Push, with the body that HTTP takes.", ref("Push"), ("PushAnswer",)),
    "sync_pull": ("Pull, with the body that HTTP takes.", ref("Pull"), ("PullAnswer",)),
}
"""What clients emit: a summary, the payload, and the schemas of a successful acknowledgement; none if there is none."""

_SERVER_EVENTS: dict[str, tuple[str, Schema]] = {
    "authenticated": ("The socket is in its tenant's room.", ref("Authenticated")),
    "authentication_error": ("The socket was refused and is disconnected.", ref("AuthenticationError")),
    "error": (
        "An event that asks for no acknowledgement can't be served; or there were too many, and the socket is ended.",
        ref("Error"),
    ),
    "sync_notification": ("Something changed, or could not be stored.", ref("Notification")),
    "sync_status_update": ("How another device fares.", ref("StatusUpdate")),
    "pong": ("The answer to a ping.", ref("Pong")),
}
_ADDRESS = "/socket.io/"
_JSON = "application/json"


def document(events: Iterable[str], settings: Settings, version: str) -> dict[str, Any]:
    """Describe the events that clients may emit (``events``), and those that the server emits."""
    emitted = {event: CLIENT_EVENTS[event] for event in sorted(events)}
    messages = {_sent(event): _message(event, summary, payload) for event, (summary, payload, _) in emitted.items()}
    messages |= {
        _received(event): _message(event, summary, payload) for event, (summary, payload) in _SERVER_EVENTS.items()
    }
    messages |= {
        _acknowledgement(event): _answer(event, answers) for event, (_, _, answers) in emitted.items() if answers
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "syncapp events",
            "version": version,
            "description": _ABOUT.format(settings.socket_auth_seconds),
        },
        "defaultContentType": _JSON,
        "channels": {
            "socket": {
                "address": _ADDRESS,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            **{_sent(event): _operation("receive", _sent(event), emitted[event][2]) for event in emitted},
            **{_received(event): _operation("send", _received(event), ()) for event in _SERVER_EVENTS},
        },
        "components": {"messages": messages, "schemas": schemas.components(settings) | _SCHEMAS},
    }


_ABOUT = (
    "Socket.IO, protocol 5, with WebSocket or polling. Connect with the fields of `Handshake` as `auth`, or emit"
    " `authenticate` with them within {} s. An acknowledgement is what HTTP would answer, a failure without `requestId`."
    " There is no binary: send it as text, in Base64 for example. The calls of HTTP are in `/openapi.json`."
)


def _sent(event: str) -> str:
    return f"{event}.sent"


def _received(event: str) -> str:
    return f"{event}.received"


def _acknowledgement(event: str) -> str:
    return f"{event}.acknowledged"


def _message(event: str, summary: str, payload: Schema) -> dict[str, Any]:
    return {"name": event, "summary": summary, "contentType": _JSON, "payload": payload}


def _answer(event: str, answers: Iterable[str]) -> dict[str, Any]:
    payload = {"oneOf": [*map(ref, answers), ref("Error")]}
    return _message(event, f"The acknowledgement of {event}.", payload)


def _operation(action: str, message: str, answers: Iterable[str]) -> dict[str, Any]:
    channel = {"$ref": "#/channels/socket"}
    operation: dict[str, Any] = {"action": action, "channel": channel, "messages": [_in_channel(message)]}
    if answers:
        answer = _acknowledgement(message.partition(".")[0])
        operation["reply"] = {"channel": channel, "messages": [_in_channel(answer)]}
    return operation


def _in_channel(message: str) -> Schema:
    return {"$ref": f"#/channels/socket/messages/{message}"}


_SCHEMAS: dict[str, Schema] = {
    "Handshake": {
        "type": "object",
        "required": ["token"],
        "properties": {
            "token": TEXT,
            "tenantId": or_null(TENANT),
            "cursor": or_null(CURSOR_TEXT),
            "deviceId": or_null(NAME),
        },
    },
    "Authenticated": {
        "type": "object",
        "required": ["success", "tenantId", "timestamp", "cursor", "missed"],
        "properties": {
            "success": {"const": True},
            "tenantId": UUID,
            "timestamp": TIME,
            "cursor": CURSOR_TEXT,
            "missed": COUNT,
            "resyncRequired": {"const": True},
        },
    },
    "AuthenticationError": {
        "type": "object",
        "required": ["message", "code"],
        "properties": {"message": TEXT, "code": {"enum": error_codes()}},
    },
    "Pong": {"type": "object", "required": ["timestamp"], "properties": {"timestamp": TIME}},
    "Done": {"type": "object", "required": ["success"], "properties": {"success": {"const": True}}},
}
