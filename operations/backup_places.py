"""Where backups are kept: a folder, or a bucket that speaks the protocol of S3.

Knows: how an object comes there whole or not at all, how it is read, listed and removed. Must not know: what is in an
object, which are needed. The library for buckets is imported only where one is used.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from operations.backup_manifest import BackupError
from server.durable_files import sync_file, sync_folder
from settings import Settings

_BUCKET = re.compile(r"s3://([^/]+)/?(.*)")
_MAKING = ".making-"
_WAIT, _RETRY_SECONDS, _TRIES = "60s", 60, 4


class PlaceUnusable(BackupError):
    """A place of backups can't be used now; as text it says why."""


class Place(Protocol):
    """Keeps objects by their names. All methods raise PlaceUnusable."""

    def put(self, name: str, file: Path) -> None:
        """Keep a file's contents under a name: all of it, on the disk, or nothing."""

    def get(self, name: str, file: Path) -> None:
        """Write an object into a file. Raises: BackupError also if there is none."""

    def names(self, folder: str) -> list[str]:
        """List the objects whose names begin with a folder and a slash."""

    def remove(self, names: list[str]) -> None:
        """Remove objects; those that are not there are none."""


def place_of(settings: Settings) -> Place:
    """Give the place that BACKUP_TO names.

    Raises: BackupError if it names none.
    """
    if not settings.backup_to:
        raise BackupError("BACKUP_TO is not set: it says where backups are kept, a folder or s3://bucket/prefix.")
    found = _BUCKET.fullmatch(settings.backup_to)
    return Bucket(found[1], found[2], settings) if found else Folder(Path(settings.backup_to))


class Folder:
    """A folder, for its owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, name: str, file: Path) -> None:
        """Copy a file under another name, and rename it once it is on the disk."""
        target = self._path / name
        making = target.with_name(_MAKING + target.name)
        with _told(f"There is no room in {self._path} for the backup.", self._path):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with file.open("rb") as source, os.fdopen(descriptor, "wb") as copy:
                    shutil.copyfileobj(source, copy)
                sync_file(making)
                making.rename(target)
            except BaseException:
                making.unlink(missing_ok=True)
                raise
            sync_folder(target.parent)

    def get(self, name: str, file: Path) -> None:
        """Copy an object into a file."""
        with _told("There is no room for what is read of the backup.", self._path):
            shutil.copyfile(self._path / name, file)

    def names(self, folder: str) -> list[str]:
        """List a folder, without what is being made."""
        if not (self._path / folder).is_dir():
            return []
        with _told("", self._path), os.scandir(self._path / folder) as found:
            return sorted(f"{folder}/{one.name}" for one in found if not one.name.startswith(_MAKING))

    def remove(self, names: list[str]) -> None:
        """Remove files, and what an interrupted run was making beside them."""
        folders = {(self._path / name).parent for name in names}
        with _told("", self._path):
            for name in names:
                (self._path / name).unlink(missing_ok=True)
            for folder in folders:
                for left in folder.glob(f"{_MAKING}*"):
                    left.unlink(missing_ok=True)
                sync_folder(folder)


@contextmanager
def _told(no_room: str, place: Path) -> Iterator[None]:
    """Tell what a disk says in a sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise BackupError(f"{error.filename} is missing") from None
    except OSError as error:
        if error.errno in (28, 122) and no_room:  # ENOSPC, EDQUOT
            raise PlaceUnusable(no_room) from None
        raise PlaceUnusable(f"{place} can't be used: {error.strerror}.") from None


class Bucket:
    """A bucket, or what is under a prefix of it."""

    def __init__(self, name: str, prefix: str, settings: Settings) -> None:
        from obstore.store import S3Store  # noqa: PLC0415 -- a server needs nothing of it

        given: dict[str, Any] = {
            "endpoint": settings.s3_endpoint,
            "access_key_id": settings.s3_access_key_id,
            "secret_access_key": settings.s3_secret_access_key,
        }
        self._shown = f"s3://{name}/{prefix}"
        with _told_of_bucket(self._shown):
            self._store = S3Store(
                name,
                prefix=prefix or None,
                region=settings.s3_region,
                virtual_hosted_style_request=False,
                client_options={"timeout": _WAIT, "allow_http": settings.s3_endpoint.startswith("http://")},
                retry_config={"max_retries": _TRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
                **{key: value for key, value in given.items() if value},
            )

    def put(self, name: str, file: Path) -> None:
        """Send a file; a large one in parts, which count when all are there."""
        import obstore  # noqa: PLC0415

        with _told_of_bucket(self._shown):
            obstore.put(self._store, name, file)

    def get(self, name: str, file: Path) -> None:
        """Receive an object into a file, a part at a time."""
        import obstore  # noqa: PLC0415

        with _told_of_bucket(self._shown), file.open("wb") as target:
            try:
                for part in obstore.get(self._store, name).stream():
                    target.write(part)
            except FileNotFoundError:
                raise BackupError(f"{self._shown}/{name} is missing") from None

    def names(self, folder: str) -> list[str]:
        """List the objects of a folder."""
        import obstore  # noqa: PLC0415

        with _told_of_bucket(self._shown):
            return sorted(one["path"] for page in obstore.list(self._store, prefix=folder) for one in page)

    def remove(self, names: list[str]) -> None:
        """Remove objects, many with each request."""
        import obstore  # noqa: PLC0415

        with _told_of_bucket(self._shown), suppress(FileNotFoundError):
            if names:
                obstore.delete(self._store, names)


@contextmanager
def _told_of_bucket(shown: str) -> Iterator[None]:
    """Tell what a bucket answers in a sentence; no key is in it."""
    from obstore.exceptions import BaseError  # noqa: PLC0415

    try:
        yield
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise PlaceUnusable(f"{shown} can't be used: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if len(line) <= 300 else line[:299] + "…"
