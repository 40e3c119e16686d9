"""Records what the version before wrote, where its tag is: ``python -m tests.record_version``.

Knows: how its server is run, what devices push to it. Must not know: what later versions make of it. The result is
``tests/recorded/VERSION``: the databases as SQL, and what devices were told.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from pathlib import Path

from tests import older_version
from tests.conftest import Server, Tenant

SECRET = "a key for tests, which signed what is recorded"


def story(tenant: Tenant) -> dict[str, object]:
    """Let devices push everything that leaves a trace of its own; give what they know in the end."""
    first, second = tenant.device(X_Device_Id="first"), tenant.device(X_Device_Id="second")
    first.create(id="a", name="Asha", phone="1", of_a_later_app={"deep": [1, None]})
    first.create(id="b", name="to be deleted")
    second.catch_up()
    first.update(id="a", name="of the first", version=1)
    second.update(id="a", name="of the second", version=1)
    first.delete(id="b")
    first.create("interactions", id="i", title="Call", client_user_id="a")
    operation = {"opId": "op-1", "table": "end_user", "operation": "create", "data": {"id": "c", "name": "once"}}
    second.push({"operations": [operation]})
    first.headers["Idempotency_Key"] = "key-1"
    answer = first.push({"changes": {"end_user": [{"id": "d", "name": "once"}]}})
    del first.headers["Idempotency_Key"]
    first.catch_up()
    rows = {table: first.rows(table) for table in ("end_user", "interactions")}
    return {"rows": rows, "cursor": first.cursor, "operation": operation, "answer": answer}


def dumped(path: Path) -> str:
    """Write a database as SQL, with the number by which a version knows what it was prepared for."""
    database = sqlite3.connect(path)
    (prepared_for,) = database.execute("PRAGMA user_version").fetchone()
    lines = [f"PRAGMA user_version = {prepared_for};", *database.iterdump()]
    database.close()
    return "\n".join(lines) + "\n"


def record() -> None:
    """Run the version before, and keep what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        server = Server(data, {"JWT_SECRET_KEY": SECRET}, older_version.command()).start()
        tenant = server.register(email="recorded@example.com")
        known = story(tenant)
        assert server.stop() == 0
        paths = {name: data / path.format(tenant.id.replace("-", "")) for name, path in older_version.FILES.items()}
        files = {f"{name}.sql": dumped(path) for name, path in paths.items()}
    who = {"tenant": tenant.id, "email": tenant.email, "password": tenant.password}
    notes = {"commit": older_version.commit(), **who, **known}
    older_version.RECORDED.mkdir(parents=True, exist_ok=True)
    for name, text in (files | {"notes.json": json.dumps(notes, indent=1) + "\n"}).items():
        (older_version.RECORDED / name).write_text(text)


if __name__ == "__main__":
    record()
