"""The catalogue of a backup: which objects hold which tenant, and in which state.

Knows: names of objects in a place, the form of a catalogue, in which order they reach it. Must not know: what is in the
objects, when a backup is made or removed. A backup is complete when its catalogue is there, which comes last.

A tenant's objects are a chain: a copy of its database, and the increments that follow. An object belongs to the run that
made it; later backups name it again as long as it is part of a chain.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from operations.backups.manifest import BackupError
from operations.backups.objects import KeyDoesNotFit, Packing, is_encrypted
from operations.backups.places import Place, PlaceUnusable
from protocol.codec import parse_time
from protocol.errors import ValidationError
from storage.increments import State

FORMAT = 1
_NAME, _IS_NAME = "%Y%m%dT%H%M%SZ", re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_CATALOGUES, _OBJECTS = "backups", "objects"
_COMPLETE, _PARTIAL = ".catalogue", ".partial"
_MAIN = "main"
_IS_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SHOWN_CHARACTERS = 40
Kind = Literal["base", "more", "main"]


class NotEncrypted(BackupError):
    """A backup that is not encrypted although there is a key: it was made before, or by somebody who has none."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The backup {name} is not encrypted, although BACKUP_KEY is set: somebody without a key may have put it there."
            " If it is of a time before the key, run the command without BACKUP_KEY."
        )


class Object(msgspec.Struct, array_like=True, frozen=True):
    """One object: the run that made it, what it is, how large it is, its SHA-256."""

    run: str
    kind: Kind
    size_bytes: int
    sha256: str


class Held(msgspec.Struct, array_like=True, frozen=True):
    """What a backup has of a tenant. ``mark`` is that of its file then (see ``changes``), ``run`` read it last."""

    state: State
    chain: tuple[Object, ...]
    mark: str
    run: str


class Catalogue(msgspec.Struct):
    """A backup. ``missing`` gives, by customer, why what is held is older than the backup, or nothing is held."""

    name: str
    made: str
    main: Object
    tenants: dict[str, Held]
    missing: dict[str, str] = msgspec.field(default_factory=dict)
    stored_bytes: int = 0
    changed: int = 0
    format: int = FORMAT

    def must_be_of(self, name: str) -> None:
        """Refuse what no run of ours writes under this name.

        Raises: BackupError.
        """
        if self.format > FORMAT:
            raise BackupError(f"it is of format {self.format}, and this version knows {FORMAT}")
        if self.name != name:
            raise BackupError(f"it is that of {self.name[:_SHOWN_CHARACTERS]!r}, under another name")
        if others := [one for one in self.tenants if not _IS_ID.fullmatch(one)]:
            raise BackupError(f"{others[0][:_SHOWN_CHARACTERS]!r} is no tenant's ID")
        for run in {self.main.run, *(one.run for held in self.tenants.values() for one in held.chain)}:
            _must_be_run(run)

    def objects(self) -> Iterator[str]:
        """Give the names of all objects that it needs. What they are made of was looked at when it was read."""
        yield _named(_MAIN, self.main)
        for tenant_id, held in self.tenants.items():
            whose = tenant_id.replace("-", "")
            for one in held.chain:
                yield _named(whose, one)

    @property
    def size_bytes(self) -> int:
        """Give the size of all that it needs."""
        return self.main.size_bytes + sum(one.size_bytes for held in self.tenants.values() for one in held.chain)


def object_name(tenant_id: str | None, one: Object) -> str:
    """Give the name of a tenant's object, or of the main database's.

    Raises: BackupError for what no run of ours is called: it would be a path of its own.
    """
    _must_be_run(one.run)
    return _named(_MAIN if tenant_id is None else uuid.UUID(tenant_id).hex, one)


def _named(whose: str, one: Object) -> str:
    return f"{_OBJECTS}/{whose}-{one.run}.{one.kind}"


def _must_be_run(name: str) -> None:
    if not _IS_NAME.fullmatch(name):
        raise BackupError(f"{name[:_SHOWN_CHARACTERS]!r} is no name of a run")


def catalogue_name(name: str, suffix: str = _COMPLETE) -> str:
    """Give the name of the object that has a backup's catalogue."""
    return f"{_CATALOGUES}/{name}{suffix}"


def new_name(now: datetime, last: str) -> str:
    """Name a run by its time; two have not the same name, also if the clock was set back."""
    found = now.strftime(_NAME)
    return found if found > last else datetime.fromtimestamp(time_of(last) + 1, UTC).strftime(_NAME)


def time_of(name: str) -> int:
    """Give the time of a run, in seconds since 1970.

    Raises: ValueError if it is no name of one.
    """
    return int(datetime.strptime(name, _NAME).replace(tzinfo=UTC).timestamp())


