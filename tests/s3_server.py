"""A real server of S3's protocol for tests: moto's, in an environment of its own (requirements-s3.txt)."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from tests.conftest import ROOT, wait_for
from tests.ports import free_port

_PYTHON = ROOT / ".venv-s3" / "bin" / "python"
BUCKET = "backups-of-tests"

needs_s3 = pytest.mark.skipif(
    not _PYTHON.exists() and os.environ.get("CI") != "true", reason="needs .venv-s3: make .venv-s3/installed"
)


@contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """Serve an empty bucket; gives the settings for it."""
    port = free_port()
    command = [str(_PYTHON), "-m", "moto.server", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _is_up(port), "moto's server")
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("PUT", f"/{BUCKET}", b"")
            assert connection.getresponse().status == 200
        yield {
            "BACKUP_TO": f"s3://{BUCKET}/some/where",
            "S3_ENDPOINT": f"http://127.0.0.1:{port}",
            "S3_ACCESS_KEY_ID": "a-key",
            "S3_SECRET_ACCESS_KEY": "its-secret",
        }
    finally:
        process.kill()
        process.wait()


def _is_up(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
