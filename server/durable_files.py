"""What makes files survive a power loss: a write counts once the file, and the folder that names it, are synced.

Knows: fsync(2). Must not know: what is in a file.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(path: Path) -> None:
    """Bring a file's contents to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename or a removal survive a power loss (fsync(2): a file's entry is in its folder)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
