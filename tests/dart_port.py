"""A port of the client of docs/dart.md, as a driver of the scenario suite.

Every path, body, header, statement of SQL and constant is taken from the page; what is between is the page's Dart, line by
line. Knows: the page, the suite's protocol. Must not know: the server's API, which the page has to know.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import requests

JSON = dict[str, Any]
PAGE = (Path(__file__).resolve().parent.parent / "docs" / "dart.md").read_text()
DART = re.findall(r"^```dart\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]
STATEMENTS = set(re.findall(r"'((?:PRAGMA|CREATE|SELECT|INSERT|UPDATE|DELETE|BEGIN|COMMIT|ROLLBACK)[^']*)'", DART))
SEEN, EARLIER = map(int, re.findall(r"seen = (\d+), earlier = (\d+)", DART)[0])
SERVERS = set(re.findall(r"'(\w+)'", re.findall(r"servers = \{(.*?)\}", DART)[0]))
ID = re.findall(r"RegExp\(r'(.*?)'\)", DART)[0]
HEADERS = re.findall(r"request\.headers\['([\w-]+)'\]", DART)
used: set[str] = set()
"""The statements that were run."""


def body_at(start: int, names: JSON) -> JSON:
    """Make the JSON of the map literal that begins at a place of the page, with the values of the names in it."""
    end = DART.index("}", start)
    while DART[start : end + 1].count("{") > DART[start : end + 1].count("}"):
        end = DART.index("}", end + 1)
    entries = re.findall(r"'(\w+)': (\[?)(\w+)\]?", DART[start : end + 1])
    values = {"false": False, "true": True, **names}
    return {key: [values[name]] if listed else values[name] for key, listed, name in entries}


def request_to(path: str, names: JSON) -> JSON:
    """Make the body that the page sends to an address."""
    found = re.search(rf"_(?:ask|call)\(\s*'{path}',\s*", DART)
    assert found, f"the page asks nothing of {path}"
    return body_at(found.end(), names)


class SyncError(Exception):
    """The page's error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Database:
    """The page's ``db``: it runs what stands in the page and nothing else."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        for sql in sorted(STATEMENTS):
            if sql.startswith(("PRAGMA", "CREATE")):
                self.run(sql)

    def run(self, sql: str, *values: Any) -> list[Any]:
        assert sql in STATEMENTS, f"the page has no {sql}"
        used.add(sql)
        return self.connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            self.run("ROLLBACK")
            raise


class Client:
    """The page's ``SyncClient``, method by method."""

    def __init__(self, path: str, url: str, tables: list[str]) -> None:
        self.db, self.url, self.tables = Database(path), url, tables
        self.page_rows, self.silence, self.offset_ms = 1000, 20.0, 0
        self.renamed: list[JSON] = []
        if self.get("device") is None:
            self.set("device", self.new_id())

    # --- rows, offline ---

    def put(self, table: str, fields: JSON) -> str:
        row_id = fields.get("id") or self.new_id()
        if not isinstance(row_id, str) or not re.fullmatch(ID, row_id):
            raise SyncError("invalid", f"not an id: {row_id}")
        is_new = self.row(table, row_id) is None
        data = {**fields, "id": row_id, **({"is_deleted": 0} if is_new else {})}
        self.queue(table, "create" if is_new else "update", data)
        return row_id

    def delete(self, table: str, row_id: str) -> None:
        self.queue(table, "delete", {"id": row_id, "is_deleted": 1})

    def row(self, table: str, row_id: str) -> JSON | None:
        found = self.held(table, row_id)
        for e in self.waiting(table, row_id):
            found = {**(found or {}), **json.loads(e["op"])["data"]}
        return None if found is None or found.get("is_deleted") == 1 else found

    def rows(self, table: str) -> list[JSON]:
        sql = "SELECT id FROM held WHERE tbl = ? UNION SELECT id FROM outbox WHERE tbl = ?"
        return [row for e in self.db.run(sql, table, table) if (row := self.row(table, e["id"]))]

    def queue(
        self, table: str, operation: str, data: JSON, base: int | None = None, at: str | None = None, own: int = 1
    ) -> None:
        waits = self.db.run("SELECT 1 FROM outbox WHERE tbl = ? AND id = ? AND own = 0", table, data["id"])
        base_version = (
            base if base is not None else SEEN if waits else (self.held(table, data["id"]) or {}).get("version", 0)
        )
        moment = datetime.fromtimestamp(self.now() + (self.get("clock") or 0) / 1000, UTC)
        timestamp = at or moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        names: JSON = {"table": table, "operation": operation, "data": data, "timestamp": timestamp}
        names |= {"baseVersion": base_version, "opId": self.new_id()}
        op = body_at(DART.index("final op = {"), names)
        sql = "INSERT INTO outbox (own, tbl, id, op) VALUES (?, ?, ?, ?)"
        self.db.run(sql, own, table, data["id"], json.dumps(op))

    # --- the exchange ---

    def login(self, email: str, password: str) -> None:
        self.adopt(self.call("/api/customers/login", {"email": email, "password": password}))

    def adopt(self, answer: JSON) -> None:
        token = answer["data"]["token"]
        payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        if (self.get("tenant") or payload["customerId"]) != payload["customerId"]:
            raise SyncError("wrong_account", "This replica belongs to another account.")
        with self.db.together():
            self.set("tenant", payload["customerId"])
            self.set("tokens", [token, answer["data"]["refreshToken"]])

    def sync(self) -> None:
        for table in self.tables:
            self.pull(table)
        while self.push():
            pass
        for table in self.tables:
            self.pull(table)

    def pull(self, table: str) -> None:
        has_more = True
        while has_more:
            cursor = self.get(f"place {table}")
            names = {"cursor": cursor, "table": table, "limit": self.page_rows}
            try:
                page = self.ask("/api/client/sync/pull", names)
            except SyncError as error:
                if error.code == "offline":
                    self.page_rows = max(1, self.page_rows // 2)
                if error.code != "resync_required":
                    raise
                with self.db.together():
                    self.start_anew(table, cursor)
                continue
            self.page_rows = min(1000, self.page_rows + self.page_rows // 8 + 1)
            has_more = page["hasMore"]
            with self.db.together():
                if page.get("wentBack") is True:
                    self.set("device", self.new_id())
                self.take(table, page)

    def push(self) -> bool:
        part: list[Any] = []
        rows: set[str] = set()
        for e in self.db.run("SELECT * FROM outbox ORDER BY own, n LIMIT 200"):
            if part and part[0]["own"] != e["own"]:
                break
            if f"{e['tbl']}/{e['id']}" not in rows:
                part.append(e)
            rows.add(f"{e['tbl']}/{e['id']}")
        if not part:
            return False
        names = {"operations": [json.loads(e["op"]) for e in part], "baseCursor": self.get(f"place {self.tables[0]}")}
        answer = self.ask("/api/client/sync/push", names, is_own=part[0]["own"] == 1)
        with self.db.together():
            for e, row, result in zip(part, answer["data"], answer["results"], strict=True):
                self.settle(e, row, result)
        return True

    def settle(self, e: Any, row: JSON | None, result: JSON) -> None:
        self.db.run("DELETE FROM outbox WHERE n = ?", e["n"])
        if result["status"] == "rejected":
            return self.refuse(e, json.loads(e["op"]), result["error"])
        assert row is not None
        if row["version"] > 0:
            self.hold(e["tbl"], row)
        if row["id"] != e["id"]:
            self.follow(e["tbl"], e["id"], row)
        if e["own"] == 0 and result["status"] in ("created", "updated"):
            self.rebase(e["tbl"], e["id"], lambda base: result["version"] if base == SEEN else base)
        return None

    def follow(self, table: str, start: str, row: JSON) -> None:
        for e in self.waiting(table, start):
            op = json.loads(e["op"])
            data = {**op["data"], "id": row["id"]}
            moved = json.dumps({**op, "data": data, "baseVersion": row["version"], "opId": self.new_id()})
            self.db.run("UPDATE outbox SET id = ?, op = ? WHERE n = ?", row["id"], moved, e["n"])
        self.renamed.append({"table": table, "from": start, "to": row["id"]})

    def refuse(self, e: Any, op: JSON, error: str) -> None:
        is_mended = False
        for later in self.waiting(e["tbl"], e["id"]):
            following = json.loads(later["op"])
            if following["operation"] != "update" or (op["operation"] != "create" and e["own"] == 1):
                break
            op["data"] = {**op["data"], **following["data"]}
            op["data"].pop("last_updated", None)
            op["timestamp"] = following["timestamp"]
            self.db.run("DELETE FROM outbox WHERE n = ?", later["n"])
            is_mended = True
        op["opId"] = self.new_id()
        if is_mended:
            values = e["n"], e["own"], e["tbl"], e["id"], json.dumps(op)
            self.db.run("INSERT INTO outbox VALUES (?, ?, ?, ?, ?)", *values)
        else:
            self.db.run("INSERT INTO refused VALUES (?, ?)", json.dumps(op), error)

    # --- starting anew after 410 ---

    def start_anew(self, table: str, cursor: str | None) -> None:
        self.set(f"round {table}", (self.get(f"round {table}") or 0) + 1)
        if cursor is not None:
            self.set(f"left {table}", [*(self.get(f"left {table}") or []), cursor.split("-")[0]])
        self.set(f"place {table}", None)

    def take(self, table: str, page: JSON) -> None:
        left = self.get(f"left {table}")
        is_restored = left is not None and any(epoch != page["cursor"].split("-")[0] for epoch in left)
        round_ = self.get(f"round {table}") or 0
        for row in page["data"][table]:
            sql = "SELECT row FROM held WHERE tbl = ? AND id = ? AND round < ?"
            old = self.db.run(sql, table, row["id"], round_)
            if is_restored and old:
                self.give_back(table, json.loads(old[0]["row"]), row)
            self.hold(table, row)
        self.set(f"place {table}", page["cursor"])
        if page["hasMore"] or left is None:
            return
        for e in self.db.run("SELECT id, row FROM held WHERE tbl = ? AND round < ?", table, round_):
            is_wanted = is_restored or (self.waiting(table, e["id"]) and self.row(table, e["id"]) is not None)
            held = json.loads(e["row"])
            self.db.run("DELETE FROM held WHERE tbl = ? AND id = ?", table, e["id"])
            if is_wanted:
                self.give_back(table, held, None, None if is_restored else held["version"])
        self.set(f"left {table}", None)

    def give_back(self, table: str, held: JSON, there: JSON | None, base: int | None = None) -> None:
        if there and there["version"] == held["version"] and there["updatedAt"] == held["updatedAt"]:
            return
        grew = there is not None and there["version"] < held["version"] and there["updatedAt"] < held["updatedAt"]
        grew_out_of: int | None = there["version"] if there is not None and grew else None

        def moved(old: int) -> int:
            if old == 0 or old >= EARLIER:
                return old
            return SEEN if old == held["version"] else EARLIER if grew_out_of is None else min(old, grew_out_of)

        if base is None:
            self.rebase(table, held["id"], moved)
        if there is None and held["is_deleted"] == 1:
            return
        times = sorted([held["last_updated"] or held["updatedAt"], held["updatedAt"]])
        data = {name: value for name, value in held.items() if name not in SERVERS}
        base = base if base is not None else grew_out_of if grew_out_of is not None else SEEN
        self.queue(table, "update", data, base, times[0], own=0)

    def rebase(self, table: str, row_id: str, change: Callable[[int], int]) -> None:
        for e in self.waiting(table, row_id):
            op = json.loads(e["op"])
            base = change(op["baseVersion"])
            if e["own"] == 1 and base != op["baseVersion"]:
                changed = {**op, "baseVersion": base, "opId": self.new_id()}
                self.db.run("UPDATE outbox SET op = ? WHERE n = ?", json.dumps(changed), e["n"])

    # --- the line ---

    def ask(self, path: str, names: JSON, is_own: bool = True) -> JSON:
        try:
            return self.call(path, names, is_own)
        except SyncError as error:
            if error.code not in re.findall(r"error\.code != '(\w+)' && error\.code != '(\w+)'", DART)[0]:
                raise
            refresh_token = (self.get("tokens") or [None, None])[1]
            if refresh_token is None:
                raise
            self.adopt(self.call("/api/customers/refresh", {"refreshToken": refresh_token}))
            return self.call(path, names, is_own)

    def call(self, path: str, names: JSON, is_own: bool = True) -> JSON:
        token, sent = (self.get("tokens") or [None])[0], self.now()
        kind, device, authorization = HEADERS
        headers = {kind: "application/json"} | ({device: self.get("device")} if is_own else {})
        headers |= {authorization: f"Bearer {token}"} if token else {}
        try:
            body = request_to(path, names)
            with requests.post(
                self.url + path, json=body, headers=headers, timeout=self.silence, stream=True
            ) as answer:
                self.learn_clock(answer.headers.get("Date"), sent)
                told = answer.json()
            if told["success"] is True:
                return dict(told)
        except Exception as error:
            raise SyncError("offline", f"No answer of a sync server: {error}") from error
        raise SyncError(told["code"], told["error"])

    def learn_clock(self, date: str | None, sent: float) -> None:
        heard = self.now()
        if date is None or heard - sent > 10:
            return
        off = (parsedate_to_datetime(date).timestamp() - (sent + heard) / 2) * 1000 + 500
        self.set("clock", round(off) if abs(off) > 2000 else 0)

    def now(self) -> float:
        return time.time() + self.offset_ms / 1000

    # --- the file ---

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def get(self, name: str) -> Any:
        found = self.db.run("SELECT value FROM meta WHERE name = ?", name)
        return json.loads(found[0]["value"]) if found else None

    def set(self, name: str, value: Any) -> None:
        self.db.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, json.dumps(value))

    def held(self, table: str, row_id: str) -> JSON | None:
        found = self.db.run("SELECT row FROM held WHERE tbl = ? AND id = ?", table, row_id)
        return json.loads(found[0]["row"]) if found else None

    def hold(self, table: str, row: JSON) -> None:
        values = table, row["id"], json.dumps(row), self.get(f"round {table}") or 0
        self.db.run("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)", *values)

    def waiting(self, table: str, row_id: str) -> list[Any]:
        return self.db.run("SELECT * FROM outbox WHERE tbl = ? AND id = ? ORDER BY own, n", table, row_id)


class Driver:
    """Answers the suite."""

    client: Client
    password: tuple[str, str]

    def do_hello(self, asked: JSON) -> JSON:
        return {"client": "docs/dart.md, ported", "features": ["persists", "reopens", "merges", "returns", "clock"]}

    def do_open(self, asked: JSON) -> JSON:
        self.client = Client(f"{asked['folder']}/replica.db", asked["url"], asked["tables"])
        self.client.offset_ms = asked.get("clockOffsetMs", 0)
        self.client.silence = asked.get("timeoutSeconds", 20)
        if self.client.get("tokens") is None:
            self.do_login(asked)
        self.password = asked["email"], asked["password"]
        return {}

    def do_login(self, asked: JSON) -> JSON:
        self.client.adopt({"data": {"token": asked["token"], "refreshToken": asked["refreshToken"]}})
        return {}

    def do_put(self, asked: JSON) -> JSON:
        return {"id": self.client.put(asked["table"], asked["row"])}

    def do_delete(self, asked: JSON) -> JSON:
        self.client.delete(asked["table"], asked["rowId"])
        return {}

    def do_rows(self, asked: JSON) -> list[JSON]:
        return self.client.rows(asked["table"])

    def do_pending(self, asked: JSON) -> int:
        return len(self.client.db.run("SELECT * FROM outbox ORDER BY own, n LIMIT 200"))

    def do_sync(self, asked: JSON) -> JSON:
        try:
            self.client.sync()
        except SyncError as error:
            if error.code not in ("unauthorized", "token_expired"):
                raise
            self.client.login(*self.password)  # As the user does, who is asked to.
            self.client.sync()
        return {}

    def do_renamed(self, asked: JSON) -> list[JSON]:
        return self.client.renamed

    def do_close(self, asked: JSON) -> JSON:
        self.client.db.connection.close()
        return {}

    def answer(self, asked: JSON) -> JSON:
        try:
            done: Any = getattr(self, "do_" + asked["do"])(asked)
        except SyncError as error:
            return {"id": asked["id"], "error": {"code": error.code, "message": error.message}}
        return {"id": asked["id"], "ok": done}


if __name__ == "__main__":
    driver = Driver()
    for line in sys.stdin:
        print(json.dumps(driver.answer(json.loads(line))), flush=True)
    if log := os.environ.get("DART_STATEMENTS"):
        with Path(log).open("a") as told:
            told.write(json.dumps(sorted(used)) + "\n")
