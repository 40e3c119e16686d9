"""The HTTP clients of many languages do the same walk against one server: ``tests/http_clients/README.md``.

What Debian's packages for Go and Java would add to a machine is large, so ``CLIENTS=all`` asks for them; all the others
are always played.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server, Tenant, needs

FOLDER = ROOT / "tests" / "http_clients"
ALL = os.environ.get("CLIENTS") == "all"
WALKED = """\
register 201
login 200
push 200
pull 200 3
unauthorized 401
too_large 413
unsupported 415
again 200 3
"""

PYTHON = {
    name: [sys.executable, "walk.py", name]
    for name in ["requests", "urllib3", "http.client", "urllib", "httpx", "aiohttp"]
}
NODE = {name: ["node", "walk.mjs", name] for name in ["fetch", "http", "undici", "axios"]}
SHELL = {
    name: ["bash", "walk.sh", name.replace(" ", "_")]
    for name in ("curl", "curl without_expect", "curl http10", "curl chunked", "wget")
}
PERL = {name: ["perl", "walk.pl", name] for name in ("HTTP::Tiny", "LWP")}
PHP = {f"PHP {name}": ["php", "-d", "memory_limit=256M", "walk.php", name] for name in ("curl", "stream")}
JAVA = {name: ["java", "Walk.java", name] for name in ("HttpClient", "HttpURLConnection")}
CLIENTS = PYTHON | NODE | SHELL | PERL | PHP | {"Ruby": ["ruby", "walk.rb"]}
LARGE = JAVA | {"Go": ["go", "run", "walk.go"]}

_numbers = itertools.count(1)

pytestmark = [pytest.mark.slow, needs("node", "npm", "curl", "wget", "perl", "ruby", "php", "ab")]


def walk(server: Server, command: list[str]) -> str:
    address = [server.url, f"walker{next(_numbers)}@example.com"]
    done = subprocess.run([*command, *address], cwd=FOLDER, capture_output=True, text=True, timeout=100, check=False)
    return done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_reads_every_answer_and_goes_on(server: Server, name: str) -> None:
    assert walk(server, CLIENTS[name]) == WALKED


@pytest.mark.parametrize("name", LARGE)
def test_a_client_of_a_large_package_reads_every_answer_and_goes_on(server: Server, name: str) -> None:
    if not ALL and shutil.which(LARGE[name][0]) is None:
        pytest.skip("CLIENTS=all plays it, with apt-get install default-jdk-headless golang-go")
    assert walk(server, LARGE[name]) == WALKED


@pytest.mark.parametrize("path, body, asked, reused", [
    ("push", '{"table": "end_user", "operation": "update", "data": {"id": "u1", "name": "Asha"}}', "identity", 100),
    ("pull", '{"cursor": null, "entityTypes": ["end_user"]}', "gzip", 0),
], ids=["push", "pull, compressed"])  # fmt: skip
def test_ab_sees_where_an_answer_ends_with_http10(
    tenant: Tenant, tmp_path: Path, path: str, body: str, asked: str, reused: int
) -> None:
    """RFC 9112 §9.3: a connection persists if both say keep-alive; an answer of unknown length ends with its connection."""
    tenant.device().push({"changes": {"end_user": [{"id": f"u{n}", "name": "Asha"} for n in range(500)]}})
    (tmp_path / "body").write_text(body)
    headers = ["-H", f"Authorization: Bearer {tenant.token}", "-H", f"Accept-Encoding: {asked}"]
    load = ["-q", "-k", "-n", "100", "-c", "4", "-p", str(tmp_path / "body"), "-T", "application/json"]
    address = f"{tenant.server.url}/api/client/sync/{path}"
    done = subprocess.run(["ab", *load, *headers, address], capture_output=True, text=True, timeout=60, check=True)
    said = {name: int(number) for name, number in re.findall(r"^(.+?):\s+(\d+)", done.stdout, re.MULTILINE)}
    assert said["Complete requests"] == 100
    assert "Non-2xx responses" not in said
    assert said["Keep-Alive requests"] == reused
