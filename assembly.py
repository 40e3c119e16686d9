"""Assembles the server from its parts.

Knows: which part gets which. Must not know: rules, queries, how a process begins (``syncapp``).
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

import settings as environment
from accounts import signing_key
from accounts.letters import Letters
from accounts.signing_key import BadSigningKey
from accounts.tokens import Tokens
from api.admin.gate import Console, Gate
from api.admin.server_parts import JOBS_FOLDER, ServerParts
from api.auth import Accounts
from api.docs import asyncapi, completeness, openapi
from api.history import Review
from api.lost_passwords import LostPasswords
from api.own_account import OwnAccount
from api.pages import Pages
from api.sync import Sync
from operations.bus_choice import chosen_bus
from operations.checks import doctor
from operations.command_jobs import CommandJobs
from operations.engine_choice import server_engine
from operations.export import Exports
from operations.file_monitor import FileMonitor
from operations.housekeeping import Housekeeping
from operations.samples import Samples
from operations.usage_saving import UsageSaving
from protocol.errors import Problem
from server import connections, log_format, recent_log
from server.http import handler
from server.http.lifecycle import Lifecycle
from server.http.listening import CannotListen
from server.http.load_shedding import LoadShedding
from server.http.middleware import Middleware
from server.log_file import LogFile, RotatedFile
from server.quotas import Quotas
from server.scheduler import Scheduler
from settings import SettingError, Settings
from sockets import Sockets
from storage.declarations import toml_file
from storage.declarations.compatibility import MigrationRefused
from storage.devices import Seen
from storage.engine import CanNotOpen, Engine
from storage.sqlite.engine import MainDatabaseBroken, SQLiteEngine
from storage.sqlite.errors import EngineError
from storage.sqlite.folder_locks import DataFolderInUse
from tenants import Tenants
from version import VERSION

if TYPE_CHECKING:
    from operations.backups.schedule import BackupSchedule

_FOLDER = Path(__file__).resolve().parent
_GIVE_UP_SECONDS = 3.0
"""How long a server that ends waits for a database that does not answer, beyond SHUTDOWN_SECONDS for requests."""

_REFUSALS = (
    SettingError,
    DataFolderInUse,
    MigrationRefused,
    BadSigningKey,
    MainDatabaseBroken,
    EngineError,
    CanNotOpen,
    Problem,
    CannotListen,
    OSError,
)
log = logging.getLogger("syncapp")


def build(settings: Settings) -> Flask:
    """Assemble the server. It holds the data folder, if its data is there, from here on, unless this fails.

    Raises: CanNotOpen, DataFolderInUse, MainDatabaseBroken, MigrationRefused, BadSigningKey.
    """
    settings = connections.fitted_to_open_files(settings)
    engine = server_engine(settings)
    try:
        return _build_over(engine, settings)
    except BaseException:
        engine.close()
        raise


@dataclass(frozen=True, slots=True)
class _Core:
    """What most parts of a server get. ``monitor``: None without files; ``backups``: None if it makes none."""

    app: Flask
    settings: Settings
    engine: Engine
    quotas: Quotas
    tenants: Tenants
    tokens: Tokens
    middleware: Middleware
    seen: Seen
    sockets: Sockets
    monitor: FileMonitor | None
    backups: BackupSchedule | None


def _build_over(engine: Engine, settings: Settings) -> Flask:
    core = _core(engine, settings)
    _add_api(core)
    housekeeping = _housekeeping(core)
    lifecycle = _lifecycle(core, housekeeping, _send_mails(settings, engine) if settings.smtp_url else None)
    pages = _add_pages(core, lifecycle)
    samples = Samples(settings.data_dir if core.monitor else None, core.sockets.connected)
    _add_console(core, samples, lifecycle, pages)
    if settings.metrics_token or settings.metrics_port:
        _add_metrics(core)
    _trust_proxies(core.app, settings.trusted_proxies)
    load_shedding = LoadShedding(core.middleware.views, core.tokens.tenant_of, core.quotas.admission.refusal)
    handler.install(connections.Connections(settings), load_shedding)
    core.sockets.start()
    samples.start(lambda: lifecycle.is_ending)
    housekeeping.start()
    return core.app


def _core(engine: Engine, settings: Settings) -> _Core:
    app = Flask("syncapp", root_path=str(_FOLDER), static_folder=None)
    quotas = Quotas(settings, Scheduler())
    tenants = Tenants(engine)
    secret = signing_key.signing_key(settings, engine.kept_secret)
    tokens = Tokens(app, settings, secret, tenants, quotas)
    middleware = Middleware(app, settings, quotas)
    seen = Seen(tenants.write)
    sockets = Sockets(app, settings, tenants, tokens, seen, quotas, chosen_bus(settings, engine), VERSION)
    seen.evidences.is_alone = sockets.is_alone
    monitor = FileMonitor(engine) if isinstance(engine, SQLiteEngine) else None
    backups = _backups(settings, engine)
    return _Core(app, settings, engine, quotas, tenants, tokens, middleware, seen, sockets, monitor, backups)


def _add_api(core: _Core) -> None:
    """Add the endpoints of devices and customers."""
    settings, tenants, tokens = core.settings, core.tenants, core.tokens
    sync = Sync(settings, tenants, tokens, core.sockets, core.seen, core.quotas)
    core.middleware.views.update(sync.hot_views)
    accounts = Accounts(settings, tenants, tokens)
    lost = LostPasswords(settings, tenants, tokens, accounts)
    exports = Exports(core.engine, settings.data_dir)
    own_account = OwnAccount(tokens, accounts.check_password, exports.archive_of)
    for endpoints in (accounts, lost, own_account, sync, Review(tenants, tokens, sync.pushes, core.seen)):
        core.app.register_blueprint(endpoints.blueprint())


def _housekeeping(core: _Core) -> Housekeeping:
    settings, sockets = core.settings, core.sockets
    usage = UsageSaving(
        core.quotas.usage, core.engine.directory, sockets.note_usage, settings.process_name, settings.usage_days
    )
    told = sockets.announce_restored, sockets.look_at_sessions, sockets.look
    look_at_backups = core.backups.look if core.backups else None
    return Housekeeping(settings, core.tenants, core.monitor, core.seen, usage, *told, look_at_backups)


def _lifecycle(core: _Core, housekeeping: Housekeeping, end_mails: Callable[[], None] | None) -> Lifecycle:
    def close() -> None:
        """End the background work, then close every database."""
        core.engine.give_up_after(_GIVE_UP_SECONDS)
        housekeeping.end()
        if end_mails:
            end_mails()
        core.engine.close()

    def held() -> dict[str, int]:
        """Count what the server holds, for the log at a signal."""
        return core.sockets.held() | {"open_tenants": _open_files(core.engine)}

    lifecycle = Lifecycle(core.app, core.settings.shutdown_seconds, core.sockets.close, close, held)
    core.app.extensions["lifecycle"] = lifecycle
    return lifecycle


def _backups(settings: Settings, engine: Engine) -> BackupSchedule | None:
    """Give what makes backups by itself, if the settings ask for it."""
    if not settings.backup_every:
        return None
    from operations.backups.schedule import BackupSchedule  # noqa: PLC0415 -- for those alone who use it

    return BackupSchedule(settings, engine)


def _send_mails(settings: Settings, engine: Engine) -> Callable[[], None]:
    """Begin to send mails, and give what ends that."""
    from operations.mail_sender import MailSender  # noqa: PLC0415 -- for those alone who send mails

    sender = MailSender(settings, engine, Letters(settings, engine.directory).write)
    sender.start()
    return sender.end


def _open_files(engine: Engine) -> int:
    return len(engine.files) if isinstance(engine, SQLiteEngine) else 0


def _trust_proxies(app: Flask, count: int) -> None:
    if count:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count)  # type: ignore[method-assign]


def _add_pages(core: _Core, lifecycle: Lifecycle) -> Pages:
    settings, sockets = core.settings, core.sockets
    pages = Pages(
        version=VERSION,
        tenants=core.tenants,
        has_file_faults=lambda: bool(core.monitor and core.monitor.faults),
        lifecycle=lifecycle,
        connected=sockets.connected,
        processes=sockets.processes,
        backups=lambda: core.backups.status().shown() if core.backups else None,
        trusted_proxies=settings.trusted_proxies,
        openapi=cache(lambda: openapi.document(core.app, settings, VERSION)),
        asyncapi=cache(lambda: asyncapi.document(sockets.events, settings, VERSION)),
        sends_mail=bool(settings.smtp_url),
    )
    core.app.register_blueprint(pages.blueprint())
    completeness.must_describe(core.app, settings, sockets.events)
    return pages


def _add_console(core: _Core, samples: Samples, lifecycle: Lifecycle, pages: Pages) -> None:
    """Add the operator's console, which is assembled for the first who signs in."""
    parts = ServerParts(
        settings=core.settings,
        version=VERSION,
        tenants=core.tenants,
        sockets=core.sockets,
        seen=core.seen,
        quotas=core.quotas,
        monitor=core.monitor,
        samples=samples,
        lifecycle=lifecycle,
        state=pages.state,
    )
    core.app.extensions["server_parts"] = parts
    engine = core.engine
    gate = Gate(core.settings, engine.directory, engine.attempt_counts, cache(partial(_console, parts)))
    core.app.register_blueprint(gate.blueprint())
    CommandJobs(core.settings.data_dir / JOBS_FOLDER)  # Has removed what an earlier process left, whoever signs in.