class Catalogues:
    """The catalogues in a place, read and written by way of files in a folder."""

    def __init__(self, place: Place, packing: Packing, scratch: Path) -> None:
        self.place, self._packing = place, packing
        self._packed, self._file = scratch / "catalogue.packed", scratch / "catalogue"
        self.encrypts = packing.encrypts

    def names(self) -> list[str]:
        """List the complete backups, the newest first."""
        return sorted(_names(self.place.names(_CATALOGUES), _COMPLETE), reverse=True)

    def newest(self, report: Callable[[BackupError], object]) -> Catalogue | None:
        """Give the backup that the next one goes on from: the newest that can be read, also if its run was interrupted.

        One that is not encrypted is passed over if there is a key: what goes on from it would stay in clear.
        Raises: KeyDoesNotFit: then all of it would be kept once more, under another key.
        """
        there = self.place.names(_CATALOGUES)
        found = [(name, suffix) for suffix in (_COMPLETE, _PARTIAL) for name in _names(there, suffix)]
        for name, suffix in sorted(found, reverse=True):
            try:
                return self._read(name, suffix)
            except (PlaceUnusable, KeyDoesNotFit):
                raise
            except BackupError as error:
                report(error)
        return None

    def partial(self) -> list[str]:
        """List the runs that were interrupted."""
        return _names(self.place.names(_CATALOGUES), _PARTIAL)

    def read(self, name: str, *, also_plain: bool = False) -> Catalogue:
        """Read the catalogue of a backup. ``also_plain``: also one that is not encrypted although there is a key; it names
        the objects by their hashes, so that who could not write it could not write them.

        Raises: BackupError.
        """
        return self._read(name, _COMPLETE, also_plain=also_plain)

    def _read(self, name: str, suffix: str, *, also_plain: bool = False) -> Catalogue:
        self.place.get(catalogue_name(name, suffix), self._packed)
        try:
            if self.encrypts and not (also_plain or is_encrypted(self._packed)):
                raise NotEncrypted(name)
            self._packing.unpack(self._packed, self._file)
            found = msgspec.msgpack.decode(self._file.read_bytes(), type=Catalogue)
            found.must_be_of(name)
        except (KeyDoesNotFit, NotEncrypted):
            raise
        except (BackupError, msgspec.MsgspecError) as error:
            raise BackupError(f"The catalogue of the backup {name} can't be read: {error}") from None
        finally:
            self._packed.unlink(missing_ok=True)
            self._file.unlink(missing_ok=True)
        return found

    def write(self, catalogue: Catalogue, *, is_complete: bool) -> int:
        """Keep a catalogue, when all that it names is there; give its size. A complete one ends those that are partial."""
        encoded = msgspec.msgpack.encode(catalogue)
        try:
            self._packing.pack(lambda packed: packed.write(encoded), self._packed)
            size_bytes = self._packed.stat().st_size
            self.place.put(catalogue_name(catalogue.name, _COMPLETE if is_complete else _PARTIAL), self._packed)
        finally:
            self._packed.unlink(missing_ok=True)
        if is_complete:
            self.place.remove([catalogue_name(one, _PARTIAL) for one in self.partial()])
        return size_bytes

    def objects(self) -> list[str]:
        """List all objects, also those that no backup needs."""
        return self.place.names(_OBJECTS)

    def remove(self, names: list[str]) -> None:
        """Remove backups: from then on nothing needs what they alone name."""
        self.place.remove([catalogue_name(name) for name in names])

    def chosen(self, wanted: str) -> str:
        """Find a backup: ``latest``, its name, or a time, of which it is the last one until then; without a zone it is UTC.

        Raises: BackupError if there is none.
        """
        names = self.names()
        if not names:
            raise BackupError("No backup is there.")
        if wanted in ("latest", *names):
            return names[0] if wanted == "latest" else wanted
        try:
            until = parse_time(wanted, "from") / 1000
        except ValidationError:
            raise BackupError(f"There is no backup {wanted!r}: backup list names them.") from None
        found = [name for name in names if time_of(name) <= until]
        if not found:
            raise BackupError(f"No backup is from {wanted} or before: the oldest one is {names[-1]}.")
        return found[0]


def _names(there: list[str], suffix: str) -> list[str]:
    """Give the runs among objects, without what is not of our making."""
    found = []
    for one in there:
        name = one.rpartition("/")[2].removesuffix(suffix)
        try:
            if one.endswith(suffix) and time_of(name):
                found.append(name)
        except ValueError:
            continue
    return found


def sha256_of(file: Path) -> str:
    """Give the hash of a file, as catalogues have it."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
