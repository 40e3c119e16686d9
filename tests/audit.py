"""Holds the pins against the known vulnerabilities: Python's with pip-audit, npm's with ``npm audit``.

Ends with 1 if one is known. Where no list of them can be reached, one sentence says what was not looked at, and no more:
a commit made on a train is not worse than it was. ``make audit`` runs it, in a virtual environment of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

JSON = dict[str, Any]
Report = tuple[list[str], int, int]
"""What is known to be vulnerable, how many pins were looked at, and of how many."""


def audited_python(requirements: Path) -> Report:
    """Look at the pins of a requirements file; each names an exact version, so nothing is resolved or installed."""
    command = [str(Path(sys.executable).with_name("pip-audit")), "-r", str(requirements)]
    report = _json_of([*command, "--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json"])
    pins = sum(line[:1].isalpha() for line in requirements.read_text().splitlines())
    looked_at = [one for one in report.get("dependencies", []) if "skip_reason" not in one]
    known = [
        f"{one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version yet'}"
        for one in looked_at
        for found in one["vulns"]
    ]
    return known, len(looked_at), pins


def audited_npm(folder: Path) -> Report:
    """Look at the pins of a package.json with its lockfile."""
    pins = len(json.loads((folder / "package-lock.json").read_text())["packages"]) - 1
    report = _json_of(["npm", "audit", "--json", f"--prefix={folder}"]) if shutil.which("npm") else {}
    if "vulnerabilities" not in report:
        return [], 0, pins
    return [f"{name}: {one['severity']}" for name, one in report["vulnerabilities"].items()], pins, pins


def _json_of(command: list[str]) -> JSON:
    """Run a command that writes JSON, and give it, or nothing if it wrote none, as without a network."""
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300).stdout
    try:
        report: JSON = json.loads(said)
    except json.JSONDecodeError:
        return {}
    return report


def main(root: Path, say: Callable[[str], object] = print) -> int:
    """Look at all pins of a checkout."""
    reports = {path.name: audited_python(path) for path in sorted(root.glob("requirements*.txt"))}
    reports["package.json"] = audited_npm(root)
    for name, (known, looked_at, pins) in reports.items():
        for one in known:
            say(f"{name}: {one}")
        if looked_at < pins:
            say(f"{name}: no list of vulnerabilities could be reached for {pins - looked_at} of {pins} pins.")
    return int(any(known for known, _, _ in reports.values()))


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent.parent))
