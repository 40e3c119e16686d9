"""What the console gets of the server that it is part of.

Knows: the types of these parts. Must not know: what is shown of them; a server has this without any console.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from operations.file_monitor import FileMonitor
from operations.samples import Samples
from server.http.lifecycle import Lifecycle
from server.quotas import Quotas
from settings import Settings
from sockets import Sockets
from storage.devices import Seen
from tenants import Tenants

JOBS_FOLDER = "console"
"""Where commands that the console runs keep what they make, in the data folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerParts:
    """Parts of one server. ``monitor`` is None without files; ``state`` gives what ``/health`` does."""

    settings: Settings
    version: str
    tenants: Tenants
    sockets: Sockets
    seen: Seen
    quotas: Quotas
    monitor: FileMonitor | None
    samples: Samples
    lifecycle: Lifecycle
    state: Callable[[], Mapping[str, Any]]
