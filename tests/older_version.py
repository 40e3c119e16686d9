"""The version before this one, to be run on the same data: its code out of git, and what it once wrote.

Knows: how a checkout names older versions, and that it may have neither tags nor history, as a shallow clone of CI's has
none. Must not know: what is tested. What it wrote lies in ``tests/recorded``, made by ``python -m tests.record_version``.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.sources import ROOT

NOW, BEFORE, *_ = re.findall(r"^## \[(\d[\d.]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
TAG = f"v{BEFORE}"
RECORDED = ROOT / "tests" / "recorded" / BEFORE
FILES = {"main": "main.db", "tenant": "tenants/tenant_{}.db"}
"""What is recorded, and where it belongs in a data folder; a tenant's file has its ID in its name."""


def notes() -> dict[str, Any]:
    """Give what is known of the recorded data: who is in it, what devices were told of it."""
    found: dict[str, Any] = json.loads((RECORDED / "notes.json").read_text())
    return found


def restore(folder: Path) -> None:
    """Make a data folder of what is recorded."""
    for name, path in FILES.items():
        target = folder / path.format(notes()["tenant"].replace("-", ""))
        target.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(target)
        database.executescript((RECORDED / f"{name}.sql").read_text())
        database.close()


@cache
def recorded_columns() -> dict[str, set[str]]:
    """Give the columns of each table that the version before had."""
    found: dict[str, set[str]] = {}
    for name in FILES:
        database = sqlite3.connect(":memory:")
        database.executescript((RECORDED / f"{name}.sql").read_text())
        for (table,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            found[table] = {row[1] for row in database.execute(f'PRAGMA table_info("{table}")')}
        database.close()
    return found


def commit() -> str | None:
    """Give the commit of the version before, by its tag or by what is recorded; None if this checkout does not have it."""
    known = [notes()["commit"]] if RECORDED.exists() else []
    for name in (TAG, *known):
        found = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if found.returncode == 0:
            return found.stdout.decode().strip()
    return None


@cache
def command() -> list[str]:
    """Give the command that begins the version before, its code taken out of git once for a run."""
    found = commit()
    assert found, f"the tag {TAG} is not here"
    place = tempfile.TemporaryDirectory(prefix=f"{TAG}-")
    _PLACES.append(place)
    code = Path(place.name)
    packed = _git("archive", found)
    subprocess.run(["tar", "x", "-C", str(code)], input=packed.stdout, check=True)
    return ["env", "-C", str(code), _python(code), "syncapp.py"]


_PLACES: list[tempfile.TemporaryDirectory[str]] = []
"""Where it is unpacked, until this run ends."""


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)


def _python(code: Path) -> str:
    """Give a Python with the packages that some code needs: this one, if it has the same, else one of its own, which has
    what differs and is lent the rest."""
    pinned = re.findall(r"^(([\w.-]+)(?:\[\w+\])?==(\S+))", (code / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    other: list[str] = [pin for pin, name, version in pinned if _installed(name) != version]
    if not other:
        return sys.executable
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", code / ".venv"], check=True)
    python = str(code / ".venv" / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--disable-pip-version-check", *other], check=True)
    own, ours = (sysconfig.get_path("purelib", vars={"base": base}) for base in (str(code / ".venv"), sys.prefix))
    (Path(own) / "lent.pth").write_text(f"{ours}\n")
    return python


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


needs_its_code = pytest.mark.skipif(
    commit() is None, reason=f"runs {BEFORE} itself, and needs its tag: git fetch --depth 1 origin tag {TAG}"
)
