"""What an operator is told who moves an installation: what is wrong, how to go on, what comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.conftest import Server, Tenant
from tests.operations.commands.test_operator import run

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING),
    pytest.mark.skipif(postgres.IS_UNDER_TEST, reason="begins with files"),
]

Start = Callable[..., Server]
Operate = Callable[..., str]


@pytest.fixture
def database() -> Iterator[str]:
    name = postgres.server().new_database()
    yield name
    postgres.server().drop(name)


@pytest.fixture
def address(database: str) -> str:
    return postgres.server().address(database)


@pytest.fixture
def tenant(start_server: Start) -> Tenant:
    tenant = start_server().register()
    tenant.device().create(id="a", name="A")
    return tenant


@pytest.fixture
def move(tmp_path: Path) -> Operate:
    """Run the command beside the server, and give what it said."""

    def run_move(*arguments: str | Path, code: int = 0, **env: str) -> str:
        ended = run(tmp_path, "move", *map(str, arguments), **env)
        assert ended.returncode == code and "Traceback" not in ended.stderr, ended.stderr
        return str(ended.stdout + ended.stderr)

    return run_move


def pushed(tenant: Tenant, row_id: str) -> str:
    answer = tenant.device().push_raw({"table": "end_user", "operation": "create", "data": {"id": row_id}})
    return "stored" if answer.status_code == 200 else str(answer.json()["code"])


def test_cut_over_comes_only_if_somebody_wants_it_and_can_be_undone(
    tenant: Tenant, address: str, move: Operate, tmp_path: Path
) -> None:
    assert "Run the same command with --yes" in move("--to", address)
    assert pushed(tenant, "b") == "stored"
    said = move("--to", address, "--yes")
    assert "as of change 2, 1 rows" not in said and "Moved: 1 tenant" in said and "DATABASE_URL" in said
    assert pushed(tenant, "c") == "moved"
    tenant.server.kill()
    tenant.server.start()  # Of a machine that starts anew before its operator has gone on.
    assert pushed(tenant, "c") == "moved" and len(tenant.device().rows()) == 2
    assert "Undone" in move("--to", address, "--undo")
    assert pushed(tenant, "c") == "stored"
    move("--to", address, "--yes")
    assert "nobody looks" in move("--undo", "--yes") and pushed(tenant, "d") == "stored"
    said = move("--to", tmp_path / "other", "--tenant", tenant.email, "--yes")
    assert "this tenant takes no more writes" in said and pushed(tenant, "e") == "moved"
    assert (tmp_path / "other" / "jwt_secret_key").read_text() == (tmp_path / "data" / "jwt_secret_key").read_text()


def test_wrong_targets_are_told_in_a_sentence_and_nothing_is_closed(
    tenant: Tenant, database: str, address: str, move: Operate, tmp_path: Path, start_server: Start
) -> None:
    other = start_server("other")
    superuser = postgres.server().address(database, "postgres")
    for arguments, code, sentence in (
        (["--to", f"postgresql://app:secret@/x?host={tmp_path}"], 1, "named by --to, can't be used"),
        (["--to", address.replace(database, "missing")], 1, '"missing" does not exist'),
        (["--to", superuser], 1, "superuser"),
        (["--to", "mysql://localhost/x"], 2, "must be a folder, or a URL"),
        ([], 2, "Say where to"),
        (["--to", other.data], 1, "Another server is running"),
        (["--to", tenant.server.data], 1, "Another server is running"),
        (["--to", address, "--tenant", "nobody@example.com"], 1, "There is no customer"),
    ):
        said = move(*arguments, "--yes", code=code)
        assert sentence in said and "secret" not in said, said
    assert pushed(tenant, "b") == "stored"


def test_connection_that_ends_amid_a_move_is_told_and_the_next_run_ends_it(
    tenant: Tenant, address: str, move: Operate, database: str
) -> None:
    postgres.server().ask(
        "CREATE FUNCTION public.cut() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$",
        database,
    )
    postgres.server().ask("CREATE EVENT TRIGGER cut ON ddl_command_end EXECUTE FUNCTION public.cut()", database)
    said = move("--to", address, "--yes", code=1)
    assert "can't be used" in said or "Run the same command again to go on" in said
    assert pushed(tenant, "b") == "stored"
    postgres.server().ask("DROP EVENT TRIGGER cut", database)
    assert "Moved: 1 tenant" in move("--to", address, "--yes")
