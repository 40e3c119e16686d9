"""Gives the key that signs tokens: the operator's, or one that is generated once and stored with the data.

Knows: where the key is stored, and which keys are too weak. Must not know: tokens, claims, requests.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from server.durable_files import sync_folder
from setting_values import MIN_SECRET_BYTES
from settings import Settings

_LEAST_DISTINCT_CHARACTERS = 10


class BadSigningKey(RuntimeError):
    """The stored key is empty or damaged, so that anybody could sign tokens."""


def key_path(settings: Settings) -> Path:
    """Give the path of the generated key."""
    return Path(settings.data_dir) / "jwt_secret_key"


Kept = Callable[[Callable[[], str]], str | None]
"""Gives what the storage engine keeps, made at the first time; None if it keeps nothing."""


def signing_key(settings: Settings, kept: Kept = lambda _: None) -> str:
    """Give the key that signs tokens. The caller holds the lock of the data folder.

    Raises: BadSigningKey; OSError, after which no half-written key is left.
    """
    if settings.jwt_secret_key:
        return settings.jwt_secret_key
    if (key := kept(new_key)) is not None:
        return _checked(key, "kept in the database", "the row of syncapp.secrets")
    path = key_path(settings)
    if not path.exists():
        _store(path, new_key())
    os.chmod(path, 0o600)
    return _read_stored(path)


def keep(settings: Settings, key: str) -> None:
    """Store a key of another installation in the place of the generated one."""
    _store(key_path(settings), key)


def new_key() -> str:
    """Make a key."""
    return secrets.token_urlsafe(48)


def is_easy_to_guess(key: str) -> bool:
    """Tell whether a key is long enough but has very few different characters."""
    return len(set(key)) < _LEAST_DISTINCT_CHARACTERS


def check_stored_key(settings: Settings) -> None:
    """Check the stored key, if there is one and the settings have none.

    Raises: BadSigningKey, OSError.
    """
    if not settings.jwt_secret_key and key_path(settings).exists():
        _read_stored(key_path(settings))


def _read_stored(path: Path) -> str:
    """Read the stored key. Earlier versions left an empty file after a full disk or a power cut."""
    return _checked(path.read_bytes().decode("utf-8", "replace"), f"in {path}", "the file")


def _checked(key: str, where: str, what: str) -> str:
    if len(key.strip().encode()) < MIN_SECRET_BYTES or is_easy_to_guess(key) or "\N{REPLACEMENT CHARACTER}" in key:
        raise BadSigningKey(
            f"The signing key {where} is empty or damaged. Put it back from a copy, or remove {what} to have a new one "
            "made: then everybody has to log in again."
        )
    return key


def _store(path: Path, key: str) -> None:
    """Write a new key under another name first, so that a file under its own name is always complete."""
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
