"""What is true: an account on the server, asked over plain HTTP, and what was typed by whom.

Knows: the server's API. Must not know: clients, drivers.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import requests

JSON = dict[str, Any]
TABLES = ("end_user", "interactions")
_DEVICE = "kit-truth"
_PATIENCE_SECONDS = 90.0


class Typed(NamedTuple):
    """A value that somebody put, and was told that it is kept."""

    table: str
    row_id: str
    field: str
    value: Any


@dataclass
class Account:
    """A registered account, and all that was typed into it."""

    url: str
    id: str
    email: str
    password: str
    token: str
    typed: list[Typed] = field(default_factory=list)
    of_device: dict[str, set[Typed]] = field(default_factory=dict)
    at_risk: set[Typed] = field(default_factory=set)
    """What a restore took from the server, and only devices hold."""
    shared: tuple[str, str] | None = None
    """A session for all devices, where the server allows few log-ins."""

    def ask(self, method: str, path: str, body: Any = None) -> JSON:
        """Ask the server, logging in again if the session has ended, and waiting where it says so."""
        for _ in range(20):
            headers = {"Authorization": f"Bearer {self.token}", "X-Device-Id": _DEVICE}
            answer = requests.request(method, self.url + path, json=body, headers=headers, timeout=60)
            if answer.status_code == 401:
                self.token = self.session()[0]
            elif answer.status_code in (429, 503):
                time.sleep(float(answer.headers.get("Retry-After", 1)))
            else:
                break
        assert answer.ok, answer.text
        told: JSON = answer.json()
        return told

    def session(self) -> tuple[str, str]:
        """Begin a session of its own for a device: access token and refresh token."""
        body = {"email": self.email, "password": self.password}
        while True:
            answer = requests.post(f"{self.url}/api/customers/login", json=body, timeout=60)
            wait_seconds = float(answer.headers.get("Retry-After", 0)) if answer.status_code in (429, 503) else 0
            if not 0 < wait_seconds <= _PATIENCE_SECONDS:
                break
            time.sleep(wait_seconds)
        assert answer.ok, answer.text
        data = answer.json()["data"]
        return data["token"], data["refreshToken"]

    def device_session(self) -> tuple[str, str]:
        """Give a session for a device that has no special one."""
        return self.shared or self.session()

    def put(self, table: str, *rows: JSON) -> None:
        """Push rows as some other client would."""
        for start in range(0, len(rows), 5000):
            self.ask("POST", "/api/client/sync/push", {"changes": {table: rows[start : start + 5000]}})
        for row in rows:
            self.note(table, row)

    def delete(self, table: str, *row_ids: str) -> None:
        """Push deletes as some other client would."""
        for start in range(0, len(row_ids), 5000):
            rows = [{"id": row_id, "is_deleted": 1} for row_id in row_ids[start : start + 5000]]
            self.ask("POST", "/api/client/sync/push", {"changes": {table: rows}})

    def note(self, table: str, row: JSON) -> None:
        """Remember what was typed."""
        told = [Typed(table, row["id"], name, value) for name, value in row.items() if name != "id"]
        self.typed += [one for one in told if one.value is not None]

    def replaced(self, device: str, table: str, row: JSON, is_deleted: bool = False) -> None:
        """Remember no more what a device itself replaced: its client sends states, not each edit.

        Nor what it typed over before it gave it back to a server that lost it: then nobody has it.
        """
        own = self.of_device.setdefault(device, set())
        same = {one for one in own | self.at_risk if (one.table, one.row_id) == (table, row["id"])}
        gone = {one for one in same if is_deleted or one.field in row}
        self.typed = [one for one in self.typed if one not in gone]
        own |= {Typed(table, row["id"], name, value) for name, value in row.items() if isinstance(value, str)}

    def renamed(self, table: str, names: dict[str, str], start: str) -> None:
        """Look for values that begin like this under the ids that their rows have now."""
        self.typed = [
            one._replace(row_id=names.get(one.row_id, one.row_id))
            if one.table == table and str(one.value).startswith(start)
            else one
            for one in self.typed
        ]

    def forget(self, table: str, row_id: str) -> None:
        """Remember no more what was typed into a row: somebody deleted it, and the server purged it."""
        self.typed = [one for one in self.typed if (one.table, one.row_id) != (table, row_id)]

    def rows(self) -> tuple[dict[tuple[str, str], JSON], JSON]:
        """Give the rows that are not deleted, by table and id, and the digests at that moment."""
        rows: dict[tuple[str, str], JSON] = {}
        cursor, has_more = None, True
        while has_more:
            page = self.ask("POST", "/api/client/sync/pull", {"cursor": cursor, "digest": True})
            for table, got in page["data"].items():
                rows |= {(table, row["id"]): row for row in got}
            cursor, has_more = page["cursor"], page["hasMore"]
        return {key: row for key, row in rows.items() if not row["is_deleted"]}, page["digest"]

    def missing(self) -> list[Typed]:
        """List what was typed and is nowhere: not in its row, not in the row's history, not in the log of conflicts."""
        rows, _ = self.rows()
        gone = [one for one in self.typed if rows.get((one.table, one.row_id), {}).get(one.field) != one.value]
        kept = {key: self._history(*key) for key in {(one.table, one.row_id) for one in gone}}
        losses = self._losses() if gone else set()
        return [
            one
            for one in gone
            if one not in losses and all(row.get(one.field) != one.value for row in kept[one.table, one.row_id])
        ]

    def _history(self, table: str, row_id: str) -> list[JSON]:
        address = f"{self.url}/api/client/sync/history/{table}/{row_id}?limit=500"
        answer = requests.get(address, headers={"Authorization": f"Bearer {self.token}"}, timeout=60)
        return [entry["row"] for entry in answer.json()["data"]] if answer.ok else []

    def _losses(self) -> set[Typed]:
        found, after, has_more = set(), 0, True
        while has_more:
            page = self.ask("GET", f"/api/client/sync/conflicts?state=all&limit=500&after={after}")
            for one in page["data"]:
                for name, sides in one["fields"].items():
                    found |= {Typed(one["table"], one["id"], name, str(sides[side])) for side in ("client", "server")}
            has_more = page["hasMore"]
            after = page["data"][-1]["conflictId"] if page["data"] else after
        return found

    def close(self) -> None:
        """Close the account and remove its data."""
        self.ask("DELETE", "/api/customers/me", {"password": self.password})


