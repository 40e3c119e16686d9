"""What a bus over Redis has of its own: its address, passwords, certificates."""

from __future__ import annotations

import logging
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from server.bus.redis_bus import RedisBus
from tests.conftest import needs, wait_for
from tests.redis_server import Redis
from tests.server.bus.conftest import CHANNEL, Heard

pytestmark = needs("redis-server")

MakeHeard = Callable[..., Heard]


def test_password_of_the_address_is_used_and_not_logged(
    tmp_path: Path, hearing: MakeHeard, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = Redis(tmp_path, "--requirepass", "s3cret")
    guarded.start()
    try:
        with caplog.at_level(logging.WARNING, "syncapp.bus"):
            hearing(RedisBus(guarded.url.replace("://", "://:wr0ng@"), CHANNEL), is_ready=False)
            wait_for(lambda: len(caplog.records) >= 1, "a refusal")
        said = str([vars(record) for record in caplog.records])
        assert "invalid username-password pair" in said and "wr0ng" not in said
        hearing(RedisBus(guarded.url.replace("://", "://:s3cret@"), CHANNEL))
    finally:
        guarded.kill()


@needs("openssl")
def test_certificate_that_nobody_vouches_for_is_refused_unless_told(
    tmp_path: Path, hearing: MakeHeard, caplog: pytest.LogCaptureFixture
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=nobody -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    options = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    secured = Redis(tmp_path, *options, tls=True)
    secured.start()
    try:
        with caplog.at_level(logging.WARNING, "syncapp.bus"):
            hearing(RedisBus(secured.url, CHANNEL), is_ready=False)
            wait_for(lambda: len(caplog.records) >= 1, "a refusal")
        assert "certificate verify failed" in str([vars(record) for record in caplog.records])
        one = hearing(RedisBus(secured.url, CHANNEL, verifies=False))
        one.bus.publish("t", b"secret")
        assert one.wait(1) == [b"secret"]
    finally:
        secured.kill()


@pytest.mark.parametrize(
    "url",
    [
        "http://:hush@localhost",
        "redis://:hush/more@localhost:6379",
        "redis://:hush@localhost:99999",
        "redis://[hush/x",
        "redis://:ok?hush=1@localhost",
        "redis://localhost?socket_timeout=hush",
        "rediss://localhost?ssl_cert_reqs=hush",
    ],
)
def test_address_that_is_none_is_refused_at_once_and_its_password_not_shown(url: str) -> None:
    """Fault: redis-py's own words, which quote what they stumble on, and a TypeError only when it connects, which ended
    the greenlets of the bus."""
    with pytest.raises(ValueError, match="must be an address") as refused:
        RedisBus(url, CHANNEL)
    assert "hush" not in "".join(traceback.format_exception(refused.value))
