"""The other pages of the console: overview, log, settings, checks; and that the docs have each of its calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import assembly
import settings
from api.admin.assembly import assemble
from tests.conftest import ROOT, Server, wait_for
from tests.operating import Operator, signed_in

EVIL = "<b>n</b>" + "wide" * 10_000
SECRET = "a-secret-of-more-than-32-bytes-0123456789"


@pytest.fixture(scope="module")
def operator(server: Server) -> Operator:
    return signed_in(server)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator of a server with few tenants, a place for backups, and secrets."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "token").write_text("token-of-metrics-1234\n")
    env = {"JWT_SECRET_KEY": SECRET, "METRICS_TOKEN_FILE": str(folder / "token"), "OPEN_TENANTS": "7"}
    server = Server(folder / "data", env | {"BACKUP_TO": str(folder / "backups")}).start()
    yield signed_in(server)
    server.stop()


def test_overview_has_the_server_and_its_samples(operator: Operator) -> None:
    operator.server.register().device().create(id="one")
    found = operator.get("/api/overview").json()
    assert found["health"]["status"] in ("ok", "degraded") and found["tenants"] > 0 and found["memoryBytes"] > 2**20
    assert found["hour"].keys() == found["day"].keys() and len({len(column) for column in found["hour"].values()}) == 1


def test_log_is_followed_and_filtered(operator: Operator) -> None:
    tenant = operator.server.register()
    tenant.device(X_Request_ID="wanted-1").push_raw({"table": "end_user", "operation": "create", "data": {"id": "a"}})
    tenant.device().push_raw([])
    mine = operator.get(f"/api/log?tenant={tenant.id}").json()
    assert mine["lines"] and {one["tenant"] for one in mine["lines"]} == {tenant.id}
    (wanted,) = operator.get("/api/log?request=wanted-1").json()["lines"]
    assert wanted["request_id"] == "wanted-1" and wanted["fields"]["status"] == 200
    assert not [one for one in operator.get("/api/log").json()["lines"] if "/admin/api" in one["message"]]
    tenant.device(X_Request_ID="wanted-2").pull_raw({"cursor": None})
    later = operator.get(f"/api/log?tenant={tenant.id}&after={mine['newest']}").json()["lines"]
    assert [one["request_id"] for one in later] == ["wanted-2"]


@pytest.mark.parametrize("query", ["after=x", "after=-1", "level=loud", "level="])
def test_log_that_is_asked_for_wrongly_says_so(operator: Operator, query: str) -> None:
    assert operator.get(f"/api/log?{query}").status_code == 400


def test_settings_have_their_source_and_no_secret(alone: Operator) -> None:
    answer = alone.get("/api/settings")
    shown = {one["name"]: (one["value"], one["source"]) for one in answer.json()["settings"]}
    assert shown["OPEN_TENANTS"] == ("7", "environment") and shown["HISTORY_DAYS"] == ("90", "default")
    assert shown["METRICS_TOKEN"][1].startswith("file ")
    assert SECRET not in answer.text and "token-of-metrics" not in answer.text


def test_checks_are_those_of_doctor(alone: Operator) -> None:
    assert "ok: checked whether blocking calls switch greenlets" in ended(alone, "/api/checks")["output"]


def test_every_call_of_the_console_is_in_the_docs(tmp_path: Path) -> None:
    app = assembly.build(settings.Settings(data_dir=tmp_path / "data"))
    console = assemble(app.extensions["server_parts"])
    app.extensions["lifecycle"].end()
    calls = {f"{method} /admin{path}" for method, path, _ in console.routes if path.startswith("/api/")}
    listed = re.findall(
        r"^\| `((?:GET|POST) /admin/api/.*?)` \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE
    )
    assert {one.replace("{", "<").replace("}", ">") for one in listed} == calls, (
        "docs/operations.md, The operator's console, must list each call"
    )


def test_backup_is_made_compared_and_gives_a_tenant_back(alone: Operator) -> None:
    tenant = alone.server.register()
    tenant.device().create(id="kept", name=EVIL)
    assert ended(alone, "/api/backups/run")["exitCode"] == 0
    (run,) = alone.get("/api/backups").json()["runs"]
    assert run["state"] == "good" and run["tenants"] == 1
    device, which = tenant.device(), {"name": run["name"], "tenant": tenant.id}
    cursor = device.pull({"cursor": None})["cursor"]
    device.delete(id="kept")
    compared = ended(alone, "/api/backups/compare", which)
    assert compared["exitCode"] == 0, compared["errors"]
    shown = json.loads(compared["output"])
    assert shown["tables"] == {"end_user": {"added": 1, "changed": 0, "gone": 0}} and shown["rows"] is None
    which["seen"] = shown["from"]["cursor"]
    (row,) = printed(alone, "/api/backups/rows", which)["rows"]
    assert (row["id"], row["kind"], row["fields"]["name"]) == ("kept", "added", {"then": EVIL})
    assert printed(alone, "/api/backups/rows", which | {"first": 1})["rows"] == []
    device.create(id="since")
    assert "since you looked" in ended(alone, "/api/backups/rows", which)["errors"]
    refused = ended(alone, "/api/backups/rewind", which)
    assert refused["exitCode"] == 1 and "since you looked" in refused["errors"]
    which["seen"] = device.pull({"cursor": None})["cursor"]
    taken = ended(alone, "/api/backups/rewind", which)
    assert taken["exitCode"] == 0, taken["errors"]
    pulled = device.pull({"cursor": cursor})["data"]["end_user"]
    assert [(row["id"], row["is_deleted"]) for row in pulled] == [("kept", 0), ("since", 1)]
    done = [(one["action"], one["by"]) for one in alone.get("/api/record").json()["entries"][:6]]
    assert [action for action, _ in done] == ["rewound", *["rewind"] * 3, *["show-rows"] * 2]
    assert len({by for _, by in done}) == 1
    device.delete(id="kept")
    restored = ended(alone, "/api/backups/restore", which)
    assert restored["exitCode"] == 0, restored["errors"]
    wait_for(lambda: [row["is_deleted"] for row in tenant.device().rows()] == [0], "the row of the backup")
    assert alone.get("/api/record").json()["entries"][0]["action"] == "restore"
    for name in ("--help", "../x", ""):
        assert alone.post("/api/backups/verify", {"name": name}).status_code == 400
        assert alone.post("/api/backups/compare", which | {"name": name}).status_code == 400
        assert alone.post("/api/backups/rewind", which | {"seen": name}).status_code == 400
        assert alone.post("/api/backups/rows", which | {"seen": name}).status_code == 400


def ended(operator: Operator, path: str, body: object = None) -> Any:
    job = operator.post(path, body).json()["job"]
    state = wait_for(lambda: (one := operator.get(f"/api/jobs/{job}").json())["exitCode"] is not None and one, path)
    return state | {"job": job}


def printed(operator: Operator, path: str, body: object) -> Any:
    """Give the JSON that a job printed, however long it is."""
    state = ended(operator, path, body)
    assert state["exitCode"] == 0, state["errors"]
    answer = operator.get(f"/api/jobs/{state['job']}/output")
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.json()
