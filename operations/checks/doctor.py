"""The checks before a start, which ``python syncapp.py doctor`` runs too: would the server lose or leak data here?

Knows: the machine, the platform, the data folder from outside. Must not know: requests, what is in tables. Each check
gives at most one finding: what is wrong and what to do. One that ``refuses`` stops the start, the others are logged.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gevent import monkey

from accounts import signing_key
from operations.checks import misspelled_settings
from settings import SECRETS, Settings, effective
from storage.declarations import toml_file
from storage.sqlite import connections
from storage.sqlite.data_folder import is_filled

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs", "afs"}
_EPHEMERAL = {"tmpfs", "ramfs", "overlay", "aufs"}
_PLATFORMS = {
    "DYNO": "Heroku",
    "K_SERVICE": "Cloud Run",
    "AWS_LAMBDA_FUNCTION_NAME": "Lambda",
    "VERCEL": "Vercel",
    "WEBSITE_INSTANCE_ID": "App Service",
}
_SAFE_SQLITE = (3, 51, 3)
_DESCRIPTORS_A_TENANT = 5
_OTHER_DESCRIPTORS = 1_000
_WARNED_FREE_BYTES = 200 * 1024 * 1024
_DAY_SECONDS = 86_400
_MOUNTS = Path("/proc/mounts")
_OCTAL = re.compile(r"\\([0-7]{3})")
"""How the kernel writes a space in the name of a mount, a tab, a line feed and a backslash."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that would lose or leak data, and what to do about it."""

    sentence: str
    remedy: str
    refuses: bool = False

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}".rstrip()


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine on which the server is to run: settings, environment variables, mounts."""

    settings: Settings
    environ: Mapping[str, str]
    mounts: str

    @property
    def folder(self) -> Path:
        """Give the absolute path of the data folder."""
        return self.settings.data_dir.resolve()

    @property
    def filesystem(self) -> str:
        """Give the type of the filesystem that the data folder is on (proc(5), /proc/mounts)."""
        best, kind = "", "unknown"
        for line in self.mounts.splitlines():
            if line.count(" ") < 2:  # A name may have what Python takes for the end of a line.
                continue
            _, name, found, *_ = line.split(" ")
            point = _OCTAL.sub(lambda digits: chr(int(digits[1], 8)), name)
            inside = self.folder == Path(point) or Path(point) in self.folder.parents
            if inside and len(point) >= len(best):
                best, kind = point, found
        return kind

    @property
    def is_new(self) -> bool:
        """Tell whether there is no data yet, as far as this user may look."""
        try:
            return not is_filled(self.folder / "main.db")
        except PermissionError:
            return False


Check = Callable[[Machine], Finding | None]


def this_machine(settings: Settings) -> Machine:
    """Describe this machine."""
    return Machine(settings, os.environ, _MOUNTS.read_text(errors="replace") if _MOUNTS.exists() else "")


def patched(_: Machine) -> Finding | None:
    """Check whether blocking calls switch greenlets."""
    if monkey.is_module_patched("socket") and monkey.is_module_patched("threading"):
        return None
    return Finding("The standard library is not patched for gevent.", "Start it as the README says.", refuses=True)


def engine(_: Machine) -> Finding | None:
    """Check whether SQLite is one without the WAL-reset bug; trap 9."""
    version = connections.sqlite_version()
    if version >= _SAFE_SQLITE:
        return None
    text = ".".join(map(str, version))
    return Finding(
        f"SQLite {text} can lose writes when a log is reset.", "Install the pinned requirements.", refuses=True
    )


def writable(machine: Machine) -> Finding | None:
    """Check whether data can be written at all."""
    probe = machine.folder if machine.folder.exists() else machine.folder.parent
    if os.access(probe, os.W_OK | os.X_OK):
        return None
    return Finding(f"The data folder {machine.folder} can't be written.", "Give it to this user.", refuses=True)


def network_filesystem(machine: Machine) -> Finding | None:
    """Check whether the data folder is where SQLite can work."""
    if machine.filesystem not in _NETWORK:
        return None
    return Finding(
        f"The data folder is on a network filesystem ({machine.filesystem}), where SQLite's locks and log do not work.",
        "Set DATA_DIR to a local disk.",
        refuses=True,
    )


def lost_disk(machine: Machine) -> Finding | None:
    """Check whether data that the operator expects is gone."""
    if not (machine.settings.expect_data == "yes" and machine.is_new):
        return None
    return Finding(
        f"EXPECT_DATA is yes and the data folder {machine.folder} is empty: the disk did not survive the last restart.",
        "Mount the right disk or restore a backup; unset EXPECT_DATA only to start without data.",
        refuses=True,
    )


def missing_main_database(machine: Machine) -> Finding | None:
    """Check whether main.db is missing, or emptied, beside files of tenants."""
    if not machine.is_new or not any((machine.folder / "tenants").glob("tenant_*.db")):
        return None
    return Finding(
        f"There are files of tenants in {machine.folder}, but main.db, which says whose they are, is missing or empty.",
        "Put it back, or run restore with --new (docs/backups.md): without it nobody can log in.",
    )


def ephemeral_disk(machine: Machine) -> Finding | None:
    """Check whether a restart may remove the data folder."""
    platform = next((name for variable, name in _PLATFORMS.items() if machine.environ.get(variable)), None)
    if platform is None and machine.filesystem not in _EPHEMERAL:
        return None
    where = f"{platform} removes" if platform else f"A filesystem of type {machine.filesystem} may remove"
    first = " This data folder is new: if it is not your first start, that has just happened." if machine.is_new else ""
    return Finding(
        f"{where} the data folder at each restart, and every tenant with it.{first}",
        "Mount a persistent disk, set DATA_DIR to it, and set EXPECT_DATA=yes.",
    )


def backups_apart(machine: Machine) -> Finding | None:
    """Check whether the disk of the data has the backups, too."""
    kept = machine.settings.backup_to
    if not kept.startswith("/") or _device_of(Path(kept)) != _device_of(machine.folder):
        return None
    return Finding(
        f"BACKUP_TO, {kept}, is on the disk of the data: who loses that loses both.",
        "Set BACKUP_TO to a folder on another disk, or to a bucket.",
    )


def _device_of(path: Path) -> int:
    """Tell on which file system a path is, or will be."""
    there = next(one for one in (path, *path.resolve().parents) if one.exists())
    return there.stat().st_dev


def loose_permissions(machine: Machine) -> Finding | None:
    """Check whether others on the machine can read data."""
    if not machine.folder.exists() or not machine.folder.stat().st_mode & 0o077:
        return None
    return Finding(f"Other users can look into {machine.folder}.", f"Run: chmod -R go= {machine.folder}")


def weak_signing_key(machine: Machine) -> Finding | None:
    """Check whether a key that signs tokens, or did, could be guessed."""
    settings = machine.settings
    for name, keys in {"JWT_SECRET_KEY": [settings.jwt_secret_key], "JWT_OLD_KEYS": settings.jwt_old_keys}.items():
        if any(key and signing_key.is_easy_to_guess(key) for key in keys):
            advice = "Unset it, or use: openssl rand -base64 48" if name == "JWT_SECRET_KEY" else "Unset it."
            return Finding(f"{name} is easy to guess.", advice, refuses=True)
    return None


def damaged_signing_key(machine: Machine) -> Finding | None:
    """Check whether the signing key in the data folder can sign."""
    try:
        signing_key.check_stored_key(machine.settings)
    except signing_key.BadSigningKey as error:
        return Finding(str(error), "", refuses=True)
    except OSError as error:
        return Finding(f"The signing key can't be read: {error.strerror}.", "Give it to this user.", refuses=True)
    return None


def redis_address(machine: Machine) -> Finding | None:
    """Check whether REDIS_URL is an address; nothing is lost while nobody answers there."""
    if not machine.settings.redis_url:
        return None
    from server.bus.redis_bus import RedisBus  # noqa: PLC0415 -- 6 MiB, for those alone who use it

    try:
        RedisBus(machine.settings.redis_url, "")
    except ValueError as error:
        return Finding(f"REDIS_URL {error}", "", refuses=True)
    return None


def plain_links(machine: Machine) -> Finding | None:
    """Check whether links that are mailed or made by commands lead past TLS."""
    url = urlsplit(machine.settings.public_url)
    if url.scheme != "http" or url.hostname in ("localhost", "127.0.0.1", "::1"):
        return None
    return Finding(
        "PUBLIC_URL begins with http://: anybody in between can read its links, and passwords that are set there.",
        "Use https:// (docs/proxies.md).",
    )


def weak_hashes(machine: Machine) -> Finding | None:
    """Check whether stolen hashes would be cheap to try."""
    if machine.settings.bcrypt_rounds >= 10:
        return None
    return Finding(f"BCRYPT_ROUNDS is {machine.settings.bcrypt_rounds}: fit for tests only.", "Set it to 12.")


def descriptors(machine: Machine) -> Finding | None:
    """Check whether as many files may be open as are needed; the limit is raised first, as far as allowed."""
    files = 0 if machine.settings.database_url else machine.settings.open_tenants * _DESCRIPTORS_A_TENANT
    needed = files + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        soft = max(soft, needed * 4 if hard == resource.RLIM_INFINITY else hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= needed:
        return None
    of_tenants = f"{machine.settings.open_tenants:,} open tenants and " if files else ""
    return Finding(
        f"{soft:,} open files are too few for {of_tenants}{_OTHER_DESCRIPTORS:,} connections.",
        f"Allow {needed:,} (ulimit -n, LimitNOFILE){' or lower OPEN_TENANTS' if files else ''}.",
    )


def free_space(machine: Machine) -> Finding | None:
    """Check whether the disk is nearly full."""
    probe = machine.folder if machine.folder.exists() else machine.folder.parent
    bound = max(_WARNED_FREE_BYTES, 2 * machine.settings.min_free_bytes)
    if not probe.exists() or shutil.disk_usage(probe).free >= bound:
        return None
    much = f"{bound / 2**20:,.0f} MiB"
    return Finding(f"Less than {much} are free on the disk of the data folder.", "Make room before pushes are refused.")


def clock(machine: Machine) -> Finding | None:
    """Check whether the clock is behind the stored data."""
    main = machine.folder / "main.db"
    if machine.is_new or main.stat().st_mtime <= time.time() + _DAY_SECONDS:
        return None
    return Finding(
        "The machine's clock is more than a day behind the data folder.",
        "Set it. No change is lost and nobody is locked out, but times are wrong and tokens live longer than they should.",
    )


def declaration(machine: Machine) -> Finding | None:
    """Check whether the tables that are declared can be."""
    try:
        toml_file.check(machine.settings.tables_file)
    except toml_file.DeclarationError as error:
        count = len(error.mistakes)
        what = "a mistake" if count == 1 else f"{count} mistakes"
        return Finding(
            f"The declaration of tables has {what}.", f"docs/tables.md says what it may contain.\n{error}", True
        )
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
        return Finding(f"TABLES_FILE can't be read: {why}.", "Name a file that is there, or unset it.", refuses=True)
    return None


def misspelled_variables(machine: Machine) -> Finding | None:
    """Check whether variables are meant as settings and are none."""
    known = {name for name, _ in effective(machine.settings)} | {f"{name.upper()}_FILE" for name in SECRETS}
    found = list(misspelled_settings.sentences(machine.environ, known))
    return Finding(" ".join(found), "Write them as docs/settings.md does.") if found else None


CHECKS: tuple[Check, ...] = (
    patched,
    engine,
    writable,
    network_filesystem,
    lost_disk,
    missing_main_database,
    ephemeral_disk,
    backups_apart,
    loose_permissions,
    weak_signing_key,
    damaged_signing_key,
    redis_address,
    plain_links,
    weak_hashes,
    descriptors,
    free_space,
    clock,
    declaration,
    misspelled_variables,
)


OF_FILES = {
    writable,
    network_filesystem,
    lost_disk,
    missing_main_database,
    ephemeral_disk,
    backups_apart,
    loose_permissions,
    damaged_signing_key,
    free_space,
    clock,
}
"""Those that are about the data folder, which has nothing in it if the data is in PostgreSQL."""


def checks_of(settings: Settings) -> tuple[Check, ...]:
    """Give the checks of a start with these settings."""
    return tuple(check for check in CHECKS if not (settings.database_url and check in OF_FILES))


def findings(machine: Machine) -> list[Finding]:
    """Run every check and give the findings, in order."""
    return [finding for _, finding in run_checks(machine, checks_of(machine.settings)) if finding]


def run_checks(machine: Machine, checks: Iterable[Check]) -> Iterator[tuple[str, Finding | None]]:
    """Run checks; give a description of each and its finding."""
    for check in checks:
        description = (check.__doc__ or check.__name__).partition("\n")[0].partition(";")[0]
        yield description.removeprefix("Check ").removesuffix("."), _finding_of(check, machine)


def _finding_of(check: Check, machine: Machine) -> Finding | None:
    try:
        return check(machine)
    except PermissionError as error:
        return Finding(f"This user may not look at {error.filename}.", "Give it to this user.", refuses=True)
