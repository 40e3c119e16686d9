"""Collects every limit that a client can reach, by its name on the wire.

Knows: where each limit is set. Must not know: requests, Flask, what happens beyond a limit.
"""

from __future__ import annotations

from typing import Any

from accounts.passwords import PASSWORD_BYTES
from protocol.codec import MAX_DEPTH
from protocol.identifiers import MAX_ID_CHARACTERS, MAX_UNIQUE_ID_CHARACTERS
from protocol.messages import Limits
from server.quotas import OWN
from settings import Settings

EVENT_PULL_BYTES = 8_388_608
KEY_CHARACTERS = 255


def limits_of(settings: Settings) -> Limits:
    """Give the limits of a push and a pull."""
    return Limits(settings.max_push_rows, settings.max_pull_rows, settings.max_row_bytes, settings.max_name_characters)


def announced_limits(settings: Settings) -> dict[str, Any]:
    """Collect every limit that a client can reach, by its name on the wire."""
    names = (
        "max_body_bytes max_row_bytes max_name_characters max_push_rows max_pull_rows max_frame_bytes"
        " max_stranger_sockets max_tenant_sockets socket_auth_seconds socket_queue_messages socket_queue_bytes"
        " socket_events socket_bytes rate_limit_login rate_limit_register rate_limit_mail"
        " tenant_requests tenant_bytes tenant_rows max_tenant_requests max_tenant_waiting tenant_wait_ms"
        " max_tenant_body_bytes tenant_stored_bytes"
        " head_seconds stall_seconds keep_alive_seconds"
        " access_token_seconds refresh_token_seconds clock_skew_seconds history_days device_idle_days"
    )
    fixed = {
        "passwordBytes": PASSWORD_BYTES,
        "maxNestingLevels": MAX_DEPTH,
        "maxEventPullBytes": EVENT_PULL_BYTES,
        "maxIdCharacters": MAX_ID_CHARACTERS,
        "maxUniqueIdCharacters": MAX_UNIQUE_ID_CHARACTERS,
        "maxIdempotencyKeyCharacters": KEY_CHARACTERS,
    }
    return {_camel(name): getattr(settings, name) for name in names.split()} | fixed


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


TENANTS_OWN = frozenset(map(_camel, OWN))
"""Those that the operator may set for one tenant."""
