"""What is shipped to run it elsewhere: the image's files serve, systemd's unit is valid and allows what the server does."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.backing_up import operating
from tests.conftest import ROOT, Server, wait_for
from tests.needs import where

UNIT = ROOT / "deploy" / "syncapp.service"
needs_systemd = pytest.mark.skipif(where("systemd-analyze") is None, reason="apt-get install systemd")
needs_strace = pytest.mark.skipif(where("strace") is None, reason="apt-get install strace")


def shipped() -> list[str]:
    """List what the image has of this folder, as .dockerignore says."""
    first, *others = (ROOT / ".dockerignore").read_text().splitlines()
    assert first == "*", "what is not named is left out"
    return [line[1:] for line in others if line.startswith("!")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the image has."""
    folder = tmp_path_factory.mktemp("image")
    for name in shipped():
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target)
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    return folder


@pytest.fixture(scope="module")
def traced(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """The server that runs from these files, and the log of its system calls."""
    folder = tmp_path_factory.mktemp("traced")
    trace = folder / "trace"
    command = [sys.executable, "syncapp.py"]
    if where("strace"):
        command = ["strace", "-D", "-f", "-qq", "-o", str(trace), *command]
    server = Server(folder / "data", command=["env", "-C", str(image), *command]).start()
    yield server, trace
    if server.process.poll() is None:  # type: ignore[union-attr]
        server.kill()


def test_image_serves_pages_and_api(traced: tuple[Server, Path]) -> None:
    server, _ = traced
    tenant = server.register()
    tenant.device().create(id="a", name="n")
    listener = tenant.device().listen()
    assert [row["id"] for row in tenant.device().rows()] == ["a"]
    listener.close()
    pages = [
        "/",
        "/docs",
        "/websocket-test.html",
        "/test-multi-app-sync.html",
        "/openapi.json",
        "/static/client/index.js",
    ]
    for page in pages:
        text = requests.get(server.url + page, timeout=30)
        assert text.status_code == 200, page
        for script in re.findall(r'(?:src|href)="(/static/[^"]+)"', text.text):
            assert requests.get(server.url + script, timeout=30).status_code == 200, script


@needs_systemd
@needs_strace
def test_unit_lets_the_server_make_each_system_call_that_it_makes(traced: tuple[Server, Path], image: Path) -> None:
    """Backups too, which a server also begins by itself. Fault: they were not allowed to lower their priority."""
    server, trace = traced
    test_image_serves_pages_and_api(traced)
    backup = ["syncapp.py", "backup", "--to", str(trace.with_name("backups"))]
    command = ["strace", "-f", "-qq", "-o", f"{trace}-backup", sys.executable, *backup]
    subprocess.run(command, cwd=image, env=operating(server.data), check=True, capture_output=True)
    server.stop()
    wait_for(lambda: "exit_group" in trace.read_text(errors="replace"), "the end of the trace")
    text = trace.read_text(errors="replace") + Path(f"{trace}-backup").read_text(errors="replace")
    used = set(re.findall(r"^\d+ +(\w+)\(", text, re.MULTILINE))
    filters = re.findall(r"^SystemCallFilter=(~?)(.+)$", UNIT.read_text(), re.MULTILINE)
    allowed = set[str]()
    for refuses, names in filters:
        group = set().union(*(system_calls(name) for name in names.split()))
        allowed = allowed - group if refuses else allowed | group
    assert len(used) > 30 and used - allowed == set()


def system_calls(name: str) -> set[str]:
    """List the system calls of one of systemd's groups."""
    if not name.startswith("@"):
        return {name}
    asked = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True)
    members = re.findall(r"^ +([@\w-]+)", asked.stdout, re.MULTILINE)
    return set().union(*map(system_calls, members))


@needs_systemd
def test_unit_is_valid_and_exposes_little(tmp_path: Path) -> None:
    unit = tmp_path / "syncapp.service"
    unit.write_text(UNIT.read_text().replace("/opt/syncapp/.venv/bin/python", sys.executable))
    checked = subprocess.run(["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr
    security = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    exposed = subprocess.run(security, check=False, capture_output=True, text=True)
    assert exposed.returncode == 0, exposed.stdout[-200:]


def test_files_of_the_image_are_all_that_the_server_imports(image: Path) -> None:
    """A module that .dockerignore forgets would end the container at its start, or at the first command."""
    modules = {
        path.relative_to(ROOT) for path in (*ROOT.glob("*.py"), *ROOT.glob("*/**/*.py")) if is_of_the_server(path)
    }
    missing = {str(path) for path in modules if not (image / path).exists()}
    assert missing == {"gunicorn.conf.py"}


def is_of_the_server(path: Path) -> bool:
    folder = path.relative_to(ROOT).parts[0]
    return folder in {"accounts", "api", "operations", "protocol", "server", "storage"} or path.parent == ROOT


def test_dockerfile_copies_what_is_there_and_ends_without_rights() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for names in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in names.split())
    version = re.search(r"^FROM python:3\.(\d+)-slim AS server$", text, re.MULTILINE)
    assert version and int(version[1]) >= 11
    assert re.search(r"^USER (?!0)\d+$", text.rpartition("\nFROM ")[2], re.MULTILINE), "the last stage is what is built"


@pytest.mark.skipif(os.geteuid() != 0 or where("setpriv") is None, reason="needs root, and setpriv")
def test_image_for_a_volume_of_roots_takes_it_over_and_gives_its_rights_away(tmp_path: Path) -> None:
    found = re.search(r'AS root-volume\nCMD \["sh", "-c", "(.+)"\]', (ROOT / "Dockerfile").read_text())
    assert found
    script = (
        found[1]
        .replace("python syncapp.py", "id -u")
        .replace("=syncapp", "=nobody")
        .replace("=nobody --cl", "=nogroup --cl")
    )
    done = subprocess.run(
        ["sh", "-c", script.replace("chown syncapp /data", f"chown nobody {tmp_path}")],
        check=True,
        capture_output=True,
        text=True,
    )
    nobody = pwd.getpwnam("nobody").pw_uid
    assert done.stdout == f"{nobody}\n" and tmp_path.stat().st_uid == nobody


def test_caddyfile_of_compose_is_that_of_the_docs() -> None:
    shipped_text = (ROOT / "deploy" / "Caddyfile").read_text().partition("\n")[2]
    documented = re.search(r"```caddy\n(.+?)```", (ROOT / "docs" / "proxies.md").read_text(), re.DOTALL)
    assert documented
    renamed = shipped_text.replace("{$DOMAIN}", "api.example.com").replace("syncapp:3000", "127.0.0.1:3000")
    assert renamed == documented[1]
