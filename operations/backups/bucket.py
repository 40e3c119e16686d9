"""A bucket that speaks the protocol of S3 as a place of backups.

Knows: the library for it, and which settings it has. Must not know: what is in an object, which are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from operations.backups.manifest import BackupError
from operations.backups.places import PlaceUnusable
from settings import Settings

_WAIT, _RETRY_SECONDS, _TRIES = "60s", 60, 4
_SHOWN_CHARACTERS = 300


class Bucket:
    """A bucket, or what is under a prefix of it."""

    def __init__(self, name: str, prefix: str, settings: Settings) -> None:
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
        with _told_of_bucket(self._shown):
            obstore.put(self._store, name, file)

    def get(self, name: str, file: Path) -> None:
        """Receive an object into a file, a part at a time."""
        with _told_of_bucket(self._shown), file.open("wb") as target:
            try:
                for part in obstore.get(self._store, name).stream():
                    target.write(part)
            except FileNotFoundError:
                raise BackupError(f"{self._shown}/{name} is missing") from None

    def names(self, folder: str) -> list[str]:
        """List the objects of a folder."""
        with _told_of_bucket(self._shown):
            return sorted(one["path"] for page in obstore.list(self._store, prefix=folder) for one in page)

    def remove(self, names: list[str]) -> None:
        """Remove objects, many with each request."""
        with _told_of_bucket(self._shown), suppress(FileNotFoundError):
            if names:
                obstore.delete(self._store, names)


@contextmanager
def _told_of_bucket(shown: str) -> Iterator[None]:
    """Tell what a bucket answers in a sentence; no key is in it."""
    try:
        yield
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise PlaceUnusable(f"{shown} can't be used: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "…"