def register(url: str) -> Account:
    """Make an account of the suite's own."""
    email, password = f"kit-{uuid.uuid4().hex}@example.com", uuid.uuid4().hex
    body = {"firstName": "Scenario", "lastName": "Suite", "email": email, "password": password}
    answer = requests.post(f"{url}/api/customers/register", json=body, timeout=60)
    assert answer.status_code == 201, f"the server registers nobody: {answer.text}"
    data = answer.json()["data"]
    return Account(url, data["customer"]["id"], email, password, data["token"])


def log_in(url: str, email: str, password: str) -> Account:
    """Use an account that is there; it must be empty, since the suite writes into it and deletes what it wrote."""
    account = Account(url, "", email, password, "")
    account.shared = account.session()
    account.token = account.shared[0]
    account.id = account.ask("GET", "/api/customers/me")["data"]["customer"]["id"]
    assert not account.rows()[0], f"the account {email} has rows; the suite needs an empty one"
    return account


def differences(
    server: dict[tuple[str, str], JSON], digests: JSON, held: dict[str, list[JSON]], typed: Iterable[Typed]
) -> list[str]:
    """List how a device differs from the server: rows, values that were typed, and digest if it keeps versions."""
    fields: dict[tuple[str, str], set[str]] = {}
    for one in typed:
        fields.setdefault((one.table, one.row_id), set()).add(one.field)
    ours = {(table, row["id"]): row for table, rows in held.items() for row in rows}
    theirs = {key: row for key, row in server.items() if key[0] in held}
    found = [f"has {key}, which the server has not" for key in ours.keys() - theirs.keys()]
    found += [f"lacks {key}" for key in theirs.keys() - ours.keys()]
    for key in ours.keys() & theirs.keys():
        for name in fields.get(key, ()):
            if ours[key].get(name) != theirs[key].get(name):
                found.append(f"{key}.{name} is {ours[key].get(name)!r}, on the server {theirs[key].get(name)!r}")
    for table, rows in held.items():
        if rows and all("version" in row for row in rows) and _digest(rows) != digests[table]:
            found.append(f"the digest of {table} is not the server's")
    return found


def _digest(rows: list[JSON]) -> JSON:
    whole = 0
    for row in rows:
        whole ^= int.from_bytes(hashlib.sha256(f"{row['id']}:{row['version']}".encode()).digest()[:8], "big")
    return {"count": len(rows), "hash": f"{whole:016x}"}
