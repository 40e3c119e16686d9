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
from operations.tenant_list import MEASURED_ORDERS, ORDERS, NoCustomer
from operations.tenant_measures import Measures
from protocol.codec import format_time
from protocol.errors import NotFound, Problem, invalid
from server.http.exchange import Reply, answer
from server.quotas import with_own
from server.scheduler import yield_if_due
from storage import devices, main_database, usage
from storage.customer_list import Listed
from storage.main_database import Customer

PAGE_TENANTS = 25
_MOST_DEVICES, _USAGE_DAYS = 100, 14
_DAY_SECONDS = 86_400
_PAGE = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)


class Customers:
    """The calls that show tenants."""

    def __init__(self, server: ServerParts, measures: Measures) -> None:
        self._server, self._engine, self._measures = server, server.tenants.engine, measures
        self._directory = self._engine.directory

    def routes(self) -> Iterable[Route]:
        """Give its routes."""
        yield "GET", "/api/tenants", self.listed
        yield "GET", "/api/tenants/<tenant_id>", self.shown

    def listed(self, _: Operator) -> Reply:
        """List a page of the tenants with a word, in an order."""
        search, order, page = request.args.get("search", ""), request.args.get("sort", "email"), _page()
        if order not in ORDERS:
            raise invalid("sort", "must be one of " + ", ".join(ORDERS))
        found, count = tenant_list.found(self._engine, search), self._directory.read(main_database.count_customers)
        yield_if_due()
        self._measures.ask_for()
        rows = self._in_order(found, order)[(page - 1) * PAGE_TENANTS : page * PAGE_TENANTS]
        self._measures.look_at(one.id for one in rows)
        known, oldest_seconds = self._measures.known()
        return answer(
            {
                "tenants": [one._asdict() | self._measures.of(one.id) for one in rows],
                "found": len(found),
                "all": count,
                "page": page,
                "pages": max(1, -(-len(found) // PAGE_TENANTS)),
                "measured": {"tenants": known, "oldestSeconds": int(oldest_seconds)},
            }
        )

    def _in_order(self, found: list[Listed], order: str) -> list[Listed]:
        """Sort by what is known at the moment: those that nobody has looked into yet come last."""
        if order not in MEASURED_ORDERS:
            return tenant_list.in_directory_order(found, order)
        of, by = self._measures.of, MEASURED_ORDERS[order]
        return sorted(found, key=lambda one: ("bytes" not in (known := of(one.id)), by(known)))

    def shown(self, _: Operator, tenant_id: str) -> Reply:
        """Show one tenant: its account, what it has, who uses it, what it may use."""
        customer = customer_of(self._server, tenant_id)
        now = int(time.time())
        found: dict[str, Any] = tenant_list.describe(self._engine, customer)
        found |= {} if "fault" in found else self._devices(customer.id)
        found["sessions"] = tenant_list.sessions(self._engine, customer.id, now)
        found["sockets"] = self._server.sockets.connected_of(customer.id)
        found["usage"] = self._usage(customer.id, now // _DAY_SECONDS)
        found["remaining"] = [one._asdict() for one in self._server.quotas.remaining(customer.id)]
        found["mostBytes"] = with_own(self._server.settings, customer.quotas or {}).tenant_stored_bytes
        return answer(found)

    def _usage(self, tenant_id: str, today: int) -> list[dict[str, Any]]:
        """Give what a tenant used on each of the last days, the newest first."""
        days = range(today - _USAGE_DAYS + 1, today + 1)
        found = self._directory.read(lambda: usage.usage_of(tenant_id, days))
        return [
            {"day": _shown(day * _DAY_SECONDS)[:10], **one._asdict()}
            for day, one in sorted(found.items(), reverse=True)
        ]

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
