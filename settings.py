"""Reads the settings from the environment into one frozen value.

Knows: every environment variable that the server reads, its default, its bounds and its description (a test compares
``docs/settings.md`` with this file). Must not know: the forms of values (``setting_values``), anything else of ours.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import setting_values as form

DEFAULT_TABLES_FILE = Path("tables.toml")


SECRETS = (
    "jwt_secret_key",
    "jwt_old_keys",
    "database_url",
    "redis_url",
    "metrics_token",
    "backup_key",
    "backup_alert_url",
    "s3_access_key_id",
    "s3_secret_access_key",
    "smtp_url",
)
"""What is not shown, and may be in a file, whose name is in the variable with ``_FILE`` at its end."""

_MAX_SHOWN_CHARACTERS = 60


class SettingError(ValueError):
    """Every invalid environment variable, one a line: its name, what it must be, what it is."""


def _setting(default: object, read: Callable[[str], object], doc: str) -> Any:
    return field(default=default, metadata={"read": read, "doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting; the environment variable is the field's name in capitals."""

    host: str = _setting("0.0.0.0", str, "Address to listen on.")  # noqa: S104 -- a server, also on a dyno
    port: int = _setting(3000, form.whole(0, 65535), "Port to listen on; 0 takes a free one and logs it.")
    data_dir: Path = _setting(Path("data"), Path, "Folder of all data; created if missing, readable by its owner only.")
    database_url: str = _setting(
        "",
        form.database_url,
        "Database of PostgreSQL that has all data, in place of files in DATA_DIR (docs/postgresql.md).",
    )
    database_pool: int = _setting(
        5,
        form.whole(2, 100),
        "Connections to PostgreSQL at the most; one is used for the length of a read or a commit. Without REDIS_URL there"
        " is one more.",
    )
    database_wait_seconds: int = _setting(
        30, form.whole(0, 600), "How long a start waits for PostgreSQL that is not there yet."
    )
    tables_file: Path = _setting(
        DEFAULT_TABLES_FILE,
        Path,
        "File that declares your own tables (docs/tables.md); only the default may be missing.",
    )
    expect_data: str = _setting(
        "no", form.one_of("yes", "no"), "yes: refuse to start with an empty data folder, which may mean a lost disk."
    )
    jwt_secret_key: str = _setting(
        "", form.secret, "Key that signs tokens. If unset, one is generated once and kept with the data."
    )
    jwt_old_keys: tuple[str, ...] = _setting(
        (), form.secrets, "Keys that signed tokens before, which still count; the newest signs (docs/security.md)."
    )
    redis_url: str = _setting(
        "",
        form.redis_url,
        "Redis by which the processes of one installation tell each other what to notify; else they use PostgreSQL's"
        " NOTIFY.",
    )
    redis_verify_certificate: str = _setting(
        "yes",
        form.one_of("yes", "no"),
        "no: take any certificate from Redis, also one that nobody vouches for. Whoever gets between can read rows then.",
    )
    process_name: str = _setting(
        "",
        form.process_name,
        "What the IDs of this process's Socket.IO sessions begin with, so that proxies find it again (docs/proxies.md).",
    )
    cors_origins: tuple[str, ...] = _setting(
        (),
        form.origins,
        "Other origins whose pages may call the API. The server's own always may, and localhost while it is served there.",
    )
    registration: str = _setting(
        "open", form.one_of("open", "closed"), "closed: only the operator can register customers, with the command."
    )
    bcrypt_rounds: int = _setting(
        12, form.whole(8, 16), "Cost of a password hash (2^n). Below 10 is for tests, and gives a warning."
    )
    rate_limit_login: str = _setting(
        "10 per minute;100 per hour", form.rate, "Attempts to log in or prove a password, per address and per account."
    )
    rate_limit_register: str = _setting("20 per hour", form.rate, "Registrations per address.")
    trusted_proxies: int = _setting(
        0, form.whole(0, 8), "Proxies in front whose X-Forwarded-For is trusted; 1 is assumed on Heroku."
    )
    access_token_seconds: int = _setting(86_400, form.whole(1, 31_536_000), "Lifetime of an access token.")
    refresh_token_seconds: int = _setting(2_592_000, form.whole(1, 315_360_000), "Lifetime of an unused refresh token.")
    max_body_bytes: int = _setting(
        16_777_216, form.size(1_024, 1_073_741_824), "Largest body of a request, after decompression."
    )
    max_row_bytes: int = _setting(65_536, form.size(1_024, 16_777_216), "Largest stored row, as JSON.")
    max_name_characters: int = _setting(64, form.whole(16, 1_024), "Longest name of a field.")
    max_push_rows: int = _setting(10_000, form.whole(1, 1_000_000), "Most rows of one push.")
    max_pull_rows: int = _setting(10_000, form.whole(1, 1_000_000), "Most rows on one page of a pull with a cursor.")
    max_frame_bytes: int = _setting(1_048_576, form.size(4_096, 67_108_864), "Largest message from a socket.")
    max_waiting_pushes: int = _setting(1_000, form.whole(1, 1_000_000), "Waiting pushes of one tenant; more get 503.")
    tenant_requests: str = _setting(
        "60000 per minute",
        form.one_rate,
        "Requests and events of one tenant. They may all come at once; then the quota refills evenly.",
    )
    tenant_bytes: str = _setting(
        "1073741824 per minute", form.rate_of_bytes, "Bytes of request bodies and events of one tenant."
    )
    tenant_rows: str = _setting("1000000 per minute", form.one_rate, "Rows that one tenant pushes.")
    max_tenant_requests: int = _setting(500, form.whole(1, 1_000_000), "Concurrent requests of one tenant; more wait.")
    max_tenant_waiting: int = _setting(
        1_000, form.whole(1, 1_000_000), "Requests of one tenant that wait to begin; more get 503."
    )
    tenant_wait_ms: int = _setting(
        200,
        form.whole(10, 60_000),
        "Milliseconds that a request may have to wait; one that would wait longer gets 503.",
    )
    max_tenant_body_bytes: int = _setting(
        268_435_456,
        form.size(1_024, 68_719_476_736),
        "Bytes of concurrent request bodies of one tenant; more get 503.",
    )
    tenant_stored_bytes: int = _setting(
        10_737_418_240,
        form.size(1_048_576, 1_125_899_906_842_624),
        "Largest database of one tenant; pushes beyond it get 507.",
    )
    min_free_bytes: int = _setting(
        134_217_728,
        form.size(0, 1_125_899_906_842_624),
        "Free bytes of the disk of DATA_DIR below which pushes get 507, while pulls and deletes go on; 0: no bound.",
    )
    open_tenants: int = _setting(
        256, form.whole(1, 100_000), "Tenant databases kept open; 3 descriptors each, 5 if they are read amid writes."
    )
    clock_skew_seconds: int = _setting(
        300, form.whole(0, 86_400), "How far before lastSync a pull starts if this server never gave that time."
    )
    history_days: int = _setting(
        90, form.whole(1, 36_500), "How long replaced and deleted rows are kept, beyond what devices still need."
    )
    device_idle_days: int = _setting(
        90, form.whole(1, 36_500), "How long a device may be away before it must pull from the start."
    )
    usage_days: int = _setting(
        400, form.whole(1, 36_500), "How long is kept what each tenant used on a day (python syncapp.py usage)."
    )
    purge_seconds: int = _setting(3_600, form.whole(1, 604_800), "Time between two removals of what is too old.")
    conflict_strategy: str = _setting(
        "merge",
        form.one_of("merge", "last-write-wins", "server-wins", "client-wins"),
        "What becomes of a change that did not know the current row.",
    )
    socket_auth_seconds: int = _setting(10, form.whole(1, 300), "Time a socket has to authenticate.")
    socket_queue_messages: int = _setting(1_024, form.whole(8, 65_536), "Messages that may wait for a slow socket.")
    socket_queue_bytes: int = _setting(
        4_194_304, form.size(65_536, 1_073_741_824), "Bytes that may wait for a slow socket, beyond one message."
    )
    max_stranger_sockets: int = _setting(
        1_000,
        form.whole(1, 1_000_000),
        "Sockets that have not authenticated yet, in total; at the bound, the oldest makes room after 3 s.",
    )
    max_tenant_sockets: int = _setting(5_000, form.whole(1, 1_000_000), "Sockets of one tenant.")
    socket_events: str = _setting("6000 per minute", form.one_rate, "Events of one socket; more are refused.")
    socket_bytes: str = _setting(
        "134217728 per minute", form.rate_of_bytes, "Bytes from one socket; beyond that it is read more slowly."
    )
    ping_interval_seconds: int = _setting(25, form.whole(1, 50), "Time between pings to an idle socket.")
    ping_timeout_seconds: int = _setting(20, form.whole(1, 50), "Time a socket has to answer a ping.")
    max_connections: int = _setting(
        10_000, form.whole(10, 1_000_000), "Open connections, fewer if the limit of open files is lower."
    )
    head_seconds: int = _setting(10, form.whole(1, 600), "Time in which a request line and headers must arrive.")
    stall_seconds: int = _setting(
        30, form.whole(1, 600), "How far a client may fall behind 1 KiB a second, sending a body or reading an answer."
    )
    keep_alive_seconds: int = _setting(75, form.whole(1, 3_600), "How long a connection may be idle between requests.")
    shutdown_seconds: int = _setting(20, form.whole(1, 600), "Time that running requests have to finish at SIGTERM.")
    metrics_token: str = _setting(
        "", form.token, "Token by which /metrics may be read (docs/monitoring.md); without one it is not there."
    )
    metrics_port: int = _setting(
        0, form.whole(0, 65535), "Port of its own on which /metrics may be read by whoever reaches it; 0: none."
    )
    metrics_host: str = _setting("127.0.0.1", str, "Address on which METRICS_PORT listens.")
    backup_every: int = _setting(
        0, form.duration(60, 31_536_000), "Time between two backups into BACKUP_TO, such as 1h or 24h; 0: none."
    )
    backup_to: str = _setting(
        "", form.backup_place, "Where backups are kept (docs/backups.md): a folder, or a bucket as s3://bucket/prefix."
    )
    backup_keep: str = _setting(
        "hourly=24,daily=7,weekly=4",
        form.backups_kept,
        "Backups to keep in BACKUP_TO: the newest of each of the last hours, days and weeks that have any.",
    )
    backup_key: tuple[str, ...] = _setting(
        (), form.age_keys, "Keys of age that encrypt backups: the first one encrypts, all of them decrypt."
    )
    backup_alert_url: str = _setting(
        "", form.web_address, "Address that is posted to if a backup failed or is overdue."
    )
    backup_alert_mail: str = _setting(
        "", form.mail_address, "Address that gets a mail then; it needs SMTP_URL (docs/mail.md)."
    )
    s3_endpoint: str = _setting(
        "", form.endpoint, "Address of the bucket's server, such as https://s3.example.com; unset: Amazon's."
    )
    s3_region: str = _setting("us-east-1", str, "Region of the bucket.")
    s3_access_key_id: str = _setting(
        "", str, "Access key of the bucket; unset: what the environment of AWS or the machine's role gives."
    )
    s3_secret_access_key: str = _setting("", str, "Its secret.")
    public_url: str = _setting(
        "",
        form.origin,
        "Address by which people reach this server, for links in mails and from commands (docs/mail.md).",
    )
    smtp_url: str = _setting(
        "",
        form.smtp_url,
        "Mail server, with user and password; without one no mail is sent. smtp:// uses STARTTLS or refuses.",
    )
    mail_from: str = _setting("", form.mail_address, "Sender of mails.")
    rate_limit_mail: str = _setting(
        "5 per hour", form.rate, "Mails with a link that may be asked for, per address of the caller and per account."
    )
    log_format: str = _setting(
        "auto", form.one_of("auto", "json", "human"), "auto: human on a terminal, JSON elsewhere."
    )
    log_file: Path | str = _setting(
        "", Path, "File that also gets the log, as lines of JSON; the command log reads it (docs/operations.md)."
    )
    log_file_bytes: int = _setting(
        20_971_520,
        form.size(0, 1_099_511_627_776),
        "Size at which LOG_FILE becomes LOG_FILE.1 and another begins; 0: somebody else rotates it.",
    )
    log_files: int = _setting(5, form.whole(2, 100), "Files of the log at most, with the one that is being written.")


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment; an empty variable counts as unset.

    Raises: SettingError that names every value which is out of bounds.
    """
    values: dict[str, Any] = {}
    mistakes: dict[str, str] = {}
    for setting in fields(Settings):
        try:
            if text := _text_of(setting.name, environ):
                values[setting.name] = setting.metadata["read"](text)
        except _InFile as error:
            mistakes[setting.name] = str(error)
        except ValueError as error:
            mistakes[setting.name] = f"{setting.name.upper()} {error}, not {_shown(setting.name, text or '')}."
    if "trusted_proxies" not in values and environ.get("DYNO"):
        values["trusted_proxies"] = 1  # Heroku's router appends the caller's address: devcenter, "HTTP routing".
    settings = Settings(**values)
    inconsistent = [sentence for names, sentence in _inconsistent(settings) if not mistakes.keys() & set(names)]
    if mistakes or inconsistent:
        raise SettingError("\n".join([*mistakes.values(), *inconsistent]))
    return settings


class _InFile(ValueError):
    """The file that has a secret can't be used; as text it says why."""


