"""The environment: defaults that are safe, and one clear sentence for each value that is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import settings
from setting_values import rates_of
from tests.conftest import ROOT


def test_empty_environment_gives_the_defaults() -> None:
    assert settings.load({}) == settings.Settings()
    assert settings.load({"PORT": ""}).port == 3000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "99999"),
        ("PORT", "three"),
        ("JWT_SECRET_KEY", "short"),
        ("JWT_OLD_KEYS", "k" * 40 + ",short"),
        ("METRICS_TOKEN", "short"),
        ("METRICS_TOKEN", "with a space in it, or two"),
        ("SMTP_URL", "mail.example.com"),
        ("SMTP_URL", "http://mail.example.com"),
        ("SMTP_URL", "smtp://user@mail.example.com"),
        ("SMTP_URL", "smtp://user:p#ss@mail.example.com"),
        ("SMTP_URL", "smtp://user:pass@mail.example.com:x"),
        ("SMTP_URL", "smtp://user:pass@mail.example.com?starttls=no"),
        ("SMTP_URL", "smtps://mail.example.com?starttls=no"),
        ("MAIL_FROM", "nobody"),
        ("MAIL_FROM", "a@b.example\nBcc: c@d.example"),
        ("MAIL_FROM", "A <a@b.example>, c@d.example"),
        ("PUBLIC_URL", "sync.example.com"),
        ("PUBLIC_URL", "https://sync.example.com/app"),
        ("PUBLIC_URL", "https://sync.example.com\nX"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://a.example,nil"),
        ("CORS_ORIGINS", "capacitor://*"),
        ("CORS_ORIGINS", "https://"),
        ("CORS_ORIGINS", "file://a"),
        ("REGISTRATION", "maybe"),
        ("BCRYPT_ROUNDS", "4"),
        ("RATE_LIMIT_LOGIN", "0/minute"),
        ("RATE_LIMIT_LOGIN", "none"),
        ("RATE_LIMIT_LOGIN", "\u0661 per minute"),
        ("RATE_LIMIT_REGISTER", "5 per fortnight"),
        ("MAX_BODY_BYTES", "-1"),
        ("MAX_BODY_BYTES", "١٠٢٤"),
        ("LOG_FORMAT", "xml"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("DATABASE_URL", "postgresql://app:\udcff@localhost/x"),
        ("DATABASE_POOL", "1"),
    ],
)
def test_bad_value_is_refused_in_a_sentence_that_names_it(name: str, value: str) -> None:
    with pytest.raises(settings.SettingError, match=f"^{name} must be .*\\.$"):
        settings.load({name: value})


def test_bad_value_stops_the_start_with_that_sentence_alone(tmp_path: Path) -> None:
    environ = {**os.environ, "PORT": "nope", "DATA_DIR": str(tmp_path / "data")}
    ended = subprocess.run(
        [sys.executable, "syncapp.py"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.strip() == 'syncapp: PORT must be a whole number from 0 to 65,535, not "nope".'
    assert not (tmp_path / "data").exists()


def test_limits_can_be_raised_for_a_benchmark() -> None:
    raised = settings.load({"RATE_LIMIT_REGISTER": "100000/minute", "CORS_ORIGINS": "https://a.example, http://b:1/"})
    assert raised.rate_limit_register == "100000/minute"
    assert raised.cors_origins == ("https://a.example", "http://b:1")
    apps = (
        "capacitor://localhost,ionic://localhost, tauri://localhost,app://obsidian.md,chrome-extension://abcdef,file://"
    )
    assert settings.load({"CORS_ORIGINS": apps}).cors_origins == tuple(map(str.strip, apps.split(",")))
    as_browsers_say = settings.load({"CORS_ORIGINS": "https://App.example:443,http://b.example:80/,null"}).cors_origins
    assert as_browsers_say == ("https://app.example", "http://b.example", "null")


def test_rates_are_so_much_in_so_many_units_of_time() -> None:
    rates = rates_of("10 per minute;100/hour, 5 PER 10 Seconds|1 per 2 months")
    assert rates == [(10, 1, "minute"), (100, 1, "hour"), (5, 10, "second"), (1, 2, "month")]
    assert [rate.seconds for rate in rates] == [60, 3_600, 10, 60 * 86_400]


def test_backups_within_the_data_are_refused_and_elsewhere_they_are_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "elsewhere").mkdir(parents=True)
    (tmp_path / "a-link").symlink_to(data)
    (data / "out").symlink_to(tmp_path / "disk")
    for inside in (data, data / "not" / "yet", tmp_path / "a-link" / "backups", data / "elsewhere" / ".." / "x"):
        with pytest.raises(settings.SettingError, match=r"^BACKUP_TO is a folder in DATA_DIR"):
            settings.load({"DATA_DIR": str(data), "BACKUP_TO": str(inside)})
    for apart in (tmp_path / "data-2", tmp_path, data / "out" / "backups", "s3://data/backups"):
        assert settings.load({"DATA_DIR": str(data), "BACKUP_TO": str(apart)}).backup_to == str(apart)
    on_postgres = {"DATA_DIR": str(data), "BACKUP_TO": str(data), "DATABASE_URL": "postgresql://app@localhost/x"}
    assert settings.load(on_postgres).backup_to == str(data), "the data is not there"


def test_secret_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k" * 40 + "\n")
    assert settings.load({"JWT_SECRET_KEY_FILE": str(file)}).jwt_secret_key == "k" * 40
    file.write_text("first-" * 6 + "\n" + "second," * 6 + "\n")
    assert settings.load({"JWT_OLD_KEYS_FILE": str(file)}).jwt_old_keys == ("first-" * 6, "second," * 6)
    assert settings.load({"JWT_OLD_KEYS": "a" * 32 + ", " + "b" * 32}).jwt_old_keys == ("a" * 32, "b" * 32)
    assert settings.load({"PORT_FILE": str(file)}).port == 3000  # It is no secret.


@pytest.mark.parametrize(
    ("content", "variable", "sentence"),
    [
        (None, "", "can't be read: No such file"),
        (b"", "", "is empty"),
        (b"\n ", "", "is empty"),
        (b"\xff" * 40, "", "it is not UTF-8"),
        (b"short", "", "must be at least 32 bytes"),
        (b"k" * 40, "k" * 40, "are both set"),
    ],
)
def test_file_that_has_no_secret_is_named_without_it(
    tmp_path: Path, content: bytes | None, variable: str, sentence: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(settings.SettingError, match=f"^JWT_SECRET_KEY.* {sentence}") as error:
        settings.load({"JWT_SECRET_KEY_FILE": str(file), "JWT_SECRET_KEY": variable})
    assert "short" not in str(error.value) and "kkk" not in str(error.value)


def test_mail_needs_all_of_its_settings() -> None:
    server, sender, here = "smtp://u:p%40ss@mail.example.com", "Sync <s@example.com>", "https://Sync.example.com:443/"
    whole = {"SMTP_URL": server, "MAIL_FROM": sender, "PUBLIC_URL": here}
    assert settings.load(whole).public_url == "https://sync.example.com"
    assert settings.load({"PUBLIC_URL": "http://[::1]:3000"}).public_url == "http://[::1]:3000"
    for missing in whole.keys() - {"SMTP_URL"}:
        with pytest.raises(settings.SettingError, match=r"^SMTP_URL needs .*\.$"):
            settings.load({name: value for name, value in whole.items() if name != missing})
    with pytest.raises(settings.SettingError, match=r"^MAIL_FROM needs SMTP_URL.*\.$"):
        settings.load({"MAIL_FROM": sender, "PUBLIC_URL": here})


def test_one_proxy_is_trusted_on_heroku_and_none_elsewhere() -> None:
    assert settings.load({"DYNO": "web.1"}).trusted_proxies == 1
    assert settings.load({"DYNO": "web.1", "TRUSTED_PROXIES": "2"}).trusted_proxies == 2
    assert settings.load({}).trusted_proxies == 0


def test_pings_stay_within_what_routers_allow() -> None:
    with pytest.raises(settings.SettingError):
        settings.load({"PING_INTERVAL_SECONDS": "40", "PING_TIMEOUT_SECONDS": "20"})
