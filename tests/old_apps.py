"""Apps as people wrote them against the older API, and how they fail.

A Flutter app keeps its rows with sqflite and sends them as they lie there: its own numbers as ``id``, times of its own
clock without a zone, ``sync_status`` pending until an answer said success. A page in a browser keeps objects. Neither
knows cursors, bases, names of operations or keys of requests: after a failure they send everything again.
Must not know: what the server makes of it.
"""

from __future__ import annotations

import json
import random
import sqlite3
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import requests

from tests.conftest import JSON, Tenant

COLUMNS = {
    "end_user": "name TEXT, phone INTEGER, dob TEXT, phoneModel TEXT, active INTEGER, note TEXT, loyalty_points INTEGER",
    "interactions": "type TEXT, title TEXT, date TEXT, metadata TEXT, client_user_id INTEGER, followUpDone INTEGER",
}
"""The app's own columns by table; the last one of each is unknown to the server."""

JSON_COLUMNS = {"phoneModel", "metadata"}
_SYNC = (
    "key TEXT UNIQUE, Unique_id TEXT, server_id TEXT, version INTEGER, last_updated TEXT, is_deleted INTEGER,"
    " sync_status TEXT"
)
"""``key``: how the app knows a row again, by its ``Unique_id``, or by the server's id where another app gave none."""


class Typed(NamedTuple):
    """A value that a person typed into a row."""

    table: str
    key: str
    field: str
    value: Any


@dataclass(frozen=True)
class Habits:
    """What one app does and another does not."""

    form: str = "A"
    """``A``: a request for each row; ``B``: one for all that is pending."""
    version: str = "none"
    """What it sends as ``version``: ``none``, ``counted`` up by itself with each edit, ``unchanged`` as it was pulled, or
    always ``one``."""
    last_sync: str = "clock"
    """What it pulls by: the time of its own ``clock``, or the ``syncTimestamp`` of its last ``pull``, or of its last
    ``push`` too."""
    pulls_first: bool = False
    """Fetches before it sends."""
    adopts: bool = False
    """Takes the rows of an answer over; without it an answer only means success."""
    objects: bool = False
    """Sends JSON as objects, flags as true and false, ``isDeleted``; without it JSON as text, flags as 0 and 1."""
    ahead_minutes: float = 0
    """How much its clock is ahead; a local time without a zone is ahead of UTC as well."""


