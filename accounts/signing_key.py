"""The key that signs tokens: the operator's, or one that is made once and kept in the data folder.

Knows: where the key is kept, when it is none to sign with. Must not know: tokens, claims, requests.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from settings import LEAST_SECRET_BYTES, Settings
from storage.sqlite.files import sync_folder

_LEAST_DISTINCT_CHARACTERS = 10


class BadSigningKey(RuntimeError):
    """The kept key is no key: whoever signs with it lets everybody in."""


def key_path(settings: Settings) -> Path:
    """Give where a key of the server's own making is kept."""
    return Path(settings.data_dir) / "jwt_secret_key"


def signing_key(settings: Settings) -> str:
    """Give the key that signs tokens. The caller has the data folder for itself.

    Raises: BadSigningKey; OSError, with nothing left of a key that could not be kept.
    """
    if settings.jwt_secret_key:
        return settings.jwt_secret_key
    path = key_path(settings)
    if not path.exists():
        _keep(path, secrets.token_urlsafe(48))
    os.chmod(path, 0o600)
    return _kept(path)


def is_easy_to_guess(key: str) -> bool:
    """Tell whether a key is long enough and yet nearly nothing."""
    return len(set(key)) < _LEAST_DISTINCT_CHARACTERS


def check_kept(settings: Settings) -> None:
    """Look whether the kept key, if it is needed and there is one, can sign.

    Raises: BadSigningKey, OSError.
    """
    if not settings.jwt_secret_key and key_path(settings).exists():
        _kept(key_path(settings))


def _kept(path: Path) -> str:
    """Read the kept key. An empty file is what a full disk or a power cut left of it under earlier versions."""
    key = path.read_bytes().decode("utf-8", "replace")
    if len(key.strip().encode()) < LEAST_SECRET_BYTES or is_easy_to_guess(key) or "\N{REPLACEMENT CHARACTER}" in key:
        raise BadSigningKey(
            f"The signing key in {path} is empty or damaged. Put it back from a copy, or remove the file to have a new one "
            "made: then everybody has to log in again."
        )
    return key


def _keep(path: Path, key: str) -> None:
    """Write a new key under another name first, so that under its own there is a whole one or none."""
    new = path.with_suffix(".new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, key.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
