"""The JavaScript client's own tests, in Node against a real server, and its types. The scenarios: ``test_js_handlers``."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.conftest import ROOT, Server, needs_js_client

CLIENT = ROOT / "clients" / "js"

pytestmark = [pytest.mark.slow, *needs_js_client]


@pytest.mark.timeout(600)
def test_client_keeps_to_the_wire_contract_and_to_the_libraries(server: Server) -> None:
    command = ["node", "--test", "--test-force-exit", *map(str, sorted((CLIENT / "tests").glob("*.test.mjs")))]
    environ = {**os.environ, "SYNCAPP_URL": server.url}
    done = subprocess.run(command, cwd=CLIENT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_client_has_no_type_errors() -> None:
    done = subprocess.run(["node_modules/.bin/tsc", "-p", "."], cwd=CLIENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
