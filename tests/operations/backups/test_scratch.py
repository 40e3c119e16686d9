"""What is taken out of a backup leaves nothing behind, also if its process is killed; a full disk is said as such."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from pathlib import Path

import pytest

from operations.backups import scratch
from operations.backups.places import PlaceUnusable
from operations.backups.scratch import scratch_folder


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def age(folder: Path) -> None:
    long_ago = time.time() - 3_600
    os.utime(folder, (long_ago, long_ago))


def test_folder_of_one_that_was_killed_goes_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults: a folder in use removed; one that is being made, or locked before its owner did; what a link leads to; a
    person's own folder that has such a name."""
    left, young, link, own = (tmp_path / f"syncapp-scratch-{name}" for name in ("left", "young", "link", "own"))
    other = tmp_path / "other"
    for folder in (left, young, other, own):
        folder.mkdir()
        (folder / "tenant.db").write_text("of a customer")
    for folder in (left, young, other):
        (folder / scratch._MARK).touch()
    link.symlink_to(other)
    for folder in (left, other, own):
        age(folder)
    lock, locked = scratch._locked, []

    def noting(folder: Path, *how: int) -> int:
        locked.append(folder.name)
        return lock(folder, *how)

    monkeypatch.setattr(scratch, "_locked", noting)
    with scratch_folder() as held:
        (held / "copy.db").touch()
        age(held)
        with scratch_folder() as second:
            assert held.exists() and second.stat().st_mode & 0o077 == 0
    assert {path.name for path in tmp_path.iterdir()} == {young.name, link.name, other.name, own.name}
    assert (other / "tenant.db").exists() and (own / "tenant.db").exists() and young.name not in locked


def test_full_disk_is_said_and_another_error_is_what_it_is() -> None:
    for number, expected in ((errno.ENOSPC, PlaceUnusable), (errno.EIO, OSError)):
        with pytest.raises(expected), scratch_folder():
            raise OSError(number, os.strerror(number))
