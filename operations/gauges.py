"""What is measured of a server at the moment when somebody asks for its metrics.

Knows: which part knows each value. Must not know: how it is written, who asks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping

from operations.backups.status import Status
from operations.file_monitor import FileMonitor
from operations.openmetrics import Gauge
from server.admission import Admission
from server.disk_space import room
from server.maintenance import maintenance
from settings import Settings
from sockets import Sockets
from storage import main_database, outbox
from storage.backup_runs import BackupRun
from tenants import Tenants


def gauges(
    settings: Settings,
    version: str,
    tenants: Tenants,
    sockets: Sockets,
    admission: Admission,
    monitor: FileMonitor | None,
    open_files: Callable[[], int],
    backups: Callable[[], Status] | None = None,
) -> Iterator[Gauge]:
    """Give all of them; ``monitor`` is None without files, and ``open_files`` counts those of tenants that are open.
    ``backups`` tells how it stands with them, if the server makes any."""
    engine = tenants.engine
    yield Gauge("syncapp_build_info", "1, with the version of syncapp.", "version", lambda: {version: 1})
    yield _one("syncapp_tenants", "Customers.", lambda: tenants.directory.read(main_database.count_customers))
    yield Gauge("syncapp_sockets", "Connected sockets.", "state", lambda: _sockets(sockets))
    yield Gauge("syncapp_requests", "Requests and events of tenants now.", "state", admission.in_flight)
    yield _one("syncapp_storage_has_room", "1 if writes can be stored, 0 if the disk is full.", engine.has_room)
    yield _one("syncapp_disk_low", "1 if pushes are refused since the disk is nearly full.", lambda: room.is_low)
    yield _one("syncapp_maintenance", "1 while an operator has pushes refused.", lambda: maintenance.notice is not None)
    yield Gauge(
        "syncapp_outbox_mails", "Mails that were not sent.", "state", lambda: tenants.directory.read(outbox.counts)
    )
    if monitor:
        yield _one("syncapp_open_tenants", "Tenants whose files are open.", open_files)
        yield Gauge("syncapp_disk_bytes", "Disk of DATA_DIR.", "kind", lambda: _disk(settings))
        yield _one("syncapp_file_faults", "Tenants whose files are missing or damaged.", lambda: len(monitor.faults))
    if backups:
        yield from _of_backups(settings, backups)


def _of_backups(settings: Settings, status: Callable[[], Status]) -> Iterator[Gauge]:
    age = "Time since the last good backup was begun, or since the start if there is none."
    yield _one("syncapp_backup_age_seconds", age, lambda: status().age_seconds)
    yield _one("syncapp_backup_interval_seconds", "BACKUP_EVERY.", lambda: settings.backup_every)
    about = "1 if the last run failed or was cut off, or lacks a customer."
    yield _one("syncapp_backup_failed", about, lambda: _has_failed(status().last))
    about = "Bytes that the last run wrote."
    yield _one("syncapp_backup_stored_bytes", about, lambda: getattr(status().last, "stored_bytes", 0))


def _has_failed(last: BackupRun | None) -> bool:
    return last is not None and last.state != "good"


def _one(name: str, about: str, value: Callable[[], float]) -> Gauge:
    return Gauge(name, about, "", lambda: {"": float(value())})


def _sockets(sockets: Sockets) -> Mapping[str, float]:
    return {"authenticated": sockets.connected(), "unauthenticated": sockets.unauthenticated()}


def _disk(settings: Settings) -> Mapping[str, float]:
    found = shutil.disk_usage(settings.data_dir)
    return {"free": found.free, "size": found.total}
