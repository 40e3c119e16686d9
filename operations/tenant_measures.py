"""What tenants' databases hold, remembered while somebody looks at the list of tenants.

Knows: how old a measure may be, how much of a core measuring may take. Must not know: who looks, how it is shown. To look
into one takes about a millisecond. All are looked into one after the other, beside everything else, and what is shown on a
page at once. All of it is forgotten when nobody has looked for some minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import gevent

from operations.tenant_list import Described, measured
from server.scheduler import yield_if_due
from storage import main_database
from storage.engine import Engine

log = logging.getLogger("syncapp.console")

FRESH_SECONDS = 30.0
ROUND_SECONDS = 300.0
FORGOTTEN_SECONDS = 600.0
_SHARE = 0.1
"""Of a core, for measuring."""

_LEAST_PAUSE_SECONDS = 0.005
_KEPT = ("bytes", "rows", "devices", "openConflicts", "lastSeenAt", "fault")


class Measures:
    """The measures of an installation's tenants, by ID."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, tuple[float, Described]] = {}
        self._asked_at = 0.0
        self._walking: gevent.Greenlet | None = None

    def of(self, tenant_id: str) -> Described:
        """Give what is remembered of a tenant; nothing, if it was not looked into yet."""
        return self._known.get(tenant_id, (0.0, {}))[1]

    def look_at(self, tenant_ids: Iterable[str]) -> None:
        """Look into the databases of some tenants now, unless that was done a moment ago."""
        for tenant_id in tenant_ids:
            if time.monotonic() - self._known.get(tenant_id, (-FRESH_SECONDS, {}))[0] >= FRESH_SECONDS:
                self._measure(tenant_id)
                yield_if_due()

    def ask_for(self) -> None:
        """Have all tenants measured, in the background, for as long as somebody goes on asking."""
        self._asked_at = time.monotonic()
        if self._walking is None or self._walking.dead:
            self._walking = gevent.spawn(self._walk)

    def known(self) -> tuple[int, float]:
        """Give how many tenants are measured, and how old the oldest measure is in seconds."""
        now = time.monotonic()
        return len(self._known), max((now - at for at, _ in self._known.values()), default=0.0)

    def _measure(self, tenant_id: str) -> None:
        found = measured(self._engine, tenant_id)
        self._known[tenant_id] = time.monotonic(), {name: found[name] for name in _KEPT if name in found}

    def _walk(self) -> None:
        while time.monotonic() - self._asked_at < FORGOTTEN_SECONDS:
            began = time.monotonic()
            try:
                self._walk_once()
            except Exception:
                log.exception("tenants can't be measured; it is tried again")
            gevent.sleep(max(1.0, began + ROUND_SECONDS - time.monotonic()))
        self._known = {}

    def _walk_once(self) -> None:
        tenant_ids = self._engine.directory.read(main_database.customer_ids)
        for gone in self._known.keys() - tenant_ids:
            del self._known[gone]
        for tenant_id in tenant_ids:
            began = time.monotonic()
            if began - self._known.get(tenant_id, (-ROUND_SECONDS, {}))[0] >= ROUND_SECONDS:
                self._measure(tenant_id)
                gevent.sleep(max(_LEAST_PAUSE_SECONDS, (time.monotonic() - began) * (1 / _SHARE - 1)))
