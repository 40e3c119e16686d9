"""The operator in tests: commands beside a server, and the console as its pages call it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

import requests

from tests import forking, postgres
from tests.conftest import FAST, WAIT_SECONDS, Server


def command(server: Server, *arguments: str, typed: str = "") -> Any:
    environ = {**os.environ, **FAST, **postgres.environ_of(server.data), "DATA_DIR": str(server.data)}
    return forking.run([*arguments], environ, typed)


def done(server: Server, *arguments: str, typed: str = "") -> str:
    ended = command(server, *arguments, typed=typed)
    assert ended.returncode == 0, ended.stderr
    return str(ended.stdout)


def refused(server: Server, *arguments: str, typed: str = "") -> str:
    """Give the one sentence of a command that could not be done."""
    ended = command(server, *arguments, typed=typed)
    assert ended.returncode == 1 and ended.stdout == "" and "Traceback" not in ended.stderr
    (sentence,) = ended.stderr.strip().splitlines()
    return str(sentence)


def link_of(server: Server) -> str:
    """Make a link with the command, and give its secret."""
    url = str(json.loads(done(server, "admin-link", "--url", server.url, "--json"))["url"])
    address, _, secret = url.partition("#")
    assert address == f"{server.url}/admin/sign-in"
    return secret


@dataclass
class Operator:
    """Somebody who has signed in to the console of a server."""

    server: Server
    session: requests.Session
    proof: str = ""

    def get(self, path: str, **headers: str) -> requests.Response:
        return self._call("GET", path, None, headers)

    def post(self, path: str, body: Any = None, **headers: str) -> requests.Response:
        return self._call("POST", path, {} if body is None else body, headers)

    def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> requests.Response:
        sent = {"Origin": self.server.url, "X-Console-Proof": self.proof}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{self.server.url}/admin{path}"
        encoded = {name: value.encode() for name, value in sent.items()}
        return self.session.request(method, url, json=body, headers=encoded, timeout=WAIT_SECONDS)


def signed_in(server: Server) -> Operator:
    """Sign in as a person does."""
    operator = Operator(server, requests.Session())
    answer = operator.post("/sign-in", {"link": link_of(server)})
    assert answer.status_code == 200, answer.text
    found = re.search(r'name="console-proof" content="(\w+)"', operator.get("").text)
    assert found
    operator.proof = found[1]
    return operator
