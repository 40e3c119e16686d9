"""The data folder: where the files of an installation lie, and what each is called.

Knows: names of files, made from UUIDs that were parsed and never from text that came from outside. Must not know: SQLite,
customers, what is done with a file.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from storage.sqlite.folder_locks import SERVER_LOCK

_NAME_LENGTH = len("tenant_.db") + 32
_IS_RESTORED = re.compile(r"tenant_([0-9a-f]{32})\.restored", re.ASCII)


def file_name(tenant_id: str) -> str:
    """Name a tenant's file: from a UUID that is parsed, whatever the text was."""
    return f"tenant_{uuid.UUID(tenant_id).hex}.db"


def tenant_of(name: str) -> str | None:
    """Give the ID of the tenant whose file has this name, if it has the length of one."""
    if len(name) != _NAME_LENGTH or not name.endswith(".db"):
        return None
    return f"{name[7:15]}-{name[15:19]}-{name[19:23]}-{name[23:27]}-{name[27:39]}"


def is_filled(path: Path) -> bool:
    """Tell whether a file is there and not empty: an empty one, which a full disk or a power cut leaves, holds no data."""
    return path.is_file() and path.stat().st_size > 0


class DataFolder:
    """The folder of one installation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.main = path / "main.db"
        self.tenants = path / "tenants"
        self.restored = path / "restored"
        """What is to be taken over in the place of tenants' files: apart from these, as it is listed twice a second."""
        self.replaced = path / "replaced"
        """What a restore replaced is kept in it, until the next backup."""
        self.before_migration = path / "before-migration"
        """What tenants' files were before they were migrated is kept in it, and why one could not be."""
        self.server_lock = path / SERVER_LOCK
        self.registrations_lock = path / "registrations.lock"
        """Shared by registrations, and held alone while their leftovers are removed."""

    def make(self) -> None:
        """Make the folders, for their owner only."""
        for path in (self.path, self.tenants, self.restored):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path_of(self, tenant_id: str) -> Path:
        """Give the file of a tenant: ``tenant_`` and its UUID without dashes."""
        return self.tenants / file_name(tenant_id)

    def restored_path_of(self, tenant_id: str) -> Path:
        """Give where a restored file of a tenant lies ready to be taken over."""
        return self.restored / Path(file_name(tenant_id)).with_suffix(".restored")

    def lying_ready(self) -> Iterator[str]:
        """Give the tenants whose restored files lie ready; what is not of our making is left alone."""
        for path in self.restored.iterdir():
            if found := _IS_RESTORED.fullmatch(path.name):
                yield str(uuid.UUID(found[1]))

    def fault_of(self, tenant_id: str) -> str | None:
        """Tell, as one can from outside, whether a customer's file is not there."""
        return fault_of(self.path_of(tenant_id))


def fault_of(path: Path) -> str | None:
    """Tell, as one can from outside, whether a file holds no database."""
    try:
        return None if path.stat().st_size else "its file is empty"
    except FileNotFoundError:
        return "its file is missing"
