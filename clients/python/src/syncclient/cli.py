"""The command line: ``syncclient login|pull|push|watch|status|rows``.

Knows: arguments and how results are printed. Must not know: rules; each command is a call of the client.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence

from .client import Hooks, Progress, SyncClient
from .errors import SyncError
from .records import Conflict, Refusal

_HELP = "An offline-first replica of a syncapp account in one SQLite file."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give 1 if it failed, with one sentence on stderr."""
    asked = _parser().parse_args(arguments)
    hooks = Hooks(_say_change, _say_progress, _say_conflict, _say_refusal, _say_error)
    command: Callable[[SyncClient, argparse.Namespace], None] = asked.command
    with SyncClient(asked.replica, asked.url, tables=asked.table, hooks=hooks) as client:
        try:
            command(client, asked)
        except SyncError as error:
            print(f"syncclient: {error.message}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="syncclient", description=_HELP)
    environ = os.environ
    parser.add_argument("--replica", default=environ.get("SYNCCLIENT_REPLICA", "replica.db"), help="the file")
    parser.add_argument("--url", default=environ.get("SYNCCLIENT_URL", "http://localhost:3000"), help="the server")
    parser.add_argument("--table", action="append", help="sync only this table; may be repeated")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    login = _command(commands, "login", _login, "begin a session; asks for the password")
    login.add_argument("email")
    login.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    pull = _command(commands, "pull", lambda client, asked: client.pull(asked.verify), "fetch what is new")
    pull.add_argument("--verify", action="store_true", help="compare the digests too, and repair")
    _command(commands, "push", lambda client, _: client.push(), "send what waits")
    watch = _command(commands, "watch", _watch, "exchange until Ctrl-C: on notification, and every so often")
    watch.add_argument("--every", type=float, default=60.0, metavar="SECONDS")
    _command(commands, "status", lambda client, _: _status(client), "say how the replica stands; works offline")
    rows = _command(commands, "rows", _rows, "print a table, one row a line as JSON; works offline")
    rows.add_argument("name")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[SyncClient, argparse.Namespace], None],
    what: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(command=command)
    return parser


def _login(client: SyncClient, asked: argparse.Namespace) -> None:
    password = sys.stdin.readline().rstrip("\n") if asked.password_stdin else getpass.getpass()
    client.login(asked.email, password)


def _watch(client: SyncClient, asked: argparse.Namespace) -> None:
    client.start(every_seconds=asked.every)
    threading.Event().wait()


def _status(client: SyncClient) -> None:
    for name, value in vars(client.status()).items():
        print(f"{name}: {value}")


def _rows(client: SyncClient, asked: argparse.Namespace) -> None:
    for row in client.rows(asked.name):
        print(json.dumps(row, ensure_ascii=False))


def _say_change(table: str, ids: Sequence[str]) -> None:
    print(f"{table}: {len(ids)} changed", flush=True)


def _say_progress(progress: Progress) -> None:
    print(f"{progress.phase}: {progress.rows} rows, {progress.waiting} waiting", file=sys.stderr, flush=True)


def _say_conflict(conflict: Conflict) -> None:
    print(
        f"conflict {conflict.number}: {conflict.table} {conflict.row_id} {', '.join(conflict.fields)}", file=sys.stderr
    )


def _say_refusal(refusal: Refusal) -> None:
    print(f"refused: {refusal.table} {refusal.row_id}: {refusal.error}", file=sys.stderr)


def _say_error(error: SyncError) -> None:
    print(f"{error.message} It is tried again.", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
