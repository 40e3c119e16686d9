"""A backup that was changed is never good, and one that can't be read is said to be so in one sentence.

All are copies of one backup: no test here harms what it was made of.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import forking
from tests.backing_up import file_name, operating
from tests.conftest import Run, Server, Tenant

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("backed-up") / "data").start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def tenant(server: Server) -> Tenant:
    """A tenant with a row that has a history."""
    tenant = server.register()
    device = tenant.device()
    device.create(id="a", name="Asha")
    device.update(id="a", phone="1")
    return tenant


@pytest.fixture(scope="module")
def whole(tenant: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backup that all are copies of."""
    done = forking.run(["backup", "--to", str(tmp_path_factory.mktemp("whole"))], operating(tenant.server.data))
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def made(whole: Path, folder: Path) -> Path:
    """A copy that may be harmed."""
    return Path(shutil.copytree(whole, folder / whole.name))


def change_row(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as tenant, tenant:
        tenant.execute("UPDATE _changes SET row = replace(row, 'Asha', 'Aisa')")
        tenant.execute("UPDATE end_user SET name = 'Aisa'")


def change_history(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as tenant, tenant:
        tenant.execute("UPDATE _changes SET row = replace(row, 'Asha', 'Aisa') WHERE version = 1")


def change_customer(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file.parent.parent / "main.db")) as main, main:
        main.execute("UPDATE customers SET passwordHash = 'x'")


def change_free_bytes(file: Path) -> None:
    with file.open("r+b") as bytes_of:
        bytes_of.seek(92)
        held = bytes_of.read(4)
        bytes_of.seek(92)
        bytes_of.write(bytes(byte ^ 1 for byte in held))


def add_file(file: Path) -> None:
    file.with_name("tenant_00000000000000000000000000000000.db").touch()


@pytest.mark.parametrize("change", [change_row, change_history, change_customer, change_free_bytes, add_file])
def test_backup_whose_contents_were_changed_is_never_good(
    tenant: Tenant, operate: Run, made: Path, change: Callable[[Path], None]
) -> None:
    operate("backup", "verify", made)
    change(made / "tenants" / file_name(tenant))
    before = tenant.device().rows()
    operate("backup", "verify", made, code=1)
    operate("restore", made, "--yes", code=1)
    assert tenant.device().rows() == before


def test_rows_that_were_exchanged_together_with_their_hash_are_found_by_the_hash_over_rows(
    tenant: Tenant, operate: Run, made: Path
) -> None:
    file, manifest = made / "tenants" / file_name(tenant), made / "manifest.json"
    change_row(file)
    told = json.loads(manifest.read_text())
    told["files"][f"tenants/{file.name}"] = subprocess.run(
        ["sha256sum", str(file)], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    manifest.write_text(json.dumps(told))
    assert "not what the manifest says" in operate("backup", "verify", made, code=1).stderr


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"format": 3}', '{"format": "2"}', '{"tenants": {"../../x": {}}}', '{"tenants": []}',
             '{"format": 2, "files": {"../../../etc/passwd": ""}}', '{"format": 2, "tenants": {"x": 1}}',
             '{"tenants": ' + '{"x":' * 100_000]
)  # fmt: skip
def test_manifest_that_is_none_is_said_in_one_sentence(operate: Run, made: Path, text: str) -> None:
    (made / "manifest.json").write_text(text)
    for command in (("backup", "verify", made), ("restore", made, "--yes")):
        assert operate(*command, code=1).stderr.strip()


@pytest.mark.parametrize(
    ("name", "value"), [("digests", []), ("digests", 1), ("rows", "x"), ("epoch", {}), ("schema", [])]
)
def test_manifest_whose_state_of_a_tenant_is_of_another_form_is_no_traceback(
    tenant: Tenant, operate: Run, made: Path, name: str, value: object
) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["tenants"][tenant.id][name] = value
    (made / "manifest.json").write_text(json.dumps(manifest))
    code = 0 if name == "schema" else 1  # Rows that were read under another declaration are not compared.
    assert "it is not what the manifest says" in operate("backup", "verify", made, code=code).stderr or not code
