"""The environment, read once into one frozen value.

Knows: every environment variable the server obeys, its default, its bounds and the sentence that documents it
(``docs/settings.md`` is held to this file by a test). Must not know: anything of ours; standard library only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

_RATE = re.compile(r"[1-9]\d*\s*(/|\s+per\s+)\s*([1-9]\d*\s*)?(second|minute|hour|day|month|year)s?", re.IGNORECASE)
_ORIGIN = re.compile(r"null|file://|(?!file:)[a-z][a-z0-9+.\-]*://[a-z0-9._\-\[\]:]+")
DEFAULT_TABLES_FILE = Path("tables.toml")
LEAST_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key of at least the hash's size for HS256.


_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_BYTES = re.compile(r"([0-9]{1,15})\s?([KMGT]?)(i?B)?", re.IGNORECASE)
_HIDDEN = "jwt_secret_key"
_MOST_SHOWN_CHARACTERS = 60
_HALF = re.compile(r"[\ud800-\udfff]")
"""What Python makes of bytes of the environment that are no UTF-8."""


class SettingError(ValueError):
    """Every environment variable that is wrong, a line each: which one, what it must be, what it is."""


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least:,} to {most:,}")
        return int(text)

    return read


def _size(text: str) -> int:
    """Read a number of bytes, with or without a unit: 16M and 16MiB are 16 · 1024², 16MB is 16 · 1000².

    Source: GNU coreutils, "Block size".
    """
    found = _BYTES.fullmatch(text.strip())
    if not found or (found[3] and found[3].lower() == "ib" and not found[2]):
        raise ValueError("no number of bytes")
    factor: int = (1000 if found[3] in ("B", "b") else 1024) ** _UNITS[found[2].upper()]
    return int(found[1]) * factor


def _bytes(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            size = _size(text)
        except ValueError:
            size = -1
        if not least <= size <= most:
            raise ValueError(f"must be a number of bytes from {least:,} to {most:,}, such as {least} or {_short(most)}")
        return size

    return read


def _short(size: int) -> str:
    """Write a size with the largest unit that divides it."""
    for unit, power in reversed(_UNITS.items()):
        if size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError("must be " + " or ".join(words))
        return text

    return read


def _rate(text: str) -> str:
    if not all(_RATE.fullmatch(part.strip()) for part in re.split("[,;|]", text)):
        raise ValueError('must be limits such as "10 per minute" or "5/second;100/hour"')
    return text


def _one_rate(text: str) -> str:
    if not _RATE.fullmatch(text.strip()):
        raise ValueError('must be one limit such as "1000 per minute" or "5000 per 10 seconds"')
    return text


def _rate_of_bytes(text: str) -> str:
    """Read a rate whose number may have a unit, and give it without."""
    found = re.fullmatch(r"(.*?)(\s*(?:/|\s+per\s+).*)", text.strip(), re.IGNORECASE)
    try:
        return _one_rate(f"{_size(found[1])}{found[2]}" if found else text)
    except ValueError:
        raise ValueError('must be one limit of bytes such as "1G per minute" or "500M per 10 seconds"') from None


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(_origin(part.strip().lower()) for part in text.split(",") if part.strip())
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError(
            "must be origins such as https://app.example.com, of apps such as capacitor://localhost, or null, separated by"
            " commas, and no wildcard"
        )
    return origins


def _origin(text: str) -> str:
    """Write an origin as browsers do: without a slash behind it or the port that its scheme has anyway."""
    origin = text if text.endswith("://") else text.rstrip("/")
    return re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", origin)


def _secret(text: str) -> str:
    if len(text.encode("utf-8", "replace")) < LEAST_SECRET_BYTES or _HALF.search(text):
        raise ValueError(f"must be at least {LEAST_SECRET_BYTES} bytes of UTF-8, or unset to have one made")
    return text


def _setting(default: object, read: Callable[[str], object], doc: str) -> Any:
    return field(default=default, metadata={"read": read, "doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting; the environment variable is the field's name in capitals."""

    host: str = _setting("0.0.0.0", str, "Address to listen on.")  # noqa: S104 -- a server, also on a dyno
    port: int = _setting(3000, _whole(0, 65535), "Port to listen on; 0 takes a free one and logs it.")
    data_dir: Path = _setting(Path("data"), Path, "Folder of all data; made if missing, readable by its owner only.")
    tables_file: Path = _setting(
        DEFAULT_TABLES_FILE, Path, "Tables of one's own (docs/tables.md); only the default may be missing."
    )
    expect_data: str = _setting(
        "no", _one_of("yes", "no"), "yes: refuse to start with an empty data folder, which a lost disk looks like."
    )
    jwt_secret_key: str = _setting("", _secret, "Key that signs tokens. Unset: made once, kept in the data folder.")
    cors_origins: tuple[str, ...] = _setting(
        (), _origins, "Other origins whose pages may call; the server's own may always, localhost while served there."
    )
    registration: str = _setting("open", _one_of("open", "closed"), "Closed: only the operator's command registers.")
    bcrypt_rounds: int = _setting(12, _whole(8, 16), "Cost of a password hash (2^n); below 10 is for tests and warns.")
    rate_limit_login: str = _setting(
        "10 per minute;100 per hour", _rate, "Attempts to log in or prove a password, per address and per account."
    )
    rate_limit_register: str = _setting("20 per hour", _rate, "Registrations per address.")
    trusted_proxies: int = _setting(
        0, _whole(0, 8), "Proxies in front whose X-Forwarded-For is believed; 1 is assumed on Heroku."
    )
    access_token_seconds: int = _setting(86_400, _whole(1, 31_536_000), "Life of an access token.")
    refresh_token_seconds: int = _setting(2_592_000, _whole(1, 315_360_000), "Life of an unused refresh token.")
    max_body_bytes: int = _setting(16_777_216, _bytes(1_024, 1_073_741_824), "A request's body, after inflating.")
    max_row_bytes: int = _setting(65_536, _bytes(1_024, 16_777_216), "A stored row as JSON.")
    max_name_characters: int = _setting(64, _whole(16, 1_024), "A field's name.")
    max_push_rows: int = _setting(10_000, _whole(1, 1_000_000), "Rows of one push.")
    max_pull_rows: int = _setting(10_000, _whole(1, 1_000_000), "Rows of one page of a pull with a cursor.")
    max_frame_bytes: int = _setting(1_048_576, _bytes(4_096, 67_108_864), "A message from a socket.")
    max_waiting_pushes: int = _setting(1_000, _whole(1, 1_000_000), "Pushes that wait for one tenant before 503.")
    tenant_requests: str = _setting(
        "60000 per minute", _one_rate, "Requests and events of one tenant; all may come at once, then evenly."
    )
    tenant_bytes: str = _setting("1073741824 per minute", _rate_of_bytes, "Bytes of bodies and events of one tenant.")
    tenant_rows: str = _setting("1000000 per minute", _one_rate, "Rows that one tenant pushes.")
    max_tenant_requests: int = _setting(500, _whole(1, 1_000_000), "Requests of one tenant under way before 503.")
    max_tenant_body_bytes: int = _setting(
        268_435_456, _bytes(1_024, 68_719_476_736), "Bytes of bodies of one tenant under way before 503."
    )
    tenant_stored_bytes: int = _setting(
        10_737_418_240, _bytes(1_048_576, 1_125_899_906_842_624), "What one tenant's database may grow to before 507."
    )
    open_tenants: int = _setting(256, _whole(1, 100_000), "Tenant databases kept open; up to 5 descriptors each.")
    clock_skew_seconds: int = _setting(
        300, _whole(0, 86_400), "How far back a pull reaches when its lastSync is no time this server ever gave."
    )
    history_days: int = _setting(
        90, _whole(1, 36_500), "How long what was replaced or deleted is held, beyond what devices still need."
    )
    device_idle_days: int = _setting(90, _whole(1, 36_500), "How long a device may be away before it must start anew.")
    purge_seconds: int = _setting(3_600, _whole(1, 604_800), "Time between two rounds of removing what is too old.")
    conflict_strategy: str = _setting(
        "merge",
        _one_of("merge", "last-write-wins", "server-wins", "client-wins"),
        "What becomes of a change that did not know the row as it stands.",
    )
    socket_auth_seconds: int = _setting(10, _whole(1, 300), "Time a socket has to authenticate.")
    socket_queue_messages: int = _setting(1_024, _whole(8, 65_536), "Messages a slow socket may fall behind.")
    socket_queue_bytes: int = _setting(
        4_194_304, _bytes(65_536, 1_073_741_824), "Bytes a slow socket may fall behind, beyond one message."
    )
    max_stranger_sockets: int = _setting(
        1_000, _whole(1, 1_000_000), "Sockets that have not authenticated yet, of all callers together."
    )
    max_tenant_sockets: int = _setting(5_000, _whole(1, 1_000_000), "Sockets of one tenant.")
    socket_events: str = _setting("6000 per minute", _one_rate, "Events of one socket; one more is refused.")
    socket_bytes: str = _setting(
        "134217728 per minute", _rate_of_bytes, "Bytes from one socket; beyond them it is read more slowly."
    )
    ping_interval_seconds: int = _setting(25, _whole(1, 50), "Time between pings to an idle socket.")
    ping_timeout_seconds: int = _setting(20, _whole(1, 50), "Time a socket has to answer a ping.")
    max_connections: int = _setting(
        10_000, _whole(10, 1_000_000), "Open connections, fewer if the limit of open files is lower."
    )
    head_seconds: int = _setting(10, _whole(1, 600), "Time that a request's head may take.")
    stall_seconds: int = _setting(
        30, _whole(1, 600), "How far a body or the reading of an answer may fall behind 1 KiB a second."
    )
    keep_alive_seconds: int = _setting(75, _whole(1, 3_600), "How long a connection may be idle between requests.")
    shutdown_seconds: int = _setting(20, _whole(1, 600), "Time that requests in flight have to finish at SIGTERM.")
    log_format: str = _setting("auto", _one_of("auto", "json", "human"), "auto: human on a terminal, JSON elsewhere.")


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment; an empty variable counts as unset.

    Raises: SettingError that names every value which is out of bounds.
    """
    values: dict[str, Any] = {}
    mistakes: dict[str, str] = {}
    for setting in fields(Settings):
        text = environ.get(setting.name.upper())
        if text:
            try:
                values[setting.name] = setting.metadata["read"](text)
            except ValueError as error:
                mistakes[setting.name] = f"{setting.name.upper()} {error}, not {_shown(setting.name, text)}."
    if "trusted_proxies" not in values and environ.get("DYNO"):
        values["trusted_proxies"] = 1  # Heroku's router appends the caller's address: devcenter, "HTTP routing".
    settings = Settings(**values)
    together = [sentence for names, sentence in _wrong_together(settings) if not mistakes.keys() & set(names)]
    if mistakes or together:
        raise SettingError("\n".join([*mistakes.values(), *together]))
    return settings


def in_force(settings: Settings) -> Iterator[tuple[str, str]]:
    """Give every setting and its value, as text; of a secret only whether there is one."""
    for setting in fields(Settings):
        value = getattr(settings, setting.name)
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        yield setting.name.upper(), (_shown(setting.name, text) if setting.name == _HIDDEN and text else text)


def _shown(name: str, text: str) -> str:
    """Show a value in a sentence; what is not printable is escaped, and a secret is not shown."""
    if name == _HIDDEN:
        return f"one of {len(text.encode('utf-8', 'replace'))} bytes"
    return json.dumps(text[:_MOST_SHOWN_CHARACTERS]) + ("…" if len(text) > _MOST_SHOWN_CHARACTERS else "")


def _wrong_together(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give what is wrong with settings that are right one by one, with their names."""
    pings = settings.ping_interval_seconds + settings.ping_timeout_seconds
    if pings >= 55:
        yield (
            ("ping_interval_seconds", "ping_timeout_seconds"),
            f"PING_INTERVAL_SECONDS + PING_TIMEOUT_SECONDS must stay below 55, and are {pings}: routers cut idle sockets.",
        )
    for quota, one in (
        ("tenant_bytes", "max_body_bytes"),
        ("tenant_rows", "max_push_rows"),
        ("max_tenant_body_bytes", "max_body_bytes"),
        ("socket_bytes", "max_frame_bytes"),
    ):
        most, least = int(re.findall(r"\d+", str(getattr(settings, quota)))[0]), getattr(settings, one)
        if most < least:  # One allowed request would exceed it for ever.
            yield (quota, one), f"{quota.upper()} must allow at least one of {one.upper()}: {least}, not {most}."
