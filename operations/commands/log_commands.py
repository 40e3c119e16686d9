"""The operator's command that reads the log.

Knows: the command line, where the log may be. Must not know: what is in a line (``log_lines``), how files are read
(``log_files``).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import click
from gevent.monkey import get_original

import settings as environment
from operations import log_files, log_lines, tenant_list
from operations.commands.command_line import failures, has_terminal, progress
from operations.commands.tenant_commands import customer_named
from operations.log_lines import Filter
from server.log_file import rotated

_LOOK_SECONDS = 0.2
_SHOWN_BEFORE = 20
"""Lines that ``--follow`` begins with, unless it is told where to begin."""

_sleep = get_original("time", "sleep")  # gevent's would have its loop take a Ctrl-C.
_NO_FILE = """LOG_FILE is not set: the log is on standard error alone, and goes where that goes. Pipe it in:

  journalctl -u syncapp -o cat | python syncapp.py log
  docker compose logs --no-log-prefix syncapp | python syncapp.py log
  heroku logs -n 1500 | python syncapp.py log

or set LOG_FILE to a path, for the server and for this command, and restart the server (docs/operations.md)."""


@click.command()
@click.option("--tenant", metavar="TENANT", help="Only of this tenant, by ID or e-mail address.")
@click.option("--request", "request_id", metavar="ID", help="Only of the request with this X-Request-ID.")
@click.option(
    "--level",
    type=click.Choice(["info", "warning", "error", "critical"], case_sensitive=False),
    help="Only of this level and above.",
)
@click.option("--since", metavar="TIME", help="Only from this time on: 2026-11-29T14:03 in UTC, or 30m, 2h, 7d ago.")
@click.option("--last", type=click.IntRange(1, 1_000_000), metavar="N", help="Only the newest N of them.")
@click.option("--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print each line as JSON, for programs.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read standard input, although LOG_FILE is set.")
def log(
    tenant: str | None,
    request_id: str | None,
    level: str | None,
    since: str | None,
    last: int | None,
    follow: bool,
    as_json: bool,
    from_stdin: bool,
) -> None:
    """Show the log: LOG_FILE and the files that it was before, or what is piped in.

    Example: python syncapp.py log --tenant asha@example.com --since 2h
    """
    with failures():
        path = environment.load().log_file
    if not path and not from_stdin and has_terminal():
        raise click.ClickException(_NO_FILE)
    wanted = Filter(_tenant_id(tenant), request_id, level, _since(since))
    printer = _Printer(log_lines.as_json if as_json else log_lines.as_text, last)
    if follow and path and not from_stdin and since is None and last is None:
        printer = _Printer(printer.form, _SHOWN_BEFORE)
    with suppress(KeyboardInterrupt):
        if path and not from_stdin:
            _show(_lines_of(Path(path), wanted, printer.goes_on if follow else lambda: False), wanted, printer)
        elif not _show(sys.stdin.buffer if sys.stdin else (), wanted, printer) and not from_stdin:
            progress("LOG_FILE is not set, and there was nothing on standard input.")
    printer.release()


class _Printer:
    """Prints lines, or keeps the newest of them back until all are known that are there already."""

    def __init__(self, form: Callable[[log_lines.Line], str], last: int | None) -> None:
        self.form = form
        self._kept: deque[log_lines.Line] | None = deque(maxlen=last) if last else None

    def print(self, line: log_lines.Line) -> None:
        """Print a line, or keep it back."""
        if self._kept is None:
            click.echo(self.form(line))
        else:
            self._kept.append(line)

    def release(self) -> None:
        """Print what was kept back, and every further line at once."""
        kept, self._kept = self._kept, None
        for line in kept or ():
            self.print(line)

    def goes_on(self) -> bool:
        """Wait for further lines."""
        self.release()
        _sleep(_LOOK_SECONDS)
        return True


def _show(lines: Iterable[bytes], wanted: Filter, printer: _Printer) -> bool:
    """Print the lines that are wanted; tell whether there were any lines at all."""
    needed = [text.encode() for text in (wanted.tenant, wanted.request_id) if text is not None and text.isascii()]
    count = 0
    for count, raw in enumerate(lines, 1):  # noqa: B007 -- counted to the last
        if all(text in raw for text in needed):  # Most lines need not be parsed.
            line = log_lines.parse(raw)
            if wanted.takes(line):
                printer.print(line)
    return count > 0


def _lines_of(path: Path, wanted: Filter, goes_on: Callable[[], bool]) -> Iterator[bytes]:
    after = datetime.fromisoformat(wanted.since).timestamp() if wanted.since else 0.0
    with failures():
        if not rotated(path, 1).exists():  # Else it may be missing for a moment.
            path.stat()
        yield from log_files.lines(path, after, goes_on)


def _tenant_id(tenant: str | None) -> str | None:
    """Find whose lines are meant; the tenant of an ID may be gone."""
    if tenant is None:
        return None
    if "@" in tenant:
        with customer_named(tenant) as (_, _, customer):
            return str(customer.id)
    with failures():
        return tenant_list.parse_id(tenant)


def _since(text: str | None) -> str | None:
    try:
        return None if text is None else log_lines.parse_since(text, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None
