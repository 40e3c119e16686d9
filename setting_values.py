"""The forms that values of settings may have: each function reads a text, and says what it must be if it is not that.

Knows: units, rates, times, origins, secrets. Must not know: which settings there are; standard library only.
Each raises ValueError, whose text goes on after the setting's name: "must be …".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key of at least the hash's size for HS256.

_RATE = re.compile(
    r"([1-9]\d*)\s*(?:/|\s+per\s+)\s*([1-9]\d*\s*)?(second|minute|hour|day|month|year)s?", re.IGNORECASE | re.ASCII
)
_RATE_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "month": 30 * 86_400, "year": 360 * 86_400}
"""As the library ``limits`` has them, which counted before: a year is twelve months of 30 days."""

_ORIGIN = re.compile(r"null|file://|(?!file:)[a-z][a-z0-9+.\-]*://[a-z0-9._\-\[\]:]+")
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_BYTES = re.compile(r"([0-9]{1,15})\s?([KMGT]?)(i?B)?", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_KEPT = re.compile(r"(?:hourly|daily|weekly)=[0-9]{1,4}(?:,(?:hourly|daily|weekly)=[0-9]{1,4})*")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""What Python makes of bytes of the environment that are not UTF-8."""


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    """Give what reads a whole number between bounds."""

    def read(text: str) -> int:
        """Read a whole number between the bounds."""
        if not re.fullmatch(r"[0-9]{1,15}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be a whole number from {minimum:,} to {maximum:,}")
        return int(text)

    return read


def _parsed_size(text: str) -> int:
    """Read a number of bytes, with or without a unit: 16M and 16MiB are 16 · 1024², 16MB is 16 · 1000².

    Source: GNU coreutils, "Block size".
    """
    found = _BYTES.fullmatch(text.strip())
    if not found or (found[3] and found[3].lower() == "ib" and not found[2]):
        raise ValueError("no number of bytes")
    factor: int = (1000 if found[3] in ("B", "b") else 1024) ** _UNITS[found[2].upper()]
    return int(found[1]) * factor


def size(minimum: int, maximum: int) -> Callable[[str], int]:
    """Give what reads a number of bytes between bounds."""

    def read(text: str) -> int:
        """Read a number of bytes between the bounds."""
        try:
            size = _parsed_size(text)
        except ValueError:
            size = -1
        if not minimum <= size <= maximum:
            example = f"{minimum} or {_short(maximum)}"
            raise ValueError(f"must be a number of bytes from {minimum:,} to {maximum:,}, such as {example}")
        return size

    return read


def _short(size: int) -> str:
    """Write a size with the largest unit that divides it."""
    for unit, power in reversed(_UNITS.items()):
        if size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


def one_of(*words: str) -> Callable[[str], str]:
    """Give what reads one of some words."""

    def read(text: str) -> str:
        """Read one of the words."""
        if text not in words:
            raise ValueError("must be " + " or ".join(words))
        return text

    return read


def matching(pattern: str, sentence: str) -> Callable[[str], str]:
    """Give the reader that takes a text of one form as it is; ``sentence`` says what it must be."""
    is_well_formed = re.compile(pattern).fullmatch

    def read(text: str) -> str:
        """Read a text of this form."""
        if not is_well_formed(text):
            raise ValueError(sentence)
        return text

    return read


class Rate(NamedTuple):
    """So much in so many units of time, such as 5,000 per 10 seconds."""

    amount: int
    units: int
    unit: str

    @property
    def seconds(self) -> int:
        """Give the length of the window."""
        return self.units * _RATE_SECONDS[self.unit]


def rate_of(text: str) -> Rate:
    """Read one limit. Raises: ValueError."""
    found = _RATE.fullmatch(text.strip())
    if not found:
        raise ValueError('must be one limit such as "1000 per minute" or "5000 per 10 seconds"')
    return Rate(int(found[1]), int(found[2] or 1), found[3].lower())


def rates_of(text: str) -> list[Rate]:
    """Read one limit or several. Raises: ValueError."""
    try:
        return [rate_of(part) for part in re.split("[,;|]", text)]
    except ValueError:
        raise ValueError('must be limits such as "10 per minute" or "5/second;100/hour"') from None


def rate(text: str) -> str:
    """Read limits, and give them as they are written, for people."""
    rates_of(text)
    return text


def one_rate(text: str) -> str:
    """Read one limit, and give it as it is written."""
    rate_of(text)
    return text


def rate_of_bytes(text: str) -> str:
    """Read a rate whose number may have a unit, and give it without the unit."""
    found = re.fullmatch(r"(.*?)(\s*(?:/|\s+per\s+).*)", text.strip(), re.IGNORECASE)
    try:
        return one_rate(f"{_parsed_size(found[1])}{found[2]}" if found else text)
    except ValueError:
        raise ValueError('must be one limit of bytes such as "1G per minute" or "500M per 10 seconds"') from None


def origins(text: str) -> tuple[str, ...]:
    """Read the origins of pages and apps; a wildcard is none."""
    origins = tuple(_origin(part.strip().lower()) for part in text.split(",") if part.strip())
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError(
            "must be origins such as https://app.example.com, of apps such as capacitor://localhost, or null, separated by"
            " commas, and no wildcard"
        )
    return origins


def _origin(text: str) -> str:
    """Write an origin as browsers do: without a trailing slash or the default port."""
    origin = text if text.endswith("://") else text.rstrip("/")
    return re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", origin)


