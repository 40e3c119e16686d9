"""Opens the place that BACKUP_TO names: a folder, or a bucket.

Knows: the forms of BACKUP_TO. Must not know: what is kept there. The library for buckets, of 15 MB, is imported only where
one is used.
"""

from __future__ import annotations

import re
from pathlib import Path

from operations.backups.manifest import BackupError
from operations.backups.places import Folder, Place
from settings import Settings

_BUCKET = re.compile(r"s3://([^/]+)/?(.*)")


def place_of(settings: Settings) -> Place:
    """Give the place that BACKUP_TO names.

    Raises: BackupError if it names none.
    """
    if not settings.backup_to:
        raise BackupError("BACKUP_TO is not set: it says where backups are kept, a folder or s3://bucket/prefix.")
    found = _BUCKET.fullmatch(settings.backup_to)
    if found is None:
        return Folder(Path(settings.backup_to))
    from operations.backups.bucket import Bucket  # noqa: PLC0415 -- for those alone who use one

    return Bucket(found[1], found[2], settings)
