"""The report for somebody who helps from afar: it says what they ask first, and nothing that is secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests import postgres
from tests.conftest import Server
from tests.operating import done
from tests.operations.commands.test_operator import run

KEY = "a-signing-key-that-nobody-else-is-to-see"


def test_report_names_versions_and_counts_and_no_customer(server: Server) -> None:
    tenant = server.register(companyName="Kulkarni Traders")
    text = done(server, "support")
    for word in (
        "syncapp ",
        "Python 3.",
        "SQLite 3.",
        "gevent ",
        "peewee ",
        "memory: ",
        "tenants: ",
        "checks, ",
        "PORT=",
    ):
        assert word in text
    assert tenant.email not in text and tenant.id not in text and "Kulkarni" not in text


def test_report_has_no_secret(tmp_path: Path) -> None:
    postgres.must_be_about_files()
    secrets = {
        "JWT_SECRET_KEY": KEY,
        "METRICS_TOKEN": "a-token-for-metrics",
        "REDIS_URL": "redis://:hidden@127.0.0.1:1",
        "S3_ACCESS_KEY_ID": "an-id-of-a-key",
        "S3_SECRET_ACCESS_KEY": "its-secret",
        "SMTP_URL": "smtp://user:hidden@127.0.0.1:1",
        "PUBLIC_URL": "https://sync.example.com",
        "MAIL_FROM": "Somebody <somebody@example.com>",
    }
    ended = run(tmp_path, "support", **secrets)
    assert ended.returncode == 0 and "JWT_SECRET_KEY=one of 40 bytes" in ended.stdout
    hidden = (KEY, "a-token-for", "hidden", "somebody@", "an-id-of", "its-secret")
    assert [secret for secret in hidden if secret in ended.stdout] == []


def test_report_of_a_missing_file_does_not_say_whose_it_is(start_server: Callable[..., Server]) -> None:
    postgres.must_be_about_files()
    server = start_server()
    lost = server.register()
    server.stop()
    lost.path.unlink()
    assert lost.id in done(server, "doctor")
    text = done(server, "support")
    assert "Tenant …: " in text and lost.id not in text and lost.id.replace("-", "") not in text


def test_report_is_made_also_if_a_start_would_be_refused(tmp_path: Path) -> None:
    postgres.must_be_about_files()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "main.db").write_bytes(b"no database" * 1000)
    ended = run(tmp_path, "support")
    assert ended.returncode == 0 and "the data can't be opened" in ended.stdout and "refused:" in ended.stdout
    assert "Traceback" not in ended.stderr
