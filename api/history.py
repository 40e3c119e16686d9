"""The endpoints of a row's history, the conflicts and the devices; and of reverting and resolving.

Knows: these endpoints and what they take. Must not know: SQL, engines, JWT. What they change is stored like any push, so
that listeners are notified and other devices pull it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, request

from accounts.tokens import Tokens
from api.auth import bearer
from api.push_handler import Around, PushHandler
from models import synced_tables
from protocol.codec import Row, decode, whole_number
from protocol.errors import NotFound, invalid
from protocol.identifiers import IDENTIFIER
from protocol.messages import PushResult
from protocol.notifications import parse_texts
from protocol.pull_parser import parse_table
from server.http.exchange import Reply, answer, read_body, read_json, success
from server.scheduler import yield_if_due
from storage import devices, history
from storage.devices import Seen
from storage.history import Resolution, State
from storage.positions import now_ms
from tenants import Tenants

PAGE_ROWS = (50, 500)
"""Entries on a page, by default and at most."""

DEVICE_NAME = {"name": 100}
"""The field that renaming a device takes, and its greatest length."""

_DEVICES_AT_ONCE = 100
"""Read in 2 ms. An app that names itself anew at each start comes to thousands, which no other tenant must wait for."""

MAX_DIGITS = 15
"""Greatest number of digits in a query."""


class Review:
    """The endpoints on history, conflicts and devices under ``/api/client``."""

    def __init__(self, tenants: Tenants, tokens: Tokens, pushes: PushHandler, seen: Seen) -> None:
        self._tenants, self._tokens, self._pushes, self._seen = tenants, tokens, pushes, seen

    def blueprint(self) -> Blueprint:
        """Give the routes."""
        routes = Blueprint("review", __name__, url_prefix="/api/client")
        routes.get("/sync/history/<table>/<row_id>")(self.history)
        routes.post("/sync/history/<table>/<row_id>/revert")(self.revert)
        routes.get("/sync/conflicts")(self.conflicts)
        routes.post("/sync/conflicts/<int(max=9007199254740991):number>/resolve")(self.resolve)
        routes.get("/devices")(self.devices)
        routes.patch("/devices/<device_id>")(self.rename_device)
        routes.delete("/devices/<device_id>")(self.forget_device)
        return routes

    def history(self, table: str, row_id: str) -> Reply:
        """List what became of a row, newest first."""
        tenant_id = bearer(self._tokens).tenant_id
        name = parse_table(table, synced_tables())
        _check_id(row_id, "row")
        before, limit = _query_number("before"), _query_limit()
        entries, more = self._tenants.read(tenant_id, lambda: history.history(name, row_id, before, limit))
        return answer({"success": True, "data": entries, "hasMore": more})

    def revert(self, table: str, row_id: str) -> Reply:
        """Make a row again what it was at a version, as a new change."""
        identity = bearer(self._tokens)
        name = parse_table(table, synced_tables())
        _check_id(row_id, "row")
        raw = read_body()
        version = _version(decode(raw))
        fields, base = self._tenants.read(identity.tenant_id, lambda: history.fields_of_version(name, row_id, version))
        return self._pushes.run_once(
            identity, raw, lambda around: self._pushes.change_row(identity, name, row_id, fields, around, base)
        )

    def conflicts(self) -> Reply:
        """List the edits that lost."""
        tenant_id = bearer(self._tokens).tenant_id
        states: tuple[State, ...] = ("open", "resolved", "all")
        state = _one_of(request.args.get("state", "open"), states, "state")
        after, limit = _query_number("after") or 0, _query_limit()
        found, more = self._tenants.read(tenant_id, lambda: history.conflicts(state, after, limit))
        return answer({"success": True, "data": found, "hasMore": more})

    def resolve(self, number: int) -> Reply:
        """Take a decision on a conflict, as a new change."""
        identity = bearer(self._tokens)
        raw = read_body()
        body = decode(raw)
        choices: tuple[Resolution, ...] = ("keep", "other", "row")
        resolution = _one_of(_field(body, "resolution", str), choices, "resolution")
        found = self._tenants.read(identity.tenant_id, lambda: history.conflict(number))
        fields: Row = history.losing_fields(found)
        parse_table(found.table, synced_tables())
        if resolution == "keep":  # A delete of a missing row stores nothing; an update would create it.
            is_held = self._tenants.read(identity.tenant_id, lambda: history.is_row_held(found))
            fields = {} if is_held else {"is_deleted": 1}
        elif resolution == "row":
            fields = _field(body, "row", dict)

        def change(around: Around) -> PushResult:
            """Store the decision together with what ``around`` stores."""

            def write_resolved(write: Callable[[], PushResult]) -> PushResult:
                """Write the row and mark the conflict as resolved, in one transaction."""
                return around(lambda: history.resolve(number, resolution, now_ms(), write))

            return self._pushes.change_row(identity, found.table, found.row_id, fields, write_resolved, found.version)

        return self._pushes.run_once(identity, raw, change)

    def devices(self) -> Reply:
        """List the devices that name themselves."""
        tenant_id = bearer(self._tokens).tenant_id
        self._seen.save(tenant_id)
        ids, found = self._tenants.read(tenant_id, devices.device_ids), []
        for start in range(0, len(ids), _DEVICES_AT_ONCE):
            some = ids[start : start + _DEVICES_AT_ONCE]
            found += self._tenants.read(tenant_id, partial(devices.devices, some))
            yield_if_due()
        return success(found)

    def rename_device(self, device_id: str) -> Reply:
        """Give a device a name for people."""
        tenant_id = bearer(self._tokens).tenant_id
        _check_id(device_id, "device")
        texts = parse_texts(read_json(), DEVICE_NAME)
        if "name" not in texts:
            raise invalid("name", "must be a text")
        self._seen.save(tenant_id)
        return success(self._tenants.write(tenant_id, lambda: devices.rename(device_id, texts["name"])))

    def forget_device(self, device_id: str) -> Reply:
        """Forget a device that will not come back."""
        tenant_id = bearer(self._tokens).tenant_id
        _check_id(device_id, "device")
        self._seen.save(tenant_id)
        self._tenants.write(tenant_id, lambda: devices.forget(device_id))
        return success({"message": "The device is forgotten."})


def _check_id(text: str, what: str) -> None:
    """Refuse what is no ID at all, which nothing can have; an engine may not even take it in a statement.

    Raises: NotFound.
    """
    if not IDENTIFIER.fullmatch(text):
        raise NotFound(f"There is no such {what}.")


def _field(body: object, name: str, kind: type) -> Any:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, kind):
        raise invalid(name, "must be a text" if kind is str else "must be an object")
    return value


def _version(body: object) -> int:
    version = whole_number(body.get("version") if isinstance(body, dict) else None)
    if version is None:
        raise invalid("version", "must be a whole number")
    return version


def _one_of(value: str, choices: tuple[Any, ...], name: str) -> Any:
    if value not in choices:
        raise invalid(name, "must be one of " + ", ".join(choices))
    return value


def _query_number(name: str) -> int | None:
    text = request.args.get(name)
    if text is None:
        return None
    number = _NUMBER.fullmatch(text)
    if not number:
        raise invalid(name, "must be a whole number")
    return int(number[1])


_NUMBER = re.compile(rf"([0-9]{{1,{MAX_DIGITS}}})(?:\.0+)?", re.ASCII)


def _query_limit() -> int:
    default, maximum = PAGE_ROWS
    limit = _query_number("limit")
    if limit is None:
        return default
    if not 1 <= limit <= maximum:
        raise invalid("limit", f"must be from 1 to {maximum}")
    return limit
