"""Says of an installation what somebody who helps from afar would ask first, and nothing of a customer.

Knows: versions, the machine, counts. Must not know: names, addresses, rows, secrets.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from settings import Settings
from storage.engine import Engine
from storage.main_database import Customer
from storage.sqlite.connections import sqlite_version

_REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
_NAMES = re.compile(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b|[^\s@<>]+@[^\s@<>]+")
"""IDs of tenants, also as files are named by them, and e-mail addresses."""

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/cpu.max"))


def about_machine(settings: Settings, version: str) -> Iterator[str]:
    """Give lines on versions and on the machine."""
    yield f"syncapp {version}"
    yield f"Python {platform.python_version()}, SQLite {'.'.join(map(str, sqlite_version()))}"
    yield f"{platform.platform()}, {os.cpu_count()} cores"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield f"memory: {pages / 2**20:,.0f} MiB"
    for limit in _LIMITS:
        if limit.exists():
            yield f"{limit}: {limit.read_text().strip()}"
    if not settings.database_url and settings.data_dir.exists():
        disk = shutil.disk_usage(settings.data_dir)
        yield f"disk of the data: {disk.free / 2**20:,.0f} of {disk.total / 2**20:,.0f} MiB are free"
    yield "packages: " + ", ".join(_packages())


def _packages() -> Iterator[str]:
    """Give each package that is required, with the version that is installed."""
    for name in re.findall(r"^([\w-]+)==", _REQUIREMENTS.read_text(), re.MULTILINE):
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} is missing"


def without_names(text: str) -> str:
    """Give a finding without what tells whom it is about."""
    return _NAMES.sub("…", text)


def about_data(engine: Engine) -> Iterator[str]:
    """Give lines on how much there is."""
    states = Counter(engine.directory.read(lambda: [one.state for one in Customer.select(Customer.state)]))
    yield f"tenants: {states.total():,}" + "".join(f", {count:,} {state}" for state, count in sorted(states.items()))
