"""Assembles the server from its parts and serves it.

Knows: which part gets which. Must not know: rules, queries. ``python syncapp.py`` serves, ``python syncapp.py --help``
lists the operator's commands, gunicorn takes ``syncapp:create_app()``.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Amid imports Ctrl-C just ends this: nothing has begun.

from gevent import monkey

monkey.patch_all()  # Before any other import: peewee and others keep what they find (ARCHITECTURE.md, trap 1).

import gc  # noqa: E402
import sys  # noqa: E402

gc.set_threshold(10_000, 20, 20)  # A push of 1,000 rows makes that many objects, the imports make more; few in cycles.

sys.modules["psycopg"] = None  # type: ignore[assignment] # peewee would import it, for 17 MB (trap 32).
import peewee  # noqa: E402, F401

del sys.modules["psycopg"]

import logging  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from functools import cache, partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from flask import Flask  # noqa: E402
from werkzeug.middleware.proxy_fix import ProxyFix  # noqa: E402

import settings as environment  # noqa: E402
from accounts import signing_key  # noqa: E402
from accounts.letters import Letters  # noqa: E402
from accounts.signing_key import BadSigningKey  # noqa: E402
from accounts.tokens import Tokens  # noqa: E402
from api.admin.gate import Console, Gate  # noqa: E402
from api.admin.server_parts import JOBS_FOLDER, ServerParts  # noqa: E402
from api.auth import Accounts  # noqa: E402
from api.docs import asyncapi, completeness, openapi  # noqa: E402
from api.history import Review  # noqa: E402
from api.lost_passwords import LostPasswords  # noqa: E402
from api.own_account import OwnAccount  # noqa: E402
from api.pages import Pages  # noqa: E402
from api.sync import Sync  # noqa: E402
from operations.bus_choice import chosen_bus  # noqa: E402
from operations.checks import doctor  # noqa: E402
from operations.command_jobs import CommandJobs  # noqa: E402
from operations.engine_choice import server_engine  # noqa: E402
from operations.export import Exports  # noqa: E402
from operations.file_monitor import FileMonitor  # noqa: E402
from operations.housekeeping import Housekeeping  # noqa: E402
from operations.samples import Samples  # noqa: E402
from operations.usage_saving import UsageSaving  # noqa: E402
from protocol.errors import Problem  # noqa: E402
from server import connections, log_format, recent_log  # noqa: E402
from server.http import handler  # noqa: E402
from server.http.lifecycle import CannotListen, Lifecycle, serve  # noqa: E402
from server.http.load_shedding import LoadShedding  # noqa: E402
from server.http.middleware import Middleware  # noqa: E402
from server.log_file import LogFile, RotatedFile  # noqa: E402
from server.quotas import Quotas  # noqa: E402
from server.scheduler import Scheduler  # noqa: E402
from settings import SettingError, Settings  # noqa: E402
from sockets import Sockets  # noqa: E402
from storage.declarations import toml_file  # noqa: E402
from storage.declarations.compatibility import MigrationRefused  # noqa: E402
from storage.devices import Seen  # noqa: E402
from storage.engine import CanNotOpen, Engine  # noqa: E402
from storage.sqlite.engine import MainDatabaseBroken, SQLiteEngine  # noqa: E402
from storage.sqlite.errors import EngineError  # noqa: E402
from storage.sqlite.folder_locks import DataFolderInUse  # noqa: E402
from tenants import Tenants  # noqa: E402

if TYPE_CHECKING:
    from operations.backups.schedule import BackupSchedule

VERSION = "0.2.0"
_GUNICORNS_BOOT_ERROR = 3
"""A worker's exit code after which gunicorn does not try again (``gunicorn.arbiter.Arbiter.WORKER_BOOT_ERROR``)."""

_INTERRUPTED = 128 + signal.SIGINT
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
    backups: "BackupSchedule | None"


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
    app = Flask(__name__, static_folder=None)
    quotas = Quotas(settings, Scheduler())
    tenants = Tenants(engine)
    secret = signing_key.signing_key(settings, engine.kept_secret)
    tokens = Tokens(app, settings, secret, tenants, quotas)
    middleware = Middleware(app, settings, quotas)
    seen = Seen(tenants.write)
    sockets = Sockets(app, settings, tenants, tokens, seen, quotas, chosen_bus(settings, engine), VERSION)
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


def _backups(settings: Settings, engine: Engine) -> "BackupSchedule | None":
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


def create_app() -> Flask:
    """Assemble the server for gunicorn, or end its worker with a message and without a restart."""
    try:
        return assemble()[0]
    except StartRefused as error:
        sys.stderr.write(f"syncapp: {error}\n")
        raise SystemExit(_GUNICORNS_BOOT_ERROR) from None


def main() -> None:
    """Serve, or run one of the operator's commands."""
    if len(sys.argv) > 1:
        _run_command()
    _take_interrupts()
    try:
        app, settings = assemble()
        serve(app, app.extensions["lifecycle"], settings)
    except (StartRefused, CannotListen) as error:
        raise SystemExit(f"syncapp: {error}") from None
    except KeyboardInterrupt:  # Before it served.
        raise SystemExit(_INTERRUPTED) from None


def _take_interrupts() -> None:
    """Have Ctrl-C undo what has begun, from here on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _run_command() -> None:
    """Run one of the operator's commands. They are imported here, since a server needs none of what they do."""
    import click  # noqa: PLC0415
    import gevent  # noqa: PLC0415

    from operations.commands import commands  # noqa: PLC0415

    _take_interrupts()
    hub = gevent.get_hub()
    hub.NOT_ERROR = (
        *hub.NOT_ERROR,
        KeyboardInterrupt,
    )  # Raised in a greenlet, it comes here, and is not printed there.
    click.version_option(VERSION, prog_name="syncapp")(commands.commands)
    commands.commands(obj=VERSION)


if __name__ == "__main__":
    main()
