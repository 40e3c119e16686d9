"""A real mail server, and the settings by which a server under test uses it."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import requests

from tests import forking, postgres
from tests.conftest import FAST, ROOT, Tenant, wait_for
from tests.ports import free_port

PUBLIC = "https://sync.example.com"


@dataclass
class MailServer:
    """A process that takes mails; its certificate is trusted by who has ``trust`` in its environment."""

    folder: Path
    mode: str = "starttls"
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> MailServer:
        self.folder.mkdir(exist_ok=True)
        self.port = self.port or free_port()
        if not (self.folder / "cert.pem").exists():
            names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
            files = ["-keyout", str(self.folder / "key.pem"), "-out", str(self.folder / "cert.pem")]
            key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            new = ["openssl", "req", "-x509", *key, *names, *files]
            subprocess.run(new, check=True, capture_output=True)
        command = [sys.executable, str(ROOT / "tests" / "smtp_process.py"), str(self.folder), str(self.port), self.mode]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        wait_for(self._listens, "the mail server")
        return self

    def _listens(self) -> bool:
        assert self.process is not None and self.process.poll() is None, "the mail server ended"
        try:
            requests.get(f"http://localhost:{self.port}", timeout=5)
        except requests.ConnectionError as error:
            return "refused" not in str(error)
        except requests.RequestException:
            pass
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def url(self) -> str:
        if self.mode == "plain":
            return f"smtp://localhost:{self.port}?starttls=no"
        return f"{'smtps' if self.mode == 'tls' else 'smtp'}://sync:p%40ss%2Fword@localhost:{self.port}"

    @property
    def trust(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.folder / "cert.pem")}

    @property
    def settings(self) -> dict[str, str]:
        """What a server needs in its environment to send mails by this one."""
        return {"SMTP_URL": self.url, "MAIL_FROM": "Sync <sync@example.com>", "PUBLIC_URL": PUBLIC} | self.trust

    def taken(self, recipient: str = "") -> list[EmailMessage]:
        """Give the mails that came, to one address or all, the oldest first."""
        found: list[dict[str, Any]] = [json.loads(file.read_text()) for file in sorted(self.folder.glob("*.mail"))]
        mine = [one for one in found if not recipient or recipient in one["to"]]
        return [email.message_from_string(one["text"], policy=default) for one in mine]

    def wait_taken(self, recipient: str, count: int = 1) -> EmailMessage:
        """Wait for the ``count``-th mail to an address."""
        wait_for(lambda: len(self.taken(recipient)) >= count, f"{count} mails to {recipient}")
        return self.taken(recipient)[count - 1]


def link_for(tenant: Tenant, purpose: str, *options: str) -> str:
    """Have the operator's command make a link."""
    data = tenant.server.data
    environ = {**os.environ, **FAST, **postgres.environ_of(data), **tenant.server.env, "DATA_DIR": str(data)}
    done = forking.run(["account", f"{purpose}-link", tenant.id, *options], environ)
    assert done.returncode == 0, done.stderr
    return str(done.stdout.strip())
