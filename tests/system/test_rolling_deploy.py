"""Old and new processes side by side on one database, whose tables.toml differ by a column, as while a deploy rolls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.conftest import JSON, Server, Tenant, wait_for

pytestmark = pytest.mark.skipif(not postgres.is_there(), reason=postgres.MISSING)

OLD = "[job]\ncolumns.title = 'text'\n"
NEW = OLD + "columns.done = 'integer'\n"


class Deploy:
    """Processes of one installation, each with a declaration of its own."""

    def __init__(self, folder: Path, start: Callable[..., Server]) -> None:
        self._folder, self._start = folder, start
        self._url = postgres.address_of(folder / "data")

    def start(self, name: str, declaration: str) -> Server:
        tables = self._folder / f"{name}.toml"
        tables.write_text(declaration)
        return self._start(name, DATABASE_URL=self._url, TABLES_FILE=str(tables), PROCESS_NAME=name)


@pytest.fixture
def deploy(tmp_path: Path, start_server: Callable[..., Server]) -> Iterator[Deploy]:
    yield Deploy(tmp_path, start_server)
    postgres.drop_those_in(tmp_path)


def push(tenant: Tenant, **data: Any) -> JSON:
    row: JSON = tenant.device().push({"changes": {"job": [data]}})["data"][0]
    return row


def jobs(tenant: Tenant) -> dict[str, JSON]:
    return {row["id"]: row for row in tenant.device().rows("job")}


def created(name: str, **data: Any) -> JSON:
    return {"table": "job", "operation": "create", "data": {"id": name, **data}}


def test_column_comes_while_old_processes_go_on(deploy: Deploy) -> None:
    """What either is sent of it is kept, and what an old one does not know is not taken away."""
    old = deploy.start("old", OLD)
    here = old.register()
    push(here, id="a", title="A")
    is_over = False

    def push_on() -> int:
        number = 0
        while not is_over:
            number += 1
            push(here, id=f"n{number}", title=str(number))
        return number

    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(push_on)
        there = replace(here, server=deploy.start("new", NEW))
        before = len(jobs(there))
        wait_for(lambda: len(jobs(there)) > before + 2, "pushes of the old one after the change")
        is_over = True
        count = pushing.result()
    assert len(jobs(there)) == count + 1 == len(jobs(here))
    push(there, id="b", title="B", done=1)
    push(here, id="c", title="C", done=2)
    push(here, id="b", title="B2")
    for tenant in (here, there):
        assert [(row["title"], row.get("done")) for name, row in jobs(tenant).items() if name in "abc"] == [
            ("A", None), ("C", 2), ("B2", 1)
        ]  # fmt: skip


def test_old_process_that_starts_again_takes_the_column_away_until_the_new_one_needs_it(
    deploy: Deploy, tmp_path: Path
) -> None:
    """Fault: 500 at each push to the new process that makes a row, until it was started anew."""
    there = deploy.start("new", NEW).register()
    push(there, id="a", title="A", done=1)
    here = replace(there, server=deploy.start("old", OLD))
    assert jobs(here)["a"]["done"] == 1
    wait_for(lambda: there.device().push_raw(created("b", done=2)).status_code != 503, "the tables of the new process")
    push(here, id="c", title="C", done=3)
    assert {name: row["done"] for name, row in jobs(there).items()} == {"a": 1, "b": 2, "c": 3}
    stored = postgres.ask(tmp_path / "data", "SELECT id, done FROM public.job WHERE id < 'c' ORDER BY id")
    assert stored == [("a", 1), ("b", 2)]
    for tenant in (here, there):
        assert [line for line in tenant.server.log if "exception" in line or line["level"] == "raw"] == []
