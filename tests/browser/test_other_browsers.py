"""Firefox and WebKit: the server's pages, and the offline replica held to the scenarios of ``kit``.

Chromium has the other browser tests. ``JS_KIT=all`` plays every scenario, with Dexie too, in a quarter of an hour.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server, needs, needs_js_client

CLIENT = ROOT / "clients" / "js"
ALL = os.environ.get("JS_KIT") == "all"
IN_CI = "answer_lost,two_instances,live_edits"
LIBRARIES = ["indexeddb", "dexie"] if ALL else ["indexeddb"]
firefox = pytest.param("firefox", marks=needs("firefox-esr", "xvfb-run"))
webkit = pytest.param("webkit", marks=needs("WebKitWebDriver", "xvfb-run"))

pytestmark = [pytest.mark.slow, *needs_js_client]


def run(folder: Path, *command: str) -> str:
    """Run a program with a screen, for WebKit has no mode without one."""
    environ = {"STORIES": "1", **os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    done = subprocess.run(
        ["xvfb-run", "-a", *command], env=environ, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("browser", [firefox, webkit])
def test_pages_connect_hear_and_play_the_demonstration(server: Server, tmp_path: Path, browser: str) -> None:
    assert "both pages work" in run(tmp_path, "node", str(CLIENT / "kit" / "pages.mjs"), browser, server.url)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("browser", [firefox, webkit])
def test_replica_equals_the_server_and_loses_nothing(tmp_path: Path, browser: str, library: str) -> None:
    driver = f"node {CLIENT / 'kit' / browser}.mjs {library}"
    only = [] if ALL else ["--only", IN_CI]
    said = run(tmp_path, sys.executable, "-m", "tests.kit", "--driver", driver, *only)
    assert ", 0 failed" in said and not said.startswith("0 passed"), said
