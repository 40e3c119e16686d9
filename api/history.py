"""Looking at what is, over HTTP: a row's history, the conflicts, the devices; and bringing something back.

Knows: these endpoints and what they take. Must not know: SQL, engines, JWT details. What they change travels the way of
every push, so that listeners hear of it and other devices pull it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, request

from accounts.tokens import Tokens
from api.auth import bearer
from api.sync import Around, Sync
from models import synced_tables
from protocol.codec import Row, decode, whole_number
from protocol.errors import invalid
from protocol.messages import Applied
from protocol.notifications import parse_texts
from protocol.pull_parser import parse_table
from server.http.exchange import Reply, answer, read_body, read_json, success
from storage import devices, history
from storage.devices import Seen
from storage.history import Resolution, State
from storage.positions import now_ms
from tenants import Tenants

PAGE_ROWS = (50, 500)
"""Entries on a page by default and at the most."""

DEVICE_NAME = {"name": 100}
"""What renaming a device takes, and its length."""

MOST_STATED = 15
"""Digits of a number in a query."""


class Review:
    """The endpoints on history, conflicts and devices under ``/api/client``."""

    def __init__(self, tenants: Tenants, tokens: Tokens, sync: Sync, seen: Seen) -> None:
        self._tenants, self._tokens, self._sync, self._seen = tenants, tokens, sync, seen

    def blueprint(self) -> Blueprint:
        """Lay the endpoints out."""
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
        before, limit = _whole("before"), _limit()
        entries, more = self._tenants.read(tenant_id, lambda: history.history(name, row_id, before, limit))
        return answer({"success": True, "data": entries, "hasMore": more})

    def revert(self, table: str, row_id: str) -> Reply:
        """Make a row again what it was at a version, as a new change."""
        identity = bearer(self._tokens)
        name = parse_table(table, synced_tables())
        raw = read_body()
        version = _version(decode(raw))
        fields, base = self._tenants.read(identity.tenant_id, lambda: history.fields_of_version(name, row_id, version))
        return self._sync.once(
            identity, raw, lambda around: self._sync.change_row(identity, name, row_id, fields, around, base)
        )

    def conflicts(self) -> Reply:
        """List the edits that lost."""
        tenant_id = bearer(self._tokens).tenant_id
        states: tuple[State, ...] = ("open", "resolved", "all")
        state = _one_of(request.args.get("state", "open"), states, "state")
        after, limit = _whole("after") or 0, _limit()
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
        if resolution == "keep":  # A delete of a row that is not there stores nothing, where an update would make one.
            is_held = self._tenants.read(identity.tenant_id, lambda: history.is_row_held(found))
            fields = {} if is_held else {"is_deleted": 1}
        elif resolution == "row":
            fields = _field(body, "row", dict)

        def change(around: Around) -> Applied:
            def decided(write: Callable[[], Applied]) -> Applied:
                return around(lambda: history.resolve(number, resolution, now_ms(), write))

            return self._sync.change_row(identity, found.table, found.row_id, fields, decided, found.version)

        return self._sync.once(identity, raw, change)

    def devices(self) -> Reply:
        """List the devices that name themselves."""
        tenant_id = bearer(self._tokens).tenant_id
        self._seen.save(tenant_id)
        return success(self._tenants.read(tenant_id, devices.devices))

    def rename_device(self, device_id: str) -> Reply:
        """Give a device a name for people."""
        tenant_id = bearer(self._tokens).tenant_id
        said = parse_texts(read_json(), DEVICE_NAME)
        if "name" not in said:
            raise invalid("name", "must be a text")
        self._seen.save(tenant_id)
        return success(self._tenants.write(tenant_id, lambda: devices.rename(device_id, said["name"])))

    def forget_device(self, device_id: str) -> Reply:
        """Forget a device that will not come back."""
        tenant_id = bearer(self._tokens).tenant_id
        self._seen.save(tenant_id)
        self._tenants.write(tenant_id, lambda: devices.forget(device_id))
        return success({"message": "The device is forgotten."})


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


def _whole(name: str) -> int | None:
    text = request.args.get(name)
    if text is None:
        return None
    stated = _STATED.fullmatch(text)
    if not stated:
        raise invalid(name, "must be a whole number")
    return int(stated[1])


_STATED = re.compile(rf"([0-9]{{1,{MOST_STATED}}})(?:\.0+)?", re.ASCII)


def _limit() -> int:
    default, most = PAGE_ROWS
    limit = _whole("limit")
    if limit is None:
        return default
    if not 1 <= limit <= most:
        raise invalid("limit", f"must be from 1 to {most}")
    return limit
