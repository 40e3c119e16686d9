"""Tables are made and changed once for all tenants, and each tenant's rows with them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from models import connection
from protocol.codec import decode_stored
from storage.engine import CanNotOpen
from storage.positions import position
from storage.postgres import schema_changes
from storage.postgres.engine import PostgresEngine
from tenants import Tenants
from tests import postgres
from tests.conftest import JSON
from tests.customers import customer
from tests.declaring import declare
from tests.inside import pull, push, rows, together
from tests.storage.engine.installations import PostgresInstallation, create, elsewhere, lines_of

Restart = Callable[..., Tenants]


@pytest.fixture
def restart(installation: PostgresInstallation) -> Iterator[Restart]:
    """Start the server with other tables declared."""
    running: list[Tenants] = []

    def start(text: str, *retiring: str) -> Tenants:
        if running:
            running.pop().close()
        declare(text)
        running.append(Tenants(PostgresEngine(installation.address), retiring))
        return running[-1]

    yield start
    running.pop().close()
    declare("")


def provision(tenants: Tenants) -> str:
    tenant_id = str(uuid.uuid4())
    tenants.provision(customer(f"{tenant_id}@example.com", tenant_id))
    return tenant_id


def put(tenants: Tenants, tenant_id: str, *data: JSON, table: str = "job") -> None:
    push(tenants, tenant_id, {"changes": {table: list(data)}})


def column(tenants: Tenants, tenant_id: str, sql: str) -> list[object]:
    return [row[0] for row in tenants.read(tenant_id, lambda: list(connection().execute(sql)))]


def test_two_starts_at_once_make_the_tables_and_change_them_once(
    installation: PostgresInstallation, caplog: pytest.LogCaptureFixture
) -> None:
    """The first two on an empty database, two with a table more. Fault: no lock: one fails, since a table is there."""
    for text in ("", JOB):
        declare(text)
        start = lambda: Tenants(PostgresEngine(installation.address))  # noqa: E731
        started = together(start, start, start)
        assert [type(one) for one in started] == [Tenants] * 3, started
        tenant_id = provision(started[0])
        assert [rows(one, tenant_id) for one in started] == [[]] * 3
        for one in started:
            one.close()
    declare("")


JOB = "[job]\ncolumns.title = 'text'\n"


def test_new_column_is_filled_in_the_rows_of_every_tenant_and_comes_to_devices(restart: Restart) -> None:
    tenants = restart(JOB)
    ids = [provision(tenants) for _ in range(3)]
    for number, one in enumerate(ids[:2]):
        put(
            tenants,
            one,
            {"id": "a", "title": f"T{number}"},
            {"id": "b", "title": "U", "rank": number, "x": [1.0, {"é": None}]},
        )
    cursors = [pull(tenants, one, {"table": "job"})["cursor"] for one in ids]
    tenants = restart(JOB + "columns.rank = {type = 'integer', default = 7}\n")
    for number, one in enumerate(ids[:2]):
        assert column(tenants, one, "SELECT rank FROM job ORDER BY id") == [7, number]
        assert [row["rank"] for row in sorted(rows(tenants, one, "job"), key=lambda row: row["id"])] == [7, number]
        (again,) = pull(tenants, one, {"cursor": cursors[number], "tables": ["job"]})["data"]["job"]
        assert (again["id"], again["version"]) == ("a", 2)
        (row,) = tenants.read(one, lambda: list(connection().execute("SELECT _extra FROM job WHERE id = 'b'")))
        assert row[0] == '{"x":[1.0,{"é":null}]}'
    assert pull(tenants, ids[2], {"cursor": cursors[2], "tables": ["job"]})["data"]["job"] == []
    put(tenants, ids[2], {"id": "c", "rank": 1})
    assert tenants.read(ids[2], lambda: position().sequence) == 1


def test_new_column_of_ours_has_its_default_in_every_tenant(
    restart: Restart, installation: PostgresInstallation
) -> None:
    """Fault: set once, with the first tenant to be seen: all others had none, where code reckons with a number."""
    tenants = restart(JOB)
    ids = [provision(tenants) for _ in range(3)]
    postgres.server().ask("ALTER TABLE _meta DROP COLUMN purged_at", installation.name)
    postgres.server().ask("UPDATE syncapp.prepared SET fingerprint = 0 WHERE name = 'tenants'", installation.name)
    tenants = restart(JOB)
    assert [tenants.read(one, position).purged_at for one in ids] == [0, 0, 0]


def test_column_that_goes_stays_in_the_rows_and_comes_back_with_another_type(restart: Restart) -> None:
    tenants = restart(JOB + "columns.size = 'text'\n")
    one = provision(tenants)
    put(tenants, one, {"id": "a", "title": "T", "size": "12"}, {"id": "b", "size": "twelve"})
    tenants = restart(JOB)
    assert [json.loads(str(text)) for text in column(tenants, one, "SELECT _extra FROM job ORDER BY id")] == [
        {"size": "12"},
        {"size": "twelve"},
    ]
    assert {row["size"] for row in rows(tenants, one, "job")} == {"12", "twelve"}
    tenants = restart(JOB + "columns.size = 'integer'\n")
    assert column(tenants, one, "SELECT size FROM job ORDER BY id") == [None, None]
    assert {row["_unfit"]["size"] for row in rows(tenants, one, "job")} == {"12", "twelve"}


def test_table_that_is_declared_in_another_case_is_the_same(restart: Restart) -> None:
    """Fault: not renamed: a new table, and the rows in none that is synced."""
    tenants = restart(JOB)
    one = provision(tenants)
    put(tenants, one, {"id": "a", "title": "T"})
    tenants = restart(JOB.replace("job", "Job"), "job")
    assert [row["title"] for row in rows(tenants, one, "Job")] == ["T"]
    put(tenants, one, {"id": "b"}, table="Job")
    assert column(tenants, one, 'SELECT id FROM "Job" ORDER BY id') == ["a", "b"]


def test_indexes_come_and_go_and_take_texts_of_any_length(restart: Restart) -> None:
    """Fault: the column itself in the index: a text of more than 2,704 bytes was refused by PostgreSQL."""
    two = JOB + "columns.place = 'text'\ncolumns.rank = 'integer'\n"
    tenants = restart(two + "indexes = [['title', 'place'], ['rank']]\n")
    one = provision(tenants)
    long = "".join(chr(0x1F600 + number % 50) + str(number) for number in range(1_500))
    put(tenants, one, {"id": "a", "title": long, "place": long, "rank": 1})
    assert rows(tenants, one, "job")[0]["title"] == long

    def names() -> set[str]:
        return set(schema_changes.indexes("job"))

    assert tenants.read(one, names) == {"job_Unique_id", "_ix_job(title,place)", "_ix_job(rank)"}
    tenants = restart(two + "indexes = [['rank']]\n")
    assert tenants.read(one, names) == {"job_Unique_id", "_ix_job(rank)"}


def test_tenant_goes_through_a_file_with_every_byte_of_its_rows(restart: Restart, tmp_path: Path) -> None:
    """Also those of a table that is not synced any more, and what only SQLite would write otherwise."""
    tenants = restart(JOB + "[old]\ncolumns.a = 'json'\n")
    one = provision(tenants)
    put(tenants, one, {"id": "a", "title": "T", "x": [1.0, 1e300, {"b": 1, "a": "\u2028"}]})
    put(tenants, one, {"id": "o", "a": {"z": [None, 1.50]}}, table="old")
    tenants.engine.migrate(one)
    before = tenants.read(one, lambda: list(connection().execute("SELECT seq, row, fields, session FROM _changes")))
    tenants.engine.copy_to(one, tmp_path / "copy")
    epoch = tenants.engine.restore_from(one, tmp_path / "copy")
    assert (
        tenants.read(one, lambda: list(connection().execute("SELECT seq, row, fields, session FROM _changes")))
        == before
    )
    assert tenants.read(one, position).epoch == epoch and tenants.read(one, position).sequence == 2
    assert [decode_stored(str(text)) for text in column(tenants, one, "SELECT a FROM old")] == [{"z": [None, 1.5]}]


def test_names_that_postgresql_can_not_have_are_refused(restart: Restart, installation: PostgresInstallation) -> None:
    restart("")
    for text, sentence in (
        (f"[{'t' * 64}]\ncolumns.a = 'text'\n", "63 characters"),
        ("[job]\ncolumns.xmin = 'text'\n", "xmin"),
    ):
        declare(text)
        with pytest.raises(CanNotOpen, match=sentence):
            Tenants(PostgresEngine(installation.address))


OPEN = "print(len(engine.tenant_ids()), flush=True)"


def test_processes_that_begin_at_once_make_one_set_of_tables(installation: PostgresInstallation) -> None:
    """Fault: no lock around it: one of them was refused, since a table was there already."""
    others = [elsewhere(installation, OPEN) for _ in range(3)]
    engine = PostgresEngine(installation.address)
    together = [gevent.spawn(create, engine, str(uuid.uuid4())) for _ in range(5)]
    gevent.joinall(together, raise_error=True)
    assert [other.wait(60) for other in others] == [0, 0, 0]
    assert all(lines_of(other).read().strip().isdigit() for other in others) and len(engine.tenant_ids()) == 5
    engine.close()