def _console(parts: ServerParts) -> Console:
    from api.admin.assembly import assemble as assembled  # noqa: PLC0415 -- for those alone who use it

    return assembled(parts)


def _add_metrics(core: _Core) -> None:
    """Let metrics be read, which are counted in any case. Raises: CannotListen."""
    from api.metrics import Metrics  # noqa: PLC0415 -- for those alone who use them, with a library of 1 MiB
    from operations.gauges import gauges  # noqa: PLC0415
    from operations.metrics_server import MetricsServer  # noqa: PLC0415
    from operations.openmetrics import OpenMetrics  # noqa: PLC0415

    settings, admission = core.settings, core.quotas.admission
    open_files = partial(_open_files, core.engine)
    status = core.backups.status if core.backups else None
    found = gauges(settings, VERSION, core.tenants, core.sockets, admission, core.monitor, open_files, status)
    shown = OpenMetrics(found)
    if settings.metrics_token:
        core.app.register_blueprint(Metrics(settings.metrics_token, shown.render).blueprint())
    if settings.metrics_port:
        MetricsServer(settings.metrics_host, settings.metrics_port, shown.render).start()


def _log_files(settings: Settings) -> list[log_format.Lines]:
    """Give what writes the log into a file, if that is wanted."""
    if not settings.log_file:
        return []
    return [LogFile(RotatedFile(Path(settings.log_file), settings.log_file_bytes, settings.log_files))]


class StartRefused(RuntimeError):
    """The server would lose or leak data here, or can't run at all; its text says why and what to do."""


def assemble() -> tuple[Flask, Settings]:
    """Assemble the server from the environment.

    Raises: StartRefused.
    """
    try:
        settings = environment.load()
        log_format.install(settings.log_format, [recent_log.RECENT, *_log_files(settings)])
        for finding in doctor.findings(doctor.this_machine(settings)):
            if finding.refuses:
                raise StartRefused(str(finding))
            log.warning("%s", finding)
        toml_file.declare(settings.tables_file)
        app = build(settings)
    except _REFUSALS as error:
        raise StartRefused(str(error)) from None
    gc.freeze()  # The objects of the start live on: the cyclic collector need not visit them each time.
    return app, settings