@dataclass
class OldApp:
    """One device with such an app."""

    tenant: Tenant
    habits: Habits = field(default_factory=Habits)
    url: str = ""
    last_sync: str | None = None
    typed: set[Typed] = field(default_factory=set)
    replaced: set[Typed] = field(default_factory=set)
    """What the person saw and typed over, or deleted."""
    unsent: set[Typed] = field(default_factory=set)
    """Of those typed, what no answer came for."""
    name: str | None = None
    """What it calls itself in ``X-Device-Id``; else only its log-in tells it from others."""
    answers: list[JSON] = field(default_factory=list)
    """Every answer to a push that came."""

    def __post_init__(self) -> None:
        self.url = self.url or self.tenant.server.url
        proof = {"email": self.tenant.email, "password": self.tenant.password}
        self.token = self.tenant.server.call("POST", "/api/customers/login", proof).json()["data"]["token"]
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.row_factory = sqlite3.Row
        for table, own in COLUMNS.items():
            self.db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY AUTOINCREMENT, {own}, {_SYNC})")

    def now(self) -> str:
        """Give the time as ``DateTime.now().toIso8601String()`` does: local, microseconds, no zone."""
        return (datetime.now(UTC) + timedelta(minutes=self.habits.ahead_minutes)).replace(tzinfo=None).isoformat()

    # --- what the person does ----------------------------------------------------------------------------------------

    def create(self, table: str = "end_user", **values: Any) -> str:
        """Type a new row; give its key."""
        key = str(uuid.uuid4())
        row: JSON = {name: "" if kind == "TEXT" else None for name, kind in columns(table).items()}
        row |= {"type": "call"} if table == "interactions" else {}
        row |= self._kept(values) | {"key": key, "Unique_id": key, "version": 1, "is_deleted": 0}
        self._insert(table, row | {"last_updated": self.now(), "sync_status": "pending"})
        self._note(table, key, values)
        return key

    def edit(self, key: str, table: str = "end_user", **values: Any) -> None:
        """Type into a row that is here."""
        (row,) = [readable(row) for row in self._select(table, "1") if row["key"] == key]
        over = columns(table) if "is_deleted" in values else values
        self.replaced |= {Typed(table, key, name, json.dumps(row[name])) for name in over}
        changed = self._kept(values) | {"last_updated": self.now(), "sync_status": "pending"}
        names = ", ".join(f"{name} = ?" for name in changed)
        more = int(self.habits.version != "unchanged")
        self.db.execute(
            f"UPDATE {table} SET {names}, version = version + {more} WHERE key = ?", (*changed.values(), key)
        )
        self._note(table, key, values)

    def delete(self, key: str, table: str = "end_user") -> None:
        """Delete a row: it is kept, marked, until the server knows."""
        self._forget({one for one in self.unsent if (one.table, one.key) == (table, key)})
        self.edit(key, table, is_deleted=1)

    def keys(self, table: str = "end_user") -> list[str]:
        """List the rows that the person sees."""
        return [row["key"] for row in self._select(table, "is_deleted = 0")]

    def shown(self, table: str = "end_user") -> dict[str, JSON]:
        """Give the rows that the person sees, with the app's own columns."""
        rows = self._select(table, "is_deleted = 0")
        return {row["key"]: readable({name: row[name] for name in columns(table)}) for row in rows}

    def pending(self) -> list[tuple[str, JSON]]:
        """List what the server has not answered yet, as table and row."""
        return [(table, row) for table in COLUMNS for row in self._select(table, "sync_status = 'pending'")]

    def _kept(self, values: JSON) -> JSON:
        return {name: json.dumps(value) if name in JSON_COLUMNS else value for name, value in values.items()}

    def _note(self, table: str, key: str, values: JSON) -> None:
        """Remember what was typed. What the same person typed over before it was sent need not be found anywhere."""
        self._forget({one for one in self.unsent if (one.table, one.key) == (table, key) and one.field in values})
        typed = {Typed(table, key, name, json.dumps(value)) for name, value in values.items() if name != "is_deleted"}
        self.typed |= typed
        self.unsent |= typed

    def _forget(self, typed: set[Typed]) -> None:
        self.typed -= typed
        self.unsent -= typed

    def _insert(self, table: str, row: JSON) -> None:
        marks = ", ".join("?" * len(row))
        self.db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))

    def _select(self, table: str, where: str) -> list[JSON]:
        return [dict(row) for row in self.db.execute(f"SELECT * FROM {table} WHERE {where} ORDER BY id")]

    # --- what the app does -------------------------------------------------------------------------------------------

    def sync(self) -> bool:
        """Send what is pending, then fetch; False after any failure, with everything as it was."""
        steps = (self.pull, self.push) if self.habits.pulls_first else (self.push, self.pull)
        return all(step() for step in steps)

    def push(self) -> bool:
        """Send all that is pending."""
        rows = self.pending()
        if self.habits.form == "A":
            return all(self._send(self._operation(table, row), [(table, row)]) for table, row in rows)
        changes: dict[str, list[JSON]] = {}
        for table, row in rows:
            changes.setdefault(table, []).append(self._wire(row))
        return not rows or self._send({"changes": changes}, rows)

    def send_all_again(self) -> list[JSON]:
        """Send every row that is here, as an app does that lost its marks; give the answers."""
        before = len(self.answers)
        for table in COLUMNS:
            self.db.execute(f"UPDATE {table} SET sync_status = 'pending'")
        assert self.push()
        return self.answers[before:]

    def _operation(self, table: str, row: JSON) -> JSON:
        operation = "delete" if row["is_deleted"] else "update" if row["server_id"] or row["version"] > 1 else "create"
        return {"table": table, "operation": operation, "data": self._wire(row), "timestamp": self.now()}

    def _wire(self, row: JSON) -> JSON:
        """Write a row as this app sends it."""
        told = {name: value for name, value in row.items() if name not in ("key", "server_id", "version")}
        if row["Unique_id"] is None:
            told["id"] = row["server_id"]
        if self.habits.version != "none":
            told["version"] = 1 if self.habits.version == "one" else row["version"]
        if self.habits.objects:
            told = {name: readable({name: value})[name] for name, value in told.items()}
            told["isDeleted"] = bool(told.pop("is_deleted"))
            told |= {name: bool(told[name]) for name in ("active", "followUpDone") if told.get(name) is not None}
        return told

    def _send(self, body: JSON, rows: list[tuple[str, JSON]]) -> bool:
        answer = self._ask("push", body)
        if answer is None:
            return False
        self.answers.append(answer)
        if self.habits.last_sync == "push":
            self.last_sync = answer["syncTimestamp"]
        for (table, row), stored in zip(rows, answer["data"], strict=True):
            self.unsent = {one for one in self.unsent if (one.table, one.key) != (table, row["key"])}
            if row["is_deleted"]:
                self.db.execute(f"DELETE FROM {table} WHERE id = ?", (row["id"],))
            else:
                self.db.execute(f"UPDATE {table} SET sync_status = 'synced' WHERE id = ?", (row["id"],))
                if self.habits.adopts:
                    self._take(table, stored)
        return True

    def pull(self) -> bool:
        """Fetch what changed since the time that this device's clock showed after the last pull."""
        if self.habits.form == "A":
            bodies: list[JSON] = [{"table": table, "lastSync": self.last_sync} for table in COLUMNS]
        else:
            bodies = [{"lastSyncTimestamp": self.last_sync or "1970-01-01T00:00:00.000", "entityTypes": list(COLUMNS)}]
        since = self.last_sync
        for body in bodies:
            answer = self._ask("pull", body)
            if answer is None:
                return False
            since = answer["syncTimestamp"]
            for table, rows in answer["data"].items():
                for row in rows:
                    self._take(table, row)
        self.last_sync = self.now() if self.habits.last_sync == "clock" else since
        return True

    def _take(self, table: str, row: JSON) -> None:
        """Put a row of the server's over the one that is here, unless that one is pending."""
        key = row.get("Unique_id") or row["id"]
        self.db.execute(f"DELETE FROM {table} WHERE key = ? AND sync_status = 'synced'", (key,))
        if row["is_deleted"] or self.db.execute(f"SELECT 1 FROM {table} WHERE key = ?", (key,)).fetchone():
            return
        own = {name: row.get(name) for name in columns(table)}
        own |= {name: json.dumps(own[name]) for name in JSON_COLUMNS & own.keys() if isinstance(own[name], dict | list)}
        own |= {"key": key, "Unique_id": row.get("Unique_id"), "server_id": row["id"], "version": row["version"]}
        self._insert(table, own | {"is_deleted": 0, "last_updated": row["last_updated"], "sync_status": "synced"})

    def _ask(self, what: str, body: JSON) -> JSON | None:
        """Ask the server; None for whatever went wrong."""
        headers = {"Authorization": f"Bearer {self.token}"} | ({"X-Device-Id": self.name} if self.name else {})
        try:
            answer = requests.post(f"{self.url}/api/client/sync/{what}", json=body, headers=headers, timeout=20)
            told: JSON = answer.json()
        except (requests.RequestException, ValueError):
            return None
        if answer.status_code in (500, 502, 503):
            return None
        assert answer.ok and told["success"], answer.text
        return told


def columns(table: str) -> dict[str, str]:
    """Give the app's own columns of a table, with their types in SQLite."""
    return dict(column.split() for column in COLUMNS[table].split(", "))


def readable(row: JSON) -> JSON:
    """Give a row with its JSON read, whether it was kept as text or not."""
    return {
        name: json.loads(value) if name in JSON_COLUMNS and isinstance(value, str) and value else value
        for name, value in row.items()
    }


def random_edit(app: OldApp, chance: random.Random, number: int) -> None:
    """Let the person create, edit or delete something; each value is typed only once."""
    keys = app.keys()
    values: JSON = {
        "name": f"name {number}",
        "phone": 5_550_000 + number,
        "phoneModel": {"no": number},
        "note": f"n{number}",
    }
    few = {name: values[name] for name in chance.sample(sorted(values), chance.randint(1, 3))}
    kind = chance.choices(("create", "edit", "delete"), (3, 6, 1))[0] if keys else "create"
    if kind == "create":
        app.create(**values)
    elif kind == "edit":
        app.edit(chance.choice(keys), **few)
    else:
        app.delete(chance.choice(keys))
