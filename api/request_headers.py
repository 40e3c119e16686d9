"""Reads the headers with which a request names its device and its ``Idempotency-Key``.

Knows: their forms. Must not know: what is done with them.
"""

from __future__ import annotations

import re

from api.limits import KEY_CHARACTERS
from protocol.errors import invalid
from protocol.identifiers import parse_device_id
from server.http.exchange import current_exchange

IDEMPOTENCY_KEY = re.compile(rf'"?([\x21\x23-\x7e]{{1,{KEY_CHARACTERS}}})"?', re.ASCII)


def device_id_header() -> str | None:
    """Read the ID of the device that sends the current request.

    Raises: ValidationError.
    """
    return parse_device_id(current_exchange().header("X-Device-Id"), "X-Device-Id")


def idempotency_key_header() -> str | None:
    """Read the current request's ``Idempotency-Key``, with or without the quotes that the draft wants.

    Raises: ValidationError.
    """
    header = current_exchange().header("Idempotency-Key")
    if header is None:
        return None
    key = IDEMPOTENCY_KEY.fullmatch(header)
    if not key:
        raise invalid("Idempotency-Key", f"must be 1 to {KEY_CHARACTERS} visible ASCII characters without quotes")
    return key[1]
