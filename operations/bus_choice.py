"""Chooses the bus between processes that the settings name: Redis, or what the storage has.

Knows: both. Must not know: what is told. Redis's client is imported only where it is used: it takes 6 MiB.
"""

from __future__ import annotations

import hashlib

from accounts import signing_key
from server.bus.bus import Bus
from settings import Settings
from storage.engine import Engine


def chosen_bus(settings: Settings, engine: Engine) -> Bus:
    """Make the bus. Its channel is named by a secret that all processes of an installation share, and no others: that in
    the database, since JWT_SECRET_KEY is replaced in one process after the other.

    Raises: ValueError if REDIS_URL is no address.
    """
    shared = engine.kept_secret(signing_key.new_key) or signing_key.signing_key(settings)
    channel = "syncapp:" + hashlib.blake2b(shared.encode(), digest_size=16, person=b"syncapp bus").hexdigest()
    if not settings.redis_url:
        return engine.bus(channel)
    from server.bus.redis_bus import RedisBus  # noqa: PLC0415

    return RedisBus(settings.redis_url, channel, verifies=settings.redis_verify_certificate == "yes")
