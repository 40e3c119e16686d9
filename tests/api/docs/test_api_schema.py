"""schemathesis against a real server: what /openapi.json says is what the server does, whatever is sent.

It makes requests from the document: the examples, the edges of every bound, random ones, and runs along the links; right
ones and wrong ones. ``API_SECONDS`` is the time of the longest run, ``API_SEED`` repeats one.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Server, Tenant
from tests.contract import Contract
from tests.refusals import dump_of

SECONDS = int(os.environ.get("API_SECONDS", "30"))
SEED = int(os.environ.get("API_SEED", random.randrange(2**32)))
PASSWORD = "in no example, so that nobody guesses it"
LEAVING = ("customers.logout", "customers.close", "account.end_session", "account.export")
"""What ends a session or needs the password: run apart, each time as somebody new."""

BY_LINK = ("lost_passwords.reset", "lost_passwords.confirm_email")
"""What takes a token of a mail, which nobody guesses."""

NOT_HELD = ("positive_data_acceptance", "use_after_free", "missing_required_header")
"""A request may be well formed and yet of no row, conflict or account there is; a device that is forgotten may come back;
no header is required but the token, which the command puts back in before it looks."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS * 4 + 120)]


class Run:
    """Runs of the command against one server, and what they reached."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        server.register(email="test@example.com")  # Whom the examples log in.
        self.tenant = server.register(password=PASSWORD)
        _make_history(self.tenant)
        self.before = len(server.log)

    def run(self, seconds: int, *arguments: str, token: str | None = None, **environ: str) -> None:
        """Run schemathesis, and fail with its report if it finds anything."""
        named = {"API_TENANT": self.tenant.id, "API_PASSWORD": PASSWORD, "API_URL": self.server.url}
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "--no-color",
            "run",
            f"{self.server.url}/openapi.json",
        ]
        command += [f"--seed={SEED}", f"--max-time={seconds}", "--continue-on-failure", "--generation-database=none"]
        command += [f"--exclude-checks={','.join(NOT_HELD)}", *arguments]
        command += [f"--header=Authorization: Bearer {token}"] if token else []
        done = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env={**os.environ, **named, **environ, "SCHEMATHESIS_HOOKS": str(ROOT / "tests" / "api_hooks.py")},
            capture_output=True,
            text=True,
            timeout=seconds * 2 + 60,
        )
        print(f"API_SEED={SEED}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
        assert not [line for line in self.server.log if line["level"] in ("error", "critical", "raw")]

    def reached(self) -> dict[str, Counter[int]]:
        """Count by operation the statuses that were answered since the beginning."""
        found: dict[str, Counter[int]] = {}
        patterns = [
            (re.compile(re.sub(r"{\w+}", "[^/]+", path)), method, said["operationId"])
            for path, item in Contract.of(self.server.url).openapi["paths"].items()
            for method, said in item.items()
        ]
        for line in self.server.log[self.before :]:
            for pattern, method, name in patterns:
                if line.get("method", "").lower() == method and pattern.fullmatch(line["path"]):
                    found.setdefault(name, Counter())[line["status"]] += 1
        return found


def _make_history(tenant: Tenant) -> None:
    """Give the examples a row with versions, conflicts to decide, and a device to name."""
    device = tenant.device(X_Device_Id="tablet-1")
    device.create(id="u1", name="Asha")
    for number in range(1, 9):
        device.update(id="u1", name=f"Asha {number}")
        change = {
            "table": "end_user",
            "operation": "update",
            "baseVersion": 1,
            "data": {"id": "u1", "name": f"A{number}"},
        }
        tenant.device().push({"operations": [change]})
    device.catch_up()


@pytest.fixture
def run(start_server: Callable[..., Server], tmp_path: Path) -> Run:
    mail = {
        "SMTP_URL": "smtp://localhost:9?starttls=no",
        "MAIL_FROM": "a@example.com",
        "PUBLIC_URL": "http://localhost",
    }
    return Run(start_server(MAX_PUSH_ROWS="200", RATE_LIMIT_MAIL="10000 per minute", **mail), tmp_path)


def test_whatever_an_authenticated_client_sends_is_answered_as_described(run: Run) -> None:
    leaving = [f"--exclude-operation-id={name}" for name in LEAVING]
    run.run(SECONDS, *leaving, token=run.tenant.token)
    answered = run.reached()
    print(*answered.items(), sep="\n")
    unreached = {
        name
        for name, statuses in answered.items()
        if name not in (*LEAVING, *BY_LINK) and not {200, 201, 202} & statuses.keys()
    }
    assert not unreached, "a run in which every request is refused shows nothing"


def test_whatever_an_unauthenticated_client_sends_is_answered_as_described_and_reaches_nobodys_data(run: Run) -> None:
    before = dump_of(run.tenant)
    run.run(max(SECONDS // 3, 5))
    assert run.reached()["customers.register"][201], "schemathesis logs in as whom it registers"
    assert dump_of(run.tenant) == before


def test_whatever_a_leaving_customer_sends_is_answered_as_described(run: Run) -> None:
    only = [f"--include-operation-id={name}" for name in LEAVING]
    run.run(SECONDS, *only, "--phases=examples,coverage,fuzzing", "--max-examples=20", API_LEAVER="yes")
    assert all(run.reached()[name][200] for name in LEAVING)
