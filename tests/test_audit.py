"""What ``make audit`` says of pins that are vulnerable, good, or not to be looked up."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import audit

Audited = Callable[[Any], tuple[int, list[str]]]


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audited:
    """Audits one pin with a pip-audit that writes what it is given, and with no npm."""
    (tmp_path / "requirements.txt").write_text("Flask==3.1.3\n")
    (tmp_path / "package-lock.json").write_text(json.dumps({"packages": {"": {}}}))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    monkeypatch.setattr("shutil.which", lambda _: None)

    def audit_with(output: Any) -> tuple[int, list[str]]:
        program = tmp_path / "pip-audit"
        (tmp_path / "output").write_text(output if isinstance(output, str) else json.dumps(output))
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/output\nexit 1\n")
        program.chmod(0o700)
        said: list[str] = []
        return audit.main(tmp_path, said.append), said

    return audit_with


def test_vulnerable_pin_is_named_and_fails(audited: Audited) -> None:
    found = {"id": "PYSEC-2026-1", "fix_versions": ["3.1.4"]}
    status, said = audited({"dependencies": [{"name": "flask", "version": "3.1.3", "vulns": [found]}]})
    assert (status, said) == (1, ["requirements.txt: flask 3.1.3: PYSEC-2026-1, mended in 3.1.4"])


def test_good_pin_passes_in_silence(audited: Audited) -> None:
    assert audited({"dependencies": [{"name": "flask", "version": "3.1.3", "vulns": []}]}) == (0, [])


@pytest.mark.parametrize("output", ["", {"dependencies": [{"name": "flask", "skip_reason": "not found"}]}])
def test_pin_that_can_not_be_looked_up_passes_with_one_sentence(audited: Audited, output: Any) -> None:
    status, said = audited(output)
    assert status == 0
    assert said == ["requirements.txt: no list of vulnerabilities could be reached for 1 of 1 pins."]
