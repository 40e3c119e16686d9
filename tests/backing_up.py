"""What tests of backups and restores share."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Device, Run


def backup(operate: Run, folder: Path, *more: str) -> Path:
    """Make a backup by the operator's command, and give its folder."""
    return Path(operate("backup", "--to", folder, *more).stdout.strip().splitlines()[-1])


def names(device: Device) -> set[str]:
    return {row["name"] for row in device.rows()}
