"""What a process holds: a server only what it serves with, a command only what it needs; each import costs every start.

Seen to fail with: ``import assembly`` without ``_without``, a command that imports ``api.push_handler``, ``import wsproto``
at the top of ``check_commands``.
"""

from __future__ import annotations

import json
import subprocess
import sys

import syncapp
from tests.conftest import ROOT, WAIT_SECONDS

OF_OTHERS = {"aiohttp", "psycopg", "redis", "requests", "websocket"}
"""Packages that libraries import where they find them, and that need 40 MiB and 0.4 s."""

FOR_SOME = {"obstore", "prometheus_client", "psycopg", "redis"}
"""Packages that settings ask for."""

OF_COMMANDS = {"smtplib", "pyrage", "wsproto"}
OF_THE_SERVER = {"assembly", "engineio", "flask", "flask_socketio", "jwt", "socketio", "sockets", "werkzeug"}


def held_after(code: str) -> set[str]:
    """Give the packages that a process has imported after some code."""
    code = f"import syncapp, sys, json\n{code}\nprint(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_SECONDS, check=True)
    return set(json.loads(ended.stdout.splitlines()[-1]))


def test_server_does_not_import_what_only_some_need() -> None:
    held = held_after("syncapp.import_server()")
    assert held & (OF_OTHERS | FOR_SOME | OF_COMMANDS) == set() and held >= OF_THE_SERVER


def test_no_command_imports_the_server() -> None:
    """``--help`` imports every command."""
    held = held_after("sys.argv[1:] = ['--help']\ntry: syncapp.main()\nexcept SystemExit: pass")
    assert held & (OF_OTHERS | FOR_SOME | OF_THE_SERVER | {"wsproto"}) == set() and "operations" in held


def test_peewee_knows_its_sqlite() -> None:
    """Fault: ``sqlite3`` was hidden from it: a table with a column of JSON could not be described by ``move``."""
    code = "import peewee\nif peewee.__sqlite_version__ >= (3, 38): import this"
    assert "this" in held_after(code)


def test_what_was_hidden_can_be_imported_afterwards_and_what_was_there_stays() -> None:
    with syncapp._without("json", "this_is_nowhere"):
        assert sys.modules["json"] is json
    assert sys.modules["json"] is json and "this_is_nowhere" not in sys.modules
