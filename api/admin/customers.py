"""The list of tenants, and what there is to see of one; no rows (``row_view``).

Knows: how long a page of the list is, which parts know what of a tenant. Must not know: SQL, engines, what is done to a
tenant (``customer_actions``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from flask import request

from accounts.operator_sign_in import Operator
from api.admin.console import Route
from api.admin.server_parts import ServerParts
from operations import tenant_list
from operations.tenant_list import ORDERS, Described, NoCustomer
from operations.tenant_measures import Measures
from protocol.codec import format_time
from protocol.errors import NotFound, Problem, invalid
from server.http.exchange import Reply, answer
from server.quotas import with_own
from storage import devices
from storage.main_database import Customer
from storage.sessions import live_sessions

PAGE_TENANTS = 25
_MEASURED = {"size", "rows", "devices", "seen"}
"""The orders that need what is in each tenant's database."""

_MOST_DEVICES = 100
_PAGE = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)


class Customers:
    """The calls that show tenants."""

    def __init__(self, server: ServerParts, measures: Measures) -> None:
        self._server, self._engine, self._measures = server, server.tenants.engine, measures

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "GET", "/api/tenants", self.listed
        yield "GET", "/api/tenants/<tenant_id>", self.shown

    def listed(self, _: Operator) -> Reply:
        """List a page of the tenants with a word, in an order."""
        search, order, page = request.args.get("search", ""), request.args.get("sort", "email"), _page()
        if order not in ORDERS:
            raise invalid("sort", "must be one of " + ", ".join(ORDERS))
        everybody = tenant_list.found(self._engine, "")
        found = tenant_list.found(self._engine, search) if search else everybody
        self._measures.ask_for([one["id"] for one in everybody])
        rows = self._in_order(found, order)[(page - 1) * PAGE_TENANTS : page * PAGE_TENANTS]
        self._measures.look_at(one["id"] for one in rows)
        known, oldest_seconds = self._measures.known()
        return answer(
            {
                "tenants": [one | self._measures.of(one["id"]) for one in rows],
                "found": len(found),
                "all": len(everybody),
                "page": page,
                "pages": max(1, -(-len(found) // PAGE_TENANTS)),
                "measured": {"tenants": known, "oldestSeconds": int(oldest_seconds)},
            }
        )

    def _in_order(self, found: list[Described], order: str) -> list[Described]:
        """Sort by what is known at the moment: those that nobody has looked into yet come last."""
        if order not in _MEASURED:
            return sorted(found, key=ORDERS[order])
        measured = [one | self._measures.of(one["id"]) for one in found]
        return sorted(measured, key=lambda one: ("bytes" not in one, ORDERS[order](one)))

    def shown(self, _: Operator, tenant_id: str) -> Reply:
        """Show one tenant: its account, what it has, who uses it, what it may use."""
        customer = customer_of(self._server, tenant_id)
        now = int(time.time())
        sessions = self._engine.directory.read(lambda: live_sessions(customer.id, now))
        found: dict[str, Any] = tenant_list.describe(self._engine, customer)
        found["sessions"] = [
            {"id": one.id, "createdAt": _shown(one.created_at), "expiresAt": _shown(one.expires_at)} for one in sessions
        ]
        found["sockets"] = self._server.sockets.connected_of(customer.id)
        found["remaining"] = [one._asdict() for one in self._server.quotas.remaining(customer.id)]
        found["mostBytes"] = with_own(self._server.settings, customer.quotas or {}).tenant_stored_bytes
        return answer(found if "fault" in found else found | self._devices(customer.id))

    def _devices(self, tenant_id: str) -> dict[str, Any]:
        """Give the devices that were here last, each with how far it is behind."""
        tenants = self._server.tenants
        try:
            self._server.seen.save(tenant_id)
            ids = tenants.read(tenant_id, devices.device_ids)
            shown = tenants.read(tenant_id, partial(devices.devices, ids[:_MOST_DEVICES]))
        except Problem as problem:  # The rest of the page is wanted all the more.
            return {"deviceList": [], "devicesFault": str(problem)}
        return {"deviceList": shown, "devices": len(ids)}


def customer_of(server: ServerParts, tenant_id: str) -> Customer:
    """Give the customer of a tenant's ID.

    Raises: NotFound.
    """
    try:
        return tenant_list.find(server.tenants.engine, tenant_id)
    except NoCustomer as error:
        raise NotFound(str(error)) from None


def _page() -> int:
    text = request.args.get("page", "1")
    if not _PAGE.fullmatch(text):
        raise invalid("page", "must be a whole number from 1")
    return int(text)


def _shown(seconds: int) -> str:
    return format_time(seconds * 1000)
