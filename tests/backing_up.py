"""What tests of backups, restores and other commands share."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from tests import postgres
from tests.conftest import FAST, Device, Run, Tenant


def operating(data: Path) -> dict[str, str]:
    """Give the environment of a command beside the server of a data folder, for those that ``operate`` can't run."""
    return {**os.environ, **FAST, **postgres.environ_of(data), "DATA_DIR": str(data)}


def file_name(tenant: Tenant) -> str:
    """What a tenant's file is called, in a data folder and in every backup."""
    return f"tenant_{uuid.UUID(tenant.id).hex}.db"


def backup(operate: Run, folder: Path, *more: str) -> Path:
    """Make a backup by the operator's command, and give its folder."""
    return Path(operate("backup", "--to", folder, *more).stdout.strip().splitlines()[-1])


def edited_since(tenant: Tenant, operate: Run, folder: Path) -> tuple[Device, Path]:
    """Make a row named then, a backup, and the row's name now; give the device and the backup."""
    device = tenant.device()
    device.create(id="a", name="then")
    made = backup(operate, folder)
    device.update(id="a", name="now")
    return device, made


def names(device: Device) -> set[str]:
    return {row["name"] for row in device.rows()}
