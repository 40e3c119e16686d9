"""What the README shows is run as it stands, and so is the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from tests.kit.server import LocalServer, wait_for
from tests.kit.truth import Account

from syncclient import SyncClient

PACKAGE = Path(__file__).resolve().parent.parent
README = (PACKAGE / "README.md").read_text()
EMAIL, PASSWORD = "test@example.com", "password123"


@pytest.fixture(scope="module")
def url(server: LocalServer) -> str:
    """The server, with the account that the README speaks of."""
    body = {"firstName": "Test", "lastName": "User", "email": EMAIL, "password": PASSWORD}
    assert requests.post(f"{server.url}/api/customers/register", json=body, timeout=20).status_code == 201
    return server.url


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(PACKAGE / "src"), **more},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_readme_starts_with_ten_lines_that_run(tmp_path: Path, url: str) -> None:
    lines = blocks("python")[0].replace("http://localhost:3000", url)
    assert README.index("```python") < 20 and len(lines.splitlines()) == 10
    done = run([sys.executable, "-W", "error", "-c", lines + "client.close()\n"], tmp_path)
    assert done.returncode == 0, done.stderr
    row_id, phone, status = done.stdout.split()
    assert (phone, status) == ("555-0199", "synced") and len(row_id) == 36


def test_hooks_of_the_readme_are_those_of_the_client(tmp_path: Path, url: str) -> None:
    lines = blocks("python")[1].replace("http://localhost:3000", url)
    more = f'client.login("{EMAIL}", "{PASSWORD}")\nclient.put("nowhere", {{}})\nclient.sync()\nclient.close()\n'
    done = run([sys.executable, "-W", "error", "-c", lines + more], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "push 1 rows, 0 waiting" in done.stdout and "is not a synced table" in done.stdout


def test_every_command_of_the_readme_works(tmp_path: Path, url: str, server: LocalServer) -> None:
    commands = re.findall(r"^syncclient (.*?)(?: +#.*)?$", blocks("sh")[1], re.MULTILINE)
    assert {line.split()[0] for line in commands} == {"login", "pull", "push", "watch", "status", "rows"}
    environ = {"SYNCCLIENT_URL": url, "SYNCCLIENT_REPLICA": "cli.db"}
    syncclient = [sys.executable, "-m", "syncclient"]
    refused = run([*syncclient, "pull"], tmp_path, **environ)
    assert (refused.returncode, refused.stderr) == (1, "syncclient: Log in: there is no session, or it has ended.\n")
    login = subprocess.run(
        [*syncclient, "login", EMAIL, "--password-stdin"], cwd=tmp_path, input=PASSWORD + "\n", text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE / "src"), **environ}, timeout=60, check=False,
    )  # fmt: skip
    assert login.returncode == 0
    account = _account(url)
    account.put("end_user", {"id": "of-the-cli", "name": "pulled"})
    for line in commands:
        if line.split()[0] not in ("login", "watch"):
            done = run([*syncclient, *line.split()], tmp_path, **environ)
            assert done.returncode == 0, done.stderr
    assert "pulled" in [json.loads(row)["name"] for row in done.stdout.splitlines()]
    assert "waiting: 0" in run([*syncclient, "status"], tmp_path, **environ).stdout


@pytest.fixture
def watching(tmp_path: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "syncclient", "--url", url, "--replica", "watch.db"]
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE / "src")}
    login = [*command, "login", EMAIL, "--password-stdin"]
    subprocess.run(login, cwd=tmp_path, input=PASSWORD + "\n", text=True, env=environ, timeout=60, check=True)
    output = (tmp_path / "watch.log").open("w")
    process = subprocess.Popen([*command, "watch"], cwd=tmp_path, env=environ, stdout=output, text=True)
    yield process
    process.kill()
    process.wait()
    output.close()


def test_watch_tells_of_changes_until_it_is_interrupted(
    watching: subprocess.Popen[str], tmp_path: Path, url: str
) -> None:
    account = _account(url)

    def place() -> str | None:
        with SyncClient(tmp_path / "watch.db", url) as client:
            return client.status().cursor

    wait_for(place, "its first exchange")
    account.put("interactions", {"id": "watched", "title": "x"})
    wait_for(lambda: "interactions: 1 changed" in (tmp_path / "watch.log").read_text(), "the change")
    watching.send_signal(signal.SIGINT)
    assert watching.wait(60) == 130


def _account(url: str) -> Account:
    account = Account(url, "", EMAIL, PASSWORD, "")
    account.token = account.session()[0]
    return account


@pytest.fixture(scope="module", params=["folder", "git"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it into a new environment, without what it depends on.

    From a copy of the folder, since setuptools writes beside the source; from git, what is committed.
    """
    folder = tmp_path_factory.mktemp("pip")
    if request.param == "folder":
        source = str(folder / "source")
        shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    else:
        source = f"git+file://{PACKAGE.parent.parent}#subdirectory=clients/python"
        if not (PACKAGE.parent.parent / ".git").exists() or not shutil.which("git"):
            pytest.skip("needs git, and a clone")
    run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], folder)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    done = run([*pip, "install", "--quiet", "--no-deps", source], folder, PYTHONPATH="")
    if "No matching distribution" in done.stderr and os.environ.get("CI") != "true":
        pytest.skip("needs setuptools from PyPI: give pip a network, or an index")
    assert done.returncode == 0, done.stderr
    return python


def test_package_installs_with_pip(installed: Path, tmp_path: Path) -> None:
    find = "import importlib.util; print(importlib.util.find_spec('syncclient').origin)"
    package = Path(run([str(installed), "-c", find], tmp_path, PYTHONPATH="").stdout.strip()).parent
    assert installed.parent.parent in package.parents and (installed.parent / "syncclient").exists()
    there = {path.name for path in package.iterdir()}
    assert {"py.typed", "cli.py", "__main__.py"} <= there
    if (installed.parent.parent.parent / "source").exists():  # Git has what is committed.
        assert {path.name for path in (PACKAGE / "src" / "syncclient").iterdir()} - {"__pycache__"} <= there


USER = """
from syncclient import Hooks, Progress, Row, SyncClient

def show(progress: Progress) -> None:
    print(progress.rows + progress.waiting)

with SyncClient("replica.db", "http://localhost:3000", hooks=Hooks(on_progress=show)) as client:
    row: Row = client.put("end_user", {"name": "Asha"})
    client.decide(client.conflicts()[0].number, "keep")
    waiting: str = client.status().waiting  # wrong
    client.rows(5)  # wrong
"""


def test_types_hold_for_who_uses_the_package(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(USER)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(installed), "app.py"]
    done = run(mypy, tmp_path, PYTHONPATH="", MYPYPATH="")
    wrong = [number for number, line in enumerate(USER.splitlines(), 1) if line.endswith("# wrong")]
    assert [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line] == wrong, done.stdout
