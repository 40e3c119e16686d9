"""The opening handshake of a WebSocket: which requests are one, and which are malformed.

Knows: RFC 6455 section 4. Must not know: frames, Socket.IO.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from protocol.errors import UnknownWebSocketVersion, ValidationError
from server.http.request_head import tokens

UPGRADE = "syncapp.upgrade"
"""The key of a handshake's environ that holds the function to accept it."""

_KEY_BYTES = 16


def is_handshake(environ: Mapping[str, Any]) -> bool:
    """Tell whether a request asks for a WebSocket; else its ``Upgrade`` is to be ignored.

    Source: RFC 6455 section 4.2.1, RFC 9110 section 7.8.
    """
    return (
        environ["REQUEST_METHOD"] == "GET"
        and environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        and "websocket" in tokens(environ["HTTP_UPGRADE"])
        and "upgrade" in tokens(environ.get("HTTP_CONNECTION", ""))
    )


def check_handshake(environ: Mapping[str, Any]) -> None:
    """Refuse a handshake that is malformed, before it is answered. Source: RFC 6455 section 4.2.1.

    Raises: UnknownWebSocketVersion, ValidationError.
    """
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != UnknownWebSocketVersion.spoken:
        raise UnknownWebSocketVersion
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValidationError(f"Sec-WebSocket-Key must be {_KEY_BYTES} bytes in Base64.")
