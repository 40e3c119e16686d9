"""Makes objects of files: compressed, encrypted if there is a key, with a hash; and files of objects.

Knows: the forms of an object, how an increment is written. Must not know: where objects are kept, what is in the files.
An object is a file of gzip; with a key it is that in a file of age (age-encryption.org/v1), so that ``age -d`` and
``gunzip`` read it without us.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyrage
from isal import igzip, isal_zlib

from operations.backups.manifest import BackupError
from operations.backups.scratch import is_no_room
from storage.increments import Step

_LEVEL = 2
_AGE = b"age-encryption.org/"
_LENGTH_BYTES = 4
_NEEDS_KEY = (
    "This backup is encrypted: BACKUP_KEY must have the key that it was made with, behind a newer one if there is."
)


class KeyDoesNotFit(BackupError):
    """What is to be read is encrypted with a key that BACKUP_KEY does not have; as text it says what to do."""


class Packing:
    """Packs and unpacks, with temporary files in a folder."""

    def __init__(self, keys: Sequence[str], scratch: Path) -> None:
        self._keys, self._plain = keys, scratch / "plain.gz"

    @property
    def encrypts(self) -> bool:
        """Tell whether there is a key."""
        return bool(self._keys)

    def pack(self, write: Callable[[Any], object], target: Path) -> str:
        """Make an object of what ``write`` writes into a file; give its SHA-256."""
        plain = self._plain if self._keys else target
        try:
            with igzip.open(plain, "wb", compresslevel=_LEVEL) as packed:  # type: ignore[no-untyped-call]
                write(packed)
            if self._keys:
                self._encrypt(target)
        finally:
            self._plain.unlink(missing_ok=True)
        with target.open("rb") as made:
            return hashlib.file_digest(made, "sha256").hexdigest()

    def pack_file(self, source: Path, target: Path) -> str:
        """Make an object of a file."""
        with source.open("rb") as file:
            return self.pack(lambda packed: shutil.copyfileobj(file, packed), target)

    def _encrypt(self, target: Path) -> None:
        pyrage.encrypt_file(str(self._plain), str(target), [_identity(self._keys[0]).to_public()])

    def read(self, source: Path, take: Callable[[Any], None]) -> None:
        """Give the contents of an object, as a file, to who takes them.

        Raises: BackupError if it is damaged, or there is no key that fits.
        """
        try:
            with igzip.open(self._decrypted(source), "rb") as packed:  # type: ignore[no-untyped-call]
                take(packed)
        except (EOFError, OSError, isal_zlib.error) as error:  # type: ignore[misc] # an alias, of zlib.error
            if is_no_room(error):
                raise
            raise BackupError(f"what was backed up can't be read: {error}") from None
        finally:
            self._plain.unlink(missing_ok=True)

    def unpack(self, source: Path, target: Path) -> None:
        """Make a file of an object, for its owner only."""

        def take(packed: Any) -> None:
            """Write what it holds."""
            target.touch(0o600)
            with target.open("wb") as file:
                shutil.copyfileobj(packed, file)

        self.read(source, take)

    def _decrypted(self, source: Path) -> Path:
        if not is_encrypted(source):
            return source
        if not self._keys:
            raise KeyDoesNotFit(_NEEDS_KEY)
        try:
            pyrage.decrypt_file(str(source), str(self._plain), [_identity(key) for key in self._keys])
        except pyrage.DecryptError as error:
            raise KeyDoesNotFit(f"{_NEEDS_KEY} ({error})") from None
        return self._plain


def is_encrypted(source: Path) -> bool:
    """Tell whether an object is a file of age."""
    with source.open("rb") as file:
        return file.read(len(_AGE)) == _AGE


def _identity(key: str) -> Any:
    try:
        return pyrage.x25519.Identity.from_str(key)
    except pyrage.IdentityError:
        raise BackupError("BACKUP_KEY is mistyped: it is no key of age.") from None


def new_key() -> str:
    """Make a key."""
    return str(pyrage.x25519.Identity.generate())


# --- increments -------------------------------------------------------------------------------------------------------


def write_steps(steps: Iterable[Step], packed: Any) -> None:
    """Write an increment: each step as MessagePack, behind its length."""
    for step in steps:
        encoded = msgspec.msgpack.encode(step)
        packed.write(len(encoded).to_bytes(_LENGTH_BYTES, "big"))
        packed.write(encoded)


def steps_in(packed: Any) -> Iterator[Step]:
    """Read an increment.

    Raises: BackupError.
    """
    decode = msgspec.msgpack.Decoder(Step).decode
    while head := packed.read(_LENGTH_BYTES):
        try:
            yield decode(packed.read(int.from_bytes(head, "big")))
        except msgspec.MsgspecError as error:
            raise BackupError(f"an increment can't be read: {error}") from None