def secret(text: str) -> str:
    """Read a key that is long enough to sign with."""
    if len(text.encode("utf-8", "replace")) < MIN_SECRET_BYTES or _SURROGATE.search(text):
        raise ValueError(f"must be at least {MIN_SECRET_BYTES} bytes of UTF-8, or unset to have one made")
    return text


def secrets(text: str) -> tuple[str, ...]:
    """Read keys, one a line if there are several lines, else separated by commas."""
    keys = [key.strip() for key in (text.splitlines() if "\n" in text else text.split(","))]
    try:
        return tuple(secret(key) for key in keys if key)
    except ValueError:
        raise ValueError(f"must be keys of at least {MIN_SECRET_BYTES} bytes, separated by commas or lines") from None


token = matching(r"[!-~]{16,}", "must be at least 16 letters, digits and signs, without spaces")


def duration(minimum: int, maximum: int) -> Callable[[str], int]:
    """Give the reader of lengths of time between two bounds, or 0."""

    def read(text: str) -> int:
        """Read a length of time with its unit, and give its seconds."""
        found = re.fullmatch(r"([1-9][0-9]{0,8})\s?([smhd])", text.strip())
        seconds = int(found[1]) * _SECONDS[found[2]] if found else -1
        if text != "0" and not minimum <= seconds <= maximum:
            raise ValueError(
                f"must be a time such as 30m, 1h, 24h or 7d, from {minimum}s to {maximum // 86_400}d, or 0"
            )
        return max(0, seconds)

    return read


def backup_place(text: str) -> str:
    """Read a folder by its whole path, or a bucket."""
    is_bucket = re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[A-Za-z0-9._/-]*)?", text)
    if not is_bucket and (not text.startswith("/") or "\0" in text or _SURROGATE.search(text)):
        raise ValueError("must be a folder by its whole path, such as /backups, or a bucket such as s3://bucket/prefix")
    return text


def backups_kept(text: str) -> str:
    """Read how many backups of each kind are kept."""
    counts = _KEPT.fullmatch(text.replace(" ", ""))
    names = re.findall(r"[a-z]+", text)
    if not counts or len(set(names)) != len(names) or not re.search(r"[1-9]", text):
        raise ValueError("must be numbers of backups such as hourly=24,daily=7,weekly=4, of which not all are 0")
    return text.replace(" ", "")


def age_keys(text: str) -> tuple[str, ...]:
    """Read secret keys of age, one a line or separated by commas."""
    keys = tuple(key.strip() for key in re.split(r"[,\n]", text) if key.strip() and not key.strip().startswith("#"))
    if not keys or not all(re.fullmatch(r"AGE-SECRET-KEY-1[0-9A-Z]{58}", key) for key in keys):
        raise ValueError(
            "must be keys of age, which begin with AGE-SECRET-KEY-1: python syncapp.py backup new-key makes one"
        )
    return keys


web_address = matching(
    r"https://[^\s]+|http://(localhost|127\.0\.0\.1|\[::1\])([:/][^\s]*)?",
    "must be an address that begins with https://",
)


def endpoint(text: str) -> str:
    """Read the address of a bucket's server, and give it without a slash at its end."""
    if not re.fullmatch(r"https?://[^\s/]+/?", text):
        raise ValueError("must be an address such as https://s3.example.com")
    return text.rstrip("/")


redis_url = matching(
    r"rediss?://[^\s]+", "must be an address such as redis://localhost:6379/0 or rediss://:password@host:6380"
)
process_name = matching(r"[A-Za-z0-9]{1,32}", "must be 1 to 32 letters and digits")


def database_url(text: str) -> str:
    """Read the address of a database of PostgreSQL."""
    if not text.startswith(("postgres://", "postgresql://")) or _SURROGATE.search(text):
        raise ValueError("must be a URL in UTF-8 that begins with postgresql:// or postgres://")
    return text


def smtp_url(text: str) -> str:
    """Read the address of a mail server. Without TLS no password goes there."""
    try:
        url = urlsplit(text)
        is_good = url.scheme in ("smtp", "smtps") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_good = False
    if is_good:
        rest = (url.path in ("", "/"), url.query in ("", "starttls=no"), not url.fragment)
        is_good = all(rest) and (url.username is None) == (url.password is None)
    if not is_good or not re.fullmatch(r"[!-~]+", text):
        raise ValueError(
            "must be an address such as smtp://user:password@mail.example.com:587 or smtps://…:465, in which @ / # ? % : of"
            " a password are written as %40 %2F %23 %3F %25 %3A"
        )
    if url.query and (url.password or url.scheme == "smtps"):
        raise ValueError(
            "must be smtp:// without a password if it ends in ?starttls=no: anybody in between could read it"
        )
    return text


_ADDRESS = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]{1,64}@[A-Za-z0-9.\-]{1,190}"
mail_address = matching(
    rf"([^<>@,;:\"\\\x00-\x1f\x7f]+ <{_ADDRESS}>|{_ADDRESS})",
    "must be an e-mail address such as sync@example.com or Example Sync <sync@example.com>",
)


def origin(text: str) -> str:
    """Read the address of a server, and give it as browsers write an origin."""
    found = _origin(text.strip().lower())
    if not re.fullmatch(r"https?://([a-z0-9._\-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?", found):
        raise ValueError("must be an address such as https://sync.example.com, without a path")
    return found
