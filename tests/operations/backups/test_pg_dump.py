"""A database that ``pg_dump`` copied and ``pg_restore`` put back, by the commands of docs/postgresql.md."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.positions import position
from storage.postgres.engine import PostgresEngine
from tenants import Tenants
from tests import forking, inside, postgres
from tests.conftest import ROOT
from tests.customers import customer
from tests.needs import where_postgres
from tests.storage.engine.installations import PostgresInstallation

pytestmark = pytest.mark.server
_DOCS = (ROOT / "docs" / "postgresql.md").read_text()
_ROWS = "SELECT _tenant_id, row FROM _changes UNION ALL SELECT _tenant_id, e::text FROM end_user AS e ORDER BY 1, 2"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[PostgresInstallation]:
    if where_postgres("pg_dump") is None:
        pytest.skip(postgres.MISSING)
    installation = PostgresInstallation(tmp_path)
    yield installation
    installation.end()


def from_docs(kind: str, about: str) -> str:
    """Give the block of the documents that has some words."""
    (found,) = [block for block in re.findall(rf"```{kind}\n(.*?)```", _DOCS, re.DOTALL) if about in block]
    return str(found)


def run(command: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": f"{Path(str(where_postgres('pg_dump'))).parent}:/usr/bin:/bin"}
    return subprocess.run(["sh", "-c", command], env=environ, cwd=ROOT, capture_output=True, text=True, check=False)


def documented(installation: PostgresInstallation, again: str, dump: Path) -> list[str]:
    """Give the documented commands, with the addresses and files of this test."""
    server = postgres.server()
    named = {
        "postgresql://syncapp_backup:secret@localhost/syncapp": server.address(installation.name, "syncapp_backup"),
        "postgresql://postgres@localhost/postgres": server.address("postgres", "postgres"),
        "postgresql://syncapp:secret@localhost/again": server.address(again),
    }
    commands = from_docs("sh", "pg_dump").replace("syncapp.dump", str(dump)).replace("--owner=syncapp", "--owner=app")
    for written, meant in named.items():
        assert written in commands
        commands = commands.replace(written, f"'{meant}'")
    return commands.replace(" again\n", f" {again}\n").splitlines()


def done(command: str) -> str:
    ended = run(command)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def again(installation: PostgresInstallation) -> Iterator[str]:
    """The name of the database in which the dump is put back."""
    yield f"{installation.name}_again"
    postgres.server().drop(f"{installation.name}_again")


def begun(installation: PostgresInstallation, ids: list[str]) -> Tenants:
    """Begin tenants with a row each, and the role that dumps."""
    tenants = Tenants(PostgresEngine(installation.address))
    for one in ids:
        tenants.provision(customer(f"{one}@example.com", one))
        inside.push(tenants, one, {"changes": {"end_user": [{"id": "a", "name": one}]}})
    if not postgres.server().ask("SELECT 1 FROM pg_roles WHERE rolname = 'syncapp_backup'"):
        postgres.server().ask(from_docs("sql", "syncapp_backup"))
    return tenants


def test_database_that_was_dumped_and_put_back_goes_on_under_new_epochs(
    installation: PostgresInstallation, again: str, tmp_path: Path
) -> None:
    """Fault: the last command left out: the cursors of devices that were ahead still fitted."""
    ids = [str(uuid.uuid4()) for _ in range(2)]
    tenants = begun(installation, ids)
    secret = tenants.engine.kept_secret(lambda: "the secret")
    dump, *making, begin = documented(installation, again, tmp_path / "syncapp.dump")
    done(dump)
    rows, ahead = postgres.server().ask(_ROWS, installation.name), dict[str, str]()
    for one in ids:
        inside.push(tenants, one, {"changes": {"end_user": [{"id": "b", "name": "lost"}]}})
        ahead[one] = tenants.read(one, position).epoch
    tenants.close()
    for command in making:
        done(command)
    assert postgres.server().ask(_ROWS, again) == rows and len(rows) == 4
    environ = {"DATABASE_URL": postgres.server().address(again)}
    told = forking.run(begin.partition("syncapp.py ")[2].split(), environ)
    assert told.returncode == 0 and "2 tenants begun anew" in told.stdout, told.stderr
    tenants = Tenants(PostgresEngine(environ["DATABASE_URL"]))
    for one in ids:
        here = tenants.read(one, position)
        assert here.epoch != ahead[one] and here.sequence == 1
        assert [row["name"] for row in inside.rows(tenants, one)] == [one], "and none of another: RLS is there again"
    assert tenants.engine.kept_secret(lambda: "another") == secret
    tenants.close()


def test_dump_by_the_server_s_user_is_refused_instead_of_being_without_rows(
    installation: PostgresInstallation, tmp_path: Path
) -> None:
    PostgresEngine(installation.address).recover(set)
    ended = run(f"pg_dump --format=custom --file={tmp_path}/x.dump '{installation.address}'")
    assert ended.returncode != 0 and "row-level security" in ended.stderr
