"""``doctor --all``: what is wrong in a tenant is found and named, beside a server, and a run that was cut off goes on.

Seen to fail with: a check that looks at no digest, a journal that is emptied at each start.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forking, postgres
from tests.backing_up import operating
from tests.conftest import Run, Server, Tenant


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose tenants are these tests' alone; none has a row that nobody pushed."""
    server = Server(tmp_path_factory.mktemp("checks") / "data").start()
    for number in range(3):
        server.register().device().push(
            {"changes": {"end_user": [{"id": f"r{number}"}, {"id": "gone", "is_deleted": 1}]}}
        )
    yield server
    assert server.stop() == 0


def tell(tenant: Tenant, sql: str) -> None:
    """Change what a tenant holds, behind the server's back."""
    if postgres.IS_UNDER_TEST:
        where = "AND" if " WHERE " in sql else "WHERE"
        postgres.ask(tenant.server.data, f"{sql} {where} _tenant_id = '{tenant.id}' RETURNING 1")
    else:
        with contextlib.closing(sqlite3.connect(tenant.path)) as file, file:
            file.execute(sql)


def check_all(own: Server, operate: Run, *options: str, code: int = 0) -> Any:
    return json.loads(operate("doctor", "--all", "--json", *options, data=own.data, code=code).stdout)


def test_sound_tenants_are_counted(own: Server, operate: Run) -> None:
    assert check_all(own, operate) == {"checked": 3, "resumed": 0, "faults": {}, "waiting": []}
    assert operate("doctor", "--all", data=own.data).stdout == "3 tenants checked, 0 with faults.\n"
    assert not (own.data / "checked.jsonl").exists()


FAULTS = {
    "UPDATE _digests SET hash = '0000000000000000' WHERE table_name = 'end_user'": "do not give the digest",
    "UPDATE end_user SET version = 7 WHERE id = 'b'": "do not give the digest",
    "UPDATE _meta SET sequence = 1": "its log goes to change 2",
    "DELETE FROM _changes WHERE seq = 2": "1 rows have no change",
}


def test_what_does_not_fit_together_is_named(own: Server, operate: Run) -> None:
    told = dict[str, str]()
    for sql, words in FAULTS.items():
        tenant = own.register()
        tenant.device().push({"changes": {"end_user": [{"id": "a"}, {"id": "b"}]}})
        tell(tenant, sql)
        told[tenant.id] = words
    found = check_all(own, operate, code=1)
    assert found["checked"] == 3 + len(FAULTS) and found["faults"].keys() == told.keys()
    for tenant_id, words in told.items():
        assert any(words in fault for fault in found["faults"][tenant_id])
        operate("tenant", "delete", tenant_id, "--yes", data=own.data)


@pytest.mark.files("pages of a file")
def test_damaged_missing_and_older_files_are_named(operate: Run, tmp_path: Path) -> None:
    server = Server(tmp_path / "data").start()
    damaged, missing, older, sound = (server.register() for _ in range(4))
    for tenant in (damaged, missing, older, sound):
        tenant.device().push(
            {"changes": {"end_user": [{"id": f"r{number}", "note": "n" * 500} for number in range(100)]}}
        )
    server.stop()
    shutil.copy(older.path, tmp_path / "older.db")
    server.start()
    older.device().create(id="late")
    server.stop()
    shutil.copy(tmp_path / "older.db", older.path)
    with damaged.path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 4096 * 3)
    missing.path.unlink()
    faults = check_all(server, operate, "--jobs", "2", code=1)["faults"]
    assert faults.keys() == {damaged.id, missing.id, older.id}
    assert faults[missing.id] == ["its file is missing"] and "went back" in faults[older.id][0]
    done = operate("doctor", "--all", data=server.data, code=1)
    assert f"{missing.id}: its file is missing" in done.stdout and "4 tenants checked, 3 with faults." in done.stdout


CUT_OFF = """
import os, syncapp
from storage.sqlite import engine
from storage.postgres import engine as other
seen = []
def dying(real):
    def faults_in(self, tenant_id):
        seen.append(tenant_id)
        return os.kill(os.getpid(), 9) if len(seen) == 3 else real(self, tenant_id)
    return faults_in
for kind in (engine.SQLiteEngine, other.PostgresEngine):
    kind.faults_in = dying(kind.faults_in)
syncapp.main()
"""


def test_run_that_was_cut_off_goes_on_only_if_it_is_asked_to(own: Server, operate: Run) -> None:
    ended = forking.run(["-c", CUT_OFF, "doctor", "--all", "--jobs", "1"], operating(own.data))
    assert ended.returncode == -9, ended.stderr
    with (own.data / "checked.jsonl").open("a") as journal:
        journal.write('["half writ')
    found = check_all(own, operate, "--resume")
    assert found["checked"] == 3 and found["resumed"] == 2
    assert check_all(own, operate, "--resume")["resumed"] == 0


@pytest.mark.parametrize("options", [("--json",), ("--resume",), ("--all", "--url", "http://localhost")])
def test_options_that_do_not_go_together_are_refused(operate: Run, options: tuple[str, ...]) -> None:
    operate("doctor", *options, code=2)