def _text_of(name: str, environ: Mapping[str, str]) -> str | None:
    """Give a variable's value; that of a secret may be in a file, with a line break at its end.

    Raises: _InFile.
    """
    variable = name.upper()
    text, path = environ.get(variable), environ.get(f"{variable}_FILE")
    if not path or name not in SECRETS:
        return text
    if text:
        raise _InFile(f"{variable} and {variable}_FILE are both set: unset one of them.")
    try:
        found = Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise _InFile(f"{variable}_FILE names {json.dumps(path)}, which can't be read: {why}.") from None
    if not found:
        raise _InFile(f"{variable}_FILE names {json.dumps(path)}, which is empty.")
    return found


def source_of(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """Tell where the value of a variable is from."""
    if environ.get(name):
        return "environment"
    if name.lower() in SECRETS and (path := environ.get(f"{name}_FILE")):
        return f"file {path}"
    return "platform" if name == "TRUSTED_PROXIES" and environ.get("DYNO") else "default"


def effective(settings: Settings) -> Iterator[tuple[str, str]]:
    """Give every setting and its value as text; the secrets are not shown."""
    for setting in fields(Settings):
        value = getattr(settings, setting.name)
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        yield setting.name.upper(), (_shown(setting.name, text) if setting.name in SECRETS and text else text)


def _shown(name: str, text: str) -> str:
    """Show a value in a message, with escapes; no secret is shown."""
    if name in SECRETS:
        return f"one of {len(text.encode('utf-8', 'replace'))} bytes"
    return json.dumps(text[:_MAX_SHOWN_CHARACTERS]) + ("…" if len(text) > _MAX_SHOWN_CHARACTERS else "")


def _is_within(place: str, folder: Path) -> bool:
    return place.startswith("/") and Path(place).resolve().is_relative_to(folder.resolve())


def _inconsistent(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find settings that are valid alone but contradict each other; give their names and a message."""
    yield from _lacking_another(settings)
    pings = settings.ping_interval_seconds + settings.ping_timeout_seconds
    if pings >= 55:
        yield (
            ("ping_interval_seconds", "ping_timeout_seconds"),
            f"PING_INTERVAL_SECONDS + PING_TIMEOUT_SECONDS must stay below 55, and are {pings}: routers cut idle sockets.",
        )
    for quota, one in _LEAST:
        allowed, needed = int(re.findall(r"\d+", str(getattr(settings, quota)))[0]), getattr(settings, one)
        if allowed < needed:
            yield (quota, one), f"{quota.upper()} must allow at least one of {one.upper()}: {needed}, not {allowed}."


_LEAST = (
    ("tenant_bytes", "max_body_bytes"),
    ("tenant_rows", "max_push_rows"),
    ("max_tenant_body_bytes", "max_body_bytes"),
    ("socket_bytes", "max_frame_bytes"),
)
"""What must allow at least one of what: else a request of that size would be refused for ever."""


def _lacking_another(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find settings that do nothing without another, which is not set."""
    if settings.backup_every and not settings.backup_to:
        yield ("backup_every", "backup_to"), "BACKUP_EVERY needs BACKUP_TO, which says where backups are kept."
    if not settings.database_url and _is_within(settings.backup_to, settings.data_dir):
        yield (
            ("backup_to", "data_dir"),
            "BACKUP_TO is a folder in DATA_DIR: whatever takes the data takes the backups with it. Name a folder on another"
            " disk, or a bucket.",
        )
    if settings.backup_alert_mail and not settings.smtp_url:
        yield ("backup_alert_mail", "smtp_url"), "BACKUP_ALERT_MAIL needs SMTP_URL, the server by which mails are sent."
    if bool(settings.s3_access_key_id) != bool(settings.s3_secret_access_key):
        yield (
            ("s3_access_key_id", "s3_secret_access_key"),
            "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY belong together: set both or neither.",
        )
    if settings.smtp_url and not (settings.mail_from and settings.public_url):
        yield (
            ("smtp_url", "mail_from", "public_url"),
            "SMTP_URL needs MAIL_FROM, the sender of mails, and PUBLIC_URL, to which their links lead.",
        )
    if settings.mail_from and not settings.smtp_url:
        yield ("smtp_url", "mail_from"), "MAIL_FROM needs SMTP_URL, the server by which mails are sent."
