"""The driver of this client for the scenario suite (tests/kit/README.md)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import syncclient
from syncclient import Hooks, SyncClient, SyncError, transport

JSON = dict[str, Any]
FEATURES = ["persists", "reopens", "live", "conflicts", "processes", "instances", "merges", "returns", "clock"]


class Driver:
    """Clients by the name of their instance, and what is asked of them."""

    def __init__(self) -> None:
        self.clients: dict[str, SyncClient] = {}
        self.renamed: list[JSON] = []

    def answer(self, asked: JSON) -> Any:
        do: Callable[[JSON], Any] = getattr(self, "do_" + asked["do"])
        return do(asked)

    def client(self, asked: JSON) -> SyncClient:
        return self.clients[asked.get("instance", "first")]

    def do_hello(self, asked: JSON) -> JSON:
        return {"client": f"syncclient {syncclient.__version__}", "features": FEATURES}

    def do_open(self, asked: JSON) -> JSON:
        instance = asked.get("instance", "first")
        if instance in self.clients:  # Another version of the app.
            self.clients.pop(instance).close()
        offset_ms = asked.get("clockOffsetMs", 0)
        transport._now_ms = lambda: time.time_ns() // 1_000_000 + offset_ms
        client = SyncClient(
            f"{asked['folder']}/replica.db",
            asked["url"],
            tables=asked["tables"],
            email=asked["email"],
            password=asked["password"],
            timeout_seconds=asked.get("timeoutSeconds", 20),
            patience_seconds=20,
            hooks=Hooks(on_renamed=self.note_renamed),
        )
        if client.status().is_logged_in is False:
            client.adopt(asked["token"], asked["refreshToken"])
        self.clients[instance] = client
        return {}

    def do_login(self, asked: JSON) -> JSON:
        self.client(asked).adopt(asked["token"], asked["refreshToken"])
        return {}

    def do_put(self, asked: JSON) -> JSON:
        return {"id": self.client(asked).put(asked["table"], asked["row"])["id"]}

    def do_delete(self, asked: JSON) -> JSON:
        self.client(asked).delete(asked["table"], asked["rowId"])
        return {}

    def do_rows(self, asked: JSON) -> list[JSON]:
        return self.client(asked).rows(asked["table"])

    def do_pending(self, asked: JSON) -> int:
        return self.client(asked).status().waiting

    def do_sync(self, asked: JSON) -> JSON:
        self.client(asked).sync()
        return {}

    def do_live(self, asked: JSON) -> JSON:
        if asked["on"]:
            self.client(asked).start(every_seconds=3600)
        else:
            self.client(asked).stop()
        return {}

    def do_conflicts(self, asked: JSON) -> list[JSON]:
        return [{"table": one.table, "id": one.row_id} for one in self.client(asked).conflicts()]

    def note_renamed(self, table: str, before: str, now: str) -> None:
        self.renamed.append({"table": table, "from": before, "to": now})

    def do_renamed(self, asked: JSON) -> list[JSON]:
        return self.renamed

    def do_close(self, asked: JSON) -> JSON:
        self.clients.pop(asked.get("instance", "first")).close()
        self.renamed = []
        return {}


def main() -> None:
    driver = Driver()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"ok": driver.answer(asked)}
        except SyncError as error:
            answer = {"error": {"code": error.code, "message": error.message}}
        print(json.dumps({"id": asked["id"], **answer}), flush=True)


if __name__ == "__main__":
    main()
